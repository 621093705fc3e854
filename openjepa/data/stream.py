"""The training batches: which pictures, which crops, on which device; every one a function of the step alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from openjepa.config import View
from openjepa.core.types import Pictures
from openjepa.data.augment import augment
from openjepa.data.crop import crop, crop_batch
from openjepa.data.picture import BadPicture
from openjepa.data.plan import Plan, Task, parts, worker_count
from openjepa.data.source import Source

log = logging.getLogger("openjepa.data")

CHUNK = 16  # pictures that a worker hands over at a time
BATCHED_SIDE = 48  # on a CPU, pictures up to this side are cropped as one batch, larger ones each by itself
_MOST_TRIES = 100


class PictureStream:
    """Random views of a source, batch after batch, on the device and normalised.

    source      of pictures
    views       kinds of views; a view's `size` of None is the source's size
    batch_size  pictures per optimiser step, over all ranks and all `accumulate` micro-batches
    seed        of the order and of the augmentation
    rank, world this process and how many there are; rank r takes rows [r*b/world, (r+1)*b/world) of each micro-batch
    workers     decoding processes; None: the source's setting, else the cores but one for files, none in memory
    device      where the batches are wanted

    The order of pictures is a function of (seed, epoch); the crops and colours of (seed, step, micro-batch, row of the
    joined batch). So neither workers, nor ranks, nor a restart at any step change what a step sees. An epoch is cut to
    whole batches; a source smaller than one batch is repeated within it, in new orders.

    A picture that cannot be read is replaced by the next readable one in the source's order, counted and listed in
    `source.bad`; too many raise (see `Source.note`).

    >>> from openjepa.data import open_source; from openjepa.data.config import DataConfig
    >>> source = open_source(DataConfig(path="shapes:64"))
    >>> stream = PictureStream(source, [View(count=2, size=16)], batch_size=8, seed=0)
    >>> batch = next(stream.batches()); batch.views[0].shape, batch.index.shape
    (torch.Size([2, 8, 3, 16, 16]), torch.Size([8]))
    """

    def __init__(
        self, source: Source, views: Sequence[View], *, batch_size: int, accumulate: int = 1, seed: int = 0,
        rank: int = 0, world: int = 1, workers: int | None = None, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if not views:
            raise ValueError("views must name at least one kind of view, got none.")
        self.source, self.device = source, torch.device(device)
        self.views = tuple(v if v.size else v.model_copy(update={"size": source.size}) for v in views)
        self.plan = Plan(len(source), batch_size, accumulate, seed, rank, world, CHUNK)
        self.steps_per_epoch = self.plan.steps_per_epoch
        self._batched = source.arrays is not None and (
            self.device.type == "cuda" or max(source.arrays.shape[2:]) <= BATCHED_SIDE
        )
        self.workers = 0 if self._batched else worker_count(workers, source.workers, source.arrays is not None, world)
        self.tiny = 0
        self._running: Iterator[Pictures] | None = None
        if len(source) < batch_size:
            log.warning("%d pictures are fewer than a batch of %d: each appears several times in every batch",
                        len(source), batch_size)  # fmt: skip

    def batches(self, start_step: int = 0) -> Iterator[Pictures]:
        """One batch per (step, micro-batch), from `start_step` on, without end. A second call ends the first one."""
        self.close()
        self._running = self._from_arrays(start_step) if self._batched else self._from_files(start_step)
        return self._running

    def close(self) -> None:
        """Stop the workers. The stream can be started again."""
        running, self._running = self._running, None
        if running is not None:
            running.close()  # type: ignore[attr-defined]

    def _from_arrays(self, start: int) -> Iterator[Pictures]:
        pixels = _Pixels(self.source, self.device)
        for step, micro in self.plan.moments(start):
            rows = self.plan.rows(self.source, step, micro)
            pictures = pixels.take(rows)  # (B, C, H, W)
            groups = []
            for g, view in enumerate(self.views):
                boxes, flips = self.plan.boxes(view, g, step, micro, *pictures.shape[2:])
                colours = self.plan.colours(view, g, step, micro).to(self.device)
                boxes, flips = boxes.to(self.device), flips.to(self.device)
                group = None
                for v in range(view.count):
                    crops = crop_batch(pictures, boxes[:, v], view.size or 0, view.filter, flips[:, v])
                    done = augment(crops, view, colours[:, v], self.source.mean, self.source.std)
                    group = done.new_empty(view.count, *done.shape) if group is None else group
                    group[v] = done
                assert group is not None
                groups.append(group)
            yield self._pictures(groups, rows)

    def _from_files(self, start: int) -> Iterator[Pictures]:
        chunks = self._chunks(start)
        try:
            for step, micro in self.plan.moments(start):
                done = [next(chunks) for _ in range(self.plan.chunks)]
                self._count(done)
                groups = []
                for g, view in enumerate(self.views):
                    crops = torch.cat([part.crops[g] for part in done], 1).to(self.device, non_blocking=True)
                    colours = self.plan.colours(view, g, step, micro).to(self.device)
                    groups.append(
                        torch.stack([
                            augment(crops[v], view, colours[:, v], self.source.mean, self.source.std)
                            for v in range(view.count)
                        ])
                    )  # fmt: skip
                yield self._pictures(groups, np.concatenate([part.rows for part in done]))
        finally:
            chunks.close()  # type: ignore[attr-defined]

    def _chunks(self, start: int) -> Iterator[_Part]:
        return parts(_Cropping(self.source, self.views, self.plan), self.plan, start, self.workers, self.device)

    def _pictures(self, groups: list[Tensor], rows: np.ndarray) -> Pictures:
        index, label = torch.from_numpy(rows), torch.from_numpy(self.source.label(rows))
        return Pictures(tuple(groups), index.to(self.device), label.to(self.device))

    def _count(self, parts: list[_Part]) -> None:
        bad = {i: reason for part in parts for i, reason in part.bad}
        self.source.note(np.concatenate([part.rows for part in parts]), bad.items())
        for part in parts:
            if len(part.crops) == 0:
                raise ValueError(
                    f"{self.source.where} must hold readable pictures, got {len(part.bad)} unreadable ones in a row: "
                    f"{self.source.names[part.bad[0][0]]} ({part.bad[0][1]}). Run `openjepa data check` on it."
                )
        tiny = sum(part.tiny for part in parts)
        if tiny and not self.tiny:
            side = max(v.size or 0 for v in self.views)
            log.warning("some pictures are smaller than their %d-pixel views and are enlarged; see `data check`", side)
        self.tiny += tiny


class _Pixels:
    """Rows of an array of pictures, on the device; the whole array lives there when it takes little of its memory."""

    def __init__(self, source: Source, device: torch.device) -> None:
        assert source.arrays is not None
        self.arrays, self.device = source.arrays, device
        self.there: Tensor | None = None
        if device.type == "cuda" and source.arrays.nbytes < torch.cuda.mem_get_info(device)[0] // 8:
            self.there = torch.from_numpy(np.ascontiguousarray(source.arrays)).to(device)

    def take(self, rows: np.ndarray) -> Tensor:
        if self.there is not None:
            return self.there[torch.from_numpy(rows).to(self.device)].to(torch.float32)
        return torch.from_numpy(self.arrays[rows]).to(self.device).to(torch.float32)


class _Part(NamedTuple):
    """A worker's chunk: uint8 crops per kind of view (V, rows, C, size, size), and what it saw on the way."""

    crops: list[Tensor]
    rows: np.ndarray
    bad: list[tuple[int, str]]
    tiny: int


