"""One method on many processes: DDP or FSDP2, and full states gathered from the shards."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from openjepa.core.dist import world_size

DDP_OPTIONS = inspect.signature(DistributedDataParallel).parameters
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def distribute(method: nn.Module, how: str, device: torch.device) -> nn.Module:
    """What to call in place of `method`, so that gradients are means over all processes.

    "ddp" keeps a whole copy on every process. "fsdp" splits parameters, gradients and optimiser state: first every
    entry of a child's `blocks` (an encoder's, and its teacher's alike), then the rest; `method` itself is changed.
    """
    if world_size() == 1:
        return method
    if how == "fsdp":
        return shard(method, device)
    # Buffers need no exchange: batch statistics are taken over all processes, and the rest are tables and counters.
    option = "forward_sync_buffers" if "forward_sync_buffers" in DDP_OPTIONS else "broadcast_buffers"  # renamed in 2.13
    options: dict[str, Any] = {option: False, "device_ids": [device] if device.type == "cuda" else None}
    return DistributedDataParallel(method, gradient_as_bucket_view=True, **options)


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
    state: dict[str, Any] = get_model_state_dict(method, options=WHOLE) if is_sharded(method) else method.state_dict()
    return {name: x.detach().cpu() for name, x in state.items()}


def whole_optimizer(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state, gathered; keyed by parameter names when sharded, by torch's numbers when not."""
    if is_sharded(method):
        return get_optimizer_state_dict(method, optimizer, options=WHOLE)
    return optimizer.state_dict()


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
    return norm.full_tensor() if isinstance(norm, torch.distributed.tensor.DTensor) else norm
