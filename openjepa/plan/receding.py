"""Receding horizon: plan, take the first actions, look again. Many episodes at once; those that are over drop out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch

from openjepa.config import Config
from openjepa.core.types import Clock
from openjepa.plan import PLANNERS
from openjepa.plan.agent import Agent
from openjepa.plan.base import Plan, pick, shift
from openjepa.plan.cost import ModelCost
from openjepa.plan.simulator import Simulator
from openjepa.worlds.base import World

Sees = Literal["obs", "state", "nothing"]


class Controller(Protocol):
    """Acts on the episodes `rows` (numbers in the batch, ascending; once gone they do not come back).

    sees  what it is shown of them: "obs", "state", or "nothing"
    """

    @property
    def sees(self) -> Sees: ...
    def act(self, rows: np.ndarray, seen: np.ndarray | None) -> np.ndarray: ...  # (n, k, a): the next k world actions


@dataclass
class Times:
    """What planning took: wall-clock and processor seconds of every call, and the episodes it was for."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    episodes: list[int] = field(default_factory=list)


class MPC:
    """Model predictive control: a planner, an agent's cost, and the goals.

    agent    looks at the world and turns latents into a cost
    goals    (n, ...) what the agent is shown as the goals, observations or states
    planner  its config; `PLANNERS[planner.name]` is used
    take     planned actions that are taken before the next look; each holds `skip` world actions
    warm     the next search starts from what is left of the last plan
    seed     of the search; each episode has its own stream, so its plans do not depend on the others
    ceiling  allows the true simulator as the model
    """

    def __init__(
        self,
        agent: Agent,
        goals: np.ndarray,
        planner: Config,
        *,
        take: int = 1,
        warm: bool = True,
        seed: int = 0,
        episodes: Sequence[int] | None = None,
        ceiling: bool = False,
    ) -> None:
        self.agent, self.cfg, self.take, self.warm, self.seed = agent, planner, take, warm, seed
        self.sees, self.ceiling = agent.sees, ceiling
        self.bounds = agent.scales.bounds().to(agent.device)
        self.numbers = np.arange(len(goals)) if episodes is None else np.asarray(episodes)
        self.goals = agent.think(goals)
        self.rows, self.plan, self.plans, self.times = np.arange(len(goals)), None, 0, Times()
        horizon = planner.horizon  # type: ignore[attr-defined]
        if not 1 <= take <= horizon:
            raise ValueError(f"take must be between 1 and the horizon {horizon}, got {take}.")

    plan: Plan | None

    def act(self, rows: np.ndarray, seen: np.ndarray | None) -> np.ndarray:
        assert seen is not None
        wall, processor = time.perf_counter(), time.process_time()
        cost = self.agent.cost(self.agent.think(seen), self.goals[torch.from_numpy(rows).to(self.goals.device)])
        if not isinstance(cost, ModelCost) or (isinstance(cost.model, Simulator) and not self.ceiling):
            raise TypeError(
                f"a planner is given the cost of a learned model, got {type(cost).__name__} of a simulator."
            )
        streams = [self.stream(int(i)) for i in self.numbers[rows]]
        init = None
        if self.warm and self.plan is not None:
            stay = torch.from_numpy(np.flatnonzero(np.isin(self.rows, rows))).to(self.bounds.low.device)
            init = pick(self.plan, stay)
        found = PLANNERS[self.cfg.name].plan(cost, self.bounds, self.cfg, streams, init=init)  # type: ignore[attr-defined]
        self.plan, self.rows, self.plans = shift(found, self.take), rows, self.plans + 1
        actions = self.agent.scales.unscale(found.actions[:, : self.take])  # (n, take, skip, a)
        self.times.wall.append(time.perf_counter() - wall)
        self.times.processor.append(time.process_time() - processor)
        self.times.episodes.append(len(rows))
        return actions.reshape(len(rows), -1, actions.shape[-1])  # (n, take * skip, a)

    def stream(self, episode: int) -> torch.Generator:
        """The randomness of one plan: a function of seed, episode and number of the plan alone."""
        return Clock(step=self.plans, seed=self.seed).generator(f"plan {episode}", self.agent.device)


