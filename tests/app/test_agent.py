"""The older API: its names, its defaults, its documented snippet, and clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import openjepa
from openjepa import JEPAAgent, JEPAConfig

DOCUMENTED = {
    "image_size": 224,
    "patch_size": 16,
    "embed_dim": 768,
    "num_layers": 12,
    "num_heads": 12,
    "mask_ratio": 0.75,
    "predict_horizon": 1,
    "batch_size": 64,
    "learning_rate": 1e-4,
}
TINY = {
    "image_size": 16, "patch_size": 4, "embed_dim": 32, "num_layers": 1, "num_heads": 2, "predictor_dim": 16,
    "predictor_layers": 1, "temporal_layers": 1, "batch_size": 8, "epochs": 1, "device": "cpu", "num_workers": 0,
}  # fmt: skip


def tiny(**changes: object) -> JEPAConfig:
    cfg = JEPAConfig()
    for name, value in {**TINY, **changes}.items():
        setattr(cfg, name, value)
    return cfg


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/train/{a,b}/*.png: coloured squares on noise."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for k in range(40):
        pixels = draw.integers(0, 60, (20, 20, 3), dtype=np.uint8)
        y, x = draw.integers(0, 12, 2)
        pixels[y : y + 8, x : x + 8, k % 2] = 220
        folder = root / "train" / "ab"[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return root


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> JEPAAgent:
    out = tmp_path_factory.mktemp("runs") / "a"
    agent = JEPAAgent(tiny(root_path=photos, output_dir=out))
    assert agent.train() == out
    return agent


def test_documented_defaults() -> None:
    cfg = JEPAConfig()
    assert {name: getattr(cfg, name) for name in DOCUMENTED} == DOCUMENTED
    cfg.dataset, cfg.root_path, cfg.image_folder, cfg.epochs = "imagefolder", "./data", "train", 100
    run = cfg.run()
    assert run.data.path == "data/train" and run.data.size == 224 and run.budget.epochs == 100
    assert (run.batch_size, run.optim.lr) == (64, 1e-4)
    method = run.method
    assert (method.name, method.masking, method.mask_ratio, method.predict_horizon) == ("masked", "block", 0.75, 1)
    encoder = method.encoder
    assert (encoder.width, encoder.depth, encoder.heads, encoder.patch_for(224)) == (768, 12, 12, 16)


def test_the_default_networks_have_the_documented_size() -> None:
    from openjepa.methods.masked import MaskedJEPA

    run = JEPAConfig().run()
    with torch.device("meta"):
        method = MaskedJEPA(run.method, size=run.data.size, channels=3)
    assert (method.encoder.dim, method.encoder.grid, len(method.encoder.blocks)) == (768, (14, 14), 12)
    assert 85e6 < sum(p.numel() for p in method.encoder.parameters()) < 87e6  # ViT-B/16


def test_misspelt_settings_name_the_nearest() -> None:
    cfg = JEPAConfig()
    with pytest.raises(AttributeError, match="Did you mean 'mask_ratio'"):
        cfg.mask_ration = 0.5
    with pytest.raises(TypeError, match="learnin_rate"):
        JEPAConfig(learnin_rate=1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dataset": "imagenet"}, "dataset must be one of"),
        ({"mask_ratio": 1.5}, "mask_ratio"),
        ({"masking": "temporal"}, "frames must be more than predict_horizon"),
        ({"masking": "blocks"}, "masking"),
        ({"consistency_weight": 1.0}, "consistency must be 0"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_settings_that_do_not_fit_are_named_before_training(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tiny(**changes).run()


def test_training_leaves_an_ordinary_run(trained: JEPAAgent) -> None:
    assert trained.run is not None
    assert trained.run.config.method.name == "masked"
    rows = trained.run.metrics()
    assert rows[-1]["step"] == 5 and np.isfinite(rows[-1]["loss"])
    assert {"terms/predict", "terms/variance"} <= rows[-1].keys()


def test_it_says_what_it_does(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    JEPAAgent(tiny(root_path=photos, output_dir=tmp_path / "b", masking="random", invariance_weight=0.5)).train()
    text = capsys.readouterr().out
    assert str(photos / "train") in text and str(tmp_path / "b") in text and "openjepa look" in text


def test_the_default_folder_is_numbered(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "jepa").mkdir(parents=True)
    assert JEPAAgent(tiny(root_path=photos)).train() == Path("runs/jepa-2")


def test_encode_save_and_load(trained: JEPAAgent, tmp_path: Path) -> None:
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    z = trained.encode(images)
    assert z.shape == (3, 16, 32) and not z.requires_grad
    assert torch.allclose(trained.encode(images / 255), z, atol=1e-4)
    saved = trained.save(tmp_path / "saved")
    assert torch.equal(JEPAAgent().load(saved).encode(images), z)
    assert trained.run is not None
    assert torch.equal(JEPAAgent().load(trained.run.path).encode(images), z)
    with pytest.raises(ValueError, match="path must not exist yet"):
        trained.save(saved)
    with pytest.raises(ValueError, match="images must be"):
        trained.encode(images[0])


def test_networks_are_needed_to_encode_and_save(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trained or loaded to encode"):
        JEPAAgent().encode(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="trained or loaded to save"):
        JEPAAgent().save(tmp_path / "a")
    with pytest.raises(ValueError, match="without config"):
        JEPAAgent().load(tmp_path)


@pytest.mark.parametrize("masking", ["temporal", "block"])
def test_clips_from_an_array_file(tmp_path: Path, masking: str) -> None:
    """A bright square that moves; four frames per clip, grey."""
    clips = np.zeros((16, 4, 16, 16), dtype=np.uint8)
    for k in range(16):
        for t in range(4):
            clips[k, t, k % 8 : k % 8 + 4, 3 * t : 3 * t + 4] = 255
    np.savez(tmp_path / "clips.npz", images=clips)
    cfg = tiny(
        dataset="file", root_path=tmp_path / "clips.npz", num_frames=4, channels=1, masking=masking,
        predict_horizon=2, consistency_weight=0.1, output_dir=tmp_path / "run",
    )  # fmt: skip
    agent = JEPAAgent(cfg)
    agent.train()
    assert agent.run is not None
    assert "terms/consistency" in agent.run.metrics()[-1]
    assert agent.encode(torch.from_numpy(clips[:2])[:, :, None]).shape == (2, 4 * 16, 32)
    assert agent.encode(torch.from_numpy(clips[:2, :1])).shape == (2, 16, 32)  # a single frame


def test_other_runs_are_refused(photos: Path, tmp_path: Path) -> None:
    run = openjepa.train(
        "lejepa",
        data={"path": str(photos / "train"), "size": 16, "workers": 0},
        out=tmp_path / "l",
        encoder={"name": "vit_nano/4", "width": 32, "depth": 1, "heads": 2},
        batch_size=8,
        budget={"steps": 1},
        overrides=["method.local_views=null", "method.slices=16", "log.tensorboard=false", "device=cpu"],
    )
    with pytest.raises(ValueError, match="got method lejepa"):
        JEPAAgent().load(run.path)
