"""From a folder of episodes, or the name of a world, to a run folder that is enough to go on and to act with."""

import json
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from openjepa.config import Config, Window
from openjepa.core.types import Space
from openjepa.data.collect import collect
from openjepa.data.episodes import EpisodeConfig, Scale, open_episodes, split
from openjepa.methods import METHODS
from openjepa.methods.base import Method
from openjepa.train import checkpoint, execute
from openjepa.train.run import RunConfig


class StepConfig(Config):
    name: Literal["step"] = "step"
    window: Window = Window(steps=3, skip=2)
    width: int = 8


class Step(Method):
    """The next observation from this one and the action between them: enough to see every part of a window used."""

    Config = StepConfig
    eats = "windows"

    def __init__(self, cfg: StepConfig, *, space: Space) -> None:
        super().__init__()
        self.cfg, self.space, self.weights = cfg, space, {"predict": 1.0}
        size = int(np.prod(space.obs))
        self.encoder = nn.Sequential(nn.Flatten(-len(space.obs)), nn.Linear(size, cfg.width))
        self.predictor = nn.Linear(cfg.width + space.action, cfg.width)
        self.dropout = nn.Dropout(0.1)

    def losses(self, batch, clock):
        z = self.dropout(self.encoder(batch.obs))
        guess = self.predictor(torch.cat([z[:, :-1], batch.action], -1))
        return {"predict": (guess - z[:, 1:]).square().mean() + (z.std() - 1).square()}, {"z": z.detach()}

    def encode(self, obs):
        return self.encoder(obs)


@pytest.fixture(autouse=True)
def table(monkeypatch):
    monkeypatch.setitem(METHODS, "step", Step)


