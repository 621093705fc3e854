"""Two bodies that attract one another: Kepler's problem, in closed form."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from openjepa.worlds.canvas import COLOURS, blank, disc
from openjepa.worlds.state_world import SeenConfig, StateWorld


class OrbitConfig(SeenConfig):
    """Two bodies of masses M1 >= M2 in their centre-of-mass frame.

    mu            G (M1 + M2), the strength of the attraction
    share         M2 / (M1 + M2), for the picture: 0 is a planet around a fixed sun
    axis          range of the semi-major axis at the start
    eccentricity  the largest at the start
    """

    name: Literal["orbit"] = "orbit"
    mu: float = Field(1.0, gt=0)
    share: float = Field(0.25, ge=0, le=0.5)
    axis: tuple[float, float] = (0.5, 1.0)
    eccentricity: float = Field(0.6, ge=0, lt=1)
    dt: float = Field(0.1, gt=0)
    tolerance: float = Field(0.1, gt=0)


class Orbit(StateWorld):
    """The place of one body as seen from the other, and how it changes; lengths and times in the units of `mu`.

    state    x, y, vx, vy of the relative motion r'' = -mu r / |r|^3; only bound (elliptic) states
    physics  closed form: Kepler's equation for the change of the eccentric anomaly is solved to rounding by a Newton
             iteration that cannot leave its bracket, then r and v follow by Lagrange's coefficients f and g
    """

    Config = OrbitConfig

    def __init__(self, cfg: OrbitConfig) -> None:
        super().__init__(cfg, ("x", "y", "vx", "vy"))
        self.dt = cfg.dt

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Any orientation, either sense, any place on the ellipse (uniform in eccentric anomaly)."""
        a, e = rng.uniform(self.cfg.axis[0], self.cfg.axis[1], n), rng.uniform(0, self.cfg.eccentricity, n)
        turn, anomaly = rng.uniform(0, 2 * np.pi, (2, n))
        sense = rng.choice([-1.0, 1.0], n)
        c, s, b = np.cos(anomaly), np.sin(anomaly), np.sqrt(1 - e * e)
        speed = np.sqrt(self.cfg.mu / a) / (1 - e * c)
        place = np.stack([a * (c - e), sense * a * b * s], -1)
        motion = np.stack([-speed * s, sense * speed * b * c], -1)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        return np.concatenate([np.einsum("ijn,nj->ni", rotation, part) for part in (place, motion)], -1)

    def advance(self, states: np.ndarray, actions: np.ndarray, dt: float) -> np.ndarray:
        mu, r, v = self.cfg.mu, states[:, :2], states[:, 2:]
        distance = np.linalg.norm(r, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            a = 1 / (2 / distance - np.square(v).sum(-1) / mu)
        if not (np.isfinite(a) & (a > 0)).all():
            raise ValueError("orbit states must be bound (v^2 / 2 < mu / r), got one that escapes. Lower its speed.")
        rate = np.sqrt(mu / a) / a
        p, q = (r * v).sum(-1) / np.sqrt(mu * a), 1 - distance / a  # e sin E and e cos E at the start
        mean = np.mod(rate * dt, 2 * np.pi)
        change = kepler(mean, p, q)
        c, s = np.cos(change), np.sin(change)
        later = a * (1 - q * c + p * s)  # the new distance
        f = 1 - a / distance * (1 - c)
        g = (mean - change + s) / rate  # of the time within this turn: whole turns change nothing
        df = -np.sqrt(mu * a) / (later * distance) * s
        dg = 1 - a / later * (1 - c)
        new_r = f[:, None] * r + g[:, None] * v
        return np.concatenate([new_r, df[:, None] * r + dg[:, None] * v], -1)

    def energy(self, states: np.ndarray) -> np.ndarray:
        """Per reduced mass: v^2 / 2 - mu / r, (n,)."""
        states = self.check(states)
        return np.square(states[:, 2:]).sum(-1) / 2 - self.cfg.mu / np.linalg.norm(states[:, :2], axis=-1)

    def angular_momentum(self, states: np.ndarray) -> np.ndarray:
        """Per reduced mass: x vy - y vx, (n,)."""
        x, y, vx, vy = self.check(states).T
        return x * vy - y * vx

    def draw(self, states: np.ndarray, size: int = 128) -> np.ndarray:
        states = self.check(states)
        reach = 0.45 * size / (self.cfg.axis[1] * (1 + self.cfg.eccentricity))
        canvas = blank(len(states), size)
        middle, flip = size / 2, np.array([1.0, -1.0])
        disc(canvas, middle - self.cfg.share * reach * flip * states[:, :2], size / 16, COLOURS[3])
        disc(canvas, middle + (1 - self.cfg.share) * reach * flip * states[:, :2], size / 24, COLOURS[1])
        return canvas


def kepler(mean: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The d that solves mean = d + p (1 - cos d) - q sin d, for p^2 + q^2 < 1 and mean in [0, 2 pi).

    The right side rises with d, from 0 at d = 0 to 2 pi at d = 2 pi, so the root stays in a bracket.
    """
    low, high = np.zeros_like(mean), np.full_like(mean, 2 * np.pi)
    d = mean.copy()
    for _ in range(100):
        c, s = np.cos(d), np.sin(d)
        error = d + p * (1 - c) - q * s - mean
        low, high = np.where(error <= 0, d, low), np.where(error >= 0, d, high)
        new = d - error / (1 + p * s - q * c)
        new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
        if np.all(np.abs(new - d) <= 4e-16 * np.maximum(d, 1)):
            return new
        d = new
    return d
