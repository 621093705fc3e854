"""What can be measured on clips: runs on clips, runs on pictures frame by frame, raw pixels, no training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjepa.app.runs import Run
from openjepa.config import ClipView, parse
from openjepa.data.clips import ClipSource, clip_evaluation, clip_frames, open_clips
from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.opening import DRAWN
from openjepa.data.config import DataConfig
from openjepa.data.opening import even_choice
from openjepa.interop.checkpoint import Weights, load
from openjepa.interop.preprocess import ClipPreprocess, Preprocess
from openjepa.nn import ClipViT, build_clip_encoder
from openjepa.probe.baselines import clip_pixels
from openjepa.probe.clips import PerFrame
from openjepa.probe.features import Encodes
from openjepa.probe.result import hold_out

HELD_OUT = 0.2  # share of a source that is measured on when it has no test split of its own
MOST = {"train": 5000, "test": 2000}  # videos of a source, unless `limit` says how many


@dataclass(frozen=True)
class ClipSubject:
    """Something that turns clips into features. `times` steps of its tokens lie one behind the other.

    plain  has no layers and no pooling to choose: a vector per frame
    """

    name: str
    encoder: Encodes
    preprocess: ClipPreprocess
    times: int
    plain: bool = False


def of_run(
    run: Run, weights: Weights, device: torch.device, pace: ClipPreprocess | None = None, name: str | None = None
) -> ClipSubject:
    """The newest checkpoint of a run. One on pictures looks at each frame of the clips that `pace` describes."""
    model = load(run.path, weights=weights)
    encoder, prepare = model.encoder.to(device).eval(), model.preprocess
    if isinstance(prepare, ClipPreprocess):
        tubelet = encoder.tubelet if isinstance(encoder, ClipViT) else 1
        return ClipSubject(name or str(run.path), encoder, prepare, max(1, prepare.frames // tubelet))
    if pace is None:
        raise ValueError(f"the first run must be one on clips, got {run.path}, one on pictures. Put it behind another.")
    return ClipSubject(name or f"{run.path} per frame", PerFrame(encoder), paced(prepare, pace), pace.frames)


def paced(prepare: Preprocess, pace: ClipPreprocess) -> ClipPreprocess:
    """Frames prepared as pictures are, and chosen as `pace` says."""
    known: dict[str, Any] = {f.name: getattr(prepare, f.name) for f in fields(Preprocess)}
    return ClipPreprocess(**known, frames=pace.frames, stride=pace.stride, fps=pace.fps)


def subject(item: str | Path | Run, first: Run, weights: Weights, device: torch.device) -> ClipSubject:
    """A run, or "pixels" and "init" beside the `first` run, which gives their preprocessing."""
    main = of_run(first, weights, torch.device("cpu"))
    if item == "pixels":
        return ClipSubject("pixels", clip_pixels(), main.preprocess, main.preprocess.frames, plain=True)
    if item == "init":
        return untrained(first, main, device)
    return of_run(item if isinstance(item, Run) else Run(item), weights, device, main.preprocess)


def untrained(run: Run, main: ClipSubject, device: torch.device) -> ClipSubject:
    """The encoder of a run without its training: the same network from the same seed."""
    config, p = run.config, main.preprocess
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = build_clip_encoder(
            config.method.encoder,  # type: ignore[attr-defined]
            size=p.size,
            channels=p.channels,
            frames=p.frames,
        )
    return ClipSubject("init", encoder.to(device).eval(), p, main.times)


@dataclass(frozen=True)
class ClipBatches:
    """One pass over the middle clips of some videos, each time it is called.

    view  which frames; batch_size  clips at a time
    """

    source: ClipSource
    rows: np.ndarray
    view: ClipView
    batch_size: int
    device: torch.device

    def __call__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return clip_evaluation(
            self.source, frames=self.view.frames, stride=self.view.stride, fps=self.view.fps, indices=self.rows,
            batch_size=self.batch_size, device=self.device,
        )  # fmt: skip

    def factors(self, rows: np.ndarray) -> dict[str, np.ndarray] | None:
        """The truth about the frames that are shown of videos `rows`; None where nobody knows it."""
        if self.source.factors is None:
            return None
        return self.source.factors(rows, clip_frames(self.source, rows, self.view)[:, 0])


@dataclass(frozen=True)
class ClipSides:
    """Videos to learn from and to be measured on: two sources, or rows of one. No video is on both sides."""

    train: ClipConfig
    test: ClipConfig
    rows: tuple[np.ndarray, np.ndarray]
    labels: bool

    def batches(
        self, prepare: ClipPreprocess, batch_size: int, device: torch.device, view: ClipView | None = None
    ) -> tuple[ClipBatches, ClipBatches]:
        """Both sides prepared for an encoder, at its own pace or at that of `view`."""
        view = view or ClipView(frames=prepare.frames, stride=prepare.stride, fps=prepare.fps)
        a, b = (
            ClipBatches(prepared(cfg, prepare), rows, view, batch_size, device)
            for cfg, rows in zip((self.train, self.test), self.rows, strict=True)
        )
        return a, b

    def about(self) -> dict[str, Any]:
        one = self.train == self.test
        return {
            "data": describe(self.train),
            "test": "a fifth of the same videos, held out" if one else describe(self.test),
            "videos": [len(rows) for rows in self.rows],
        }  # fmt: skip


def sides(data: ClipConfig, test: ClipConfig | None, prepare: ClipPreprocess, seed: int) -> ClipSides:
    """Where to learn and where to measure: `test`, else the source's own test split, else a fifth of it."""
    if test is None:
        data, test = with_split(data)
    source = prepared(data, prepare)
    labels = source.labels is not None and bool((source.labels >= 0).any())
    if test is None:
        every = chosen(source, data, "train", seed)
        known = source.label(every) if labels else np.zeros(len(every), np.int64)
        kept, held = (x.numpy() for x in hold_out(torch.from_numpy(known), HELD_OUT, seed))
        return ClipSides(data, data, (every[kept], every[held]), labels)
    other = prepared(test, prepare)
    if other.fingerprint() == source.fingerprint():
        raise ValueError(f"test must hold other videos than data, got {describe(test)} for both. Leave test out.")
    return ClipSides(data, test, (chosen(source, data, "train", seed), chosen(other, test, "test", seed)), labels)


