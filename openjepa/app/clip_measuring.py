"""Probes on runs that learned from clips: what is in them, in which order, how fast, where things are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openjepa.app.clip_subjects import ClipBatches, ClipSides, ClipSubject, as_clips, of_run, sides, subject
from openjepa.app.requests import CompareRequest, ProbeRequest
from openjepa.app.runs import Run
from openjepa.config import ClipView, nearest
from openjepa.probe import PROBES
from openjepa.probe.arrow import at_speeds, in_order
from openjepa.probe.clips import in_place, pooled_frames
from openjepa.probe.features import Features, Labelled
from openjepa.probe.linear import linear
from openjepa.probe.trajectory import motion, trajectory
from openjepa.train.launch import resolve_device

STRIDES = (1, 2, 4)
OWN = {
    "order": "Of clips: frames in order or shuffled, told by a linear map.",
    "reversed": "Of clips: played forwards or backwards, told by a linear map.",
    "speed": "Of clips: strides 1, 2 or 4, told by a linear map.",
    "motion": "Of clips: R2 of positions and velocities, where the source knows them.",
}
FRAMES = 512  # frames that go through an encoder together


def probe_clips(run: Run, asked: ProbeRequest) -> dict[str, Any]:
    """Every kind of probe on one run; the result also goes to eval/NAME.json in its folder."""
    from openjepa.app.measuring import choices, named, write

    device = resolve_device(asked.device)
    measured = of_run(run, asked.weights, device)
    on = both_sides(run, asked, measured)
    rows = scores(measured, on, asked, device)
    result = {"run": str(run.path), "kind": "clips", **on.about(), **choices(asked), "scores": rows}
    file = run.path / "eval" / f"{asked.name or named(on.train.path)}.json"
    write(file, result)
    return {**result, "file": str(file)}


def compare_clips(items: Sequence[str | Path | Run], first: Run, asked: CompareRequest) -> dict[str, Any]:
    """The same probes on every item, the first run giving the pace of the clips; see `measuring.compare_items`."""
    from openjepa.app.measuring import choices, write

    device = resolve_device(asked.device)
    main = of_run(first, asked.weights, device)
    on = both_sides(first, asked, main)
    table: dict[str, dict[str, Any]] = {}
    for item in items:
        one = subject(item, first, asked.weights, device)
        if one.name not in table:  # the same run twice would only be measured twice
            table[one.name] = {row.pop("name"): row for row in scores(one, on, asked, device)}
    result = {"kind": "clips", **on.about(), **choices(asked), "table": table}
    if asked.out is not None:
        write(Path(asked.out), result)
    return result


def both_sides(run: Run, asked: ProbeRequest, measured: ClipSubject) -> ClipSides:
    test = None if asked.test is None else as_clips(asked.test, run)
    return sides(as_clips(asked.data, run), test, measured.preprocess, asked.seed)


def scores(s: ClipSubject, on: ClipSides, asked: ProbeRequest, device: torch.device) -> list[dict[str, Any]]:
    """One row per number: name, accuracy (or r2), low, high, n, settings."""
    batch_size = max(1, min(asked.batch_size, FRAMES // s.preprocess.frames))
    learn, measure = on.batches(s.preprocess, batch_size, device)
    kinds = kinds_for(asked, on, learn)
    places = "motion" in kinds
    whole = (Seen(s, learn, asked, device, places), Seen(s, measure, asked, device, places))
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        if kind in PROBES:
            rows += PROBES[kind](*(x.labelled(kind) for x in whole), seed=asked.seed).rows()
        elif kind == "motion":
            rows += moved(whole, asked.seed)
        elif kind == "speed":
            rows.append(speed(s, on, asked, batch_size, device))
        else:
            against = "shuffled" if kind == "order" else "reversed"
            a, b = (Labelled(x.encoder, in_order(x.batches, against=against, seed=asked.seed), pooling=x.pooling,
                             layers=x.layers, device=device) for x in whole)  # fmt: skip
            rows.append(one_row(kind, linear(a, b, seed=asked.seed).as_dict()))
    return rows


def kinds_for(asked: ProbeRequest, on: ClipSides, learn: ClipBatches) -> tuple[str, ...]:
    """What was asked for; by default labels where there are some, motion where it is known, and the order of frames."""
    truth = learn.source.factors is not None
    if "kinds" not in asked.model_fields_set:
        many = learn.view.frames > 1
        return (
            *(("linear", "knn") if on.labels else ()),
            *(("motion",) if truth else ()),
            *(("order",) if many else ()),
        )
    for kind in asked.kinds:
        if kind not in (*PROBES, *OWN):
            raise ValueError(f"kinds must be names of probes, got {kind!r}. {nearest(kind, (*PROBES, *OWN))}")
        if kind == "finetune":
            raise ValueError("kinds must be probes of frozen features for clips, got 'finetune'. Leave it out.")
        if kind in PROBES and not on.labels:
            raise ValueError(
                f"data must have labels for kinds={kind}, got none in {on.train.path!r}. "
                "Do data=FOLDER with one folder per class, or kinds=[order,speed]."
            )
        if kind == "motion" and not truth:
            raise ValueError(f"data must know where things are for kinds=motion, got {on.train.path!r}. Leave it out.")
    return asked.kinds


class Seen:
    """One side as a subject sees it; the features of whole clips are computed once.

    Where tokens are averaged anyway, a vector per time step is kept in place of all tokens: hundreds of times less.
    With `places`, so are those of some places of each frame.
    """

    def __init__(
        self, s: ClipSubject, batches: ClipBatches, asked: ProbeRequest, device: torch.device, places: bool = False
    ) -> None:
        self.subject, self.encoder, self.batches, self.device = s, s.encoder, batches, device
        self.layers = None if s.plain else asked.layers
        self.pooling = "flatten" if s.plain else asked.pooling
        self.with_places = places and not s.plain
        self._found: Features | None = None
        self._dim = 0
        self._labelled: Labelled | None = None

    def steps(self) -> Features:
        """(N, t, D): the tokens of each time step averaged."""
        found = self._both()
        return replace(found, z=found.z[..., : self._dim])

    def places(self) -> Features:
        """(N, t, P D): the tokens of each time step averaged over P places of the frame; raw pixels as they are."""
        found = self._both()
        return replace(found, z=found.z[..., self._dim :]) if self.with_places else found

    def _both(self) -> Features:
        if self._found is None:
            self._found = Labelled(self._by_step, self.batches, device=self.device).tokens()
        return self._found

    def _by_step(self, clips: Tensor) -> Tensor:
        out, times = self.encoder(clips), self.subject.times
        if out.dim() != 3 or out.shape[1] % times:
            times = 1
        mean = pooled_frames(out, times)
        self._dim = mean.shape[-1]
        if not self.with_places:
            return mean
        side = isqrt(out.shape[1] // times) if out.dim() == 3 else 0
        square = side > 0 and side * side * times == out.shape[1]
        return torch.cat([mean, in_place(out, (times, side, side)) if square else mean], -1)

    def labelled(self, kind: str) -> Features | Labelled:
        """What a probe of pictures is given."""
        if self.pooling == "mean" and self.layers is None and not kind.startswith("attentive"):
            return self.steps()
        if self._labelled is None:
            self._labelled = Labelled(
                self.encoder, self.batches, layers=self.layers, pooling=self.pooling, device=self.device
            )
        return self._labelled


def moved(whole: tuple[Seen, Seen], seed: int) -> list[dict[str, Any]]:
    """R2 of what moves: from the mean token of each time step, from those of the whole clip behind one another, and
    from each step's tokens averaged over some places, which say where in the frame they are."""
    found = [x.steps() for x in whole]
    truth = [motion(x.batches.factors(f.index.cpu().numpy()) or {}) for x, f in zip(whole, found, strict=True)]
    names = truth[0][0]
    rows: list[dict[str, Any]] = []
    times = found[0].z.shape[1]
    placed = [x.places() for x in whole]
    ways = [("whole clip", found, 1)]
    if times > 1:
        ways = [("per step", found, times), *ways, ("per step, in place", placed, times)]
    for words, seen, count in ways:
        for group in groups(names):
            sides_of = []
            for f, (_, values) in zip(seen, truth, strict=True):
                asked = values[..., group]
                known = asked.isfinite().all(-1).all(-1)
                z = f.z.cpu()[known]
                sides_of += [z if count > 1 else z.flatten(1), asked[known]]
            told = trajectory(*sides_of, times=count, names=[names[i] for i in group], seed=seed)
            rows += [{**row, "name": f"{row['name']}, {words}"} for row in told.rows()]
    return rows


