"""One optimiser step, and all that it carries from one to the next."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from openjepa.core.dist import is_distributed, rank, world_size
from openjepa.core.types import Clock, Seen
from openjepa.methods.base import Method, total
from openjepa.train.launch import resolve_precision
from openjepa.train.optim import make_optimizer, set_rates
from openjepa.train.parallel import distribute, gradient_norm, is_sharded, micro_batch, whole_weights
from openjepa.train.run import RunConfig
from openjepa.train.weights import some

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Trainer:
    """A method being trained: the networks, the optimiser, and the numbers that were not logged yet."""

    method: Method
    net: nn.Module  # what is called in place of the method: itself, or its DDP wrapping
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    run: RunConfig
    device: torch.device
    precision: str
    twin: Method | None = None  # where the method is sharded: a whole one for observers, on the first process
    names: list[str] = field(default_factory=list)  # of the columns of `fresh` and `rows`
    fresh: list[Tensor] = field(default_factory=list)  # one (columns,) per step, still on the device
    rows: list[list[float]] = field(default_factory=list)  # the same, read

    def step(self, batches: Iterator[Any], step: int, steps: int) -> Seen:
        """Update number `step` (from 0) of `steps`: as many micro-batches as the run accumulates, then one update."""
        run, records = self.run, []
        set_rates(self.optimizer, run.optim, step, steps, self.method.stages)
        for micro in range(run.accumulate):
            batch = next_batch(batches, step)
            clock = Clock(step, steps, run.seed, rank(), world_size(), micro)
            with micro_batch(self.net, last=micro == run.accumulate - 1):
                with self.autocast():
                    terms, seen = self.net(batch, clock)
                    loss = total(terms, self.method.weights)
                self.scaler.scale(loss / run.accumulate).backward()
            records.append(torch.stack([x.detach().float() for x in (*terms.values(), loss)]))
        if not self.names and not self.method.stages:
            require_used(self.method)
        self.scaler.unscale_(self.optimizer)
        norm = gradient_norm(self.method, run.optim.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(clock)

        self.names = [*(f"terms/{name}" for name in terms), "loss", "grad_norm"]
        self.fresh.append(torch.cat([torch.stack(records).mean(0), norm.detach().float().reshape(1)]))
        return seen

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "fp32")

    def whole(self) -> Method:
        """The method with all its tensors, for observers on the first process. Every process must call this."""
        if not is_sharded(self.method):
            return self.method
        weights = whole_weights(self.method)
        if self.twin is None:
            return self.method
        self.twin.load_state_dict(weights, strict=True)
        return self.twin.to(self.device)

    def read(self) -> list[list[float]]:
        """Bring the numbers of the steps since the last call to the host, in one transfer; means over processes."""
        if not self.fresh:
            return []
        block = torch.stack(self.fresh)  # (steps, columns)
        if is_distributed():
            dist.all_reduce(block)
            block /= world_size()
        self.fresh.clear()
        read = block.tolist()
        self.rows += read
        return read


def make_trainer(method: Method, run: RunConfig, device: torch.device) -> Trainer:
    """Put `method` on its device and give it what training needs, in the order that torch wants."""
    precision = resolve_precision(run.precision, device)
    sharded = run.distributed == "fsdp" and is_distributed()
    if precision == "fp16" and sharded:
        raise ValueError("precision must be bf16 or fp32 with distributed=fsdp, got fp16. Do precision=bf16.")
    method.to(device)
    twin = deepcopy(method).cpu() if sharded and rank() == 0 else None
    if run.checkpoint_activations:
        checkpoint_activations(method)
    if run.compile:
        compile_children(method, device)
    net = distribute(method, run.distributed, device, staged=bool(method.stages))
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    return Trainer(method, net, make_optimizer(method, run.optim), scaler, run, device, precision, twin)


def require_used(method: nn.Module) -> None:
    """After a first backward: over several processes, DDP waits for a gradient of every trained parameter."""
    unused = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    if unused and is_distributed():
        raise ValueError(
            f"parameters must all take part in the loss, got no gradient for {some(unused)}. "
            "Use them, or freeze them with requires_grad_(False)."
        )


def checkpoint_activations(method: nn.Module) -> None:
    """Recompute instead of keep, in every trained child that offers it by a `checkpoint` attribute."""
    able = [m for m in method.children() if isinstance(getattr(m, "checkpoint", None), bool)]
    for module in able:
        module.checkpoint = True  # type: ignore[assignment]
    if not able:
        warnings.warn("checkpoint_activations has no effect: no network of this method offers it.", stacklevel=2)


def compile_children(method: nn.Module, device: torch.device) -> None:
    """Compile every network of `method` in place, so that the names of its tensors stay as they are.

    The method's own lines are left alone: they draw masks and directions from the clock, on the host. Where torch
    cannot compile at all (no C++ compiler, say), a warning tells why and training goes on without.
    """
    try:
        torch.compile(torch.square)(torch.ones(2, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        warnings.warn(f"compile=true does not work here and is left out: {reason}", stacklevel=2)
        return
    for child in method.children():
        child.compile()


def next_batch(batches: Iterator[Any], step: int) -> Any:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(
            f"the stream must give one batch per step and micro-batch, got its end at step {step}."
        ) from None
