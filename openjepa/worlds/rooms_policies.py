"""Scripted ways through Two Rooms: an aimless walk, an expert that finds the door, and some that keep near the wall."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from openjepa.worlds.policies import Steered, WorldPolicy

MEAN, STD, LOW, HIGH = 1.0, 0.4, 0.2, 1.8  # px of 65: published lengths of steps, a normal distribution cut to a range
KAPPA = 5.0  # concentration of the published turns, 1 / 0.2


def lengths(n: int, rng: np.random.Generator) -> np.ndarray:
    """N(MEAN, STD) given that it falls in [LOW, HIGH]; every twentieth draw falls outside and is drawn again."""
    values = MEAN + STD * rng.standard_normal(n)
    while (bad := (values < LOW) | (values > HIGH)).any():
        values[bad] = MEAN + STD * rng.standard_normal(int(bad.sum()))
    return values


def towards(angle: np.ndarray, length: np.ndarray) -> np.ndarray:
    return length[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)


class AnyStep(WorldPolicy):
    """Uniform in the disc of actions."""

    def choose(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n = len(states)
        return towards(rng.uniform(0, 2 * np.pi, n), self.world.high[0] * np.sqrt(rng.random(n)))


class Walk(WorldPolicy):
    """The published random walk: a uniform heading, turned at each step by a von Mises angle (concentration 5);
    lengths from N(1, 0.4) cut to [0.2, 1.8] px of 65."""

    def begin(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(0, 2 * np.pi, len(states))

    def choose(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        assert self.memory is not None
        action = towards(self.memory, self.world.unit * lengths(len(states), rng))
        self.memory = np.mod(self.memory + rng.vonmises(0, KAPPA, len(states)), 2 * np.pi)
        return action


class Expert(Steered):
    """Walks to its goal, by way of the door where the goal is in the other room, with noise in heading and length.

    Steps are `pace` of the longest action, shorter when the next point is nearer. Goals that it sets itself are in the
    other room, so it crosses again and again.
    """

    pace, wobble = (0.4, 1.0), 12.0  # range of a step in shares of the longest one; concentration of the heading

    def reaches(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return self.world.distance(states, goals) < 2 * self.world.unit

    def steer(self, states: np.ndarray, goals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        gap = waypoint(self.world, states, goals) - states[:, :2]
        heading = np.arctan2(gap[:, 1], gap[:, 0]) + rng.vonmises(0, self.wobble, len(gap))
        step = self.world.high[0] * rng.uniform(*self.pace, len(gap))
        return towards(heading, np.minimum(step, np.linalg.norm(gap, axis=-1)))


class Door(Expert):
    """Goes back and forth through the door: its goals are 2 to 9 px of 65 behind it, on either side in turn.

    Windows of its episodes are rich in crossings, which a walk seldom makes; use it beside the walk, not instead.
    """

    pace, wobble = (0.2, 1.0), 6.0

    def begin(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.given is not None:
            return super().begin(states, rng)
        goals = states.copy()
        goals[:, 0] = beyond(self.world, states, rng.uniform(2, 9, len(states)))
        goals[:, 1] = states[:, 3] + self.world.unit * rng.uniform(-8, 8, len(states))
        return inside(self.world, goals)


class Flank(Expert):
    """As `expert`, but seven in ten of its goals are 1 to 9 px of 65 behind the wall, anywhere along it.

    Its episodes see both sides of the wall from near by, with the way round between: what a count of steps learns there
    is that three pixels of wall are far (`cost.reach.policy`).
    """

    near = 0.7

    def begin(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        goals = super().begin(states, rng)
        if self.given is not None:
            return goals
        n = len(states)
        goals[:, 0] = np.where(rng.random(n) < self.near, beyond(self.world, states, rng.uniform(1, 9, n)), goals[:, 0])
        return inside(self.world, goals)


class Straight(WorldPolicy):
    """Runs straight ahead at any speed, into walls too, and turns to a new heading every twelfth step or so.

    Half of the headings lead towards the other room. A walk seldom leans on a wall and an expert never does, so that
    without these a model learns that a wall is no obstacle.
    """

    turn = 1 / 12

    def begin(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n = len(states)
        across = np.where(states[:, 0] < states[:, 2], 0.0, np.pi) + rng.uniform(-1, 1, n)
        return np.where(rng.random(n) < 0.5, across, rng.uniform(0, 2 * np.pi, n))

    def choose(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        assert self.memory is not None
        n = len(states)
        self.memory = np.where(rng.random(n) < self.turn, self.begin(states, rng), self.memory)
        return towards(self.memory + 0.1 * rng.standard_normal(n), self.world.high[0] * rng.uniform(0.3, 1, n))


class Mixed(WorldPolicy):
    """Half of the worlds `walk`, the other half go back and forth by `door`: everywhere is seen, and the door often."""

    parts: ClassVar[tuple[tuple[type[WorldPolicy], float], ...]] = ((Door, 0.5), (Walk, 0.5))  # with shares of worlds

    def __init__(self, world: Any, seed: int = 0) -> None:
        super().__init__(world, seed)
        self.each = [part(world) for part, _ in self.parts]

    def begin(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for part in self.each:
            part.restart()
        upto = np.cumsum([share for _, share in self.parts])[:-1]
        return (rng.random((len(states), 1)) >= upto).sum(-1)  # which part each world keeps to

    def choose(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        assert self.memory is not None
        actions = np.stack([part.act(states, rng) for part in self.each])  # (parts, n, 2)
        return actions[self.memory, np.arange(len(states))]


class Rounds(Mixed):
    """As `mixed`, and a third of the worlds cross from room to room as `expert`: each of those sees all of its own.

    Where walls differ between worlds nothing else tells how far the two ends of one world are apart.
    """

    parts = ((Door, 1 / 3), (Walk, 1 / 3), (Expert, 1 / 3))


class Bumps(Mixed):
    """A third each of `door`, `expert` and `straight`: the way through, the way round, and what a wall is."""

    parts = ((Door, 1 / 3), (Expert, 1 / 3), (Straight, 1 / 3))


def beyond(world: Any, states: np.ndarray, far: np.ndarray) -> np.ndarray:
    """x of what is `far` (n,) px of 65 behind the wall, in the other room."""
    return states[:, 2] + np.where(states[:, 0] < states[:, 2], 1.0, -1.0) * (world.half + world.unit * far)


def inside(world: Any, states: np.ndarray) -> np.ndarray:
    """The same, with the dots moved a pixel into the room where they were nearer to the border."""
    low = world.border + world.unit
    states[:, :2] = np.clip(states[:, :2], low, world.cfg.size - 1 - low)
    return states


def waypoint(world: Any, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Where to go next on the way to the goal, (n, 2): the goal itself in the same room, else a point of the door.

    First the middle of the near mouth of the door, a pixel before it; once in front of it, a point behind it.
    """
    w, clear = world.walls(states), world.unit
    x, y = states[:, 0], states[:, 1]
    east = goals[:, 0] > states[:, 2]  # the goal lies in the east room
    passed = np.where(east, x >= w.right, x <= w.left)
    open_y = np.abs(y - states[:, 3]) < world.door - 0.5 * clear
    near = np.where(east, x >= w.left - 2 * clear, x <= w.right + 2 * clear)
    before = np.where(east, w.left - clear, w.right + clear)
    behind = np.where(east, w.right + clear, w.left - clear)
    via = np.stack([np.where(near & open_y, behind, before), states[:, 3]], -1)
    return np.where(passed[:, None], goals[:, :2], via)
