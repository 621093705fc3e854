"""A verdict in plain words from the rows of metrics.jsonl: is this run healthy, and if not, what should change?

A pure function of the rows: no model, no files, no state. The rules and their limits are in `openjepa.probe.symptoms`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from openjepa.probe.symptoms import LIMITS, RULES, Facts, Name, Row


@dataclass(frozen=True)
class Verdict:
    """What a run's numbers say.

    name      one of seven; the gravest that the evidence supports
    evidence  sentences with the numbers, the deciding one first
    advice    what to change, each sentence naming the setting
    step      where the alarm that stands now was first raised; None without an alarm
    """

    name: Name
    evidence: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    step: int | None = None

    @property
    def alarm(self) -> bool:
        return self.name not in ("healthy", "too early to say")

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "evidence": self.evidence, "advice": self.advice, "step": self.step}

    def __str__(self) -> str:
        since = "" if self.step is None else f" (first seen at step {self.step})"
        lines = [f"{self.name}{since}"]
        lines += [f"  - {e}" for e in self.evidence] + [f"  > {a}" for a in self.advice]
        return "\n".join(lines)


def verdict(history: Sequence[Row]) -> Verdict:
    """What the rows of metrics.jsonl say about the run, up to their last.

    history  rows in order of step; those of looks carry `health/...`, the others only the loss and the like

    >>> verdict([{"step": 1, "loss": 0.5}]).name
    'too early to say'
    >>> rows = [{"step": s, "loss": 0.5 / (1 + s), "health/spread": 0.5 * 0.6**s} for s in range(9)]
    >>> print(verdict(rows))
    collapsed (first seen at step ...)
      - Spread of the features is 0.0084, 0.5 at the random start: all pictures look the same to the encoder.
      ...
    """
    found = _judge(history)
    return found if not found.alarm else replace(found, step=alarm_step(history))


def alarm_step(history: Sequence[Row]) -> int | None:
    """Where the alarm that stands at the end was first raised: the first step from which every prefix of the history
    has one. None when the history ends without an alarm.
    """
    ends = [i + 1 for i, row in enumerate(history) if "health/spread" in row or not _finite_loss(row)]
    if not ends or not _judge(history).alarm:
        return None
    step = None
    for end in reversed(ends):
        if not _judge(history[:end]).alarm:
            break
        step = int(history[end - 1]["step"])
    return int(history[-1]["step"]) if step is None else step


def first_alarm(history: Sequence[Row]) -> int | None:
    """The first step at which a prefix of the history gives an alarm, even if it is taken back later."""
    for i, row in enumerate(history):
        if ("health/spread" in row or not _finite_loss(row)) and _judge(history[: i + 1]).alarm:
            return int(row["step"])
    return None


def _finite_loss(row: Row) -> bool:
    return math.isfinite(row.get("loss", 0.0))


def _judge(history: Sequence[Row]) -> Verdict:
    f = Facts(history)
    early = len(f.looks) < LIMITS["looks"].value
    for name, rule in RULES[:1] if early else RULES:
        found = rule(f)
        if found:
            return Verdict(name, *found)
    if early:
        wait = "Wait, or look more often (`log.look`)." if f.rows else "Train first."
        if f.rows and not f.looks:
            wait = f"{wait} A run on fewer than 32 pictures, videos or windows is not looked at."
        return Verdict("too early to say", [f"There are {len(f.looks)} looks so far."], [wait])
    return Verdict("healthy", _well(f))


def _well(f: Facts) -> list[str]:
    spread, rank = (f.now("health/spread"), f.start("health/spread")), (f.now("health/rank"), f.start("health/rank"))
    out = [
        f"Spread of the features is {spread[0]:.2g}, {spread[1]:.2g} at the random start.",
        f"They use {rank[0]:.1f} directions above the noise floor, {rank[1]:.1f} at the start.",
    ]
    if "health/knn" in f.last:
        pixels = f", {f.now('health/knn_pixels'):.0%} for raw pixels" if "health/knn_pixels" in f.last else ""
        out.append(f"kNN accuracy is {f.now('health/knn'):.0%}, {f.start('health/knn'):.0%} at the start{pixels}.")
    if "health/unexplained" in f.last:
        out.append(f"The prediction leaves {f.now('health/unexplained'):.0%} of the target unexplained.")
    if f.high("health/trivial_r2") > LIMITS["trivial"].value:
        share = f.now("health/trivial_r2")
        out.append(
            f"Mean colour and contrast explain {share:.0%} of the features: there may be little else in them yet."
        )
    return out
