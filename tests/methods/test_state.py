"""What is special to the state-space JEPA."""

from __future__ import annotations

import pytest
import torch

from openjepa.core.motion import draw_horizon
from openjepa.core.rollout import rollout
from openjepa.core.types import Clock, Dynamics, Space, Windows
from openjepa.methods import total
from openjepa.methods.state import StateConfig, StateJEPA
from openjepa.probe.regress import regress
from tests.methods.test_contract import make, step, trainable
from tests.methods.toy_windows import FREE, OSCILLATOR, free, oscillator


def zero_(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()


def test_is_dynamics() -> None:
    method = make("state")
    assert isinstance(method, Dynamics) and method.eats == "windows"
    z = method.encode(torch.randn(5, 4))
    assert z.shape == method.step(z, torch.randn(5, 1)).shape == (5, 16)
    assert rollout(method, z, torch.randn(5, 7, 1)).shape == (5, 7, 16)


def test_a_predictor_that_says_nothing_copies() -> None:
    method = make("state")
    zero_(method.predictor)
    zero_(method.prior)
    z = method.encode(torch.randn(5, 4))
    for k in (1, 4, 10, 23):
        assert torch.equal(method.jump(z, k, torch.randn(5, k, 1)), z)


def test_the_prior_is_what_is_predicted_when_the_residual_is_silent() -> None:
    method = make("state")
    zero_(method.predictor)
    z = method.encode(torch.randn(5, 4))
    assert torch.allclose(method.step(z, torch.randn(5, 1)), z + method.prior(z))
    absolute = make("state", residual=False, prior=False)
    zero_(absolute.predictor)
    assert not absolute.step(z, torch.randn(5, 1)).any()
    assert absolute.prior is None


def test_jump_is_a_rollout_by_steps_where_only_one_step_was_trained() -> None:
    method = make("state", horizons=(1,))
    z, actions = method.encode(torch.randn(5, 4)), torch.randn(5, 6, 1)
    assert torch.allclose(method.jump(z, 6, actions), rollout(method, z, actions)[:, -1], atol=1e-6)


def test_a_trained_horizon_is_one_application_and_others_are_chains() -> None:
    method = make("state")
    z, actions = method.encode(torch.randn(5, 4)), torch.randn(5, 13, 1)
    by_hand = method.predict(method.predict(method.predict(z, 10, actions[:, :10]), 2, actions[:, 10:12]), 1,
                             actions[:, 12:])  # fmt: skip
    assert torch.equal(method.jump(z, 13, actions), by_hand)
    with pytest.raises(ValueError, match="horizon 1"):
        make("state", horizons=(4,)).step(z, actions[:, 0])


def test_a_rollout_goes_by_jumps_and_sees_no_later_action() -> None:
    """Fed back k times, a single step runs away; `rollout` must reach every step as `jump` does."""
    method = make("state")
    z, actions = method.encode(torch.randn(5, 4)), torch.randn(5, 23, 1)
    found = rollout(method, z, actions)
    for k in range(1, 24):
        assert torch.allclose(found[:, k - 1], method.jump(z, k, actions[:, :k]), atol=1e-6), k
    changed = actions.clone()
    changed[:, 12:] += 1.0
    other = rollout(method, z, changed)
    assert torch.equal(other[:, :12], found[:, :12]) and not torch.allclose(other[:, 12], found[:, 12])


def test_predictions_depend_on_the_horizon_and_on_each_action_in_its_place() -> None:
    method = make("state")
    z, a = method.encode(torch.randn(5, 4)), torch.randn(5, 4, 1)
    assert not torch.allclose(method.predict(z, 2, a[:, :2]), method.predict(z, 4, a))
    assert not torch.allclose(method.predict(z, 4, a), method.predict(z, 4, a.flip(1)), atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "sinusoidal", "table"])
def test_horizon_embeddings_tell_horizons_apart(kind: str) -> None:
    method = make("state", horizon_embedding=kind)
    found = torch.stack([method.horizon(k) for k in method.cfg.horizons])
    assert found.shape == (5, 4) and torch.cdist(found, found)[~torch.eye(5, dtype=torch.bool)].min() > 1e-3
    if kind == "linear":
        assert [tuple(p.shape) for p in method.horizon.parameters()] == [(4, 1), (4,)]  # the reference form


def test_the_loss_compares_with_the_teacher_k_steps_ahead() -> None:
    method = make("state", mask_share=0.0)
    batch, clock = oscillator(6, 11), Clock(3, 10)
    k = draw_horizon(method.cfg.horizons, clock)
    terms, seen = method.losses(batch, clock)
    t = 11 - k
    assert seen["z"].shape == seen["target"].shape == (6, t, 16)
    assert torch.equal(seen["target"], method.teacher(batch.obs[:, k:]))
    by_hand = torch.stack(
        [method.jump(method.encode(batch.obs[:, s]), k, batch.action[:, s : s + k]) for s in range(t)], 1
    )
    assert torch.allclose(seen["prediction"], by_hand, atol=1e-6)
    error = (by_hand - seen["target"]).square().mean().detach()
    assert terms["predict"].detach() == pytest.approx(float(error), rel=1e-4)


def test_hidden_variables_cannot_be_seen_by_the_context_and_are_by_the_teacher() -> None:
    method = make("state", mask_share=1.0, masking=("velocities",))
    batch, clock = oscillator(6, 11), Clock(1, 10)
    obs = batch.obs.clone()
    obs[..., 2:] += 10.0
    a, b = method.losses(batch, clock)[1], method.losses(batch._replace(obs=obs), clock)[1]
    assert a["hidden"][..., 2:].all() and not a["hidden"][..., :2].any()
    assert torch.equal(a["z"], b["z"]) and not torch.allclose(a["target"], b["target"])


