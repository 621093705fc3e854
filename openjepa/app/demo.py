"""The whole of it in minutes: a healthy run, one made to collapse, what each is worth; a world model that plans."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from openjepa.app.looking import look_at, with_pictures
from openjepa.app.measuring import write
from openjepa.app.planning import plan_run
from openjepa.app.report import read_run, report
from openjepa.app.requests import DemoRequest, LookRequest, PlanRequest
from openjepa.app.runs import Run
from openjepa.app.settings import free_folder, resolve
from openjepa.app.subjects import Sides, Subject, labelled, of_run, pixels, untrained
from openjepa.app.training import start
from openjepa.data.config import DataConfig
from openjepa.probe import PROBES
from openjepa.train.launch import resolve_device

SHOTS = (1, 5, 10)
HEALTHY, SICK = "digits-lejepa", "digits-collapse"
WORLD, ROOM, EPISODES = "one-room-pldm", "one-room", 100


def show(_: tuple[()], asked: DemoRequest) -> dict[str, Any]:
    """Train both, measure, judge, report. Returns plain values; OUT/demo.json and OUT/report.html hold them too."""
    out, begin = Path(asked.out or free_folder("demo")), time.perf_counter()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out must be a new or empty folder, got {out}. Remove it, or do openjepa demo out=OTHER.")
    healthy, sick = (trained(name, out / folder, asked) for name, folder in ((HEALTHY, "lejepa"), (SICK, "collapse")))
    minutes = (time.perf_counter() - begin) / 60
    world = dreamt(out, asked)
    table = few_labels(healthy, sick, asked)
    page = pages(healthy, sick, table, out, asked)
    result = {
        "data": "scikit-learn digits: 1,347 pictures to learn from, 450 to be measured on",
        "minutes_training": round(minutes, 2),
        "table": table,
        "verdicts": {"lejepa": healthy.verdict().as_dict(), "lejepa, lam 0": sick.verdict().as_dict()},
        "world": world,
        "report": str(page),
    }
    write(out / "demo.json", result)
    return result


def trained(preset: str, out: Path, asked: DemoRequest) -> Run:
    keywords = {"out": str(out), "seed": asked.seed, "device": asked.device}
    return start(resolve(preset, keywords=keywords, tiny=asked.tiny))


def dreamt(out: Path, asked: DemoRequest) -> dict[str, Any]:
    """A world model from pixels, and how often it crosses a room by planning; with the controls, a film and a page."""
    begin = time.perf_counter()
    run = trained(WORLD, out / "world", asked)
    seconds = time.perf_counter() - begin
    goals = PlanRequest(protocol=ROOM, episodes=4 if asked.tiny else EPISODES, seed=asked.seed, device=asked.device)
    found = plan_run(run, goals)
    page = look_at(run, LookRequest(out=str(out / "world.html"), device=asked.device))["report"]
    film = Path(found["out"]) / "model_000.gif"
    return {
        "about": found["protocol"]["about"], "n": found["n"], "seconds_training": round(seconds, 1),
        "rows": found["rows"], "table": found["table"], "film": str(film), "report": page,
    }  # fmt: skip


def few_labels(healthy: Run, sick: Run, asked: DemoRequest) -> dict[str, dict[str, Any]]:
    """Features -> labels per class -> accuracy with its interval, on the same draws of labels for all."""
    device = resolve_device(asked.device)
    own = of_run(healthy, "auto", device, "LeJEPA features")
    start_of = replace(untrained(healthy, device), name="the same encoder, untrained")
    raw = replace(pixels(own.preprocess), name="raw pixels")
    ill = of_run(sick, "auto", device, "LeJEPA with lam 0")
    data = DataConfig(path="digits", channels=own.preprocess.channels)
    test = labelled(data, None, own.preprocess, asked.seed)
    return {s.name: few(s, test, asked, device) for s in (own, raw, start_of, ill)}


def few(s: Subject, test: Sides, asked: DemoRequest, device: torch.device) -> dict[str, Any]:
    """Logistic regression on 1, 5 and 10 labels per class; the mean over the draws of labels and its interval."""
    train, measured_on = test.seen_by(s, None, "mean", 512, device)
    found = PROBES["fewshot"](
        train, measured_on, seed=asked.seed, per_class=SHOTS, fractions=(), resamples=asked.resamples
    )
    rows: dict[str, Mapping[str, Any]] = {row["name"]: row for row in found.rows()}
    named = {n: rows[f"{n} per class (logistic)"] for n in SHOTS}
    return {str(n): {k: row[k] for k in ("accuracy", "low", "high")} for n, row in named.items()}


def pages(healthy: Run, sick: Run, table: dict[str, Any], out: Path, asked: DemoRequest) -> Path:
    """One report: the healthy run with its pictures, the collapsed one beside it, and the table of both."""
    look = LookRequest(device=asked.device)
    scores = [
        {"name": f"{name}, {n} labels per class", **row} for name, shots in table.items() for n, row in shots.items()
    ]
    beside = replace(read_run(sick.path), title="LeJEPA with lam 0")
    inputs = replace(with_pictures(healthy, read_run(healthy.path), look), title="LeJEPA on handwritten digits")
    return report(out / "report.html", replace(inputs, probes={"digits": scores}, beside=[beside]))
