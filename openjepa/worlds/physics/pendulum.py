"""A pendulum, optionally with a motor at its axis."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from openjepa.worlds.canvas import COLOURS, GREY, INK, blank, disc, line
from openjepa.worlds.state_world import SeenConfig, StateWorld

# Yoshida (Physics Letters A 150, 1990), the sixth-order composition of seven leapfrogs called solution A
_W = (0.784513610477560, 0.235573213359357, -1.17767998417887)
STAGES = (*_W, 1 - 2 * sum(_W), *_W[::-1])
LONGEST = 0.02  # of a substep, in units of 1 / sqrt(gravity / length)


class PendulumConfig(SeenConfig):
    """length (m), gravity (m/s^2), mass 1 kg.

    torque     the largest torque of the motor, N m; 0 for none (then there is no action)
    swing      the largest angle at the start, radians
    tolerance  radians within which a goal counts as reached
    """

    name: Literal["pendulum"] = "pendulum"
    length: float = Field(1.0, gt=0)
    gravity: float = Field(9.81, gt=0)
    torque: float = Field(0.0, ge=0)
    swing: float = Field(np.pi, gt=0, le=np.pi)
    dt: float = Field(0.05, gt=0)
    tolerance: float = Field(0.2, gt=0)


class Pendulum(StateWorld):
    """A mass of 1 kg on a rigid rod.

    state        theta (rad, 0 hanging, in [-pi, pi)), omega (rad/s)
    observation  cos theta, sin theta, omega
    action       torque (N m), constant over the step, when `torque` > 0; the goal is then to stand upright at rest
    physics      theta'' = -(g / l) sin theta + torque / l^2, by a sixth-order symplectic composition in substeps of at
                 most 0.02 sqrt(l / g): the relative energy error stays below 1e-11
    """

    Config = PendulumConfig
    scripted = {"expert": "openjepa.worlds.controllers:PendulumExpert"}

    def __init__(self, cfg: PendulumConfig) -> None:
        super().__init__(cfg, ("theta", "omega"), np.full(1, cfg.torque) if cfg.torque > 0 else None)
        self.dt = cfg.dt
        self.obs_names = ("cos_theta", "sin_theta", "omega")
        self.groups = {"positions": (0, 1), "velocities": (2,)}

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Any angle up to `swing`, with a speed up to a third of the one that would carry it over the top."""
        omega = 2 / 3 * np.sqrt(self.cfg.gravity / self.cfg.length)
        return np.stack([rng.uniform(-self.cfg.swing, self.cfg.swing, n), rng.uniform(-omega, omega, n)], -1)

    def vector(self, states: np.ndarray) -> np.ndarray:
        theta, omega = states.T
        return np.stack([np.cos(theta), np.sin(theta), omega], -1).astype(np.float32)

    def advance(self, states: np.ndarray, actions: np.ndarray, dt: float) -> np.ndarray:
        theta, omega = states[:, 0].copy(), states[:, 1].copy()
        pull = self.cfg.gravity / self.cfg.length
        motor = actions[:, 0] / self.cfg.length**2 if self.action else 0.0
        count = max(1, int(np.ceil(abs(dt) * np.sqrt(pull) / LONGEST)))
        h = dt / count
        for _ in range(count):
            for w in STAGES:
                theta += w * h / 2 * omega
                omega += w * h * (motor - pull * np.sin(theta))
                theta += w * h / 2 * omega
        return np.stack([wrap(theta), omega], -1)

    def energy(self, states: np.ndarray) -> np.ndarray:
        """Kinetic and potential, 0 when hanging at rest: (n,) joules. Kept where there is no torque."""
        theta, omega = self.check(states).T
        length, g = self.cfg.length, self.cfg.gravity
        return (length * omega) ** 2 / 2 + g * length * (1 - np.cos(theta))

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not self.action:
            return super().goals(states, rng)
        return np.broadcast_to(np.array([-np.pi, 0.0]), self.check(states).shape).copy()

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Root of the squared angle and squared speed over the natural frequency: (n,) radians."""
        gap = self.check(states) - self.check(goals)
        return np.hypot(wrap(gap[:, 0]), gap[:, 1] * np.sqrt(self.cfg.length / self.cfg.gravity))

    def draw(self, states: np.ndarray, size: int = 128) -> np.ndarray:
        states = self.check(states)
        axis = np.full((len(states), 2), size / 2)
        bob = axis + 0.38 * size * np.stack([np.sin(states[:, 0]), np.cos(states[:, 0])], -1)
        canvas = blank(len(states), size)
        line(canvas, axis, bob, max(1.5, size / 40), INK)
        disc(canvas, axis, max(1.0, size / 40), GREY)
        disc(canvas, bob, size / 12, COLOURS[0])
        return canvas


def wrap(angle: np.ndarray) -> np.ndarray:
    """The same angle in [-pi, pi); angles already there are left as they are, to the bit.

    >>> wrap(np.array([0.5, 4.0, -np.pi])).round(4).tolist()
    [0.5, -2.2832, -3.1416]
    """
    inside = (angle >= -np.pi) & (angle < np.pi)
    return np.where(inside, angle, np.mod(angle + np.pi, 2 * np.pi) - np.pi)
