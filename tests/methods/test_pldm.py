"""What is special to PLDM."""

from __future__ import annotations

import pytest
import torch

from openjepa.core.rollout import rollout
from openjepa.core.spread import covariance
from openjepa.core.types import Clock, Dynamics, Space
from openjepa.methods.pldm import PLDM, PLDMConfig
from openjepa.probe.regress import regress
from tests.methods.test_contract import make, step, trainable
from tests.methods.toy_windows import OSCILLATOR, dot, dots, oscillator


@pytest.mark.parametrize("predictor", ["gru", "residual", "mlp"])
def test_is_dynamics_and_the_loss_is_the_unroll_step_by_step(predictor: str) -> None:
    method = make("pldm", predictor=predictor, window=9)
    assert isinstance(method, Dynamics) and method.eats == "windows"
    batch = dot(6, 9)
    with torch.no_grad():
        terms, seen = method.losses(batch, Clock())
        z = torch.stack([method.encode(batch.obs[:, t]) for t in range(9)], 1)
        error = []
        for start in (0, 4):
            now = z[:, start]
            for k in range(4):
                now = method.step(now, batch.action[:, start + k])
                error.append((now - z[:, start + k + 1]).square().mean())
    assert torch.allclose(seen["z"], z, atol=1e-5)
    assert terms["predict"] == pytest.approx(float(torch.stack(error).mean()), rel=1e-4)
    assert rollout(method, z[:, 0], batch.action).shape == (6, 8, 32)


def test_a_transformer_remembers_its_history_and_no_more() -> None:
    method = make("pldm", predictor="transformer", history=2, predictor_layers=1).eval()
    with torch.no_grad():
        for p in method.predictor.parameters():  # adaptive norms start closed
            p.add_(0.1 * torch.randn_like(p))
    batch = dot(6, 5)
    net = method.predictor.members[0]
    with torch.no_grad():
        z = method.encode(batch.obs[:, 0])
        future = rollout(method, z, batch.action)
        assert torch.allclose(future[:, 0], method.step(z, batch.action[:, 0]), atol=1e-6)
        for k in (1, 2, 3):
            before = z if k == 1 else future[:, k - 2]
            fed = torch.stack([before, future[:, k - 1]], 1)
            by_hand = method.head.norm(net.over(fed, batch.action[:, k - 1 : k + 1]))[:, -1]
            assert torch.allclose(future[:, k], by_hand, atol=1e-5)
    terms, _ = method.losses(batch, Clock())
    assert torch.isfinite(terms["predict"])


def test_published_weights_and_their_scale() -> None:
    cfg = PLDMConfig()
    method = PLDM(cfg.override({"encoder": "convnet_lean", "dim": 64}), space=dots())
    wanted = {"predict": 1.0, "variance": 16.0, "covariance": 8.0 / 63, "slowness": 12.0, "inverse": 1.0}
    assert method.weights == pytest.approx(wanted)
    z = torch.randn(100, 64)
    cov = torch.cov(z.T)
    mean_off_diagonal = cov[~torch.eye(64, dtype=torch.bool)].square().mean()
    assert method.weights["covariance"] * covariance(z) == pytest.approx(8 * float(mean_off_diagonal), rel=1e-4)


def test_a_weight_of_zero_is_not_computed() -> None:
    method = make("pldm", variance=0.0, covariance=0.0, slowness=0.0, inverse=0.0, sigreg=0.05, variance_time=0.2)
    assert method.inverse is None
    assert set(method.losses(dot(6, 5), Clock())[0]) == {"predict", "sigreg", "variance_time"} == set(method.weights)


def test_gradient_flows_through_the_target() -> None:
    method = make("pldm", variance=0.0, covariance=0.0, slowness=0.0, inverse=0.0)
    batch = dot(6, 5)
    z = method.encode(batch.obs.flatten(0, 1)).unflatten(0, (6, 5)).detach().requires_grad_()
    start, target, actions = method.cut(z, batch.action)
    (grad,) = torch.autograd.grad((rollout(method, start, actions) - target).square().mean(), z)
    assert (grad.abs().sum((0, 2)) > 0).all()  # of every frame, the later ones as targets


def test_states_and_nobody_acting() -> None:
    pushed = PLDM(PLDMConfig(dim=16, window=9), space=OSCILLATOR)
    assert torch.isfinite(pushed.losses(oscillator(6, 9), Clock())[0]["predict"])
    still = PLDM(PLDMConfig(dim=16, window=9), space=Space(obs=(4,)))
    assert "inverse" not in still.weights
    batch = oscillator(6, 9)
    terms, _ = still.losses(batch._replace(action=batch.action[..., :0]), Clock())
    assert torch.isfinite(terms["predict"])


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"window\.steps=17"):
        PLDMConfig(window=16)
    with pytest.raises(ValueError, match="must be square"):
        PLDM(PLDMConfig(), space=Space(obs=(3, 16, 20)))


