"""`openjepa plan RUN`: goals that a world model reaches by planning, beside what no model and a perfect one reach."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from openjepa.app.dreaming import dreamer
from openjepa.app.requests import PlanRequest
from openjepa.app.runs import Run
from openjepa.plan.evaluate import settings_of
from openjepa.plan.protocol import Protocol, load_protocol, protocols
from openjepa.plan.whole import run_protocol
from openjepa.train.launch import resolve_device
from openjepa.worlds.base import World


def plan_run(run: Run, asked: PlanRequest) -> dict[str, Any]:
    """Measure a run under a protocol; everything goes to RUN/plan/NAME, and the numbers are returned."""
    found = dreamer(run, resolve_device(asked.device))
    named = {**({"name": asked.world} if asked.world else {}), **asked.settings}
    world = found.world(named or None)
    protocol = chosen(asked, world)
    held = found.held_out_states() if protocol.pairs == "held_out" else None
    if asked.start is not None or asked.goal is not None:
        if protocol.pairs == "held_out":
            raise ValueError(
                f"start and goal must be left to {protocol.name}, which takes them from held-out episodes."
            )
        world = cast(World, Given(world, asked.start, asked.goal))
    out = Path(asked.out) if asked.out else run.path / "plan" / protocol.name
    episodes = 1 if asked.start and asked.goal else asked.episodes  # one pair, however often it is drawn
    result = run_protocol(
        found.model, found.preprocess, world, protocol, asked.planner or None, out=out, skip=found.skip,
        split=asked.split, episodes=episodes, held_out=held, controls=asked.controls, seed=asked.seed,
        device=found.device, films=asked.films, film=asked.film, tell=tell,
    )  # fmt: skip
    return {"run": str(run.path), "out": str(out), **result.as_dict(), "table": result.table()}


def tell(row: str) -> None:
    """Which row is being measured, for somebody who waits."""
    if sys.stderr.isatty():
        print(f"measuring: {row}", file=sys.stderr, flush=True)


def chosen(asked: PlanRequest, world: World) -> Protocol:
    """The protocol that was asked for, else the one shipped for this world, else a plain one; in `world` as it is.

    A run on other settings of the world (33 pixels instead of 65) keeps its own: the protocol's hash then differs from
    the shipped one, and `differences` says why.
    """
    shipped = {name: load_protocol(name) for name in protocols()}
    if asked.protocol is not None:
        protocol = load_protocol(asked.protocol)
    else:
        own = [p for p in shipped.values() if p.world["name"] == world.name and p.pairs == "world"]
        protocol = next(iter(sorted(own, key=lambda p: p.name)), None) or plain(world)
    settings = settings_of(world)
    changed = {k: v for k, v in protocol.world.items() if k != "name" and settings.get(k, v) != v}
    if not changed:
        return protocol
    what = ", ".join(f"{k}={settings[k]} instead of {v}" for k, v in changed.items())
    return protocol.model_copy(
        update={"world": {**protocol.world, **{k: settings[k] for k in changed}},
                "differences": [*protocol.differences, f"The world of the run is another one: {what}."]}
    )  # fmt: skip


def plain(world: World) -> Protocol:
    """For a world without a protocol of its own: its own starts and goals, CEM, 100 steps."""
    discrete = world.discrete is not None
    planner = {"name": "categorical" if discrete else "cem", "horizon": 12, "samples": 200, "iterations": 6}
    return Protocol.model_validate(
        {"name": world.name.replace(":", "-"), "about": "Starts and goals of the world's own.",
         "world": {"name": world.name}, "budget": 100, "take": 2, "cost": {"over": "sum"},
         "planner": planner if discrete else {**planner, "elites": 20},
         "tune": {"first": 100_000}, "report": {"first": 200_000, "count": 10_000}}
    )  # fmt: skip


class Given:
    """A world whose start and goal are told: everything else is the world's own."""

    def __init__(self, world: World, start: Sequence[float] | None, goal: Sequence[float] | None) -> None:
        self._world = world
        self._start, self._goal = (
            None if x is None else self._state(x, k) for x, k in ((start, "start"), (goal, "goal"))
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def _state(self, values: Sequence[float] | None, what: str) -> np.ndarray | None:
        if values is None:
            return None
        names = self._world.names
        if len(values) != len(names):
            raise ValueError(f"{what} must be {len(names)} numbers, {', '.join(names)}, got {len(values)}.")
        return np.asarray(values, np.float64)

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self._world.reset(n, rng) if self._start is None else np.tile(self._start, (n, 1))

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self._world.goals(states, rng) if self._goal is None else np.tile(self._goal, (len(states), 1))
