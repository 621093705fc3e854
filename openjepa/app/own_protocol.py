"""A protocol for a world that has none: goals that were reached in episodes which training never saw.

Start and goal are states of one held-out episode, `ahead` steps apart, so that the goal can be reached; success means
every variable within a share of its spread over the training episodes. A plan is for `ahead` steps, is judged by where
it ends, and is taken whole before the next look, of which there are two: a state that was passed through (a swing, a
jump) can be met but not held, and a horizon that moves along would always meet it later. The file says so, and is kept
with the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from openjepa.app.dreaming import Dreamer
from openjepa.app.requests import PlanRequest
from openjepa.plan.judge import JudgeConfig, spreads
from openjepa.plan.protocol import Protocol
from openjepa.plan.replay import can_replay
from openjepa.worlds.base import World

AHEAD, TOLERANCE = 25, 0.2
SAMPLES, ITERATIONS, ELITES = 200, 6, 20
TRIED, STEPS = 32, 100  # random episodes of the world, for spreads, where the files have no states


def own_protocol(found: Dreamer, world: World, asked: PlanRequest) -> Protocol:
    """The protocol for `world`: pairs from held-out episodes where their states are known and the world can be put
    into them, else the world's own starts and goals."""
    states = known_states(found, world)
    pairs = asked.pairs or ("held_out" if states is not None and can_start(world) else "world")
    if pairs == "held_out":
        if states is None:
            raise ValueError(
                f"pairs must be world for {found.run.path}, got held_out: no states of {world.name} in its episodes."
            )
        require_settable(world)
    ahead = asked.ahead or middling(states, found.skip)
    rule, of = rule_for(found, world, states, asked.tolerance or TOLERANCE)
    discrete = world.discrete is not None
    horizon = max(2, -(-ahead // found.skip))
    planner: dict[str, Any] = {"name": "cem", "horizon": horizon, "samples": SAMPLES, "iterations": ITERATIONS,
                               "elites": ELITES}  # fmt: skip
    if discrete:
        planner = {"name": "categorical", "horizon": horizon, "samples": SAMPLES, "iterations": ITERATIONS}
    return Protocol.model_validate(
        {
            "name": world.name.replace(":", "-").replace("/", "-"),
            "about": about(pairs, ahead, rule, of),
            "world": {"name": world.name},
            "pairs": pairs,
            "ahead": ahead if pairs == "held_out" else None,
            "episodes": 200,
            "budget": asked.budget or 2 * ahead,
            "skip": found.skip,
            "take": horizon,
            "judge": rule.model_dump(),
            "cost": {"over": "last"},
            "planner": planner,
            "tune": {"first": 100_000},
            "report": {"first": 200_000, "count": 10_000},
        }
    )


def about(pairs: str, ahead: int, rule: JudgeConfig, of: str) -> str:
    far = f"the state {ahead} steps later in the same held-out episode"
    if pairs == "world":
        far = "the world's own, from its own starts"
    return f"Goals: {far}. {rule.sentence().capitalize()} ({rule.tolerance:g} of the spread over {of})."


def can_start(world: World) -> bool:
    """Whether an episode can begin in the state of another one: set, or come to by its seed and actions."""
    return bool(getattr(world, "settable", True)) or can_replay(world)


def require_settable(world: World) -> None:
    if not can_start(world):
        raise ValueError(
            f"pairs must be world for {world.name}, which cannot be put into a state, got held_out. "
            "Leave pairs out, or give the environment get_state() and set_state(row)."
        )


def known_states(found: Dreamer, world: World) -> Mapping[str, np.ndarray] | None:
    """States (T, P) of `world` in the held-out episodes, by name: theirs, or their observations where these are the
    state; None where neither fits."""
    return states_of(found, world, found.split.held)


def states_of(found: Dreamer, world: World, which: np.ndarray) -> Mapping[str, np.ndarray] | None:
    episodes, wide = found.episodes, len(world.names)
    own = episodes.state.shape[1] > 0
    seen_whole = tuple(getattr(world, "obs_names", ())) == tuple(world.names) and not episodes.pictures
    rows = episodes.state if own else episodes.obs
    if not (own or seen_whole) or rows.shape[1:] != (wide,):
        return None
    found_rows = ((i, episodes[int(i)]) for i in which)
    return {episodes.names[i]: np.asarray(e.state if own else e.obs, np.float64) for i, e in found_rows}


def middling(states: Mapping[str, np.ndarray] | None, skip: int) -> int:
    """Steps from start to goal: 25, or a third of the shortest episodes where these are short; whole model steps."""
    longest = AHEAD if states is None else min(AHEAD, max(1, max(len(s) for s in states.values()) // 3))
    return max(skip, longest // skip * skip)


def rule_for(
    found: Dreamer, world: World, states: Mapping[str, np.ndarray] | None, tolerance: float
) -> tuple[JudgeConfig, str]:
    """The success rule, and what its spreads were measured on."""
    if states is not None:
        learnt = states_of(found, world, found.split.train)
        assert learnt is not None
        return spreads(np.concatenate(list(learnt.values())), world.names, tolerance=tolerance), "training episodes"
    rng = np.random.default_rng(0)
    rows = [world.reset(TRIED, rng)]
    for _ in range(STEPS):
        rows.append(world.step(rows[-1], random_actions(world, TRIED, rng)))
    return spreads(np.concatenate(rows), world.names, tolerance=tolerance), "random episodes of the world"


def random_actions(world: World, n: int, rng: np.random.Generator) -> np.ndarray:
    if world.discrete is not None:
        return rng.integers(0, world.discrete, (n, 1))
    return rng.uniform(world.low, world.high, (n, world.action))