@pytest.mark.parametrize("fill", ["token", "zero"])
@pytest.mark.parametrize("indicator", [True, False])
def test_fills(fill: str, indicator: bool) -> None:
    method = make("state", fill=fill, indicator=indicator)
    x, hidden = torch.zeros(3, 4), torch.tensor([[True, False, False, False]]).expand(3, 4)
    told = not torch.equal(method.encoder(x), method.encoder(x, hidden))
    assert told == (indicator or fill == "token")  # a zero that stands for a zero cannot be told without the indicator


def test_groups_from_names_and_from_the_config() -> None:
    table = make("state").masks
    assert table.number.tolist() == [1, 1, 6, 4, 1]  # positions, velocities, two, one, all
    named = StateJEPA(
        StateConfig(groups={"mine": ("b", "c")}, masking=("mine",)), space=Space((3,), 0, ("a", "b", "c"))
    )
    assert named.masks.hidden.tolist() == [[False, True, True]]
    assert StateJEPA(StateConfig(), space=Space((3,))).masks.number.tolist() == [3, 3, 1]  # nobody named anything
    with pytest.raises(ValueError, match="must name variables among a, b"):
        StateJEPA(StateConfig(groups={"mine": ("z",)}), space=Space((2,), 0, ("a", "b")))
    with pytest.raises(ValueError, match="masking must name"):
        StateJEPA(StateConfig(masking=("velocities",)), space=Space((2,), 0, ("x", "y")))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"window\.steps=11"):
        StateConfig(window=10)
    with pytest.raises(ValueError, match="must be vectors"):
        StateJEPA(StateConfig(), space=Space(obs=(3, 8, 8)))
    method = make("state")
    with pytest.raises(ValueError, match="of a world that acts"):
        method.jump(method.encode(torch.randn(5, 4)), 2)


def test_the_teacher_follows_at_its_rate_and_none_is_none() -> None:
    method = make("state", ema=0.9)
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    before = [p.clone() for p in method.teacher.parameters()]
    method.after_step(Clock(5, 10))
    for old, new in zip(before, method.teacher.parameters(), strict=True):
        assert torch.allclose(new, old + 0.1, atol=1e-6)
    alone = make("state", teacher="none", sigreg=0.05)
    assert alone.teacher is None
    alone.after_step(Clock())
    assert set(alone.losses(oscillator(6, 11), Clock())[0]) == {"predict", "variance", "sigreg"}


def std_after(steps: int, **changes: object) -> float:
    """Mean standard deviation of z after training, over its own at the start."""
    method = make("state", **changes)
    test = oscillator(256, 11, seed=99).obs[:, 0]
    with torch.no_grad():
        before = method.encode(test).std(0).mean()
    opt = torch.optim.AdamW(trainable(method), lr=3e-3)
    for i in range(steps):
        step(method, opt, oscillator(32, 11, seed=i), Clock(i, steps))
    with torch.no_grad():
        return float(method.encode(test).std(0).mean() / before)


@pytest.mark.parametrize(
    ("changes", "collapses", "steps"),
    [
        ({"teacher": "none", "variance": 0.0}, True, 150),
        ({"teacher": "none", "variance": 0.0, "sigreg": 0.05}, False, 150),
        ({"teacher": "none", "variance": 1.0}, False, 150),
        # the form without a guard: a residual prediction of a slow teacher, so that z shrinks, and the loss with it
        ({"variance": 0.0}, True, 300),
        ({}, False, 150),
    ],
)
def test_what_keeps_z_from_collapsing(changes: dict[str, object], collapses: bool, steps: int) -> None:
    ratio = std_after(steps, **changes)
    assert ratio < 0.5 if collapses else ratio > 0.8, ratio


def test_physical_variables_of_a_noiseless_spring_are_read_off_linearly() -> None:
    """And the scale is alive: on a collapsed latent the same R2 says nothing."""
    torch.manual_seed(0)
    method = StateJEPA(StateConfig(dim=16, width=64), space=FREE)
    opt = torch.optim.AdamW(trainable(method), lr=2e-3)
    for i in range(250):
        step(method, opt, free(64, 11, seed=i), Clock(i, 250))
    a, b = free(400, 2, seed=1000), free(400, 2, seed=1001)
    with torch.no_grad():
        za, zb = method.encode(a.obs[:, 0]), method.encode(b.obs[:, 0])
    found = regress(za, a.state[:, 0], zb, b.state[:, 0], names=FREE.names, resamples=10)
    assert min(found.r2) > 0.99, found.r2
    assert zb.std(0).mean() > 0.5


def test_discrete_and_missing_actions() -> None:
    choices = StateJEPA(StateConfig(), space=Space(obs=(4,), action=3, names=OSCILLATOR.names, discrete=3))
    batch = oscillator(6, 11)
    onehot = torch.nn.functional.one_hot(torch.randint(3, (6, 10)), 3).float()
    terms, _ = choices.losses(Windows(batch.obs, onehot, batch.state, batch.index), Clock())
    assert torch.isfinite(total(terms, choices.weights))
    still = StateJEPA(StateConfig(), space=FREE)
    z = still.encode(torch.randn(5, 2))
    assert torch.equal(still.step(z, z.new_zeros(5, 0)), still.jump(z, 1))
