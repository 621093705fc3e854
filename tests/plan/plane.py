"""A toy world with the `World` protocol, and models of it: a point in a plane, moved by at most one unit per step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Plane:
    """State x, y, and a counter that is never shown; action (dx, dy) in [-1, 1]; reached within 0.6 units."""

    name = "plane"
    names = ("x", "y", "n")
    action = 2
    discrete: int | None = None
    obs: tuple[int, ...] = (2,)
    dt = 1.0

    def __init__(self, far: float = 6.0) -> None:
        self.low, self.high, self.far = -np.ones(2), np.ones(2), far
        self.stepped = 0

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([rng.uniform(-self.far, self.far, (n, 2)), np.zeros((n, 1))], -1)

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.reset(len(states), rng)

    def step(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        self.stepped += len(states)
        move = np.clip(actions, self.low, self.high)
        return np.concatenate([states[:, :2] + move, states[:, 2:] + 1], -1)

    def observe(self, states: np.ndarray) -> np.ndarray:
        return states[:, :2].astype(np.float32)

    def draw(self, states: np.ndarray, size: int = 128) -> np.ndarray:
        out = np.full((len(states), size, size, 3), 255, np.uint8)
        at = np.clip(((states[:, :2] + 8) / 16 * size).astype(int), 1, size - 2)
        for i, (x, y) in enumerate(at):
            out[i, y - 1 : y + 2, x - 1 : x + 2] = 0
        return out

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.linalg.norm(states[:, :2] - goals[:, :2], axis=-1)

    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return self.distance(states, goals) < 0.6


class Compass(Plane):
    """The same plane, moved by choices: east, north, west, south, stay."""

    name = "compass"
    action, discrete = 1, 5
    moves = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]], float)

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = np.zeros(1), np.full(1, 4.0)

    def step(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return np.concatenate([states[:, :2] + self.moves[actions[:, 0].astype(int)], states[:, 2:] + 1], -1)


PREPROCESS = {
    "obs_mean": [0.5, -0.5], "obs_std": [3.0, 2.0], "action_mean": [0.1, -0.1], "action_std": [0.5, 0.7],
    "discrete": None,
}  # fmt: skip


class Exact(nn.Module):
    """The plane as a `Dynamics` in normalised numbers: z is the normalised position, `skip` world actions per step."""

    def __init__(self, skip: int = 1, preprocess: dict = PREPROCESS, moves: np.ndarray | None = None) -> None:
        super().__init__()
        self.skip, self.seen = skip, []
        self.obs_std = torch.tensor(preprocess["obs_std"])
        self.mean, self.std = torch.tensor(preprocess["action_mean"]), torch.tensor(preprocess["action_std"])
        self.moves = None if moves is None else torch.tensor(moves, dtype=torch.float32)

    def encode(self, obs: Tensor) -> Tensor:
        self.seen.append(obs)
        return obs

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        each = action.unflatten(-1, (self.skip, -1))
        move = each @ self.moves if self.moves is not None else (each * self.std + self.mean).clamp(-1, 1)
        return z + move.sum(1) / self.obs_std
