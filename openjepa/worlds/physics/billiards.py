"""Billiards: equal balls that collide with the walls and with one another, event after event in the order of time."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from openjepa.worlds.physics.balls import BoxConfig, BoxWorld

MOST_EVENTS = 100_000  # per step; only a jam without room to move could ask for more


class BilliardsConfig(BoxConfig):
    """`balls` of equal mass; see `BoxConfig`."""

    name: Literal["billiards"] = "billiards"
    balls: int = Field(3, ge=2, le=16)
    radius: float = Field(0.08, gt=0)

    def model_post_init(self, _: object) -> None:
        super().model_post_init(_)
        filled = self.balls * np.pi * self.radius**2 / self.size**2
        if filled > 0.4:
            raise ValueError(f"balls must fill at most 0.4 of the box, got {filled:.2f}. Take fewer or smaller balls.")


class Billiards(BoxWorld):
    """Elastic balls of 1 kg without friction or spin.

    state    x, y (m), vx, vy (m/s) of each ball
    physics  the time of the next contact (wall or pair) is solved for, all balls fly there, the contact is resolved:
             a wall turns one velocity, a pair exchanges its velocities along the line of centres. Energy is kept to
             rounding, and so is momentum in a collision. Contacts at one instant are taken one after the other.
    """

    Config = BilliardsConfig

    def __init__(self, cfg: BilliardsConfig) -> None:
        super().__init__(cfg, cfg.balls)
        self.i, self.j = np.triu_indices(cfg.balls, 1)  # the pairs

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Balls are laid one by one where there is room; whoever finds none in a hundred throws starts anew."""
        states = super().reset(n, rng)
        position, velocity = self.split(states)
        position = position.copy()
        todo, reach = np.arange(n), 2 * self.cfg.radius * 1.02
        while len(todo):
            placed = np.ones(len(todo), bool)
            for ball in range(1, self.balls):
                clash = np.ones(len(todo), bool)
                for _ in range(100):
                    rows = todo[clash]
                    position[rows, ball] = rng.uniform(self.low_wall, self.high_wall, (len(rows), 2))
                    gaps = np.linalg.norm(position[todo, :ball] - position[todo, ball, None], axis=-1)
                    clash = (gaps < reach).any(-1)
                    if not clash.any():
                        break
                placed &= ~clash
            todo = todo[~placed]
            position[todo] = rng.uniform(self.low_wall, self.high_wall, (len(todo), self.balls, 2))
        return self.join(position, velocity)

    def advance(self, states: np.ndarray, actions: np.ndarray, dt: float) -> np.ndarray:
        position, velocity = (a.copy() for a in self.split(states))
        left = np.full(len(states), float(dt))
        active = np.arange(len(states))
        for _ in range(MOST_EVENTS):
            p, v = position[active], velocity[active]
            walls, pairs = self.wall_times(p, v), self.pair_times(p, v)  # (m, balls * 2), (m, pairs)
            times = np.concatenate([walls, pairs], -1)
            event = times.argmin(-1)
            first = times[np.arange(len(active)), event]
            t = np.minimum(first, left[active])
            p += v * t[:, None, None]
            left[active] -= t
            self.resolve(p, v, event, first <= t)
            position[active], velocity[active] = p, v
            active = active[first <= t]
            if not len(active):
                return self.join(position, velocity)
        raise RuntimeError(f"billiards met {MOST_EVENTS} contacts in {dt} s: the balls are jammed")

    def wall_times(self, p: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Time until each ball meets the wall it flies to, per axis: (m, balls * 2)."""
        wall = np.where(v > 0, self.high_wall, self.low_wall)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(v != 0, np.maximum((wall - p) / v, 0), np.inf)
        return t.reshape(len(p), -1)

    def pair_times(self, p: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Time until each pair touches, |dp + dv t| = 2 r, for pairs that approach: (m, pairs)."""
        dp, dv = p[:, self.i] - p[:, self.j], v[:, self.i] - v[:, self.j]
        a, b = np.square(dv).sum(-1), (dp * dv).sum(-1)
        c = np.square(dp).sum(-1) - (2 * self.cfg.radius) ** 2
        root = b * b - a * c
        meets = (b < 0) & (root >= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.maximum(c, 0) / (-b + np.sqrt(np.maximum(root, 0)))  # the earlier root, without cancellation
        return np.where(meets, t, np.inf)

    def resolve(self, p: np.ndarray, v: np.ndarray, event: np.ndarray, happens: np.ndarray) -> None:
        """Turn the velocities of the one contact of each world, in place."""
        walls = 2 * self.balls
        rows = np.nonzero(happens & (event < walls))[0]
        ball, axis = event[rows] // 2, event[rows] % 2
        p[rows, ball, axis] = np.where(v[rows, ball, axis] > 0, self.high_wall, self.low_wall)
        v[rows, ball, axis] *= -1
        rows = np.nonzero(happens & (event >= walls))[0]
        i, j = self.i[event[rows] - walls], self.j[event[rows] - walls]
        line = p[rows, i] - p[rows, j]
        line /= np.linalg.norm(line, axis=-1, keepdims=True)
        swap = ((v[rows, i] - v[rows, j]) * line).sum(-1, keepdims=True) * line
        v[rows, i] -= swap
        v[rows, j] += swap
