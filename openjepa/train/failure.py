"""What stops a run, said in one line: what happened, what is kept, what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from openjepa.train.run import RunConfig

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunFailed(RuntimeError):
    """A run that cannot go on. Its text is one line for a person; the command line prints it without a traceback."""


class Diverged(RunFailed):
    """A loss, a gradient or a weight that is no longer a number."""


@contextmanager
def in_plain_words(run: RunConfig, checkpoints: Path) -> Iterator[None]:
    """Turn running out of memory or of disk space into `RunFailed` with advice; let everything else through."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if isinstance(error, RunFailed):
            raise
        if is_out_of_memory(error):
            raise RunFailed(out_of_memory(run, checkpoints)) from error
        if is_disk_full(error):
            raise RunFailed(disk_full(checkpoints)) from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """True for the accelerator's error and for both forms that the CPU allocators raise."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "out of memory" in text.lower())


def is_disk_full(error: BaseException | None) -> bool:
    """True when `error`, or what it was raised from, is a write that found no room.

    torch's and safetensors' writers hide the `OSError`: one keeps it as context, the other only quotes its number.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(f"(os error {number})" in str(error) for number in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def kept(checkpoints: Path) -> str:
    """The sentence about the last good checkpoint."""
    from openjepa.train.checkpoint import listed

    found = listed(checkpoints)
    return f"The last good checkpoint is {found[-1]}." if found else "There is no checkpoint yet."


def out_of_memory(run: RunConfig, checkpoints: Path) -> str:
    changes = [f"raise accumulate (now {run.accumulate})"]
    if not run.checkpoint_activations:
        changes.append("set checkpoint_activations=true")
    if run.precision == "fp32":
        changes.append("set precision=bf16")
    changes.append(f"or lower batch_size (now {run.batch_size})")
    return f"Memory ran out. {kept(checkpoints)} Do {', '.join(changes)}."


def disk_full(checkpoints: Path) -> str:
    return (
        f"The disk of {checkpoints.parent} is full. {kept(checkpoints)} Free some space, then "
        f"go on with: openjepa train --resume {checkpoints.parent}"
    )


def diverged(what: str, step: int, value: object, lr: float, clip: float | None, checkpoints: Path) -> str:
    """`what` is a loss term, "the gradient", or the name of a weight."""
    changes = [f"lower optim.lr (now {lr:g})", "lengthen optim.warmup"]
    if clip is None:
        changes.append("set optim.clip=1")
    return (
        f"{what} became {value} at step {step}; nothing was saved after that. {kept(checkpoints)} "
        f"Do {', '.join(changes)}, then start again or from that checkpoint with init_from."
    )
