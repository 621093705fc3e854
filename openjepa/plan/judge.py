"""A success rule that a protocol brings with it, for worlds without one of their own: every variable close enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

import numpy as np
from pydantic import Field, model_validator

from openjepa.config import Config
from openjepa.worlds.base import World
from openjepa.worlds.gym_live import TICKET


class JudgeConfig(Config):
    """A goal is reached when every variable is closer to it than `tolerance` times that variable's unit.

    units     variable of the world's state -> the gap that counts as 1, usually its spread over episodes; variables
              that are not named are not looked at
    angles    those of them that are angles in radians: their gap is the short way round
    """

    units: dict[str, float]
    angles: tuple[str, ...] = ()
    tolerance: float = Field(0.2, gt=0)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.units or not all(np.isfinite(u) and u > 0 for u in self.units.values()):
            raise ValueError(f"units must name variables with a positive unit each, got {self.units}.")
        if not set(self.angles) <= set(self.units):
            raise ValueError(f"angles must be among {', '.join(self.units)}, got {', '.join(self.angles)}.")
        return self

    def sentence(self) -> str:
        """The rule, for people.

        >>> JudgeConfig(units={"theta": 1.0, "omega": 4.0}, angles=("theta",)).sentence()
        'reached: theta within 0.2 (around the circle), omega within 0.8'
        """
        parts = [
            f"{name} within {self.tolerance * unit:.3g}" + (" (around the circle)" if name in self.angles else "")
            for name, unit in self.units.items()
        ]
        return "reached: " + ", ".join(parts)


class Judged:
    """`world`, but for its `distance` (root mean square of the gaps over their units) and `reached` (`JudgeConfig`).

    >>> from openjepa.worlds import make_world
    >>> world = judged(make_world("pendulum"), JudgeConfig(units={"theta": 1.0, "omega": 2.0}, angles=("theta",)))
    >>> a, b = np.array([[3.1, 0.0], [0.0, 0.0]]), np.array([[-3.1, 0.3], [0.0, 0.5]])
    >>> world.reached(a, b).tolist()
    [True, False]
    """

    def __init__(self, world: World, rule: JudgeConfig) -> None:
        unknown = [name for name in rule.units if name not in world.names]
        if unknown:
            raise ValueError(
                f"judge must name variables of {world.name} ({', '.join(world.names[:12])}), got {', '.join(unknown)}."
            )
        self._world, self.rule = world, rule
        self._columns = [world.names.index(name) for name in rule.units]
        self._units = np.array(list(rule.units.values()))
        self._angles = [i for i, name in enumerate(rule.units) if name in rule.angles]

    path = None  # what the world knows of the way leads to its own goals, not to those of the rule

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def gaps(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """(n, variables of the rule), in their units."""
        apart = np.asarray(states, float)[:, self._columns] - np.asarray(goals, float)[:, self._columns]
        apart[:, self._angles] = np.mod(apart[:, self._angles] + np.pi, 2 * np.pi) - np.pi
        return apart / self._units

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(self.gaps(states, goals)).mean(-1))

    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return (np.abs(self.gaps(states, goals)) < self.rule.tolerance).all(-1)


def judged(world: World, rule: JudgeConfig | None) -> World:
    """The world under the rule; as it is without one."""
    return world if rule is None else cast(World, Judged(world, rule))


def spreads(states: np.ndarray, names: Sequence[str], *, tolerance: float = 0.2) -> JudgeConfig:
    """The rule in units of each variable's standard deviation over states (N, P); of angles, around their mean
    direction. Variables that never vary, and tickets of simulators, are left out.

    names  those called theta... or ...angle are angles

    >>> spreads(np.array([[0.0, 5.0], [2.0, 5.0]]), ("x", "y")).units
    {'x': 1.0}
    """
    units, angles = {}, []
    for name, values in zip(names, np.asarray(states, float).T, strict=True):
        turns = name.startswith("theta") or name.endswith("angle")
        if turns:
            middle = np.angle(np.exp(1j * values).mean())
            values = np.mod(values - middle + np.pi, 2 * np.pi) - np.pi
        unit = float(np.sqrt(np.square(values).mean()) if turns else values.std())
        if unit > 1e-9 * (1 + float(np.abs(values).max())) and name not in TICKET:
            units[name] = float(f"{unit:.6g}")
            angles += [name] if turns else []
    if not units:
        raise ValueError(f"states must vary for a success rule, got {len(states)} equal ones. Collect other episodes.")
    return JudgeConfig(units=units, angles=tuple(angles), tolerance=tolerance)
