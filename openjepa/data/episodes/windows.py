"""The training batches of world models: windows of episodes, every one a function of the step alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from openjepa.config import Window
from openjepa.core.types import Clock, Space, Windows
from openjepa.data.episodes.config import EpisodeConfig
from openjepa.data.episodes.episodes import Episodes
from openjepa.data.episodes.scale import Scale, measure
from openjepa.data.episodes.splitting import Split, split

AHEAD = 3  # batches cut in advance


class WindowStream:
    """Random windows of the training episodes, batch after batch, on the device and normalised.

    episodes    where they are cut from; `cfg` says which of them are held out
    window      steps and skip: observation i of a window is i * skip frames after its first; the actions of skipped
                steps are joined into one, (skip * A) numbers, the earliest first
    batch_size  windows per optimiser step, over all ranks and all `accumulate` micro-batches
    seed        of the draw
    rank, world this process and how many there are; rank r takes rows [r*b/world, (r+1)*b/world) of each micro-batch
    device      where the batches are wanted
    scale       measured on the training episodes when not given

    Every window of every training episode is equally likely, at every draw: which ones a step sees is a function of
    (seed, step, micro-batch, row of the joined batch), so neither ranks nor a restart at any step change it. Episodes
    that are too short for a window are left out of the draw; `ValueError` when all are. An epoch is as many windows as
    there are.

    One thread cuts the next batches while the device computes. On a GPU, pixels travel as bytes; a set that takes
    little of its memory lives there whole.
    """

    def __init__(
        self,
        episodes: Episodes,
        window: Window,
        *,
        cfg: EpisodeConfig,
        batch_size: int,
        accumulate: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        scale: Scale | None = None,
    ) -> None:
        if batch_size % (accumulate * world):
            raise ValueError(
                f"batch_size must be a multiple of accumulate * processes = {accumulate} * {world}, got {batch_size}."
            )
        self.episodes, self.window, self.device = episodes, window, torch.device(device)
        self.split: Split = split(episodes, cfg)
        self.cuts = Cuts(episodes, self.split.train, window)
        self.scale = scale or measure(episodes, self.split.train)
        self._there = self._on_device()
        self._frames = self._channels_first()
        self.local = batch_size // (accumulate * world)
        self.accumulate, self.seed, self.rank, self.world = accumulate, seed, rank, world
        self.steps_per_epoch = max(1, len(self.cuts) // batch_size)
        self._running: Iterator[Windows] | None = None

    @property
    def space(self) -> Space:
        """What a method must know to be built for these windows."""
        return self.episodes.space(self.window)

    def batches(self, start_step: int = 0) -> Iterator[Windows]:
        """One batch per (step, micro-batch), from `start_step` on, without end. A second call ends the first one."""
        self.close()
        self._running = self._batches(start_step)
        return self._running

    def close(self) -> None:
        """Stop cutting. The stream can be started again."""
        running, self._running = self._running, None
        if running is not None:
            running.close()  # type: ignore[attr-defined]

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Up to `count` different observations of the training episodes, drawn with `seed`, as the model sees them."""
        rows = self.episodes.keep(self.split.train).rows()
        chosen = np.random.default_rng([seed & 0xFFFFFFFF, 0x5A3B1E]).permutation(rows)[:count]
        return self.scale.observation(self._take(chosen).to(self.device))

    def numbers(self, step: int, micro: int = 0) -> np.ndarray:
        """Which windows this rank's rows of a micro-batch are, int64 (local,)."""
        clock = Clock(step=step, seed=self.seed, micro=micro)
        drawn = torch.randint(len(self.cuts), (self.world * self.local,), generator=clock.generator("windows"))
        return drawn[self.rank * self.local : (self.rank + 1) * self.local].numpy()

    def cut(self, numbers: np.ndarray) -> Windows:
        """The windows of those numbers, on the device."""
        return self._finished(self._cut(numbers))

    def _batches(self, start: int) -> Iterator[Windows]:
        def moments() -> Iterator[Cut]:
            step = start
            while True:
                for micro in range(self.accumulate):
                    yield self._cut(self.numbers(step, micro))
                step += 1

        cuts = ahead(moments, AHEAD)
        try:
            for some in cuts:
                yield self._finished(some)
        finally:
            cuts.close()  # type: ignore[attr-defined]

    def _cut(self, numbers: np.ndarray) -> Cut:
        """Everything that is left to do with memory alone."""
        frames = self.cuts.frames(numbers)  # (B, T)
        acts = frames[:, :-1, None] + np.arange(self.window.skip)  # (B, T - 1, skip)
        action = take(self.episodes.action, acts).reshape(len(frames), frames.shape[1] - 1, -1)  # (B, T - 1, skip * A)
        state = take(self.episodes.state, frames).to(torch.float32)  # (B, T, P)
        obs = torch.from_numpy(frames) if self._there is not None else self._take(frames)
        parts = Cut(obs, action, state, torch.from_numpy(numbers))
        return Cut(*(x.pin_memory() for x in parts)) if self.device.type == "cuda" else parts

    def _finished(self, cut: Cut) -> Windows:
        obs, action, state, index = (x.to(self.device, non_blocking=True) for x in cut)
        if self._there is not None:
            obs = self._there[obs]
        return Windows(self.scale.observation(obs), self.scale.action(action), state, index)

    def _take(self, frames: np.ndarray) -> Tensor:
        """Observations as the files hold them, pictures (..., C, H, W)."""
        if self._frames is not None:
            return take(self._frames, frames)
        return channels_first(take(self.episodes.obs, frames)).contiguous()

    def _channels_first(self) -> np.ndarray | None:
        """All pictures in the layout of the batches, where they are in memory anyhow: turned once for all draws."""
        if not self.episodes.pictures or isinstance(self.episodes.obs, np.memmap) or self._there is not None:
            return None
        turned = np.ascontiguousarray(self.episodes.obs.transpose(0, 3, 1, 2))
        self.episodes = replace(self.episodes, obs=turned.transpose(0, 2, 3, 1))  # the same pictures, held once
        return turned

    def _on_device(self) -> Tensor | None:
        if self.device.type != "cuda" or self.episodes.obs.nbytes > torch.cuda.mem_get_info(self.device)[0] // 8:
            return None
        return channels_first(torch.from_numpy(np.ascontiguousarray(self.episodes.obs)).to(self.device)).contiguous()


