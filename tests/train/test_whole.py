"""From settings to a run folder, on real sources and methods."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from openjepa.methods import METHODS
from openjepa.train import RunFailed, checkpoint, execute
from openjepa.train.run import RunConfig

VIT = {"name": "vit_nano/4", "width": 32, "depth": 1, "heads": 2}
METHOD = {
    "ijepa": {"name": "ijepa", "encoder": VIT, "predictor_width": 32, "predictor_depth": 1},
    "lejepa": {
        "name": "lejepa", "encoder": VIT, "projector_hidden": 32, "projector_out": 8, "slices": 32,
        "global_views": {"count": 2}, "local_views": None,
    },
}  # fmt: skip


def settings(out, name="lejepa", **changes):
    base = {
        "method": METHOD[name],
        "data": {"path": "shapes:32", "size": 16},
        "out": str(out),
        "batch_size": 8,
        "budget": {"steps": 6},
        "device": "cpu",
        "checkpoint": {"every": 3},
        "log": {"every": 1, "look": 3, "tensorboard": False},
    }
    return RunConfig.model_validate({**base, **changes})


def rows(out):
    wall = ("time", "images_per_s")
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in wall} for row in found]


@pytest.mark.parametrize("name", ["ijepa", "lejepa"])
def test_resume_is_exact(tmp_path, name):
    seen = []

    def make(method, source):
        seen.append((type(method).__name__, len(source)))
        return [lambda moment: {"health/step": moment.step}]

    execute(settings(tmp_path / "whole", name), observers=make)
    assert seen[0][1] == 32 and [r["step"] for r in rows(tmp_path / "whole") if "health/step" in r] == [3, 6]

    class Enough(Exception):
        pass

    def stop(moment):
        if moment.step == 6:
            raise Enough
        return {"health/step": moment.step}

    with pytest.raises(Enough):
        execute(settings(tmp_path / "parts", name), observers=[stop])
    assert [p.name for p in checkpoint.listed(tmp_path / "parts" / "checkpoints")] == ["step_3"]
    torch.manual_seed(123)
    execute(settings(tmp_path / "parts", name), observers=make, resume=True)
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    a, b = (checkpoint.read_parts(tmp_path / x / "checkpoints" / "last") for x in ("whole", "parts"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[part][k], b[part][k]) for part in a for k in a[part])


def test_a_checkpoint_is_enough_to_build_the_encoder_again(tmp_path):
    out = execute(settings(tmp_path / "a", "ijepa"))
    config = json.loads((out / "checkpoints" / "last" / "config.json").read_text())
    assert config["parts"] == ["encoder", "predictor", "teacher"]
    assert config["preprocess"].keys() == {"size", "channels", "mean", "std", "resample"}
    cls = METHODS[config["method"]["name"]]
    method = cls(cls.Config.model_validate(config["method"]), size=config["preprocess"]["size"])
    method.teacher.load_state_dict(checkpoint.read_parts(out / "checkpoints" / "last")["teacher"], strict=True)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def test_files_that_cannot_be_read_are_listed(tmp_path, photos):
    (photos / "00.png").write_bytes(b"no picture")
    data = {"path": str(photos), "size": 16, "cache": False, "workers": 0, "max_bad": 0.2}
    out = execute(settings(tmp_path / "a", data=data))
    lines = (out / "bad_files.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["00.png"]


def test_other_pictures_are_refused_on_resume(tmp_path, photos):
    data = {"path": str(photos), "size": 16, "workers": 0, "cache": False}
    execute(settings(tmp_path / "a", data=data))
    (photos / "07.png").unlink()
    with pytest.raises(ValueError, match=r"must be those it began with, got 23 .* instead of 24 "):
        execute(settings(tmp_path / "a", data=data), resume=True)


def test_a_folder_in_use_is_refused_before_the_pictures_are_opened(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="new or empty folder"):
        execute(settings(tmp_path / "a", data={"path": str(tmp_path / "gone")}))
    with pytest.raises(ValueError, match="out must be a folder"):
        execute(settings(tmp_path / "a").model_copy(update={"out": None}))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["thesis.tex"]


def test_a_huge_rate_ends_in_one_line(tmp_path):
    run = settings(tmp_path / "a", optim={"lr": 1e30, "warmup": 0}, budget={"steps": 50})
    with pytest.raises(RunFailed, match=r"became (nan|inf|not finite) at step \d+; .* Do lower optim.lr") as error:
        execute(run)
    assert "\n" not in str(error.value)
    for path in checkpoint.listed(tmp_path / "a" / "checkpoints"):
        parts = checkpoint.read_parts(path)
        assert all(x.isfinite().all() for xs in parts.values() for x in xs.values())
