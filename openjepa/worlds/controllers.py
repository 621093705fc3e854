"""Scripted experts of the physics worlds: textbook control laws with some noise, for data and as a reference."""

from __future__ import annotations

import numpy as np

from openjepa.worlds.physics.pendulum import wrap
from openjepa.worlds.policies import Steered

NOISE = 0.1  # of the actions, in shares of their bound


class PointMassExpert(Steered):
    """Critically damped spring to the goal, f = w^2 (goal - x) - 2 w v: it arrives without overshoot."""

    rate = 2.0

    def steer(self, states: np.ndarray, goals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        high = self.world.high
        force = self.rate**2 * (goals[:, :2] - states[:, :2]) - 2 * self.rate * states[:, 2:]
        return np.clip(force + NOISE * high * rng.standard_normal(force.shape), -high, high)


class SpringExpert(Steered):
    """Holds the spring at the goal and takes out what still swings: f = k goal - 2 m w v."""

    def steer(self, states: np.ndarray, goals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        world, d, high = self.world, self.world.cfg.dims, self.world.high
        force = world.cfg.stiffness * goals[:, :d] - 2 * world.cfg.mass * world.rate * states[:, d:]
        return np.clip(force + NOISE * high * rng.standard_normal(force.shape), -high, high)


class PendulumExpert(Steered):
    """Swings up by energy, u = k omega (E_top - E), and balances with a linear law near the top.

    Source: Astrom and Furuta, Automatica 36 (2000). The catch is a critically damped law on the angle from upright,
    used where the motor is strong enough to hold it.
    """

    def reaches(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.zeros(len(states), bool)  # there is one goal, and it is kept

    def steer(self, states: np.ndarray, goals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        world, limit = self.world, float(self.world.high[0])
        length, g = world.cfg.length, world.cfg.gravity
        tilt, omega = wrap(states[:, 0] + np.pi), states[:, 1]  # tilt: from upright
        pull, inertia = g * length, length**2
        missing = 2 * pull - world.energy(states)
        pump = np.where(omega == 0, 1.0, np.sign(omega)) * np.clip(3 * missing / pull, -1, 1) * limit
        w = 2 * np.sqrt(g / length)
        hold = -(pull + inertia * w**2) * tilt - 2 * inertia * w * omega
        catch = np.abs(hold) < 1.5 * limit
        torque = np.where(catch & (np.abs(tilt) < 0.6), hold, pump) + NOISE * 0.3 * limit * rng.standard_normal(
            len(tilt)
        )
        return np.clip(torque, -limit, limit)[:, None]
