"""One method on many processes: DDP or FSDP2, and full states gathered from the shards."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map

from openjepa.core.dist import rank, world_size

DDP_OPTIONS = inspect.signature(DistributedDataParallel).parameters


def distribute(method: nn.Module, how: str, device: torch.device, *, staged: bool = False) -> nn.Module:
    """What to call in place of `method`, so that gradients are means over all processes.

    "ddp" keeps a whole copy on every process. "fsdp" splits parameters, gradients and optimiser state: first every
    entry of a child's `blocks` (an encoder's, and its teacher's alike), then the rest; `method` itself is changed.
    `staged`: at times some parameters take no part in the loss, and DDP has to look which.
    """
    if world_size() == 1:
        return method
    if how == "fsdp":
        return shard(method, device)
    # Buffers need no exchange: batch statistics are taken over all processes, and the rest are tables and counters.
    option = "forward_sync_buffers" if "forward_sync_buffers" in DDP_OPTIONS else "broadcast_buffers"  # renamed in 2.13
    options: dict[str, Any] = {option: False, "device_ids": [device] if device.type == "cuda" else None}
    return DistributedDataParallel(method, gradient_as_bucket_view=True, find_unused_parameters=staged, **options)


def shard(method: nn.Module, device: torch.device) -> nn.Module:
    mesh = init_device_mesh(device.type, (world_size(),))
    for child in method.children():
        for block in getattr(child, "blocks", ()):
            fully_shard(block, mesh=mesh)
    fully_shard(method, mesh=mesh)
    return method


def is_sharded(method: nn.Module) -> bool:
    return isinstance(method, FSDPModule)


@contextmanager
def micro_batch(net: nn.Module, *, last: bool) -> Iterator[None]:
    """Gradients travel between processes only with the last micro-batch of a step."""
    if isinstance(net, FSDPModule):
        net.set_requires_gradient_sync(last)
        yield
    elif isinstance(net, DistributedDataParallel) and not last:
        with net.no_sync():
            yield
    else:
        yield


def whole_weights(method: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, on the CPU. Every process must call it; only the first is sure to receive them."""
    return {name: whole(x) for name, x in method.state_dict().items()}


def whole_optimizer(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state, gathered; keyed by parameter names when sharded, by torch's numbers when not."""
    if is_sharded(method):
        return tree_map(whole, get_optimizer_state_dict(method, optimizer))
    return optimizer.state_dict()


def whole(x: Any) -> Any:
    """A tensor, on the CPU; one that is split over the processes put together, on the first. Anything else as it is.

    Rows go by a plain `all_gather` that has ended when it returns. torch's own gathering of states leaves them to
    asynchronous collectives, in which a process on gloo once crashed (SIGSEGV, torch 2.13).
    """
    if not isinstance(x, DTensor):
        return x.detach().cpu() if isinstance(x, Tensor) else x
    mine, world = x.to_local().detach(), x.device_mesh.size()
    rows = -(-x.shape[0] // world)  # shards are those of torch.chunk: the last ones may be short or empty
    padded = mine.new_zeros(rows, *x.shape[1:])
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in range(world)]
    td.all_gather(parts, padded, group=x.device_mesh.get_group())
    return torch.cat(parts)[: x.shape[0]].cpu() if rank() == 0 else mine.new_empty(0)


def load_optimizer(method: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    if is_sharded(method):
        set_optimizer_state_dict(method, optimizer, state, options=StateDictOptions(full_state_dict=True))
    else:
        optimizer.load_state_dict(state)


def gradient_norm(net: nn.Module, clip: float | None) -> Tensor:
    """The L2 norm of all gradients, () before clipping; when `clip` is given they are scaled down to it."""
    trained = [p for p in net.parameters() if p.grad is not None]
    if clip is not None:
        norm = nn.utils.clip_grad_norm_(trained, clip)
    else:
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