def groups(names: Sequence[str]) -> list[list[int]]:
    """Variables that are known of the same clips: those of all, and those of the first object."""
    first = [i for i, name in enumerate(names) if name.endswith("of the first")]
    rest = [i for i in range(len(names)) if i not in first]
    return [rest, first] if first else [rest]


def speed(s: ClipSubject, on: ClipSides, asked: ProbeRequest, batch_size: int, device: torch.device) -> dict[str, Any]:
    """Which of three strides a clip was cut with; on shorter clips where the videos have no room for the longest."""
    p = s.preprocess
    shortest = min(
        int(x.source.lengths[x.rows].min()) for x in on.batches(p, batch_size, device)
    )  # fmt: skip
    tubelet = p.frames // s.times
    frames = min(p.frames, ((shortest - 1) // max(STRIDES) + 1) // tubelet * tubelet)
    if frames < 2:
        least = max(STRIDES) * (2 * tubelet - 1) + 1
        raise ValueError(f"videos must have {least} frames for kinds=speed, got {shortest}. Leave it out.")
    view = ClipView(frames=(frames - 1) * max(STRIDES) + 1, stride=1)
    layers, pooling = (None, "flatten") if s.plain else (asked.layers, asked.pooling)
    a, b = (
        Labelled(
            s.encoder, at_speeds(x, frames=frames, strides=STRIDES, seed=asked.seed), layers=layers, pooling=pooling,
            device=device,
        )
        for x in on.batches(p, batch_size, device, view)
    )  # fmt: skip
    row = one_row("speed", linear(a, b, seed=asked.seed).as_dict())
    row["settings"] |= {"strides": list(STRIDES), "frames": frames}
    return row


def one_row(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """The headline of a linear probe under the name of what it was asked."""
    return {k: v for k, v in found.items() if k not in ("name", "parts")} | {"name": f"{kind} (linear)"}
