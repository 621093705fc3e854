"""The worlds of `benchmarks.state`: episodes, the way back from what a model sees to physics, errors in its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjepa.data.episodes import EpisodeConfig, WindowStream, open_episodes
from openjepa.methods.state import StateConfig
from openjepa.worlds import make_world

LONGEST = 100  # steps that a model dreams
AT = (1, 2, 4, 8, 10, 20, 40, 60, 80, 100)  # steps ahead that are kept
FAR = 1e6  # what is written for errors beyond it, infinity included


@dataclass(frozen=True)
class Scene:
    """Episodes of one world and one seed, and what stands beside every model trained on them."""

    world: Any
    stream: WindowStream
    train: Tensor  # (N, S) observations to fit the map on, as the model sees them
    held: Tensor  # (E, T, S) whole held-out episodes, likewise
    states: np.ndarray  # (E, T, P)

    def physical(self, x: Tensor) -> np.ndarray:
        """Observations as the model sees them (n, S) -> states of the world (n, P)."""
        scale = self.stream.scale
        seen = x.double().numpy() * np.array(scale.obs_std) + np.array(scale.obs_mean)
        seen = np.nan_to_num(seen, nan=FAR, posinf=FAR, neginf=-FAR)
        if self.world.name == "pendulum":  # seen as cosine, sine and speed
            return np.stack([np.arctan2(seen[:, 1], seen[:, 0]), seen[:, 2]], -1)
        return seen

    def errors(self, dreamt: Sequence[np.ndarray], at: Sequence[int]) -> dict[str, dict[str, float]]:
        """How far `dreamt` states (E, P) each are from the true ones `at` steps later, and how much energy is gone."""
        start = self.world.energy(self.states[:, 0])
        pairs = list(zip(at, dreamt, strict=True))
        with np.errstate(all="ignore"):
            apart = {str(k): self.world.distance(s, self.states[:, k]) for k, s in pairs}
            drift = {str(k): np.abs(self.world.energy(s) - start) / np.abs(start).mean() for k, s in pairs}
        return {name: {k: typical(v) for k, v in found.items()} for name, found in
                (("error", apart), ("energy", drift))}  # fmt: skip


def typical(values: np.ndarray) -> float:
    return float(np.median(np.nan_to_num(values, nan=FAR, posinf=FAR).clip(max=FAR)))


@lru_cache(maxsize=8)
def make_scene(world: str, seed: int, episodes: int, batch: int) -> Scene:
    cfg = EpisodeConfig(path=world, episodes=episodes, steps=LONGEST, held_out=0.3, seed=seed, split_seed=seed)
    found = open_episodes(cfg)
    stream = WindowStream(found, StateConfig().window, cfg=cfg, batch_size=batch, seed=seed)
    seen = stream.scale.observation(torch.from_numpy(np.stack([found[i].obs for i in range(len(found))])))
    train = seen[stream.split.train].flatten(0, 1)  # (N, S)
    some = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:4000]
    states = np.stack([found[int(i)].state for i in stream.split.held])
    return Scene(make_world(world), stream, train[some], seen[stream.split.held], states)


def references(scene: Scene) -> dict[str, Any]:
    """Copy-last, constant velocity, and the simulator itself (exact by construction: its largest error is kept)."""
    start, names = scene.states[:, 0], list(scene.world.names)
    velocity = np.zeros_like(start)
    for i, name in enumerate(names):
        rate = "omega" if name == "theta" else f"v{name}"
        if rate in names:
            velocity[:, i] = start[:, names.index(rate)]
    exact, worst = start, 0.0
    for k in range(1, LONGEST + 1):
        exact = scene.world.step(exact, np.zeros((len(exact), 0)))
        worst = max(worst, float(np.abs(exact - scene.states[:, k]).max()))
    return {
        "copy-last": scene.errors([start for _ in AT], AT),
        "constant-velocity": scene.errors([start + velocity * scene.world.dt * k for k in AT], AT),
        "simulator_largest_error": worst,
    }
