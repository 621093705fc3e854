"""From settings to a trained run: the loop, with the observers that look at it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from openjepa.app.clip_watching import of_clips
from openjepa.app.frozen import frozen, frozen_encoder
from openjepa.app.runs import Run
from openjepa.app.subjects import labelled, sample
from openjepa.data import Source
from openjepa.data.clips import ClipSource
from openjepa.data.clips.config import ClipConfig
from openjepa.data.config import DataConfig
from openjepa.data.episodes import WindowStream
from openjepa.interop.preprocess import Preprocess
from openjepa.methods import METHODS, Method
from openjepa.probe import OnlineProbe
from openjepa.probe.health import Monitor
from openjepa.train import Observer, execute
from openjepa.train.folder import require_new
from openjepa.train.launch import resolve_device
from openjepa.train.opening import Data, open_data
from openjepa.train.run import RunConfig

HEALTH = 1024  # pictures or observations that the health monitor sees at every look
FEWEST = 32  # below this neither health nor probes say anything


def start(run: RunConfig, *, encoder: nn.Module | None = None, resume: bool = False) -> Run:
    """Train as `run` says, look while doing so, and leave the verdict in health.json.

    encoder   a module of the user's own in place of `method.encoder`
    """
    if not resume and run.out:
        require_new(Path(run.out))  # before the data is opened, which may take minutes
    method = None
    if encoder is not None or frozen(run.method):
        run, method = with_encoder(run, encoder)
    out = execute(run, method=method, observers=lambda m, s: observers(run, m, s), resume=resume)
    finished = Run(out)
    if int(os.environ.get("RANK", "0")) == 0:
        write_health(finished)
    return finished


def with_encoder(run: RunConfig, encoder: nn.Module | None) -> tuple[RunConfig, Method]:
    """The run's method around a module of the user's own, or around the frozen encoder that its settings name; and the
    run with settings that fit its data."""
    opened = open_data(run, resolve_device(run.device))
    opened.stream.close()
    run = opened.fitted(run)
    if encoder is None:
        encoder = frozen_encoder(run.method, opened.facts["preprocess"])
    torch.manual_seed(run.seed)
    make: Any = METHODS[run.method.name]  # type: ignore[attr-defined]
    return run, make(run.method, **opened.keywords, encoder=encoder)


def observers(run: RunConfig, method: Method, data: Data) -> list[Observer]:
    """The health monitor on the training data; the online probe where there are labels. Labels only report."""
    if isinstance(data, WindowStream):
        seen = data.sample(min(HEALTH, run.probe.limit), run.seed)
        return [Monitor(seen, start=method, windows=True)] if len(seen) >= FEWEST else []
    if isinstance(data, ClipSource):
        return of_clips(run, method, data, resolve_device(run.device))
    return of_pictures(run, method, data)


def of_pictures(run: RunConfig, method: Method, source: Source) -> list[Observer]:
    device = resolve_device(run.device)
    found: list[Observer] = []
    if len(source) >= FEWEST:
        pictures, labels = sample(source, min(HEALTH, run.probe.limit), run.seed, device)
        found.append(Monitor(pictures, labels if bool((labels >= 0).any()) else None, start=method))
    if run.probe.online and (run.probe.data is not None or has_classes(source)):
        found += online(run, source, device)
    return found


def has_classes(source: Source) -> bool:
    """Whether there are enough labels, of two classes at least, for a probe to say anything."""
    known = source.labels[source.labels >= 0] if source.labels is not None else ()
    return len(known) >= FEWEST and len(np.unique(known)) > 1


def online(run: RunConfig, source: Source, device: torch.device) -> list[Observer]:
    """The probe on labelled pictures; none when `probe.limit` leaves too few of them."""
    preprocess = Preprocess(source.size, source.channels, source.mean, source.std)
    assert isinstance(run.data, DataConfig)  # a method that eats pictures has no other
    assert not isinstance(run.probe.data, ClipConfig)
    sides = labelled(run.probe.data or run.data, None, preprocess, run.seed)
    learn, measure = sides.some(preprocess, run.probe.limit, run.seed, device)
    enough = len(np.unique(learn.labels)) > 1 and len(measure.labels) > 0
    return [OnlineProbe(learn, measure)] if enough else []


def write_health(run: Run) -> Path:
    """health.json: the verdict, its evidence and advice."""
    path = run.path / "health.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(run.verdict().as_dict(), indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path
