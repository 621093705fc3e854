"""What can be measured: the encoder of a run, raw pixels, or the encoder as it was before training; and on what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjepa.app.runs import Run
from openjepa.data import Source, evaluation, open_source
from openjepa.data.config import DataConfig
from openjepa.data.opening import even_choice, kind_of
from openjepa.interop.checkpoint import Weights, load
from openjepa.interop.preprocess import Preprocess
from openjepa.nn import EncoderConfig
from openjepa.probe import baselines
from openjepa.probe.features import Encodes, Labelled
from openjepa.probe.result import hold_out

SETTLE = 1024  # pictures that the batch norms of an untrained encoder see
HELD_OUT = 0.2  # share of a labelled source that is measured on when it has no test split of its own
SPLITS = ("digits", "hub", "npy", "idx", "folder")  # kinds of source that can hold a train and a test split


@dataclass(frozen=True)
class Subject:
    """Something that turns pictures into features. `plain` ones have no layers and no pooling to choose."""

    name: str
    encoder: Encodes
    preprocess: Preprocess
    plain: bool = False


def of_run(run: Run, weights: Weights, device: torch.device, name: str | None = None) -> Subject:
    """The newest checkpoint of a run."""
    model = load(run.path, weights=weights)
    return Subject(name or str(run.path), model.encoder.to(device).eval(), model.preprocess)


def untrained(run: Run, device: torch.device) -> Subject:
    """The encoder of a run without its training: the same network from the same seed.

    Batch norms take their statistics from the pictures that the run was trained on, without which an untrained network
    would look worse than it is.
    """
    config = run.config
    preprocess = of_run(run, "auto", torch.device("cpu")).preprocess
    source = prepared(run.pictures, preprocess)
    rows = torch.arange(len(source))[:SETTLE]
    encoder: EncoderConfig = config.method.encoder  # type: ignore[attr-defined]
    made = baselines.untrained(
        encoder, size=preprocess.size, channels=preprocess.channels, seed=config.seed,
        batches=Batches(source, rows, 256, device)(), device=device,
    )  # fmt: skip
    return Subject("init", made, preprocess)


def pixels(preprocess: Preprocess) -> Subject:
    """Raw pixels, as the encoder gets them."""
    return Subject("pixels", baselines.pixels(), preprocess, plain=True)


def subject(item: str | Path | Run, first: Run | None, weights: Weights, device: torch.device) -> Subject:
    """A run, or "pixels" and "init" beside a `first` run, which gives their preprocessing."""
    if item not in ("pixels", "init"):
        return of_run(item if isinstance(item, Run) else Run(item), weights, device)
    if first is None:
        raise ValueError(f"compare must be given a run beside {item!r}, got none. Put the folder of a run first.")
    return untrained(first, device) if item == "init" else pixels(of_run(first, weights, device).preprocess)


@dataclass(frozen=True)
class Sides:
    """Labelled pictures to learn from and to be measured on: two sources, or rows of one."""

    train: DataConfig
    test: DataConfig
    train_rows: Tensor | None
    test_rows: Tensor | None

    def seen_by(
        self, s: Subject, layers: tuple[int, ...] | None, pooling: str, batch_size: int, device: torch.device
    ) -> tuple[Labelled, Labelled]:
        """Both sides as `s` sees them."""
        choice = (None, "mean") if s.plain else (layers, pooling)
        learn, measure = (
            Labelled(
                s.encoder, Batches(prepared(cfg, s.preprocess), rows, batch_size, device), layers=choice[0],
                pooling=choice[1], device=device,
            )
            for cfg, rows in ((self.train, self.train_rows), (self.test, self.test_rows))
        )  # fmt: skip
        return learn, measure

    def some(self, preprocess: Preprocess, limit: int, seed: int, device: torch.device) -> tuple[Batches, Batches]:
        """At most `limit` pictures of both sides together, four fifths of them to learn from, classes as they come."""
        learn_source, measure_source = prepared(self.train, preprocess), prepared(self.test, preprocess)
        learn = even(learn_source, self.train_rows, limit - limit // 5, seed)
        measure = even(measure_source, self.test_rows, limit // 5, seed)
        known = np.isin(measure_source.label(measure.numpy()), learn_source.label(learn.numpy()))
        measure = measure[torch.from_numpy(known)]  # a rare class may have fallen on one side only
        return Batches(learn_source, learn, 256, device), Batches(measure_source, measure, 256, device)

    def about(self) -> dict[str, Any]:
        how = "a fifth of the same pictures, held out" if self.train_rows is not None else describe(self.test)
        return {"data": describe(self.train), "test": how}


@dataclass(frozen=True)
class Batches:
    """One pass over a source, or some rows of it (all by default), each time it is called."""

    source: Source
    rows: Tensor | None
    batch_size: int
    device: torch.device

    def __call__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return evaluation(self.source, batch_size=self.batch_size, indices=self.index, device=self.device)

    @property
    def index(self) -> np.ndarray:
        return np.arange(len(self.source)) if self.rows is None else self.rows.numpy()

    @property
    def labels(self) -> np.ndarray:
        return self.source.label(self.index)


def prepared(cfg: DataConfig, preprocess: Preprocess) -> Source:
    """Pictures as the encoder saw them in training: its size unless the settings name another, its normalisation."""
    same = {"size": cfg.size or preprocess.size, "channels": preprocess.channels, "normalise": "imagenet"}
    source = open_source(cfg.model_copy(update=same))
    source.mean, source.std = preprocess.mean, preprocess.std
    return source


def labelled(data: DataConfig, test: DataConfig | None, preprocess: Preprocess, seed: int) -> Sides:
    """Where to learn and where to measure; see `ProbeRequest`. No picture is on both sides."""
    train = data
    if test is None:
        train, test = with_split(data)
    source = prepared(train, preprocess)
    if source.labels is None or not bool((source.labels >= 0).any()):
        raise ValueError(
            f"data must have labels to be probed on, got none in {train.path!r}. "
            "Do data=FOLDER with one folder per class, or a file with a label column."
        )
    if test is not None:
        if prepared(test, preprocess).fingerprint() == source.fingerprint():
            raise ValueError(f"test must hold other pictures than data, got {describe(test)} for both. Leave test out.")
        return Sides(train, test, None, None)
    kept, held = hold_out(torch.from_numpy(source.labels), HELD_OUT, seed)
    return Sides(train, train, kept, held)


def with_split(data: DataConfig) -> tuple[DataConfig, DataConfig | None]:
    """The train and test splits of a source that has both, by its own names; else the source and None."""
    if data.split not in (None, "train"):
        return data, None
    path = Path(data.path)
    if path.stem == "train" and path.with_name(f"test{path.suffix}").exists():
        return data, data.model_copy(update={"path": str(path.with_name(f"test{path.suffix}")), "limit": None})
    if kind_of(data.path) not in SPLITS:
        return data, None
    train, test = (data.model_copy(update={"split": s}) for s in ("train", "test"))
    test = test.model_copy(update={"limit": None})
    try:
        open_source(train), open_source(test)
    except ValueError:
        return data, None
    return train, test


def even(source: Source, rows: Tensor | None, count: int, seed: int) -> Tensor:
    """Up to `count` labelled rows of a source (or of some `rows` of it), each class in its own share; sorted."""
    chosen = np.arange(len(source)) if rows is None else rows.numpy()
    chosen = chosen[source.label(chosen) >= 0]
    if count < len(chosen):
        chosen = chosen[even_choice(source.label(chosen), len(chosen), count, seed)]
    return torch.from_numpy(chosen)


def sample(source: Source, count: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A seeded draw of up to `count` pictures (n, C, H, W), normalised, and their labels (n,); in a random order."""
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))[:count]
    parts = list(evaluation(source, indices=order.numpy(), device=device))
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def describe(cfg: DataConfig) -> str:
    return cfg.path if cfg.split is None else f"{cfg.path} ({cfg.split})"