def trained(steps: int = 150, **changes: object) -> tuple[float, torch.nn.Module]:
    """Mean standard deviation of z after training, over its own at the start."""
    method = make("pldm", norm=False, predictor="residual", **changes)
    test = dot(128, 5, seed=99).obs[:, 0]
    with torch.no_grad():
        before = method.encode(test).std(0).mean()
    opt = torch.optim.AdamW(trainable(method), lr=2e-3)
    for i in range(steps):
        step(method, opt, dot(16, 5, seed=i), Clock(i, steps))
    with torch.no_grad():
        return float(method.encode(test).std(0).mean() / before), method


def test_without_variance_it_collapses() -> None:
    alone = {"variance": 0.0, "covariance": 0.0, "inverse": 0.0}
    assert trained(80, **alone)[0] < 0.2
    assert trained(80)[0] > 0.8
    assert trained(80, **alone, sigreg=1.0)[0] > 0.8


def test_the_place_of_the_dot_is_read_off_linearly() -> None:
    _, method = trained(150)
    a, b = dot(400, 2, seed=1000), dot(400, 2, seed=1001)
    with torch.no_grad():
        za, zb = method.encode(a.obs[:, 0]), method.encode(b.obs[:, 0])
    assert min(regress(za, a.state[:, 0], zb, b.state[:, 0], resamples=5).r2) > 0.97


def test_members_agree_where_there_were_data_and_not_elsewhere() -> None:
    method = make("pldm", members=3, norm=False, predictor="residual")
    assert len(method.members()) == 3
    opt = torch.optim.AdamW(trainable(method), lr=2e-3)
    for i in range(60):
        step(method, opt, dot(16, 5, seed=i), Clock(i, 60))
    batch = dot(64, 5, seed=99)
    with torch.no_grad():
        z = method.encode(batch.obs[:, 0])
        assert torch.allclose(
            method.step(z, batch.action[:, 0]),
            torch.stack([m.step(z, batch.action[:, 0]) for m in method.members()]).mean(0),
        )
        near, far = (
            torch.stack([rollout(m, start, batch.action) for m in method.members()]).var(0).mean()
            for start in (z, 5 * z)
        )
    assert far > 3 * near > 0


def test_replay_teaches_the_predictor_alone() -> None:
    method = make("pldm", replay=3, memory=20, predictor="residual", norm=False).train()
    assert method.weights["replay"] == 3
    first, later = dot(12, 5, 0), dot(12, 5, 1)
    with torch.no_grad():
        method.losses(first, Clock(0))
        terms, _ = method.losses(later, Clock(1))
        assert int(method.memory.count) == 24
        z, action = method.memory.draw(36, Clock(1).generator("replay"))
        start, target, actions = method.cut(z, action)
        by_hand = (method.unroll(start, actions) - target).square().mean()
    assert terms["replay"] == pytest.approx(float(by_hand), rel=1e-5) and terms["replay"] != terms["predict"]
    terms, _ = method.losses(later, Clock(2))
    terms["replay"].backward()
    for part, learns in (("encoder", False), ("head", False), ("predictor", True)):
        grads = [p.grad for p in getattr(method, part).parameters()]
        assert all((g is not None and bool(g.any())) == learns for g in grads), part


def test_settled_the_encoder_stays_and_the_predictor_learns_from_what_was_encoded_since() -> None:
    method = make("pldm", replay=2, memory=30, settle=0.5, predictor="residual", norm=False, encoder="convnet_lean")
    method.train()
    assert method.stages == (0.5,)
    batches = [dot(12, 5, n) for n in range(8)]
    with torch.no_grad():
        for step in range(4):
            assert method.losses(batches[step], Clock(step, 8))[0]["replay"] == 0
    assert method.encoder.training and int(method.memory.count) == 0
    for step in range(4, 8):
        method.zero_grad()
        z = method.eval().encode(batches[step].obs.flatten(0, 1)).unflatten(0, (12, 5))
        terms, seen = method.train().losses(batches[step], Clock(step, 8))
        sum(method.weights[n] * terms[n] for n in terms).backward()
        learnt = {part for part, net in method.named_children() if any(p.grad is not None for p in net.parameters())}
        assert learnt == {"predictor", "inverse"} and not method.encoder.training
        full = step == 7  # 36 windows of 30 since the encoder is settled
        count = int(method.memory.count)
        assert count == 12 * min(3, step - 3)
        assert torch.equal(seen["z"], z) != full, "the batch while there is room, kept windows afterwards"
        assert all(any(torch.equal(w, s) for s in method.memory.z[:count]) for w in seen["z"])
        start, target, actions = method.cut(*method.memory.draw(24, Clock(step, 8).generator("replay")))
        by_hand = (method.unroll(start, actions) - target).square().mean()
        assert terms["replay"].item() == pytest.approx(by_hand.item(), rel=1e-5)
    method.eval().losses(batches[0], Clock(7, 8))
    assert int(method.memory.count) == 36
    with pytest.raises(ValueError, match="settle must be 0 where no latents are kept"):
        make("pldm", settle=0.5)


def test_who_only_looks_leaves_no_trace_in_replay() -> None:
    method = make("pldm", replay=2).eval()
    terms, _ = method.losses(dot(6, 5), Clock())
    assert int(method.memory.count) == 0 and terms["replay"] == terms["predict"]
    assert make("pldm").memory is None and "replay" not in make("pldm").weights
