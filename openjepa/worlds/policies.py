"""Ways to act on any world: the floors (zero, random) and smoother noise for collecting.

A policy acts on n worlds at once and may remember them from one call to the next: make one per batch of episodes, or
call `restart` when episodes begin anew.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import Any

import numpy as np


class WorldPolicy(ABC):
    """A `Policy` of one world. Without `rng` it draws from its own generator, seeded with `seed`."""

    def __init__(self, world: Any, seed: int = 0) -> None:
        self.world, self.own = world, np.random.default_rng(seed)
        self.memory: np.ndarray | None = None

    def restart(self) -> None:
        """Forget: the next call begins new episodes."""
        self.memory = None

    def act(self, states: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Actions for `states`, (n, P) -> (n, A); indices where the world's actions are discrete."""
        states = np.asarray(states, np.float64)
        rng = rng or self.own
        if self.memory is None:
            self.memory = self.begin(states, rng)
        elif len(self.memory) != len(states):
            raise ValueError(
                f"states must have the {len(self.memory)} rows that this policy remembers, got {len(states)}. "
                "Call restart() when episodes begin anew, or make another policy."
            )
        return self.choose(states, rng)

    def begin(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What to remember of each world at the start of its episode, one row each."""
        return np.zeros((len(states), 0))

    @abstractmethod
    def choose(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...


class Zero(WorldPolicy):
    """Does nothing: a zero, clipped to the bounds; the first choice where actions are discrete."""

    def choose(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n, world = len(states), self.world
        if world.discrete is not None:
            return np.zeros((n, 1), np.int64)
        return np.broadcast_to(np.clip(0.0, world.low, world.high), (n, world.action)).copy()


class Random(WorldPolicy):
    """Uniform within the bounds of actions, anew at every step."""

    def choose(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n, world = len(states), self.world
        if world.discrete is not None:
            return rng.integers(0, world.discrete, (n, 1))
        return rng.uniform(world.low, world.high, (n, world.action))


class OrnsteinUhlenbeck(WorldPolicy):
    """Noise with a memory, for worlds whose inertia averages white noise away.

        a <- a - theta a + sigma sqrt(2 theta - theta^2) xi,   xi ~ N(0, 1), in units of half the range of actions

    so that a keeps the spread `sigma` and forgets over 1 / theta steps; clipped to the bounds. Where actions are
    discrete, a choice is kept for a geometric number of steps with mean 1 / theta.
    """

    theta, sigma = 0.15, 0.6

    def begin(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.world.discrete is not None:
            return rng.integers(0, self.world.discrete, (len(states), 1))
        return self.sigma * rng.standard_normal((len(states), self.world.action))

    def choose(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        a, world = self.memory, self.world
        assert a is not None
        if world.discrete is not None:
            fresh = rng.random((len(a), 1)) < self.theta
            self.memory = np.where(fresh, rng.integers(0, world.discrete, a.shape), a)
            return a
        kick = self.sigma * np.sqrt(2 * self.theta - self.theta**2) * rng.standard_normal(a.shape)
        self.memory = (1 - self.theta) * a + kick
        return np.clip((world.low + world.high) / 2 + a * (world.high - world.low) / 2, world.low, world.high)


class NoisyExpert(WorldPolicy):
    """The world's own expert with spells at random, for data that goes somewhere and strays from the way.

    At each step a world that follows the expert begins to stray with probability `stray`, and one that strays goes back
    with probability `back`: a third of the time it strays, for 5 steps on average. Straying is `OrnsteinUhlenbeck`.
    """

    stray, back = 0.1, 0.2

    def __init__(self, world: Any, seed: int = 0) -> None:
        super().__init__(world, seed)
        place = world.scripted["expert"]
        module, _, name = place.partition(":")
        self.expert: WorldPolicy = getattr(importlib.import_module(module), name)(world, seed)
        self.noise = OrnsteinUhlenbeck(world, seed)

    def restart(self) -> None:
        super().restart()
        self.expert.restart()
        self.noise.restart()

    def begin(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.random(len(states)) < self.stray / (self.stray + self.back)

    def choose(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        strays = self.memory
        assert strays is not None
        known, free = self.expert.act(states, rng), self.noise.act(states, rng)
        self.memory = np.where(strays, rng.random(len(strays)) >= self.back, rng.random(len(strays)) < self.stray)
        return np.where(strays[:, None], free, known)


class Steered(WorldPolicy):
    """A policy that is going somewhere: to the goals given to `aim`, else to random goals of the world, one by one.

    `reaches` says who has arrived; they get a new goal unless the goals were given.
    """

    given: np.ndarray | None = None

    def aim(self, goals: np.ndarray) -> Steered:
        """Go to these goals, (n, P), and stay there."""
        self.given = np.asarray(goals, np.float64)
        self.restart()
        return self

    def begin(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.given is not None and len(self.given) != len(states):
            raise ValueError(f"states must have {len(self.given)} rows as the goals have, got {len(states)}. Aim anew.")
        return self.world.goals(states, rng) if self.given is None else self.given

    def choose(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        goals = self.memory
        assert goals is not None
        if self.given is None:
            there = self.reaches(states, goals)
            if there.any():
                goals = goals.copy()
                goals[there] = self.begin(states[there], rng)
                self.memory = goals
        return self.steer(states, goals, rng)

    def reaches(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return self.world.reached(states, goals)

    @abstractmethod
    def steer(self, states: np.ndarray, goals: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...