@pytest.fixture(scope="module")
def eps(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "eps"
    collect("point-mass", episodes=24, steps=12, out=out, seed=1)
    return out


def settings(out, data, **changes):
    base = {
        "method": {"name": "step"}, "data": data, "out": str(out), "batch_size": 8, "budget": {"steps": 6},
        "device": "cpu", "checkpoint": {"every": 3}, "log": {"every": 1, "look": 3, "tensorboard": False},
    }  # fmt: skip
    return RunConfig.model_validate({**base, **changes})


def rows(out):
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time", "windows_per_s")} for row in found]


REMEMBERS = {"name": "pldm", "dim": 4, "norm": False, "predictor": "residual", "window": 3, "unroll": 2, "replay": 2,
             "memory": 20}  # fmt: skip
SETTLES = REMEMBERS | {"settle": 0.7}


@pytest.mark.parametrize(
    ("method", "accumulate"), [({"name": "step"}, 1), ({"name": "step"}, 2), (REMEMBERS, 2), (SETTLES, 1)]
)
def test_resume_is_exact(tmp_path, eps, method, accumulate):
    run = {"data": str(eps), "accumulate": accumulate, "method": method}
    execute(settings(tmp_path / "whole", **run))

    class Enough(Exception):
        pass

    def stop(moment):
        if moment.step == 6:
            raise Enough
        return {}

    with pytest.raises(Enough):
        execute(settings(tmp_path / "parts", **run), observers=[stop])
    assert [p.name for p in checkpoint.listed(tmp_path / "parts" / "checkpoints")] == ["step_3"]
    torch.manual_seed(99)
    execute(settings(tmp_path / "parts", **run), resume=True)
    a, b = (checkpoint.read_parts(tmp_path / x / "checkpoints" / "last") for x in ("whole", "parts"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert all(torch.equal(a[part][k], b[part][k]) for part in a for k in a[part])


def test_a_run_folder_says_how_to_act_with_the_model(tmp_path, eps):
    seen = []
    out = execute(settings(tmp_path / "a", str(eps)), observers=lambda m, data: seen.append((m, data)) or [])
    prepared = json.loads((out / "checkpoints" / "last" / "config.json").read_text())["preprocess"]
    episodes, cfg = open_episodes(EpisodeConfig(path=str(eps))), EpisodeConfig(path=str(eps))
    parts = split(episodes, cfg)
    kept = json.loads((out / "split.json").read_text())
    assert kept["hash"] == parts.hash == prepared["split"]["hash"] and kept["held_out_episodes"] == list(parts.names)
    assert kept["train_episodes"] + len(kept["held_out_episodes"]) == 24
    assert prepared["window"] == {"steps": 3, "skip": 2} and prepared["obs_shape"] == [4]
    assert prepared["names"] == list(episodes.features) and prepared["bounds"] == "world"
    assert (prepared["low"], prepared["high"]) == (list(episodes.about.low), list(episodes.about.high))
    assert prepared["world"]["name"] == "point-mass" and prepared["dt"] == episodes.about.dt
    method, stream = seen[0]
    assert method.space == stream.space and method.space.action == 2 * episodes.action.shape[1]
    assert Scale.from_dict(prepared) == stream.scale
    began = json.loads((out / "env.json").read_text())["data"]
    assert began["episodes"] == 24 and began["windows"] == len(stream.cuts)


def test_a_world_is_enough(tmp_path):
    data = {"path": "point-mass", "episodes": 10, "steps": 12, "world": {"pixels": 8}}
    out = execute(settings(tmp_path / "a", data))
    prepared = json.loads((out / "checkpoints" / "last" / "config.json").read_text())["preprocess"]
    assert prepared["obs_shape"] == [3, 8, 8] and prepared["world"]["pixels"] == 8
    execute(settings(tmp_path / "b", data))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_other_episodes_are_refused_on_resume(tmp_path, eps):
    data = {"path": str(tmp_path / "eps")}
    collect("point-mass", episodes=9, steps=12, out=tmp_path / "eps")
    execute(settings(tmp_path / "a", data))
    (tmp_path / "eps").rename(tmp_path / "old")
    collect("point-mass", episodes=10, steps=12, out=tmp_path / "eps")
    with pytest.raises(ValueError, match=r"the episodes of a resumed run must be those it began with, got 10 .* of 9 "):
        execute(settings(tmp_path / "a", data), resume=True)


def test_bad_episodes_are_listed(tmp_path, eps):
    hurt = tmp_path / "eps"
    hurt.mkdir()
    for file in eps.iterdir():
        (hurt / file.name).write_bytes(file.read_bytes())
    state = np.load(hurt / "state.npy")
    state[13 * 4 + 2] = np.nan
    np.save(hurt / "state.npy", state)
    with pytest.raises(ValueError, match=r"got 1 bad of 24: 4 \(states are not finite"):
        execute(settings(tmp_path / "a", str(hurt)))
    assert not (tmp_path / "a").exists()
    out = execute(settings(tmp_path / "a", {"path": str(hurt), "on_bad": "skip"}))
    assert (out / "bad_files.txt").read_text().startswith("4\tstates are not finite")


def test_pictures_and_episodes_are_not_mixed_up(tmp_path, eps):
    with pytest.raises(
        ValueError, match=r"data must be pictures for method lejepa, got episodes: .*from episodes: .*step"
    ):
        execute(settings(tmp_path / "a", str(eps), method="lejepa"))
    with pytest.raises(ValueError, match=r"data must be pictures for method lejepa, got episodes: pendulum"):
        execute(settings(tmp_path / "a", "pendulum", method="lejepa"))
    with pytest.raises(ValueError, match="data must be episodes or a world, got 'shapes:64'"):
        execute(settings(tmp_path / "a", "shapes:64"))
    with pytest.raises(ValueError, match="unknown key 'size'"):
        settings(tmp_path / "a", {"path": str(eps), "size": 16})
    with pytest.raises(ValueError, match=r"must be pictures \(DataConfig\) for method lejepa, got EpisodeConfig"):
        settings(tmp_path / "a", EpisodeConfig(path=str(eps)), method="lejepa")
    with pytest.raises(ValueError, match="window must fit"):
        execute(settings(tmp_path / "a", str(eps), method={"name": "step", "window": {"steps": 30}}))
    assert not (tmp_path / "a").exists()


def test_settings_survive_a_round_trip(tmp_path, eps):
    run = settings(tmp_path / "a", {"path": str(eps), "held_out": 0.2, "world": {"pixels": 8}})
    assert RunConfig.model_validate(run.model_dump(mode="json")) == run
    assert isinstance(run.data, EpisodeConfig)
