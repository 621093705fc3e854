"""One line from pictures and clips of every kind to tokens and one vector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import openjepa
from openjepa.interop import load
from openjepa.nn import build_clip_encoder
from tests.interop.interop_toys import checkpoint
from tests.interop.layouts import published as p


@pytest.fixture
def v2(tmp_path):
    torch.manual_seed(0)
    return load(p.saved(p.vjepa2(False), tmp_path), heads=p.HEADS_ASKED, size=32, frames=4)


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def test_clips(v2):
    one = noise(4, 3, 40, 60)
    got = v2.encode(one)
    assert got.tokens.shape == (1, 2 * 2 * 2, p.D) and got.pooled.shape == (1, p.D)
    torch.testing.assert_close(got.pooled, got.tokens.mean(1))
    frames = torch.stack([v2.preprocess(f) for f in one])
    for same in (one[None], [one], frames, frames[None]):
        torch.testing.assert_close(v2.encode(same).tokens, got.tokens)
    many = noise(5, 4, 3, 32, 32)
    whole = v2.encode(many)
    assert whole.tokens.shape == (5, 8, p.D)
    torch.testing.assert_close(v2.encode(many, batch_size=8).tokens, whole.tokens)  # two clips at a time
    torch.testing.assert_close(v2.encode([*many]).tokens, whole.tokens)
    assert v2.encode(many, pooling="mean+max").pooled.shape == (5, 2 * p.D)
    with pytest.raises(ValueError, match="one length and size"):
        v2.encode([torch.zeros(4, 3, 32, 32), torch.zeros(8, 3, 32, 32)])
    for wrong in (torch.zeros(4, 1, 32, 32), torch.zeros(0, 3, 32, 32), torch.zeros(2, 3)):
        with pytest.raises(ValueError, match=r"clips must be \(T, 3, H, W\)"):
            v2.encode(wrong)
    with pytest.raises(ValueError, match="at least one"):
        v2.encode([])


def test_other_sizes_lengths_and_shapes(v2):
    for shape in ((2, 4, 3, 32, 64), (1, 8, 3, 48, 16), (1, 2, 3, 16, 16)):
        tokens = v2.encode(torch.randn(shape)).tokens
        assert tokens.shape[1] == shape[1] // 2 * (shape[3] // 16) * (shape[4] // 16) and tokens.isfinite().all()


def test_a_picture_is_a_clip_of_one_frame(v2, tmp_path):
    pixels = noise(3, 50, 40)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    image.save(tmp_path / "a.png")
    got = v2.encode(image)
    assert got.tokens.shape == (1, 4, p.D)
    for same in (tmp_path / "a.png", str(tmp_path / "a.png"), [image], pixels):
        torch.testing.assert_close(v2.encode(same).tokens, got.tokens)
    assert v2.encode([image, image]).pooled.shape == (2, p.D)
    v1 = load(p.saved(p.vjepa(), tmp_path), heads=p.HEADS_ASKED)
    assert v1.encode(image).tokens.shape == (1, 8 * 2 * 2, p.D)  # repeated 16 times, as V-JEPA was measured


def test_a_video(v2, tmp_path):
    """Frames of its middle at the checkpoint's rate; a short one is spread over the clip."""
    av = pytest.importorskip("av")
    shown = [np.full((48, 64, 3), 10 * i, dtype=np.uint8) for i in range(24)]
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in shown:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    got = v2.encode(tmp_path / "a.mp4")
    assert v2.preprocess.fps == 4.0 and got.tokens.shape == (1, 8, p.D)
    from openjepa.interop.videos import read_clip

    clip = read_clip(tmp_path / "a.mp4", v2.preprocess)
    levels = clip.float().mean((1, 2, 3)) / 10
    assert clip.shape == (4, 3, 48, 64)
    torch.testing.assert_close(levels.diff(), torch.full((3,), 3.0), atol=0.4, rtol=0)  # every third of 12 a second
    torch.testing.assert_close(v2.encode(clip).tokens, got.tokens)
    long = load(p.saved(p.vjepa2(False), tmp_path), heads=p.HEADS_ASKED, size=32, frames=64)
    assert long.encode(tmp_path / "a.mp4").tokens.shape == (1, 32 * 4, p.D)
    with pytest.raises(ValueError, match="video must exist"):
        v2.encode("nowhere.mp4")


