"""A mass on a spring: the harmonic oscillator, optionally pushed."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from openjepa.worlds.canvas import COLOURS, GREY, INK, blank, disc, line
from openjepa.worlds.state_world import SeenConfig, StateWorld


class SpringConfig(SeenConfig):
    """stiffness (N/m), mass (kg), in one or two dimensions.

    force      the largest push along each axis, newtons; 0 for none (then there is no action)
    stretch    the largest amplitude at the start, metres
    tolerance  metres within which a goal counts as reached
    """

    name: Literal["spring"] = "spring"
    dims: Literal[1, 2] = 1
    stiffness: float = Field(4.0, gt=0)
    mass: float = Field(1.0, gt=0)
    force: float = Field(0.0, ge=0)
    stretch: float = Field(1.0, gt=0)
    dt: float = Field(0.1, gt=0)
    tolerance: float = Field(0.05, gt=0)


class Spring(StateWorld):
    """A mass on a spring without friction; in two dimensions, on a spring that pulls to the middle.

    state    x, vx (m, m/s), with dims = 2: x, y, vx, vy;  action  the force (N), constant over the step
    goal     with a force: to rest where a force can hold it
    physics  closed form, a turn of (x - f/k, v/w) by the angle w dt, w = sqrt(k/m)

    >>> world = Spring(SpringConfig(stiffness=np.pi**2, dt=0.5))  # half a turn takes a second
    >>> once = world.step(np.array([[1.0, 0.0]]), np.zeros((1, 0)))
    >>> world.step(once, np.zeros((1, 0))).round(9).tolist()
    [[-1.0, -0.0]]
    """

    Config = SpringConfig
    scripted = {"expert": "openjepa.worlds.controllers:SpringExpert"}

    def __init__(self, cfg: SpringConfig) -> None:
        names = ("x", "vx") if cfg.dims == 1 else ("x", "y", "vx", "vy")
        super().__init__(cfg, names, np.full(cfg.dims, cfg.force) if cfg.force > 0 else None)
        self.dt, self.rate = cfg.dt, np.sqrt(cfg.stiffness / cfg.mass)  # rate: w, radians per second

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Any phase, and an amplitude from a tenth of `stretch` up to it, along each axis."""
        amplitude = self.cfg.stretch * rng.uniform(0.1, 1, (n, self.cfg.dims))
        phase = rng.uniform(0, 2 * np.pi, (n, self.cfg.dims))
        return np.concatenate([amplitude * np.cos(phase), -self.rate * amplitude * np.sin(phase)], -1)

    def advance(self, states: np.ndarray, actions: np.ndarray, dt: float) -> np.ndarray:
        d, w = self.cfg.dims, self.rate
        x, v = states[:, :d], states[:, d:]
        rest = actions / self.cfg.stiffness if self.action else 0.0
        c, s = np.cos(w * dt), np.sin(w * dt)
        return np.concatenate([rest + (x - rest) * c + v / w * s, v * c - (x - rest) * w * s], -1)

    def energy(self, states: np.ndarray) -> np.ndarray:
        """m v^2 / 2 + k x^2 / 2: (n,) joules. Kept where there is no force."""
        states, d = self.check(states), self.cfg.dims
        kinetic, potential = np.square(states[:, d:]).sum(-1), np.square(states[:, :d]).sum(-1)
        return self.cfg.mass / 2 * kinetic + self.cfg.stiffness / 2 * potential

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not self.action:
            return super().goals(states, rng)
        d, held = self.cfg.dims, min(self.cfg.stretch, 0.9 * self.cfg.force / self.cfg.stiffness)
        rest = rng.uniform(-held, held, (len(self.check(states)), d))
        return np.concatenate([rest, np.zeros_like(rest)], -1)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Root of the squared gap in place and in speed over w: (n,) metres, the amplitude that is left."""
        gap, d = self.check(states) - self.check(goals), self.cfg.dims
        return np.sqrt(np.square(gap[:, :d]).sum(-1) + np.square(gap[:, d:] / self.rate).sum(-1))

    def draw(self, states: np.ndarray, size: int = 128) -> np.ndarray:
        states = self.check(states)
        n, reach = len(states), 0.4 * size / self.cfg.stretch
        middle = np.full((n, 2), size / 2)
        mass = middle.copy()
        mass[:, 0] += reach * states[:, 0]
        if self.cfg.dims == 2:
            mass[:, 1] -= reach * states[:, 1]
        canvas = blank(n, size)
        anchor = middle if self.cfg.dims == 2 else np.broadcast_to([0.02 * size, size / 2], (n, 2))
        line(canvas, anchor, mass, max(1.0, size / 48), GREY)
        disc(canvas, middle, max(1.0, size / 48), INK)
        disc(canvas, mass, size / 14, COLOURS[1])
        return canvas
