"""A trained world model as its checkpoint tells it: the model, its scales, its world, its held-out episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch

from openjepa.app.frozen import frozen_encoder
from openjepa.app.runs import Run
from openjepa.core.types import Dynamics, Space
from openjepa.data.episodes import Episodes, open_episodes
from openjepa.data.episodes.config import EpisodeConfig
from openjepa.data.episodes.splitting import Split, split
from openjepa.methods import METHODS, Method
from openjepa.train import checkpoint
from openjepa.train.state import load_weights
from openjepa.worlds import make_world
from openjepa.worlds.base import World


@dataclass(frozen=True)
class Dreamer:
    """A world model with what stands between it and a world.

    method      in evaluation mode, on `device`; it has `encode` and `step`
    preprocess  scales, bounds and names, as saved in the checkpoint
    """

    run: Run
    method: Method
    preprocess: Mapping[str, Any]
    device: torch.device

    @property
    def model(self) -> Dynamics:
        assert isinstance(self.method, Dynamics)
        return self.method

    @property
    def skip(self) -> int:
        """World steps per step of the model."""
        return int(self.preprocess["window"]["skip"])

    @property
    def data(self) -> EpisodeConfig:
        data = self.run.config.data
        assert isinstance(data, EpisodeConfig)
        return data

    @cached_property
    def episodes(self) -> Episodes:
        """The episodes it was trained on and held out from, as it saw them."""
        return open_episodes(self.data)

    @cached_property
    def split(self) -> Split:
        found = split(self.episodes, self.data)
        if found.hash != self.preprocess["split"]["hash"]:
            raise ValueError(
                f"held-out episodes must be those of the run, {self.preprocess['split']['hash']}, got {found.hash}: "
                f"{self.data.path} has changed since. Train again, or give the run its episodes back."
            )
        return found

    def held_out_states(self) -> dict[str, np.ndarray]:
        """Name -> states (T, P) of every episode that training never saw."""
        if not self.episodes.state.shape[1]:
            raise ValueError(f"episodes must have states for this, got none in {self.data.path}. Choose other pairs.")
        return {self.episodes.names[i]: np.asarray(self.episodes[int(i)].state) for i in self.split.held}

    def world(self, settings: Mapping[str, Any] | str | None = None) -> World:
        """The world it was trained in, or the one that `settings` name; a `ValueError` where there is none."""
        own = self.preprocess.get("world")
        if settings is None and not own:
            raise ValueError(
                f"world must be named for {self.run.path}, whose episodes came without one. Do --world W, or "
                "start=A.npy goal=B.npy for a plan that nobody carries out."
            )
        if isinstance(settings, str):
            settings = {"name": settings}
        return make_world({**_same(own, settings), **(settings or own or {})})


def _same(own: Mapping[str, Any] | None, settings: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The run's settings of its own world, where `settings` name the same one."""
    return own if own and settings and own["name"] == settings["name"] else {}


def space_of(preprocess: Mapping[str, Any]) -> Space:
    """What the method was built for.

    >>> space_of({"obs_shape": [3], "action": 1, "discrete": None, "window": {"skip": 5}, "names": ["x", "y", "z"]})
    Space(obs=(3,), action=5, names=('x', 'y', 'z'), discrete=None)
    """
    choices, skip = preprocess["discrete"], int(preprocess["window"]["skip"])
    numbers = choices if choices is not None else int(preprocess["action"])
    return Space(tuple(preprocess["obs_shape"]), numbers * skip, tuple(preprocess["names"]), choices)


def dreamer(run: Run, device: torch.device) -> Dreamer:
    """Build the method of a run on episodes and load its newest weights, every key accounted for."""
    if not isinstance(run.config.data, EpisodeConfig):
        raise ValueError(f"run must be a world model for this, got {run.path}, trained on pictures.")
    folder = checkpoint.newest_good(run.path / "checkpoints")
    if folder is None:
        raise ValueError(f"run must have a checkpoint, got none in {run.path}. Train it, or do train --resume.")
    preprocess = json.loads((folder / "config.json").read_text(encoding="utf-8"))["preprocess"]
    cfg = run.config.method
    make: Any = METHODS[cfg.name]  # type: ignore[attr-defined]
    known = {"encoder": encoder} if (encoder := frozen_encoder(cfg, preprocess)) else {}
    method: Method = make(cfg, space=space_of(preprocess), **known).to(device).eval()
    load_weights(method, folder)
    if not isinstance(cast(Any, method), Dynamics):
        raise ValueError(f"method must have a step that takes actions to plan with, got {cfg.name!r}.")  # type: ignore[attr-defined]
    return Dreamer(run, method, preprocess, device)
