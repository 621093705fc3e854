"""What every world is: a state that actions move, and what can be seen of it. Vectorised: n worlds go side by side."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class World(Protocol):
    """A simulator of n worlds at once. The state is the whole of it: equal states and actions give equal futures.

    name         as in `WORLDS`
    names        of the P state variables, with their units in the class docstring
    action       A, numbers per action; 0 where nobody acts
    low, high    (A,) bounds of an action; empty where A = 0
    discrete     number of choices when an action is an index, (n, 1) integers; else None
    obs          shape of one observation: (S,) floats, or (H, W, C) uint8 pixels
    dt           seconds per step

    A world may have more, which is used where it is there:

    settable     False: its state cannot be set, and only the latest state of an episode can be stepped from
    again        (n, P) -> (n, P): rows to step from that are these states, for worlds that are not settable
    replay       (seed, actions (T, A)) -> (T + 1, P): an episode of such a world anew
    path         (n, P), (n, P) -> (n,): what is left to go from states to goals, in the unit of `distance`, where the
                 straight way is not free; a planner on the simulator goes by it
    """

    name: str
    names: tuple[str, ...]
    action: int
    low: np.ndarray
    high: np.ndarray
    discrete: int | None
    obs: tuple[int, ...]
    dt: float

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray: ...  # (n, P) states to start from
    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...  # (n, P) states to reach from them
    def step(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray: ...  # (n, P), (n, A) -> (n, P)
    def observe(self, states: np.ndarray) -> np.ndarray: ...  # (n, P) -> (n, *obs)
    def draw(self, states: np.ndarray, size: int = 128) -> np.ndarray: ...  # (n, size, size, 3) uint8, for people
    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray: ...  # (n,) in the world's own unit
    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray: ...  # (n,) bool: what success means


@runtime_checkable
class Policy(Protocol):
    """Something that acts on n worlds: for collecting, as a floor, as an expert."""

    def act(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...  # (n, P) -> (n, A)
