"""From settings to a trained run: the loop, with the observers that look at it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from openjepa.app.runs import Run
from openjepa.app.subjects import sample
from openjepa.data import Source, open_source
from openjepa.methods import METHODS, Method
from openjepa.probe.health import Monitor
from openjepa.probe.online import OnlineProbe
from openjepa.train import Observer, execute
from openjepa.train.launch import resolve_device
from openjepa.train.run import RunConfig

HEALTH = 1024  # pictures that the health monitor sees at every look
FEWEST = 32  # below this neither health nor probes say anything


def start(run: RunConfig, *, encoder: nn.Module | None = None, resume: bool = False) -> Run:
    """Train as `run` says, look while doing so, and leave the verdict in health.json.

    encoder   a module of the user's own in place of `method.encoder`
    """
    method = None if encoder is None else with_encoder(run, encoder)
    out = execute(run, method=method, observers=lambda m, s: observers(run, m, s), resume=resume)
    finished = Run(out)
    if int(os.environ.get("RANK", "0")) == 0:
        write_health(finished)
    return finished


def with_encoder(run: RunConfig, encoder: nn.Module) -> Method:
    """The run's method around a module of the user's own."""
    source = open_source(run.data, seed=run.seed)
    torch.manual_seed(run.seed)
    make: Any = METHODS[run.method.name]  # type: ignore[attr-defined]
    return make(run.method, size=source.size, channels=source.channels, encoder=encoder)


def observers(run: RunConfig, method: Method, source: Source) -> list[Observer]:
    """The health monitor on the training pictures; the online probe where there are labels. Labels only report."""
    device = resolve_device(run.device)
    found: list[Observer] = []
    pictures, labels = sample(source, min(HEALTH, run.probe.limit), run.seed, device)
    if len(pictures) >= FEWEST:
        found.append(Monitor(pictures, labels if bool((labels >= 0).any()) else None))
    if run.probe.online:
        labelled = source if run.probe.data is None else open_source(run.probe.data, seed=run.seed)
        if labelled.labels is not None and len(labelled) >= FEWEST:
            pictures, labels = sample(labelled, run.probe.limit, run.seed + 1, device)
            found.append(OnlineProbe(pictures, labels))
    return found


def write_health(run: Run) -> Path:
    """health.json: the verdict, its evidence and advice."""
    path = run.path / "health.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(run.verdict().as_dict(), indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path
