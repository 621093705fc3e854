"""`openjepa plan RUN`: goals that a world model reaches by planning, beside what no model and a perfect one reach."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from openjepa.app.cost_heads import heads_for
from openjepa.app.dreaming import Dreamer, dreamer
from openjepa.app.looking import look_at
from openjepa.app.own_protocol import known_states, own_protocol, random_actions
from openjepa.app.requests import LookRequest, PlanRequest
from openjepa.app.runs import Run
from openjepa.app.single import Given, Points, plan_blind, plan_shown
from openjepa.config import merge, parse
from openjepa.plan.cost import CostConfig
from openjepa.plan.evaluate import ROWS, Result, settings_of
from openjepa.plan.film import require_codec
from openjepa.plan.protocol import Protocol, load_protocol, protocols
from openjepa.plan.replay import can_replay, replayed
from openjepa.plan.whole import run_protocol
from openjepa.train.launch import resolve_device
from openjepa.train.memory import keep_freed_memory
from openjepa.worlds.base import World

OWN = ("pairs", "ahead", "budget", "tolerance")  # what changes a protocol that is made for a run
LIBRARY = "gym:"  # worlds of others: what reaching means in them is not known
CEILING, FEWEST = 20.0, 5  # seconds of the planner on a slow simulator, about, and its pairs at least


def plan_run(run: Run, asked: PlanRequest) -> dict[str, Any]:
    """Plan with a run as asked, and write its report anew; the numbers are returned."""
    if asked.film != "gif" and asked.films:
        require_codec()
    result = planned(run, asked)
    return {**result, "report": look_at(run, LookRequest())["report"]}


def planned(run: Run, asked: PlanRequest) -> dict[str, Any]:
    """Measure a run under a protocol; everything goes to RUN/plan/NAME."""
    keep_freed_memory()  # imagined futures are large, and many follow each other
    found = dreamer(run, resolve_device(asked.device))
    named = {**({"name": asked.world} if asked.world else {}), **asked.settings}
    if (asked.start is not None or asked.goal is not None) and not (named or found.preprocess.get("world")):
        return plan_blind(found, asked)
    world = found.world(named or None)
    protocol = costed(chosen(found, asked, world), asked)
    points = Points.of(asked, world)
    if points.shown:
        return plan_shown(found, world, protocol, points, asked)
    if points.given:
        protocol = one_pair(protocol, asked)
        world = cast(World, Given(world, points.start, points.goal))
    held, notes = held_out(found, world) if protocol.pairs == "held_out" else (None, [])
    out = Path(asked.out) if asked.out else run.path / "plan" / protocol.name
    episodes = 1 if points.start is not None and points.goal is not None else asked.episodes
    try:
        result = run_protocol(
            found.model, found.preprocess, world, protocol, asked.planner or None, out=out, skip=found.skip,
            split=asked.split, episodes=episodes, held_out=held, controls=asked.controls,
            ceiling_episodes=asked.ceiling or worth(world, protocol, found.skip, asked), seed=asked.seed,
            device=found.device, films=asked.films, film=asked.film, heads=heads_for(found, protocol.cost),
            tell=lambda row: tell(f"measuring: {ROWS[row]}"), notes=notes,
        )  # fmt: skip
    except KeyboardInterrupt as e:
        tell(str(e))
        raise
    said = {"about": became(result)} if len(result.manifest) == 1 and points.given else remark(result)
    return {"run": str(run.path), "out": str(out), **result.as_dict(), "table": result.table(), **said}


def remark(result: Result) -> dict[str, str]:
    """A warning where acting blindly does as well as the plan: then nothing is shown."""
    rows = result.values["rows"]
    own = rows["model"][result.values["headline"]]
    blind = [k for k in ("zero", "random") if k in rows and rows[k][result.values["headline"]]["rate"] >= own["rate"]]
    if not blind or not own["count"]:
        return {}
    return {
        "remark": f"This shows nothing of the model: {' and '.join(ROWS[k] for k in blind)} came to as many goals. "
        "Choose a smaller tolerance, another ahead, or episodes of a policy that goes somewhere."
    }


def became(result: Result) -> str:
    """Of one episode: whether and when the goal was reached."""
    happened = result.drives["model"]
    reached, far = happened.reached[0], happened.distance[0]
    if not reached.any():
        return f"The goal was not reached: {far[0]:.3g} away first, nearest {far.min():.3g}, at the end {far[-1]:.3g}."
    held = "and it was there at the end" if reached[-1] else "and was left again"
    return f"The goal was reached after {int(reached.argmax())} steps, {held}."


def tell(words: str) -> None:
    """What is going on, for somebody who waits."""
    print(words, file=sys.stderr, flush=True)


def held_out(found: Dreamer, world: World) -> tuple[Mapping[str, np.ndarray], list[str]]:
    """States of held-out episodes, and what is to be said of them; or a `ValueError` that says why there are none."""
    states = known_states(found, world)
    states = found.held_out_states() if states is None else states
    if getattr(world, "settable", True) or not can_replay(world):
        return states, []
    tell(f"replaying: {len(states)} held-out episodes, to begin where they were")
    named = {found.episodes.names[i]: found.episodes[int(i)].action for i in found.split.held}
    return replayed(world, states, named)


def costed(protocol: Protocol, asked: PlanRequest) -> Protocol:
    """The protocol with the cost that was asked for."""
    if not asked.cost:
        return protocol
    cost = parse(CostConfig, merge(protocol.cost.model_dump(), asked.cost))
    what = ", ".join(f"{k}={v}" for k, v in asked.cost.items())
    return protocol.model_copy(
        update={"cost": cost, "differences": [*protocol.differences, f"The cost is another one: {what}."]}
    )


def one_pair(protocol: Protocol, asked: PlanRequest) -> Protocol:
    """The protocol for a start or a goal of one's own."""
    if protocol.pairs == "world":
        return protocol
    if asked.protocol is not None:
        raise ValueError(f"start and goal must be left to {protocol.name}, which takes them from held-out episodes.")
    return protocol.model_copy(update={"pairs": "world", "ahead": None, "name": f"{protocol.name}-given"})