class Cut(NamedTuple):
    """A batch in the world's own units, on the CPU; `obs` are frame numbers where the frames live on the device."""

    obs: Tensor
    action: Tensor
    state: Tensor
    index: Tensor  # type: ignore[assignment]


class Cuts:
    """All windows of some episodes, numbered: those of the first episode by their start, then those of the next."""

    def __init__(self, episodes: Episodes, which: np.ndarray, window: Window) -> None:
        reach = (window.steps - 1) * window.skip
        fits = which[episodes.lengths[which] > reach]
        if len(fits) == 0:
            longest = int(episodes.lengths[which].max())
            raise ValueError(
                f"window must fit into the episodes, got {window.steps} observations {window.skip} apart "
                f"({reach + 1} frames) and a longest episode of {longest}. {shorter(window, longest)}"
            )
        counts = episodes.lengths[fits] - reach
        self.ends = np.cumsum(counts)
        self.starts = episodes.offsets[fits] - (self.ends - counts)  # so that a window begins at starts[e] + number
        self.steps = np.arange(window.steps) * window.skip

    def __len__(self) -> int:
        return int(self.ends[-1])

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        """Rows in the arrays of the frames of each window, (B, T)."""
        first = self.starts[np.searchsorted(self.ends, numbers, side="right")] + numbers
        return first[:, None] + self.steps


def shorter(window: Window, longest: int) -> str:
    """What to set so that windows fit into episodes of `longest` frames.

    >>> shorter(Window(steps=4, skip=5), 10)
    'Set method.window.steps=4 and method.window.skip=3.'
    >>> shorter(Window(steps=17), 10)
    'Set method.window.steps=10 or less and method.window.skip=1.'
    """
    skip = (longest - 1) // (window.steps - 1)
    steps = f"{window.steps}" if skip else f"{longest} or less"
    return f"Set method.window.steps={steps} and method.window.skip={max(1, skip)}."


def take(array: np.ndarray, rows: np.ndarray) -> Tensor:
    """Rows of an array (F, ...), of any shape of `rows`: one gather."""
    out = np.empty((*rows.shape, *array.shape[1:]), array.dtype)
    np.take(array, rows, axis=0, out=out, mode="clip")  # "clip" writes straight into `out`; no row lies outside
    return torch.from_numpy(out)


def channels_first(x: Tensor) -> Tensor:
    """Pictures (..., H, W, C) as (..., C, H, W); anything else as it is."""
    return x.movedim(-1, -3) if x.dtype == torch.uint8 else x


def ahead(make: Callable[[], Iterator[Cut]], depth: int) -> Iterator[Cut]:
    """The items of `make()`, made `depth` in advance by a thread that ends with this iterator."""
    ready: queue.Queue[Cut | BaseException] = queue.Queue(depth)
    over = threading.Event()

    def put(item: Cut | BaseException) -> bool:
        while not over.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in make():
                if not put(item):
                    return
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="windows", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        over.set()
        thread.join()
