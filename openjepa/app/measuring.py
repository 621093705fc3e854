"""Probes on runs: one, or several beside raw pixels and the untrained encoder, all on the same pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from openjepa.app.requests import CompareRequest, ProbeRequest
from openjepa.app.runs import Run
from openjepa.app.subjects import Sides, Subject, labelled, of_run, subject
from openjepa.config import nearest
from openjepa.data.clips.config import ClipConfig
from openjepa.data.config import DataConfig
from openjepa.data.episodes.config import EpisodeConfig
from openjepa.probe import PROBES
from openjepa.train.launch import resolve_device

NEEDS_ENCODER = ("finetune",)  # probes that train the encoder itself: raw pixels have none


def probe_run(run: Run, asked: ProbeRequest) -> dict[str, Any]:
    """Every kind of probe on one run; the result also goes to eval/NAME.json in its folder. World models are measured
    by `openjepa.app.world_probe`, runs on clips by `openjepa.app.clip_measuring`."""
    if isinstance(run.config.data, EpisodeConfig):
        from openjepa.app.world_probe import probe_world

        return probe_world(run, asked)
    if {"segment", "depth"} & set(asked.kinds):
        from openjepa.app.dense_measuring import KINDS, probe_dense

        if asked.masks is None or set(asked.kinds) - set(KINDS):
            raise ValueError(
                f"kinds must be {' and '.join(KINDS)} alone, with masks=FOLDER or masks=drawn, got "
                f"kinds={','.join(asked.kinds)} and masks={asked.masks}. Ask for the others apart."
            )
        return probe_dense(run, asked)
    if isinstance(run.config.data, ClipConfig):
        from openjepa.app.clip_measuring import probe_clips

        return probe_clips(run, asked)
    device = resolve_device(asked.device)
    measured = of_run(run, asked.weights, device)
    test = labelled(as_pictures(asked.data) or run.pictures, as_pictures(asked.test), measured.preprocess, asked.seed)
    result = {"run": str(run.path), **test.about(), **choices(asked), "scores": scores(measured, test, asked, device)}
    file = run.path / "eval" / f"{asked.name or named(test.train.path)}.json"
    write(file, result)
    return {**result, "file": str(file)}


def compare_items(items: Sequence[str | Path | Run], asked: CompareRequest) -> dict[str, Any]:
    """The same probes on every item; `table` maps item -> probe -> accuracy with its interval."""
    if not items:
        raise ValueError("compare must be given runs, got none. Do openjepa compare RUN pixels init data=LABELLED.")
    runs = [i if isinstance(i, Run) else Run(i) for i in items if i not in ("pixels", "init")]
    first = runs[0] if runs else None
    if first is not None and isinstance(first.config.data, ClipConfig):
        from openjepa.app.clip_measuring import compare_clips

        return compare_clips(items, first, asked)
    device = resolve_device(asked.device)
    subjects = [subject(i, first, asked.weights, device) for i in items]
    assert first is not None
    test = labelled(
        as_pictures(asked.data) or first.pictures, as_pictures(asked.test), subjects[0].preprocess, asked.seed
    )
    table = {
        s.name: {row.pop("name"): row for row in scores(s, test, asked, device)} for s in unique(subjects)
    }  # fmt: skip
    result = {**test.about(), **choices(asked), "table": table}
    if asked.out is not None:
        write(Path(asked.out), result)
    return result


def unique(subjects: Sequence[Subject]) -> list[Subject]:
    """Each name once: the same run twice would only be measured twice."""
    return list({s.name: s for s in subjects}.values())


def scores(s: Subject, test: Sides, asked: ProbeRequest, device: torch.device) -> list[dict[str, Any]]:
    """One row per number: name, accuracy, low, high, n, settings."""
    for kind in asked.kinds:
        if kind not in PROBES:
            raise ValueError(f"kinds must be names of probes, got {kind!r}. {nearest(kind, PROBES)}")
    train, measured_on = test.seen_by(s, asked.layers, asked.pooling, asked.batch_size, device)
    rows: list[dict[str, Any]] = []
    for kind in asked.kinds:
        if not (s.plain and kind in NEEDS_ENCODER):
            rows += PROBES[kind](train, measured_on, seed=asked.seed).rows()
    return rows


def choices(asked: ProbeRequest) -> dict[str, Any]:
    """What was chosen, for the record."""
    layers = None if asked.layers is None else list(asked.layers)
    return {"weights": asked.weights, "layers": layers, "pooling": asked.pooling, "seed": asked.seed}


def as_pictures(data: DataConfig | ClipConfig | None) -> DataConfig | None:
    """Settings of pictures; a `ValueError` for some that only clips have."""
    if isinstance(data, ClipConfig):
        raise ValueError(f"data must be pictures for a run on pictures, got settings of clips: {data.path}.")
    return data


def named(path: str) -> str:
    """A file name from where the data are: letters, digits and dashes.

    >>> named("photos/cats/"), named("a/train.parquet"), named("bouncing-shapes:50")
    ('cats', 'a-train', 'bouncing-shapes-50')
    """
    last = Path(path.rstrip("/")).stem or "data"
    parent = Path(path).parent.name if last in ("train", "test") else ""
    return "".join(c if c.isalnum() else "-" for c in (f"{parent}-{last}" if parent else last)).strip("-") or "data"


def write(path: Path, result: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)