def chosen(source: ClipSource, cfg: ClipConfig, side: str, seed: int) -> np.ndarray:
    """All videos, or without a limit at most `MOST` of them, classes as they come."""
    if cfg.limit is not None or len(source) <= MOST[side]:
        return np.arange(len(source))
    return even_choice(source.labels, len(source), MOST[side], seed)


def with_split(data: ClipConfig) -> tuple[ClipConfig, ClipConfig | None]:
    """Train and test of a source that has both: drawn clips, and files called train and test."""
    if data.split not in (None, "train"):
        return data, None
    if data.path.split(":")[0] in DRAWN:
        train, test = (data.model_copy(update={"split": s}) for s in ("train", "test"))
        return train, test
    path = Path(data.path)
    beside = path.with_name(f"test{path.suffix}")
    if path.stem == "train" and beside.exists():
        return data, data.model_copy(update={"path": str(beside), "limit": None})
    return data, None


def prepared(cfg: ClipConfig, prepare: ClipPreprocess) -> ClipSource:
    """Videos as the encoder saw them in training: its size unless the settings name another, its normalisation."""
    same = {"size": cfg.size or prepare.size, "channels": prepare.channels, "normalise": "imagenet"}
    source = open_clips(cfg.model_copy(update=same))
    source.mean, source.std = prepare.mean, prepare.std
    return source


def as_clips(data: DataConfig | ClipConfig | None, run: Run) -> ClipConfig:
    """The settings of clips that were asked for, or the run's own."""
    if data is None:
        own = run.config.data
        if not isinstance(own, ClipConfig):
            raise ValueError(f"run must be one on clips for this, got {run.path}. Give data=VIDEOS.")
        return own
    if isinstance(data, ClipConfig):
        return data
    return parse(ClipConfig, data.model_dump(exclude_unset=True))


def describe(cfg: ClipConfig) -> str:
    return cfg.path if cfg.split is None else f"{cfg.path} ({cfg.split})"