class Still:
    """Takes the world's zero action: the floor for worlds that come to their goals by themselves."""

    sees: Sees = "nothing"

    def __init__(self, world: World) -> None:
        self.world = world

    def act(self, rows: np.ndarray, seen: np.ndarray | None) -> np.ndarray:
        if self.world.discrete is not None:
            return np.zeros((len(rows), 1, 1), np.int64)
        zero = np.clip(np.zeros(self.world.action), self.world.low, self.world.high)
        return np.broadcast_to(zero, (len(rows), 1, self.world.action))


class Random:
    """Uniform actions inside the bounds, new at every step; `ball` shortens them to the largest of `high`."""

    sees: Sees = "nothing"

    def __init__(self, world: World, *, seed: int = 0, ball: bool = False) -> None:
        self.world, self.rng, self.ball = world, np.random.default_rng(seed), ball

    def act(self, rows: np.ndarray, seen: np.ndarray | None) -> np.ndarray:
        if self.world.discrete is not None:
            return self.rng.integers(self.world.discrete, size=(len(rows), 1, 1))
        low, high = (np.nan_to_num(x, posinf=1.0, neginf=-1.0) for x in (self.world.low, self.world.high))
        if self.ball:  # uniform in the ball
            x = self.rng.standard_normal((len(rows), 1, self.world.action))
            radius = self.rng.random((len(rows), 1, 1)) ** (1 / self.world.action)
            return x / np.linalg.norm(x, axis=-1, keepdims=True) * radius * high.max()
        return self.rng.uniform(low, high, (len(rows), 1, self.world.action))


@dataclass(frozen=True)
class Drive:
    """What happened to n episodes in T world steps. After an episode stopped, its state stays what it was.

    states    (n, T + 1, P);  actions (n, T, a), zeros after the stop
    reached   (n, T + 1) bool, the start included;  distance (n, T + 1)
    steps     (n,) world steps that were taken
    seconds   (n,) wall-clock of planning, each call shared equally among its episodes
    """

    states: np.ndarray
    actions: np.ndarray
    reached: np.ndarray
    distance: np.ndarray
    steps: np.ndarray
    seconds: np.ndarray


def drive(
    world: World, starts: np.ndarray, goals: np.ndarray, controller: Controller, *, budget: int, stop: bool = False
) -> Drive:
    """Every episode from its start, for `budget` world steps, or until its goal is reached where `stop`.

    An episode whose state is no longer finite is over, and not reached. A world whose state cannot be set comes to the
    starts by itself (`again`).
    """
    n, again = len(starts), getattr(world, "again", None)
    starts = np.asarray(starts, np.float64) if again is None else again(starts)
    states = np.repeat(starts[:, None], budget + 1, 1)  # (n, T + 1, P)
    actions = np.zeros((n, budget, max(1, world.action) if world.discrete is not None else world.action))
    reached = np.zeros((n, budget + 1), bool)
    distance = np.zeros((n, budget + 1))
    reached[:, 0], distance[:, 0] = world.reached(states[:, 0], goals), world.distance(states[:, 0], goals)
    going = ~reached[:, 0] if stop else np.ones(n, bool)
    steps, seconds, t = np.zeros(n, int), np.zeros(n), 0
    while t < budget and going.any():
        rows = np.flatnonzero(going)
        begin = time.perf_counter()
        chosen = controller.act(rows, look(world, states[rows, t], controller.sees))
        seconds[rows] += (time.perf_counter() - begin) / len(rows)
        for action in np.swapaxes(chosen, 0, 1)[: budget - t]:  # (n, a) each
            alive = going[rows]
            now = rows[alive]
            if len(now) == 0:
                break
            actions[now, t] = action[alive]
            after = world.step(states[now, t], action[alive])
            fine = np.isfinite(after).all(1)
            broken, now, after, t = now[~fine], now[fine], after[fine], t + 1
            states[now, t:] = after[:, None]
            steps[now] += 1
            reached[:, t], distance[:, t] = reached[:, t - 1], distance[:, t - 1]
            going[broken], reached[broken, t] = False, False
            reached[now, t], distance[now, t] = world.reached(after, goals[now]), world.distance(after, goals[now])
            if stop:
                going[now[reached[now, t]]] = False
    reached[:, t + 1 :], distance[:, t + 1 :] = reached[:, t : t + 1], distance[:, t : t + 1]
    return Drive(states, actions, reached, distance, steps, seconds)


def look(world: World, states: np.ndarray, sees: str) -> np.ndarray | None:
    if sees == "nothing":
        return None
    return states if sees == "state" else world.observe(states)
