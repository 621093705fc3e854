"""What looks at a run on clips: the health monitor, and the online probe where there are labels, which only report."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from openjepa.config import ClipView
from openjepa.data.clips import ClipSource, clip_evaluation
from openjepa.data.opening import even_choice
from openjepa.methods import Method
from openjepa.probe import OnlineProbe
from openjepa.probe.health import Monitor
from openjepa.train import Observer
from openjepa.train.run import RunConfig

MOST = 192  # videos that are looked at, each by the clip in its middle: decoding is dear
FEWEST = 32  # below this neither health nor probes say anything
HELD = 5  # one video of so many is held out for the online probe to be measured on

Batches = Callable[[], Iterator[tuple[Tensor, Tensor, Tensor]]]


def of_clips(run: RunConfig, method: Method, source: ClipSource, device: torch.device) -> list[Observer]:
    """Observers of the longest kind of clip that the method eats, on evenly chosen videos that it trains on.

    The clips are decoded once and kept: a few hundred of 16 frames at 64 pixels are 200 MB, and at most 1 GB is kept.
    """
    views: tuple[ClipView, ...] = method.cfg.views
    view = max(views, key=lambda v: v.frames)
    rows = chosen(source, view, min(MOST, run.probe.limit), run.seed)
    if len(rows) < FEWEST:
        return []
    parts = list(
        clip_evaluation(source, frames=view.frames, stride=view.stride, fps=view.fps, indices=rows, device=device)
    )
    clips, labels = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    if len(clips) < FEWEST:
        return []
    known = bool((labels >= 0).any())
    found: list[Observer] = [Monitor(clips, labels if known else None, start=method, windows=True, batch_size=16)]
    if run.probe.online and known:
        found += online(clips, labels)
    return found


def chosen(source: ClipSource, view: ClipView, count: int, seed: int) -> np.ndarray:
    """Videos long enough for the view, each class in its own share, in a random order; at most 1 GB of clips."""
    fits = source.fitting(view)
    count = min(count, 2**30 // (4 * view.frames * source.channels * source.size**2))
    if count < len(fits):
        labels = None if source.labels is None else source.labels[fits]
        fits = fits[even_choice(labels, len(fits), max(count, 1), seed)]
    return np.random.default_rng([seed & 0xFFFFFFFF, 0x10_0C]).permutation(fits)


def online(clips: Tensor, labels: Tensor) -> list[Observer]:
    """The probe, four fifths of the labelled clips to learn from; none when a side has too few classes."""
    known = (labels >= 0).nonzero()[:, 0]
    held = known[::HELD]
    learn = known[torch.arange(len(known), device=known.device) % HELD != 0]
    held = held[torch.isin(labels[held], labels[learn])]
    if len(learn) == 0 or len(held) == 0 or len(labels[learn].unique()) < 2:
        return []

    def side(rows: Tensor) -> Batches:
        return lambda: ((clips[r], labels[r], r) for r in rows.split(16))

    return [OnlineProbe(side(learn), side(held))]
