"""DINO-WM on an encoder of our own: trained on the world's pictures, frozen, opened by name, planned with."""

from __future__ import annotations

import pytest
import torch

import openjepa
from openjepa.app.dreaming import dreamer
from openjepa.data.episodes import EpisodeConfig, Scale, open_episodes

SHORT = {"batch_size": 8, "budget": {"steps": 2}, "log": {"tensorboard": False}}


def test_a_world_model_stands_on_the_encoder_of_another_run(tmp_path) -> None:
    pictures = {"name": "lejepa", "encoder": {"name": "vit_micro/8", "depth": 1}, "projector_hidden": 16,
                "projector_out": 8, "slices": 8, "local_views": None}  # fmt: skip
    openjepa.train(pictures, data={"path": "shapes", "limit": 64, "size": 32}, out=tmp_path / "enc", **SHORT)
    data = {"path": "point-mass", "episodes": 8, "steps": 8, "world": {"pixels": 32}}
    cfg = {"name": "dino_wm", "encoder": {"name": "vit_micro/8", "depth": 1}, "checkpoint": str(tmp_path / "enc"),
           "window": {"steps": 4, "skip": 1}, "depth": 1, "heads": 2}  # fmt: skip
    run = openjepa.train(cfg, data=data, out=tmp_path / "wm", **SHORT)

    found = dreamer(run, torch.device("cpu"))
    seen = torch.from_numpy(open_episodes(EpisodeConfig.model_validate(data)).obs[:4]).permute(0, 3, 1, 2)
    z = found.method.encode(Scale.from_dict(found.preprocess).observation(seen))
    own = openjepa.load(tmp_path / "enc")
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (own.preprocess.mean, own.preprocess.std))
    plain = (seen / 255 - mean) / std
    with torch.no_grad():
        want = own.encoder(plain)
    torch.testing.assert_close(z[..., : want.shape[-1]], want, atol=1e-4, rtol=1e-4)  # the encoder's own features
    search = {"name": "shooting", "samples": 4, "horizon": 2}
    assert run.plan(episodes=1, planner=search, controls=[], films=0)["take"] == 2


def test_actions_move_what_an_encoder_of_clips_sees_in_frames_of_another_size(tmp_path) -> None:
    """V-JEPA 2-AC on the encoder of a run of ours on clips, whose frames were larger than those of the episodes."""
    clips = {"name": "vjepa", "encoder": {"name": "vit_micro/8", "depth": 1, "pos": "rope-tiled"},
             "predictor_width": 12, "predictor_heads": 1, "predictor_depth": 1}  # fmt: skip
    openjepa.train(clips, data={"path": "bouncing-shapes:16", "size": 64}, out=tmp_path / "enc", **SHORT)
    data = {"path": "point-mass", "episodes": 8, "steps": 8, "world": {"pixels": 32}}
    cfg = {"name": "vjepa2_ac", "checkpoint": str(tmp_path / "enc"), "window": {"steps": 4, "skip": 1}, "width": 24,
           "depth": 1, "heads": 2}  # fmt: skip
    run = openjepa.train(cfg, data=data, out=tmp_path / "ac", **SHORT)
    found = dreamer(run, torch.device("cpu"))
    assert found.method.grid == (4, 4) and found.method.encoder.grid[-2:] == (8, 8)
    assert found.method.encode(torch.zeros(2, 3, 32, 32)).shape == (2, 16, 96)
    search = {"name": "shooting", "samples": 4, "horizon": 2}
    assert run.plan(episodes=1, planner=search, controls=[], films=0)["take"] == 2
    odd = {**data, "world": {"pixels": 36}}
    with pytest.raises(ValueError, match="must be a multiple of the encoder's patches of 8 pixels, got 36"):
        openjepa.train(cfg, data=odd, out=tmp_path / "odd", **SHORT)


def test_a_world_model_stands_on_the_encoder_of_a_world_model(tmp_path) -> None:
    """Ours of the same world, whose pictures have no three channels: two rooms show the dot and the walls."""
    world = {"path": "two-rooms", "episodes": 8, "steps": 8, "world": {"size": 33}}
    first = {"name": "pldm", "encoder": {"name": "keypoints", "heads": 3, "width": 4}, "dim": 4, "norm": False,
             "window": {"steps": 3, "skip": 1}, "unroll": 2, "predictor": "mlp"}  # fmt: skip
    openjepa.train(first, data=world, out=tmp_path / "a", **SHORT)
    cfg = {"name": "dino_wm", "encoder": {"name": "keypoints"}, "checkpoint": str(tmp_path / "a"),
           "window": {"steps": 4, "skip": 1}, "depth": 1, "heads": 2}  # fmt: skip
    other = {**world, "seed": 1}  # other episodes, other statistics
    run = openjepa.train(cfg, data=other, out=tmp_path / "b", **SHORT)
    below, above = (dreamer(openjepa.Run(tmp_path / x), torch.device("cpu")) for x in "ab")
    seen = torch.from_numpy(open_episodes(EpisodeConfig.model_validate(other)).obs[:4]).permute(0, 3, 1, 2)
    with torch.no_grad():
        want = below.method.encoder(Scale.from_dict(below.preprocess).observation(seen))
        found = above.method.encode(Scale.from_dict(above.preprocess).observation(seen))
    assert found.shape == (4, 3, 2)
    torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)
    assert run.plan(episodes=1, planner={"name": "shooting", "samples": 4, "horizon": 2}, controls=[], films=0)
    with pytest.raises(ValueError, match="must be an encoder of pictures, got a world model"):
        openjepa.load(tmp_path / "a")


def test_a_model_of_states_has_no_encoder_of_pictures(tmp_path) -> None:
    states = {"path": "point-mass", "episodes": 8, "steps": 8}
    openjepa.train({"name": "pldm", "window": {"steps": 3, "skip": 1}, "unroll": 2}, data=states, out=tmp_path / "a",
                   **SHORT)  # fmt: skip
    cfg = {"name": "dino_wm", "checkpoint": str(tmp_path / "a"), "window": {"steps": 4, "skip": 1}}
    with pytest.raises(ValueError, match=r"must be a world model that sees square pictures, got observations \(4,\)"):
        openjepa.train(cfg, data={**states, "world": {"pixels": 32}}, out=tmp_path / "b", **SHORT)
