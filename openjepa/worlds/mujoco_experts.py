"""Scripted experts of the MuJoCo worlds: control laws with some noise, for data and as a reference."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from openjepa.worlds.physics.pendulum import wrap
from openjepa.worlds.policies import Steered


class ReacherExpert(Steered):
    """A spring and a damper at each joint, towards the goal's pose."""

    noise = 0.05
    stiffness: ClassVar = {"gymnasium": np.array([3.0, 1.5]), "dm_control": np.array([1.5, 0.5])}
    damping: ClassVar = {"gymnasium": np.array([0.5, 0.25]), "dm_control": np.array([0.2, 0.05])}

    def steer(self, states: np.ndarray, goals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        gap = goals[:, :2] - states[:, :2]
        gap[:, 0] = wrap(gap[:, 0])
        arm = self.world.cfg.arm
        torque = self.stiffness[arm] * gap - self.damping[arm] * states[:, self.world.speeds]
        return np.clip(torque + self.noise * rng.standard_normal(gap.shape), self.world.low, self.world.high)


class MazeExpert(Steered):
    """From cell to cell on a shortest way, and to the goal itself within its cell."""

    gain, damping, noise = 4.0, 2.0, 0.1

    def __init__(self, world: Any, seed: int = 0) -> None:
        super().__init__(world, seed)
        hops = world.hops()
        neighbours = np.where(hops == 1, 0.0, np.inf)  # (cells, cells)
        # next_cell[i, j]: the neighbour of i that is nearest to j
        self.next_cell = (neighbours[:, :, None] + hops[None]).argmin(1)

    def steer(self, states: np.ndarray, goals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        world = self.world
        here, there = world.nearest_cell(states), world.nearest_cell(goals)
        aim = np.where((here == there)[:, None], goals[:, :2], world.cells[self.next_cell[here, there]])
        push = self.gain * (aim - states[:, :2]) - self.damping * states[:, 2:]
        return np.clip(push + self.noise * rng.standard_normal(push.shape), world.low, world.high)
