"""How many steps a run has."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from openjepa.train.folder import write_whole
from openjepa.train.launch import from_first
from openjepa.train.run import Budget

SETTLE, TIMED = 5, 20  # steps that are not timed, and steps that are
UNKNOWN = 1_000_000_000  # stands for the length while it is being measured: schedules stay at their start
LOOKS, SAVES = 40, 20  # by default


class Length:
    """The number of steps: known from the start, or fixed once after the first steps were timed.

    A budget in minutes is measured: after SETTLE steps, TIMED steps are timed (fewer when they take a tenth of the
    budget), and so is one look. Until then `at(step)` is UNKNOWN, so the rate stands at the start of its warm-up. The
    result is written to `budget.json` in the run folder and read back ever after: nothing is measured twice.
    """

    def __init__(self, budget: Budget, steps_per_epoch: int, folder: Path) -> None:
        self.file = folder / "budget.json"
        self.seconds = 60 * budget.minutes if budget.minutes else None
        self.total: int | None = budget.steps
        self.fixed_at = 0
        self._first: int | None = None
        self._mark = (0, 0.0)
        if budget.epochs:
            self.total = max(1, round(budget.epochs * steps_per_epoch))
        kept = from_first(json.loads(self.file.read_text()) if self.seconds and self.file.exists() else None)
        if kept:
            self.total, self.fixed_at = kept["steps"], kept["fixed_at"]
        if self.total is None and self.seconds is None:
            raise ValueError("budget must name one of steps, epochs or minutes, got none. Do budget.epochs=100.")

    def at(self, step: int) -> int:
        """The total that step number `step` (from 0) is told."""
        return UNKNOWN if self.total is None or step < self.fixed_at else self.total

    def measured(self, step: int, elapsed: float, device: torch.device) -> float | None:
        """Call after every step: seconds per step once they are known, until the length is fixed."""
        if self.total is not None or self.seconds is None:
            return None
        if self._first is None:
            self._first = step - 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed, now = from_first((elapsed, time.perf_counter()))  # all processes decide alike
        done, late = step - self._first, elapsed > 0.1 * self.seconds
        if done == 1 or (done <= SETTLE and not late):
            self._mark = (step, now)
            return None
        return (now - self._mark[1]) / (step - self._mark[0]) if late or done >= SETTLE + TIMED else None

    def fix(self, step: int, elapsed: float, step_seconds: float, look_seconds: float) -> int:
        """Decide the total: what fits in the time left after the looks, which get at most half of it."""
        assert self.seconds is not None
        left = self.seconds - elapsed
        left = max(left - LOOKS * look_seconds, 0.5 * left)
        self.total, self.fixed_at = from_first((step + max(1, int(left / step_seconds)), step))
        return self.total


def keep(length: Length) -> None:
    """Write `budget.json`, whole or not at all."""
    write_whole(length.file, json.dumps({"steps": length.total, "fixed_at": length.fixed_at}) + "\n")
