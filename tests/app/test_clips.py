"""A run on clips through every verb: probe, compare, embed, look, export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import openjepa
from openjepa.app.clip_subjects import ClipSides, sides, with_split
from openjepa.app.runs import Run
from openjepa.data.clips.config import ClipConfig
from openjepa.interop.preprocess import ClipPreprocess

SMALL = ["budget.steps=2", "batch_size=4", "log.tensorboard=false", "log.look=2", "probe.online=false", "threads=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("run") / "v"
    return openjepa.train(
        {"name": "vjepa", "encoder": {"name": "vit_micro/8", "pos": "rope-tiled"}, "predictor_width": 24,
         "predictor_depth": 1, "predictor_heads": 2, "ema": (0.9, 1.0),
         "views": [{"frames": 8, "scale": (0.5, 1.0)}], "masks": [{"blocks": 2, "scale": (0.2, 0.3)}]},
        data={"path": "bouncing-shapes:40", "size": 32}, out=out, overrides=SMALL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("run") / "p"
    return openjepa.train(
        {"name": "ijepa", "encoder": "vit_micro/8", "predictor_width": 24, "predictor_depth": 1},
        data={"path": "shapes:40", "size": 32}, out=out, overrides=SMALL,
    )  # fmt: skip


def test_probe(run: Run):
    found = run.probe(data="bouncing-shapes:60", kinds=["order", "reversed", "speed", "motion"])
    names = [row["name"] for row in found["scores"]]
    assert names[:3] == ["order (linear)", "reversed (linear)", "speed (linear)"]
    assert {"x (R2), per step", "vy (R2), whole clip", "x of the first (R2), per step, in place"} <= set(names)
    assert found["test"] == "bouncing-shapes:60 (test)" and found["videos"] == [60, 60]
    assert json.loads(Path(found["file"]).read_text())["kind"] == "clips"
    r2 = {row["name"]: row["r2"] for row in found["scores"] if "r2" in row}
    assert all(np.isfinite(v) and v <= 1 for v in r2.values())
    from openjepa.app.text import scores

    shown = scores(found)
    assert "value" in shown and "speed (linear)" in shown


def test_kinds_that_do_not_fit_are_refused(run: Run, tmp_path: Path):
    clips = np.random.default_rng(0).integers(0, 255, (6, 12, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    with pytest.raises(ValueError, match="must have labels"):
        run.probe(data=str(tmp_path / "clips.npy"), kinds=["linear"])
    with pytest.raises(ValueError, match="where things are"):
        run.probe(data=str(tmp_path / "clips.npy"), kinds=["motion"])
    with pytest.raises(ValueError, match="finetune"):
        run.probe(data="bouncing-shapes:40", kinds=["finetune"])
    with pytest.raises(ValueError, match="Did you mean 'speed'"):
        run.probe(data="bouncing-shapes:40", kinds=["sped"])


def test_compare_sets_pictures_frame_by_frame_beside_it(run: Run, pictures: Run):
    found = openjepa.compare(run, pictures, "pixels", "init", data="bouncing-shapes:40", kinds=["motion", "order"])
    table = found["table"]
    assert list(table) == [str(run.path), f"{pictures.path} per frame", "pixels", "init"]
    assert len({tuple(rows) for rows in table.values()}) == 1  # everyone was asked the same
    # brightness tells where things are: raw pixels know the mean place of a clip's shapes
    assert table["pixels"]["x (R2), per step"]["r2"] > 0.3
    assert table["pixels"]["x (R2), per step, in place"]["r2"] == table["pixels"]["x (R2), per step"]["r2"]
    # and an untrained network's tokens tell it by where they lie, where their mean does not
    assert table["init"]["x (R2), per step, in place"]["r2"] > table["init"]["x (R2), per step"]["r2"]


def test_a_run_on_clips_takes_pictures_beside_one_on_pictures(run: Run, pictures: Run):
    """A picture is a clip of one frame: when the run on pictures comes first, its pictures are what all are shown."""
    found = openjepa.compare(pictures, run, data="shapes:60", kinds=["knn"])
    assert list(found["table"]) == [str(pictures.path), str(run.path)] and "kind" not in found


def test_embed(run: Run, tmp_path: Path):
    z = run.embed("bouncing-shapes:7", tmp_path / "z.npz")
    assert z.shape == (7, 96) and np.load(tmp_path / "z.npz")["labels"].shape == (7,)


def test_look(run: Run):
    found = run.look()
    page = Path(found["report"]).read_text()
    assert page.count("data:image/gif;base64,") > 20 and "Nearest clips" in page and "Context" in page
    assert (run.path / "look" / "features.gif").stat().st_size > 1000


def test_export(run: Run, tmp_path: Path):
    run.export(tmp_path / "own")
    model = openjepa.load(tmp_path / "own")
    x = torch.randn(2, 8, 3, 32, 32)
    assert torch.equal(model.encode(x).tokens, run.load().encode(x).tokens)
    transformers = pytest.importorskip("transformers")
    run.export(tmp_path / "hf")
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "hf").eval()
    with torch.no_grad():
        got = theirs(x, skip_predictor=True).last_hidden_state
    torch.testing.assert_close(got, model.encode(x).tokens, atol=1e-5, rtol=1e-5)
    again = openjepa.load(tmp_path / "hf")  # what transformers has no place for comes back too
    assert again.preprocess == model.preprocess and again.weights == model.weights == "teacher"
    assert again.licence == "Apache-2.0" and "exported by openjepa" in again.notes[0]


def test_no_video_is_on_both_sides(tmp_path: Path):
    prepare = ClipPreprocess(size=32, frames=8)
    drawn: ClipSides = sides(ClipConfig(path="bouncing-shapes:40"), None, prepare, 0)
    assert (drawn.train.split, drawn.test.split) == ("train", "test")
    np.save(tmp_path / "c.npy", np.zeros((20, 12, 8, 8), np.uint8))
    one = sides(ClipConfig(path=str(tmp_path / "c.npy")), None, prepare, 0)
    assert not set(one.rows[0]) & set(one.rows[1]) and len(one.rows[0]) + len(one.rows[1]) == 20 and not one.labels
    assert one.about()["test"].startswith("a fifth")
    assert with_split(ClipConfig(path="bouncing-shapes", split="test"))[1] is None
    with pytest.raises(ValueError, match="other videos"):
        sides(ClipConfig(path="bouncing-shapes:9"), ClipConfig(path="bouncing-shapes:9"), prepare, 0)


def test_masks_on_clips_and_on_pictures(run: Run, pictures: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("openjepa.probe.dense.FEWEST", 4)  # steps: what the heads learn is tested in tests/probe
    for one, data in ((run, "bouncing-shapes:24"), (pictures, "shapes:60")):
        found = one.probe(data=data, kinds=["segment"], masks="drawn")
        names = [row["name"] for row in found["scores"]]
        assert names == ["segmentation, linear head (mIoU)", "segmentation, small head (mIoU)"]
        assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in found["scores"])
    with pytest.raises(ValueError, match="alone"):
        pictures.probe(data="shapes:60", kinds=["segment", "knn"], masks="drawn")
    with pytest.raises(ValueError, match="masks=None"):
        pictures.probe(data="shapes:60", kinds=["segment"])