def test_ours_on_clips(tmp_path):
    """A checkpoint of our own that was trained on clips."""
    settings = {"name": "vit_micro/8", "pos": "rope", "levels": 2, "picture_patch": True}
    torch.manual_seed(0)
    mine = build_clip_encoder(settings, size=16, frames=4).eval()
    prepared = {"kind": "clips", "size": 16, "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3, "resample": "bicubic"}
    prepared |= {"frames": 4, "stride": 2, "fps": None}
    config = {"format": "openjepa/1", "encoder": settings, "preprocess": prepared, "licence": "Apache-2.0"}
    model = load(checkpoint(tmp_path / "c", {"encoder": mine}, config))
    x = torch.randn(2, 4, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.encode(x).tokens, mine(x))
    assert (model.family, model.licence, model.preprocess.stride) == ("openjepa", "Apache-2.0", 2)
    with pytest.raises(ValueError, match="size must be left out for a checkpoint of openjepa"):
        load(tmp_path / "c", size=32)


def test_openjepa_load_and_info(tmp_path, capsys):
    """The public names, and what the command prints."""
    from openjepa.app.cli import main

    path = p.saved(p.vjepa2(), tmp_path)
    model = openjepa.load(path, heads=p.HEADS_ASKED)
    assert model.family == "V-JEPA 2"
    found = openjepa.info(path)
    assert found["family"] == "V-JEPA 2" and found["weights"] == "target (teacher) encoder, 'target_encoder'"
    assert found["not taken"] == ["encoder"] and found["preprocess"]["kind"] == "clips"
    try:
        main(["info", str(path)])
    except SystemExit as e:
        assert not e.code
    printed = capsys.readouterr().out
    for word in ("V-JEPA 2", "MIT", "target_encoder", "parameters", "0.485", "stale", "384"):
        assert word in printed, word


def test_info_is_told_what_the_file_does_not_say(tmp_path, capsys):
    """Family and heads as flags; heads are printed, and which are open."""
    from openjepa.app.cli import main

    path = p.saved(p.vit(3, 2, 4, 4, tokens=32), tmp_path)
    with pytest.raises(ValueError, match=r"Name it with family='V-JEPA' or family='V-JEPA 2'"):
        openjepa.info(path)
    found = openjepa.info(path, family="V-JEPA")
    assert found["family"] == "V-JEPA" and found["heads"] == {"encoder": "not in the file: heads.encoder=N"}
    found = openjepa.info(path, family="V-JEPA 2", heads=2, size=16)
    assert found["family"] == "V-JEPA 2" and found["heads"] == {"encoder": 2} and found["preprocess"]["size"] == 16
    with pytest.raises(SystemExit) as ended:
        main(["info", str(path), "family=V-JEPA", "heads.encoder=4"])
    printed = capsys.readouterr().out
    assert not ended.value.code and "encoder  4" in printed
    with pytest.raises(ValueError, match="Did you mean 'heads'"):
        openjepa.app.answers.request("info", {"head": 2})
    with pytest.raises(ValueError, match="heads must be left out for what is no checkpoint of others"):
        openjepa.info(tmp_path, heads=2)


def test_parts_that_are_not_there(v2, tmp_path):
    with pytest.raises(ValueError, match="must hold a classifier, got encoder, predictor"):
        v2.classify(torch.zeros(4, 3, 32, 32))
    assert json.loads(json.dumps(v2.preprocess.as_dict()))["frames"] == 4
    assert Path(v2.source).name == "weights.pt" and v2.to("cpu") is v2
