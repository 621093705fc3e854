"""What our own worlds share: settings, checks of shapes, and the parts of `World` that most of them answer alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from openjepa.config import Config


class WorldConfig(Config):
    """Settings of a world, with its `name` in `WORLDS`; kept in the files of its episodes, they rebuild it."""

    shorthand: ClassVar[str | None] = "name"
    name: str


class SeenConfig(WorldConfig):
    """A world that is observed as numbers, or, where `pixels` is set, as square pictures of that side."""

    pixels: int | None = Field(None, ge=8, le=1024)


class StateWorld(ABC):
    """A `World` computed by numpy in float64, n side by side. What `worlds.base.World` lists, and

    cfg        its settings
    settable   True: any state can be stepped from
    obs_names  names of an observation's own variables when it is a vector, else those of the state
    groups     name -> columns of the vector observation that belong together, for masking features in groups

    One picture does not show velocities: with `pixels` set, a model must look at more than one observation.
    """

    Config: ClassVar[type[WorldConfig]]
    cfg: Any
    names: tuple[str, ...]
    obs_names: tuple[str, ...]
    groups: dict[str, tuple[int, ...]]
    dt: float
    discrete: int | None = None
    settable: bool = True
    scripted: ClassVar[dict[str, str]] = {}  # policy -> "module:Class", where it differs from `POLICIES`
    ahead: ClassVar[int] = 25  # steps to the goal where nobody acts

    def __init__(self, cfg: Any, names: tuple[str, ...], bound: np.ndarray | None = None) -> None:
        self.cfg, self.name, self.names = cfg, cfg.name, names
        self.obs_names = names
        self.high = np.zeros(0) if bound is None else np.asarray(bound, np.float64)
        self.low = -self.high
        self.action = len(self.high)
        self.groups = by_kind(names)

    @property
    def obs(self) -> tuple[int, ...]:
        return (len(self.obs_names),) if self.cfg.pixels is None else (self.cfg.pixels, self.cfg.pixels, 3)

    def observe(self, states: np.ndarray) -> np.ndarray:
        states = self.check(states)
        return self.vector(states) if self.cfg.pixels is None else self.draw(states, self.cfg.pixels)

    def vector(self, states: np.ndarray) -> np.ndarray:
        """The observation as numbers, (n, S) float32: the state itself unless a world says otherwise."""
        return states.astype(np.float32)

    def step(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        states = self.check(states)
        return self.advance(states, self.check_actions(actions, len(states)), self.dt)

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """States to reach. Where nobody acts, they are what the world itself becomes `ahead` steps later."""
        states = self.check(states)
        for _ in range(self.ahead):
            states = self.step(states, np.zeros((len(states), self.action)))
        return states

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Root of the summed squares over positions: see each world for its unit."""
        columns = [i for i, name in enumerate(self.names) if name[0] in "xy"]
        gap = self.check(states)[:, columns] - self.check(goals)[:, columns]
        return np.sqrt(np.square(gap).sum(-1))

    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return self.distance(states, goals) < self.cfg.tolerance

    def check(self, states: np.ndarray) -> np.ndarray:
        """States as (n, P) float64, or a `ValueError` that names the variables."""
        states = np.asarray(states, np.float64)
        if states.ndim != 2 or states.shape[1] != len(self.names):
            raise ValueError(
                f"states of {self.name} must have shape (n, {len(self.names)}), got {states.shape}. "
                f"Give one row per world: {', '.join(self.names)}."
            )
        return states

    def check_actions(self, actions: np.ndarray, n: int) -> np.ndarray:
        """Actions as (n, A) float64 within their bounds: what lies outside is clipped, as a motor would saturate."""
        actions = np.asarray(actions, np.float64)
        if actions.shape != (n, self.action):
            raise ValueError(
                f"actions of {self.name} must have shape ({n}, {self.action}), got {actions.shape}. "
                f"Give one row of {self.action} numbers per world."
            )
        return np.clip(actions, self.low, self.high)

    @abstractmethod
    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray: ...

    @abstractmethod
    def advance(self, states: np.ndarray, actions: np.ndarray, dt: float) -> np.ndarray:
        """The states `dt` seconds later under constant actions; any `dt`, so that two half steps equal one."""

    @abstractmethod
    def draw(self, states: np.ndarray, size: int = 128) -> np.ndarray: ...


def by_kind(names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Columns of positions and of velocities, told by the first letter of a name.

    >>> by_kind(("x", "y", "vx", "vy"))
    {'positions': (0, 1), 'velocities': (2, 3)}
    """
    moving = tuple(i for i, name in enumerate(names) if name[0] == "v" or name.startswith("omega"))
    return {"positions": tuple(i for i in range(len(names)) if i not in moving), "velocities": moving}