def worth(world: World, protocol: Protocol, skip: int, asked: PlanRequest) -> int | None:
    """Pairs that a planner on a slow simulator gets in about twenty seconds; None for all of them.

    Only worlds that step one state at a time (`serial`) are slow enough to ask.
    """
    measured = "simulator" in asked.controls and getattr(world, "settable", True)
    if not getattr(world, "serial", False) or not measured:
        return None
    cfg: Any = protocol.search(asked.planner or None, skip=skip)
    search = getattr(cfg, "cem", cfg)
    plans = -(-protocol.budget // (skip * min(protocol.takes(skip), search.horizon)))
    steps = plans * search.horizon * skip * search.samples * getattr(search, "iterations", 1)
    rng = np.random.default_rng(0)
    states, begin = world.reset(1, rng).repeat(100, 0), time.process_time()
    world.step(states, random_actions(world, 100, rng))
    return max(FEWEST, int(CEILING / (steps * (time.process_time() - begin) / 100)))


def chosen(found: Dreamer, asked: PlanRequest, world: World) -> Protocol:
    """The protocol that was asked for, else the one shipped for this world, else one of its own; in `world` as it is.

    A run on other settings of the world (33 pixels instead of 65) keeps its own: the protocol's hash then differs from
    the shipped one, and `differences` says why.
    """
    own = {k: v for k in OWN if (v := getattr(asked, k)) is not None}
    settings = settings_of(world)
    shipped = [load_protocol(name) for name in protocols()]
    fitting = sorted(
        (p for p in shipped if p.world["name"] == world.name and p.pairs == "world"),
        key=lambda p: (len(unlike(p, settings)), p.name),
    )
    if asked.protocol is not None:
        protocol = load_protocol(asked.protocol)
        if own:
            raise ValueError(
                f"{', '.join(own)} must be left to {protocol.name}, got {pairs_of(own)}. "
                "Leave protocol out, or write a JSON file of your own."
            )
    elif fitting and not own:
        protocol = fitting[0]
    elif world.name.startswith(LIBRARY) or own:
        protocol = own_protocol(found, world, asked)
    else:
        protocol = plain(world)
    changed = unlike(protocol, settings)
    if not changed:
        return protocol
    what = ", ".join(f"{k}={settings[k]} instead of {v}" for k, v in changed.items())
    return protocol.model_copy(
        update={"world": {**protocol.world, **{k: settings[k] for k in changed}},
                "differences": [*protocol.differences, f"The world of the run is another one: {what}."]}
    )  # fmt: skip


def unlike(protocol: Protocol, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a protocol says of its world that is not so in a world of these settings."""
    return {k: v for k, v in protocol.world.items() if k != "name" and settings.get(k, v) != v}


def pairs_of(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in values.items())


def plain(world: World) -> Protocol:
    """For a world of ours without a protocol: its own starts, goals and success, CEM, 100 steps."""
    discrete = world.discrete is not None
    planner = {"name": "categorical" if discrete else "cem", "horizon": 12, "samples": 200, "iterations": 6}
    return Protocol.model_validate(
        {"name": world.name.replace(":", "-"), "about": "Starts and goals of the world's own.",
         "world": {"name": world.name}, "budget": 100, "take": 2, "cost": {"over": "sum"},
         "planner": planner if discrete else {**planner, "elites": 20},
         "tune": {"first": 100_000}, "report": {"first": 200_000, "count": 10_000}}
    )  # fmt: skip