class _Cropping(torch.utils.data.Dataset):
    """Decode and crop one chunk: what runs inside a worker. Plain data, so that it can be sent to a spawned process."""

    def __init__(self, source: Source, views: Sequence[View], plan: Plan) -> None:
        self.source, self.views, self.plan = source, views, plan
        # The smallest crop should not fall below its view: a JPEG is decoded no smaller than that needs.
        self.short = max(
            math.ceil((v.size or 0) / math.sqrt(v.scale[0] * min(v.ratio[0], 1 / v.ratio[1], 1.0))) for v in views
        )

    def __getitem__(self, task: Task) -> _Part:
        step, micro, first, end = task
        pictures: list[Tensor] = []
        index: list[int] = []
        bad: list[tuple[int, str]] = []
        for i in self.plan.rows(self.source, step, micro)[first:end]:
            picture, i, failed = _read_or_next(self.source, int(i), self.short)
            bad += failed
            if picture is None:
                return _Part([], np.array(index, dtype=np.int64), bad, 0)
            pictures.append(picture)
            index.append(i)
        heights = torch.tensor([p.shape[1] for p in pictures])
        widths = torch.tensor([p.shape[2] for p in pictures])
        crops = []
        for g, view in enumerate(self.views):
            size = view.size or 0
            boxes, flips = self._boxes(view, g, task, heights, widths)
            out = torch.empty(view.count, len(pictures), pictures[0].shape[0], size, size, dtype=torch.uint8)
            for row, (picture, some, flip) in enumerate(zip(pictures, boxes.tolist(), flips.tolist(), strict=True)):
                for v in range(view.count):
                    done = crop(picture, tuple(some[v]), size, view.filter)
                    out[v, row] = done.flip(2) if flip[v] else done
            crops.append(out)
        side = max(v.size or 0 for v in self.views)
        return _Part(crops, np.array(index, dtype=np.int64), bad, int((torch.minimum(heights, widths) < side).sum()))

    def _boxes(self, view: View, group: int, task: Task, heights: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        step, micro, first, end = task
        return self.plan.boxes(view, group, step, micro, heights, widths, slice(first, end))


def _read_or_next(source: Source, i: int, short: int) -> tuple[Tensor | None, int, list[tuple[int, str]]]:
    """Picture i, or the next readable one after it (around the end); None after a hundred failures in a row."""
    bad: list[tuple[int, str]] = []
    for _ in range(min(len(source), _MOST_TRIES)):
        try:
            return source.read(i, short), i, bad
        except BadPicture as e:
            bad.append((i, str(e)))
            i = (i + 1) % len(source)
    return None, i, bad
