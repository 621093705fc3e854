"""Where a run happens: the device, the precision, and the other processes that `torchrun` started."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from openjepa.core.dist import rank, world_size
from openjepa.train.failure import RunFailed


def resolve_device(name: str) -> torch.device:
    """The device that `name` stands for: "auto" is CUDA where there is one, else the CPU.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name!r}.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device must be one that this machine has, got {name!r} without CUDA. Do device=cpu.")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda" and device.index >= torch.cuda.device_count():
        raise ValueError(
            f"device must be one that this machine has, got {device} of {torch.cuda.device_count()}. "
            "Start no more processes than there are GPUs (torchrun --nproc-per-node)."
        )
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """ "auto" is bf16 on a GPU that computes in it, else fp32. A CPU gains nothing from less.

    >>> resolve_precision("auto", torch.device("cpu"))
    'fp32'
    """
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


T = TypeVar("T")


@contextmanager
def processes(device: str = "auto") -> Iterator[torch.device]:
    """Join the processes that `torchrun` started, for the length of a run, and give this one's device.

    Without `torchrun`'s environment (RANK, WORLD_SIZE, LOCAL_RANK), or when the caller has already joined, nothing is
    set up: one process is simply a world of one. NCCL speaks between GPUs, gloo between CPUs.
    """
    place = resolve_device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if dist.is_initialized() or not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        yield place
        return
    if place.type == "cuda":
        dist.init_process_group("nccl", device_id=place)
    else:
        dist.init_process_group("gloo")
    try:
        yield place
    except BaseException as error:
        forget(error)
        raise
    finally:
        dist.destroy_process_group()


def forget(error: BaseException | None) -> None:
    """Let go of what the frames of an error hold.

    A DDP module that outlives its process group is freed in a way that can wait for ever for a thread of the group:
    a process that failed would then hang instead of ending.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def from_first(value: Any) -> Any:
    """The value that process 0 has: for decisions that all must take alike (which checkpoint, how many steps)."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: Any) -> list[Any]:
    """One value per process, in the order of their ranks."""
    if world_size() == 1:
        return [value]
    box: list[Any] = [None] * world_size()
    dist.all_gather_object(box, value)
    return box


def first_then_rest(work: Callable[[], T]) -> T:
    """`work()` on process 0 and, once it is done there, on the others: the first fills a cache that the rest then find.

    >>> first_then_rest(lambda: 3)
    3
    """
    done: list[T] = []
    with first_alone() as first:
        if first:
            done.append(work())
    return done[0] if done else work()


@contextmanager
def first_alone() -> Iterator[bool]:
    """Work that only process 0 does (files); whatever it raises, every process raises, so that none waits for ever.

    >>> with first_alone() as first:
    ...     first
    True
    """
    error: Exception | None = None
    try:
        yield rank() == 0
    except Exception as e:
        error = e
    told = from_first(None if error is None else str(error))
    if error is not None:
        raise error
    if told is not None:
        raise RunFailed(f"The first process failed: {told}")
