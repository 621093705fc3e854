"""The training batches of clips: which videos, which frames, which crops; every one a function of the step alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from openjepa.config import ClipView
from openjepa.core.types import Clips
from openjepa.data.augment import augment_clips
from openjepa.data.clips.pace import random_frames, words
from openjepa.data.clips.source import BadClip, ClipSource, Together
from openjepa.data.crop import crop, crop_batch
from openjepa.data.plan import Plan, Task, parts, worker_count

log = logging.getLogger("openjepa.data")

CHUNK = 2  # videos that a worker hands over at a time: 2 clips of 16 frames at 224 pixels are 5 MB
BATCHED_SIDE = 96  # clips in memory up to this side are cropped as one batch, larger ones each by itself
_MOST_TRIES = 100


class ClipStream:
    """Random clips of a source, batch after batch, on the device and normalised; each step is of one kind of view.

    source      of clips
    views       kinds of views; a view's `size` of None is the source's size
    batch_size  videos per optimiser step, over all ranks and all `accumulate` micro-batches
    seed        of the order, the frames and the augmentation
    rank, world this process and how many there are; rank r takes rows [r*b/world, (r+1)*b/world) of each micro-batch
    workers     decoding processes; None: the source's setting, else the cores but one for files, none in memory
    device      where the batches are wanted

    The kind of view is drawn by `share` from (seed, step), the same on every process. The order of videos is a function
    of (seed, epoch, kind); frames, boxes, flips and colours of (seed, step, micro-batch, row of the joined batch). So
    neither workers, nor ranks, nor a restart change what a step sees. A kind is made of the videos that are long enough
    for it; with one kind an epoch visits each once (cut to whole batches), with several each kind sees the batches of
    its own epochs that fall on its steps.

    All frames of a clip get the same box, flip and colours. A video that is too short for every kind is counted and
    left out; one that cannot be read is replaced by the next readable one, counted and listed in `source.bad`; too many
    raise.

    >>> from openjepa.data.clips import open_clips; from openjepa.data.clips.config import ClipConfig
    >>> source = open_clips(ClipConfig(path="bouncing-shapes:64"))
    >>> stream = ClipStream(source, [ClipView(count=2, frames=8, stride=2, size=16)], batch_size=4, seed=0)
    >>> batch = next(stream.batches()); batch.view.shape, batch.kind
    (torch.Size([2, 4, 8, 3, 16, 16]), 0)
    """

    def __init__(
        self, source: ClipSource, views: Sequence[ClipView], *, batch_size: int, accumulate: int = 1, seed: int = 0,
        rank: int = 0, world: int = 1, workers: int | None = None, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if not views:
            raise ValueError("views must name at least one kind of clip, got none.")
        self.source, self.device = source, torch.device(device)
        self.views = tuple(v if v.size else v.model_copy(update={"size": source.size}) for v in views)
        source.too_short(self.views)
        self.members = tuple(source.fitting(v) for v in self.views)
        for view, members in zip(self.views, self.members, strict=True):
            if len(members) == 0:
                source.too_short([view])
            films = int((source.lengths > 1).sum())
            if len(self.views) > 1 and view.frames > 1 and len(members) < (1 - source.max_bad) * films and rank == 0:
                log.warning("steps of %s see %d of %d videos: the others are too short", words(view), len(members),
                            films)  # fmt: skip
        count = max(len(m) for m in self.members)
        self.plan = ClipPlan(count, batch_size, accumulate, seed, rank, world, self.views, self.members)
        self.steps_per_epoch = self.plan.steps_per_epoch
        self._batched = source.together is not None and (
            self.device.type == "cuda" or int(source.sizes.max()) <= BATCHED_SIDE
        )
        self.workers = 0 if self._batched else worker_count(
            workers, source.workers, source.together is not None, world
        )  # fmt: skip
        self.small = 0
        self._running: Iterator[Clips] | None = None
        if count < batch_size:
            log.warning("%d videos are fewer than a batch of %d: each appears several times in every batch",
                        count, batch_size)  # fmt: skip

    def batches(self, start_step: int = 0) -> Iterator[Clips]:
        """One batch per (step, micro-batch), from `start_step` on, without end. A second call ends the first one."""
        self.close()
        self._running = self._from_memory(start_step) if self._batched else self._from_files(start_step)
        return self._running

    def close(self) -> None:
        """Stop the workers. The stream can be started again."""
        running, self._running = self._running, None
        if running is not None:
            running.close()  # type: ignore[attr-defined]

    def _from_memory(self, start: int) -> Iterator[Clips]:
        reel: Together | None = self.source.together
        assert reel is not None
        for step, micro in self.plan.moments(start):
            kind = self.plan.kind(step)
            view, rows = self.views[kind], self.plan.rows(self.source, step, micro)
            numbers = _numbers(self.source, view, rows, self.plan.starts(view, kind, step, micro))
            height, width = self.source.sizes[0].tolist()
            boxes, flips = self.plan.boxes(view, kind, step, micro, height, width)
            crops = []
            for v in range(view.count):
                clips = torch.from_numpy(np.ascontiguousarray(reel.take(rows, numbers[:, v])))  # (B, T, C, H, W)
                tall = clips.to(self.device).flatten(1, 2)  # (B, T*C, H, W): one box for all frames of a clip
                done = crop_batch(
                    tall, boxes[:, v].to(self.device), view.size or 0, view.filter, flips[:, v].to(self.device)
                )
                crops.append(done.unflatten(1, clips.shape[1:3]))
            yield self._clips(crops, kind, step, micro, rows)

    def _from_files(self, start: int) -> Iterator[Clips]:
        work = _Decoding(self.source, self.views, self.plan)
        chunks = parts(work, self.plan, start, self.workers, self.device)
        try:
            for step, micro in self.plan.moments(start):
                done: list[_Part] = [next(chunks) for _ in range(self.plan.chunks)]
                self._count(done)
                kind = self.plan.kind(step)
                crops = torch.cat([part.crops for part in done], 1).to(self.device, non_blocking=True)
                yield self._clips(list(crops), kind, step, micro, np.concatenate([part.rows for part in done]))
        finally:
            chunks.close()  # type: ignore[attr-defined]

    def _clips(self, crops: list[Tensor], kind: int, step: int, micro: int, rows: np.ndarray) -> Clips:
        view = self.views[kind]
        colours = self.plan.colours(view, kind, step, micro).to(self.device)
        done = [augment_clips(c, view, colours[:, v], self.source.mean, self.source.std) for v, c in enumerate(crops)]
        index, label = torch.from_numpy(rows), torch.from_numpy(self.source.label(rows))
        return Clips(torch.stack(done), kind, index.to(self.device), label.to(self.device))  # (V, B, T, C, H, W)

    def _count(self, done: list[_Part]) -> None:
        bad = {i: reason for part in done for i, reason in part.bad}
        self.source.note(np.concatenate([part.rows for part in done]), bad.items())
        for part in done:
            if part.crops.numel() == 0:
                raise ValueError(
                    f"{self.source.where} must hold readable videos, got {len(part.bad)} unreadable ones in a row: "
                    f"{self.source.names[part.bad[0][0]]} ({part.bad[0][1]}). Run `openjepa data check` on it."
                )
        small = sum(part.small for part in done)
        if small and not self.small:
            side = max(v.size or 0 for v in self.views)
            log.warning("some videos are smaller than their %d-pixel views and are enlarged; see `data check`", side)
        self.small += small


class ClipPlan(Plan):
    """What every (step, micro-batch) consists of: the kind of view, the videos, and the draws of where clips begin."""

    def __init__(
        self, count: int, batch_size: int, accumulate: int, seed: int, rank: int, world: int,
        views: Sequence[ClipView], members: Sequence[np.ndarray],
    ) -> None:  # fmt: skip
        super().__init__(count, batch_size, accumulate, seed, rank, world, CHUNK)
        self.members = tuple(members)
        self.edges = np.cumsum([v.share for v in views]) / sum(v.share for v in views)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def kind(self, step: int) -> int:
        """Which kind of view a step is made of: the same on every process and for every micro-batch."""
        if len(self.members) == 1:
            return 0
        u = torch.rand((), generator=self.clock(step, 0).generator("kind"), dtype=torch.float64)
        return min(int(np.searchsorted(self.edges, float(u), side="right")), len(self.members) - 1)

    def rows(self, source: ClipSource, step: int, micro: int) -> np.ndarray:  # type: ignore[override]
        """Positions in the source of this rank's rows, int64 (local,)."""
        kind = self.kind(step)
        members = self.members[kind]
        epoch, at = divmod(step, max(1, len(members) // self.batch_size))
        held, order = self._orders.get(kind, (-1, members))
        if epoch != held:
            rounds = math.ceil(self.batch_size / len(members))  # above one only for fewer videos than a batch
            orders = [source.order(members, self.seed, epoch * rounds + r, kind) for r in range(rounds)]
            order = np.concatenate(orders)
            self._orders[kind] = epoch, order
        first = at * self.batch_size + (micro * self.world + self.rank) * self.local
        return order[first : first + self.local]

    def starts(self, view: ClipView, kind: int, step: int, micro: int) -> np.ndarray:
        """Uniforms (B, V) of where each clip begins, float64."""
        return self.clock(step, micro).uniform(f"frames {kind}", self.local, view.count).double().numpy()


class _Part(NamedTuple):
    """A worker's chunk: uint8 clips (V, rows, T, C, size, size), and what it saw on the way."""

    crops: Tensor
    rows: np.ndarray
    bad: list[tuple[int, str]]
    small: int


class _Decoding(torch.utils.data.Dataset):
    """Decode and crop one chunk: what runs inside a worker. Only the frames that are wanted stay in memory."""

    def __init__(self, source: ClipSource, views: Sequence[ClipView], plan: ClipPlan) -> None:
        self.source, self.views, self.plan = source, views, plan

    def __getitem__(self, task: Task) -> _Part:
        step, micro, first, end = task
        kind = self.plan.kind(step)
        view, size = self.views[kind], self.views[kind].size or 0
        starts = self.plan.starts(view, kind, step, micro)[first:end]
        rows, bad, small = [], [], 0
        out = None
        for row, i in enumerate(self.plan.rows(self.source, step, micro)[first:end]):
            frames, i, failed = self._read_or_next(kind, int(i), starts[row])
            bad += failed
            rows.append(i)
            if frames is None:
                return _Part(torch.empty(0), np.array(rows, dtype=np.int64), bad, 0)
            height, width = frames.shape[-2:]
            boxes, flips = self.plan.boxes(view, kind, step, micro, height, width, slice(first + row, first + row + 1))
            if out is None:
                shape = (view.count, end - first, view.frames, frames.shape[2], size, size)
                out = torch.empty(shape, dtype=torch.uint8)
            for v in range(view.count):
                done = crop(frames[v], tuple(boxes[0, v].tolist()), size, view.filter)
                out[v, row] = done.flip(3) if flips[0, v] else done
            small += min(height, width) < size
        assert out is not None
        return _Part(out, np.array(rows, dtype=np.int64), bad, small)

    def _read_or_next(self, kind: int, i: int, starts: np.ndarray) -> tuple[Tensor | None, int, list[tuple[int, str]]]:
        """Clips (V, T, C, H, W) of video i, or of the next readable one of its kind; None after a hundred failures."""
        members, view = self.plan.members[kind], self.views[kind]
        bad: list[tuple[int, str]] = []
        at = int(np.searchsorted(members, i))
        for _ in range(min(len(members), _MOST_TRIES)):
            i = int(members[at])
            try:
                numbers = _numbers(self.source, view, np.array([i]), starts[None])[0]  # (V, T)
                return read_clips(self.source, i, numbers), i, bad
            except BadClip as e:
                bad.append((i, str(e)))
                at = (at + 1) % len(members)
        return None, i, bad


def read_clips(source: ClipSource, i: int, numbers: np.ndarray) -> Tensor:
    """Clips (n, T, C, H, W) of one video, uint8, in one pass through it: `numbers` (n, T) may overlap."""
    wanted, place = np.unique(numbers, return_inverse=True)
    frames = torch.from_numpy(np.ascontiguousarray(source.read(i, wanted)))
    return frames[torch.from_numpy(place.reshape(numbers.shape))]


def _numbers(source: ClipSource, view: ClipView, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Frame numbers int64 (B, V, T) of clips that begin at uniforms `starts` (B, V)."""
    lengths = source.lengths[rows]
    if view.fps is None and len(rows) and (lengths == lengths[0]).all():
        flat = random_frames(starts.reshape(-1), view, int(lengths[0]), None)
        return flat.reshape(*starts.shape, view.frames)
    return np.stack([
        random_frames(u, view, int(n), source.seconds(int(i), view))
        for u, n, i in zip(starts, lengths, rows, strict=True)
    ])  # fmt: skip
