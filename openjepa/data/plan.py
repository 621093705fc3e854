"""Which rows, which draws and which worker's part every step consists of: computed from the step, never stored."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from openjepa.config import View
from openjepa.core.types import Clock
from openjepa.data.augment import COLOUR_DRAWS
from openjepa.data.crop import BOX_DRAWS, sample_boxes

_MOST_WORKERS = 16

Task = tuple[int, int, int, int]  # step, micro-batch, first row, end row


class Ordered(Protocol):
    """What a plan asks of a source: the order of an epoch as a function of (seed, epoch)."""

    def order(self, seed: int, epoch: int) -> np.ndarray: ...


class Plan:
    """What every (step, micro-batch) consists of: indices and uniforms.

    count             items of the source, of which `batch_size` make a step over all ranks and micro-batches
    rank, world       rank r has rows [r*b/world, (r+1)*b/world) of each micro-batch
    chunk             rows that a worker hands over at a time
    """

    def __init__(
        self, count: int, batch_size: int, accumulate: int, seed: int, rank: int, world: int, chunk: int = 16
    ) -> None:
        if batch_size % (accumulate * world):
            raise ValueError(
                f"batch_size must be a multiple of accumulate * processes = {accumulate} * {world}, got {batch_size}."
            )
        self.count, self.batch_size, self.accumulate = count, batch_size, accumulate
        self.seed, self.rank, self.world, self.chunk = seed, rank, world, chunk
        self.steps_per_epoch = max(1, count // batch_size)
        self.local = batch_size // (accumulate * world)
        self.chunks = math.ceil(self.local / chunk)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def moments(self, start: int) -> Iterator[tuple[int, int]]:
        step = start
        while True:
            for micro in range(self.accumulate):
                yield step, micro
            step += 1

    def tasks(self, start: int) -> Iterator[Task]:
        """(step, micro, first row, end row) of every chunk of this rank's rows."""
        for step, micro in self.moments(start):
            for at in range(0, self.local, self.chunk):
                yield step, micro, at, min(at + self.chunk, self.local)

    def rows(self, source: Ordered, step: int, micro: int) -> np.ndarray:
        """Positions in the source of this rank's rows, int64 (local,)."""
        epoch, at = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            rounds = math.ceil(self.batch_size / self.count)  # above one only when the source is smaller than a batch
            orders = [source.order(self.seed, epoch * rounds + r) for r in range(rounds)]
            self._epoch, self._order = epoch, np.concatenate(orders)
        first = at * self.batch_size + (micro * self.world + self.rank) * self.local
        return self._order[first : first + self.local]

    def boxes(
        self, view: View, group: int, step: int, micro: int, height: int | Tensor, width: int | Tensor,
        rows: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Boxes (B, V, 4) and flips (B, V) of one kind of view; height and width a number, or one per row."""
        u = self.clock(step, micro).uniform(f"boxes {group}", self.local, view.count, BOX_DRAWS + 1)[rows]
        n = u.shape[0]

        def each(side: int | Tensor) -> int | Tensor:
            return side if isinstance(side, int) else side.repeat_interleave(view.count)

        boxes = sample_boxes(u[..., :-1].reshape(-1, BOX_DRAWS), each(height), each(width), view.scale, view.ratio)
        return boxes.view(n, view.count, 4), u[..., -1] < view.flip

    def colours(self, view: View, group: int, step: int, micro: int) -> Tensor:
        """Uniforms (B, V, COLOUR_DRAWS) of one kind of view."""
        return self.clock(step, micro).uniform(f"colours {group}", self.local, view.count, COLOUR_DRAWS)

    def clock(self, step: int, micro: int) -> Clock:
        return Clock(step=step, seed=self.seed, rank=self.rank, world=self.world, micro=micro)


class _Endless(torch.utils.data.Sampler):
    """The tasks of a plan from a step on."""

    def __init__(self, plan: Plan, start: int) -> None:
        self.plan, self.start = plan, start

    def __iter__(self) -> Iterator[Any]:
        return self.plan.tasks(self.start)


def parts(work: torch.utils.data.Dataset, plan: Plan, start: int, workers: int, device: torch.device) -> Iterator[Any]:
    """`work[task]` for every task of the plan from step `start` on, in order, made by so many processes (0: this one).

    Each worker is at most four tasks ahead, so memory does not grow with the step.
    """
    if workers == 0:
        yield from (work[task] for task in plan.tasks(start))
        return
    loader = torch.utils.data.DataLoader(
        work, sampler=_Endless(plan, start), batch_size=None, num_workers=workers, prefetch_factor=4,
        collate_fn=_as_it_is, pin_memory=device.type == "cuda",
    )  # fmt: skip
    yield from loader


def worker_count(asked: int | None, preferred: int | None, in_memory: bool, world: int) -> int:
    """Decoding processes: what is asked for, else what the source prefers, else the cores but one, none in memory."""
    if asked is not None:
        return asked
    if preferred is not None:
        return preferred
    return 0 if in_memory else max(0, min(_MOST_WORKERS, cores() // world - 1))


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if os.name == "posix" and os.uname().sysname == "Linux" else os.cpu_count() or 1


def _as_it_is(part: Any) -> Any:
    return part
