"""What is special to LeWM."""

from __future__ import annotations

import pytest
import torch

from openjepa.core.rollout import rollout
from openjepa.core.spread import sigreg
from openjepa.core.types import Clock, Dynamics, Space
from openjepa.methods.lewm import LeWM, LeWMConfig
from tests.methods.test_contract import make, step, trainable
from tests.methods.toy_windows import OSCILLATOR, dot, dots, oscillator


def opened(method: LeWM) -> LeWM:
    """With the gates of the adaptive norms away from zero."""
    with torch.no_grad():
        for block in method.predictor.blocks:
            block.modulation.weight.add_(0.2 * torch.randn_like(block.modulation.weight))
    return method.eval()


def test_published_form() -> None:
    with torch.device("meta"):
        method = LeWM(LeWMConfig(), space=Space(obs=(3, 224, 224), action=10))
    assert method.weights == {"predict": 1.0, "sigreg": 0.09}
    assert (method.pool.pooling, method.projector.last.out_features, method.cfg.window.skip) == ("cls", 192, 5)
    assert 14e6 < sum(p.numel() for p in method.parameters()) < 19e6


def test_the_first_history_steps_of_an_unroll_are_the_transformers_own_sequence() -> None:
    """Three predictions fed back in one pass over [z, z1, z2] give what the growing history gave."""
    method = opened(make("lewm"))
    assert isinstance(method, Dynamics)
    batch = dot(5, 4)
    z = method.encode(batch.obs[:, 0])
    future = rollout(method, z, batch.action)
    assert future.shape == (5, 3, 16)
    fed = torch.stack([z, future[:, 0], future[:, 1]], 1)
    assert torch.allclose(method.predict(fed, method.action(batch.action)), future, atol=1e-5)
    assert torch.allclose(method.step(z, batch.action[:, 0]), future[:, 0], atol=1e-6)


def test_unroll_remembers_history_and_no_more() -> None:
    method = opened(make("lewm"))
    z, actions = torch.randn(5, 16), torch.randn(5, 6, 2)
    future = method.unroll(z, actions)
    last = method.predict(future[:, 2:5], method.action(actions[:, 3:]))[:, -1]
    assert torch.allclose(last, future[:, 5], atol=1e-5)
    other = method.unroll(z, torch.cat([actions[:, :5], actions[:, 5:] + 1], 1))
    assert torch.equal(other[:, :5], future[:, :5]) and not torch.allclose(other[:, 5], future[:, 5], atol=1e-4)


def test_loss_is_teacher_forced_and_sigreg_is_per_time_step() -> None:
    method = opened(make("lewm"))
    batch, clock = dot(12, 4), Clock(2, 10)
    with torch.no_grad():
        terms, seen = method.losses(batch, clock)
        z = method.encode(batch.obs.flatten(0, 1)).unflatten(0, (12, 4))
        prediction = method.predict(z[:, :3], method.action(batch.action))
        each = [sigreg(z[:, t], directions=64, generator=clock.generator("sigreg")) for t in range(4)]
    assert torch.allclose(seen["prediction"], prediction, atol=1e-5)
    assert terms["predict"] == pytest.approx(float((prediction - z[:, 1:]).square().mean()), rel=1e-4)
    assert terms["sigreg"] == pytest.approx(float(torch.stack(each).mean()), rel=1e-4)


def test_longer_windows_are_cut_into_all_their_histories() -> None:
    method = make("lewm", window=6).eval()
    _, seen = method.losses(dot(4, 6), Clock())
    assert seen["prediction"].shape == (12, 3, 16) and seen["z"].shape == (4, 6, 16)
    x = torch.arange(5.0)[None, :, None]
    assert method.cut(x)[..., 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_no_gradient_is_stopped() -> None:
    method = opened(make("lewm", sigreg=0.0))
    assert set(method.weights) == {"predict"}
    batch = dot(5, 4)
    last = batch.obs[:, 3].clone().requires_grad_()
    obs = torch.cat([batch.obs[:, :3], last[:, None]], 1)  # the last frame is only ever a target
    method.losses(batch._replace(obs=obs), Clock())[0]["predict"].backward()
    assert last.grad is not None and last.grad.abs().sum() > 0


@pytest.mark.parametrize(("weight", "collapses"), [(0.0, True), (0.5, False)])
def test_sigreg_is_what_prevents_collapse(weight: float, collapses: bool) -> None:
    """The batch norms inside the projectors alone do not: what comes out of them is free to shrink."""
    method = make("lewm", sigreg=weight, encoder={"name": "convnet_lean", "width": 8}, dropout=0.0)
    opt = torch.optim.AdamW(trainable(method), lr=3e-3, weight_decay=0.0)
    for i in range(100):
        step(method, opt, dot(16, 4, seed=i), Clock(i, 100))
    method.eval()
    with torch.no_grad():
        spread = method.encode(dot(256, 2, seed=99).obs[:, 0]).std(0).mean()
    assert spread < 0.1 if collapses else spread > 0.5, spread


def test_states_and_refusals() -> None:
    method = LeWM(LeWMConfig(dim=16, depth=1, heads=2, head_dim=8, mlp=32), space=OSCILLATOR)
    assert torch.isfinite(method.losses(oscillator(6, 4), Clock())[0]["sigreg"])
    with pytest.raises(ValueError, match="must have actions"):
        LeWM(LeWMConfig(), space=Space(obs=(4,)))
    with pytest.raises(ValueError, match=r"window\.steps=4"):
        LeWMConfig(window=3)
    assert LeWM(LeWMConfig(encoder="convnet_lean"), space=dots()).pool.pooling == "flatten"
