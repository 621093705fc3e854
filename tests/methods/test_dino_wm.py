"""What is special to DINO-WM."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from openjepa.core.rollout import rollout
from openjepa.core.types import Clock, Dynamics, Space
from openjepa.methods.dino_wm import DinoWM, DinoWMConfig
from openjepa.nn import build_encoder
from tests.methods.test_contract import TINY, make, step, trainable
from tests.methods.toy_windows import dot, dots


def test_is_dynamics_on_patches() -> None:
    method = make("dino_wm").eval()
    assert isinstance(method, Dynamics)
    batch = dot(5, 4)
    z = method.encode(batch.obs[:, 0])
    assert torch.equal(z, method.encoder(batch.obs[:, 0])) and z.shape == (5, 16, 32)
    future = rollout(method, z, batch.action)
    assert future.shape == (5, 3, 16, 32)
    assert torch.allclose(method.step(z, batch.action[:, 0]), future[:, 0], atol=1e-6)
    fed = torch.stack([z, future[:, 0]], 1)
    assert torch.allclose(method.predict(fed, batch.action[:, :2])[:, 1], future[:, 1], atol=1e-5)
    fed = torch.stack([future[:, 0], future[:, 1]], 1)  # a history of two: z is forgotten
    assert torch.allclose(method.predict(fed, batch.action[:, 1:])[:, 1], future[:, 2], atol=1e-5)


def test_the_loss_is_the_next_frame_at_every_place_of_every_history() -> None:
    method = make("dino_wm").eval()
    batch = dot(5, 4)
    with torch.no_grad():
        terms, seen = method.losses(batch, Clock())
        z = method.encode(batch.obs.flatten(0, 1)).unflatten(0, (5, 4))
        error = [
            (method.predict(z[:, s : s + 2], batch.action[:, s : s + 2]) - z[:, s + 1 : s + 3]).square().mean()
            for s in (0, 1)
        ]
    assert terms["predict"] == pytest.approx(float(torch.stack(error).mean()), rel=1e-4)
    assert seen["prediction"].shape == (10, 2, 16, 32)


def test_the_encoder_never_moves() -> None:
    method = make("dino_wm", encoder="convnet_tiny")  # with batch norms, whose statistics must stand still too
    before = {k: v.clone() for k, v in method.encoder.state_dict().items()}
    opt = torch.optim.AdamW(trainable(method), lr=1e-2)
    for i in range(3):
        step(method, opt, dot(6, 4, seed=i), Clock(i, 3))
    assert all(torch.equal(v, before[k]) for k, v in method.encoder.state_dict().items())
    assert not any(m.training for m in method.encoder.modules()) and method.predictor.training


def test_an_encoder_can_be_given_and_a_checkpoint_must_be() -> None:
    own = build_encoder("vit_micro/4", size=16, channels=1)
    method = DinoWM(DinoWMConfig(checkpoint="runs/a", depth=1), space=dots(), encoder=own)
    assert method.encoder is own and method.encode(torch.zeros(2, 1, 16, 16)).shape == (2, 16, 96)
    patches = DinoWM(DinoWMConfig(depth=1), space=dots(), encoder=nn.Conv2d(1, 8, 4, stride=4))
    assert patches.encode(torch.zeros(2, 1, 16, 16)).shape == (2, 16, 8)
    with pytest.raises(ValueError, match="passed as encoder="):
        DinoWM(DinoWMConfig(checkpoint="runs/a"), space=dots())
    with pytest.raises(ValueError, match="must be pictures"):
        DinoWM(DinoWMConfig(), space=Space(obs=(4,)))


def test_prefix_tokens_are_left_out() -> None:
    method = make("dino_wm", encoder={**TINY["dino_wm"]["encoder"], "cls": True, "registers": 2})
    assert method.encode(torch.zeros(2, 1, 16, 16)).shape == (2, 16, 32)


def test_actions_matter_and_may_be_missing() -> None:
    method = make("dino_wm").eval()
    z = torch.randn(3, 16, 32)
    assert not torch.allclose(method.step(z, torch.zeros(3, 2)), method.step(z, torch.ones(3, 2)), atol=1e-4)
    cfg = DinoWMConfig.model_validate(TINY["dino_wm"])
    still = DinoWM(cfg, space=Space(obs=(1, 16, 16)))
    batch = dot(4, 4)
    assert torch.isfinite(still.losses(batch._replace(action=batch.action[..., :0]), Clock())[0]["predict"])


def test_state_rides_along() -> None:
    method = make("dino_wm", proprio=True, proprio_dim=4)
    batch = dot(6, 4)
    terms, seen = method.losses(batch, Clock())
    assert torch.isfinite(terms["predict"]) and seen["prediction"].shape[-1] == 36
    terms["predict"].backward()
    assert method.proprio.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="state must be given"):
        method.encode(batch.obs[:, 0])
    method.eval()
    a, b = (method.encode(batch.obs[:, 0], batch.state[:, 0] + x) for x in (0, 1))
    assert torch.equal(a[..., :32], b[..., :32]) and not torch.allclose(a[..., 32:], b[..., 32:])
    with pytest.raises(ValueError, match="state is unknown"):
        DinoWM(method.cfg, space=Space(obs=(1, 16, 16), action=2))


def test_it_learns_to_move_the_dot() -> None:
    """Against copying the last frame, on new windows."""
    method = make("dino_wm", dropout=0.0)
    opt = torch.optim.AdamW(trainable(method), lr=3e-3)
    for i in range(150):
        step(method, opt, dot(16, 4, seed=i), Clock(i, 150))
    method.eval()
    batch = dot(128, 4, seed=999)
    with torch.no_grad():
        terms, _ = method.losses(batch, Clock())
        z = method.encode(batch.obs.flatten(0, 1)).unflatten(0, (128, 4))
    assert terms["predict"] < 0.7 * (z[:, 1:] - z[:, :-1]).square().mean()
