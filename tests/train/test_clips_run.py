"""From videos to a run folder: what it records, and that a resumed run equals an uninterrupted one."""

import json
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from openjepa.config import ClipView, Config
from openjepa.data.clips.config import ClipConfig
from openjepa.methods import METHODS
from openjepa.methods.base import Method
from openjepa.train import checkpoint, execute
from openjepa.train.run import RunConfig


class NextConfig(Config):
    name: Literal["next"] = "next"
    views: tuple[ClipView, ...] = (ClipView(frames=4, size=8, flip=0.5), ClipView(frames=2, stride=2, size=8, count=2))


class Next(Method):
    """The features of the next frame from this one's: enough to see every part of a batch of clips used."""

    Config = NextConfig
    eats = "clips"

    def __init__(self, cfg: NextConfig, *, size: int, channels: int) -> None:
        super().__init__()
        self.cfg, self.weights = cfg, {"predict": 1.0}
        self.encoder = nn.Sequential(nn.Flatten(-3), nn.Linear(channels * 64, 8))
        self.predictor = nn.Linear(8, 8)

    def losses(self, batch, clock):
        z = self.encoder(batch.view)  # (V, B, T, D)
        return {"predict": (self.predictor(z[:, :, :-1]) - z[:, :, 1:]).square().mean() - z.std()}, {"z": z.detach()}

    def encode(self, obs):
        return self.encoder(obs)


@pytest.fixture(autouse=True)
def table(monkeypatch):
    monkeypatch.setitem(METHODS, "next", Next)


def config(out, path, **changes) -> RunConfig:
    plain = {
        "method": "next", "data": {"path": str(path), "max_bad": 0.2}, "out": str(out), "batch_size": 4,
        "budget": {"steps": 8}, "log": {"tensorboard": False, "every": 1, "look": 3}, "precision": "fp32",
        "device": "cpu", "seed": 3, "checkpoint": {"every": 4, "keep": 9},
    }  # fmt: skip
    return RunConfig.model_validate(plain | changes)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Ten videos and one that is none."""
    av = pytest.importorskip("av")
    root = tmp_path_factory.mktemp("videos")
    draw = np.random.default_rng(0)
    for k in range(10):
        with av.open(str(root / f"{k}.mp4"), "w") as box:
            stream = box.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
            for picture in draw.integers(0, 255, (6, 16, 16, 3), dtype=np.uint8):
                box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            box.mux(stream.encode())
    (root / "broken.mp4").write_bytes(b"")
    return root


def rows(out):
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time", "clips_per_s", "videos_per_s")} for row in found]


@pytest.mark.parametrize("source", ["files", "bouncing-shapes:40"])
def test_a_resumed_run_equals_an_uninterrupted_one(videos, tmp_path, source):
    path = videos if source == "files" else source
    execute(config(tmp_path / "whole", path))

    class Enough(Exception):
        pass

    def stop(moment):
        if moment.step == 6:
            raise Enough
        return {}

    with pytest.raises(Enough):
        execute(config(tmp_path / "parts", path), observers=[stop])
    torch.manual_seed(99)
    execute(config(tmp_path / "parts", path), resume=True)
    a, b = (checkpoint.read_parts(tmp_path / x / "checkpoints" / "last") for x in ("whole", "parts"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert all(torch.equal(a[part][k], b[part][k]) for part in a for k in a[part])


def test_other_videos_are_refused_on_resume(tmp_path):
    execute(config(tmp_path / "a", "bouncing-shapes:40"))
    about = json.loads((tmp_path / "a" / "env.json").read_text())
    about["data"]["fingerprint"] = "another"
    (tmp_path / "a" / "env.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="the videos of a resumed run must be those it began with"):
        execute(config(tmp_path / "a", "bouncing-shapes:40"), resume=True)


def test_what_the_run_folder_says(videos, tmp_path):
    out = execute(config(tmp_path / "a", videos))
    about = json.loads((out / "env.json").read_text())
    assert about["preprocess"] | {"mean": 0, "std": 0} == {
        "kind": "clips", "frames": 4, "stride": 1, "fps": None, "size": 16, "channels": 3, "mean": 0, "std": 0,
        "resample": "bicubic",
    }  # fmt: skip
    assert about["data"]["videos"] == 10 and about["data"]["total_frames"] == 60
    assert "broken.mp4" in (out / "bad_files.txt").read_text() and "empty file" in (out / "bad_files.txt").read_text()


def test_settings_of_the_wrong_kind_are_refused(videos):
    with pytest.raises(ValueError, match="must be clips"):
        from openjepa.data.config import DataConfig

        RunConfig(method=NextConfig(), data=DataConfig(path="digits"))
    assert isinstance(config("x", videos).data, ClipConfig)
