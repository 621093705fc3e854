"""Costs of imagined futures: each term by hand, parts equal the whole, and the latent is not copied."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from openjepa.core.rollout import rollout
from openjepa.nn.reach import ReachHead
from openjepa.plan.cost import (
    CostConfig,
    Disagreement,
    Effort,
    Imagined,
    LatentGoal,
    Leap,
    Learned,
    ModelCost,
    StateGoal,
    StepsGoal,
    apart,
    side_by_side,
    together,
)


class Tokens(nn.Module):
    """A small non-linear model on (B, N, D) latents."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.w, self.u = torch.randn(6, 6, generator=g) / 3, torch.randn(2, 6, generator=g)
        self.rows: list[int] = []

    def encode(self, obs: Tensor) -> Tensor:
        return obs

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        self.rows.append(len(z))
        return torch.tanh(z @ self.w + (action @ self.u)[:, None])


@pytest.fixture
def case() -> tuple[Tokens, Tensor, Tensor, Tensor]:
    return Tokens(), torch.randn(3, 4, 6), torch.randn(3, 4, 6), torch.randn(3, 7, 5, 2)


def by_hand(model: Tokens, z: Tensor, actions: Tensor) -> Tensor:
    return torch.stack([torch.stack([rollout(model, z[b : b + 1], a[None])[0] for a in actions[b]]) for b in range(3)])


def test_latent_goal_last_and_summed(case):
    model, z, goal, actions = case
    futures = by_hand(model, z, actions)  # (3, 7, 5, 4, 6)
    away = futures - goal[:, None, None]
    for distance, each in {
        "mse": away.square().mean((-1, -2)),
        "l1": away.abs().mean((-1, -2)),
        "l2": away.square().sum((-1, -2)).sqrt(),
        "cosine": 1 - torch.cosine_similarity(futures, goal[:, None, None].expand_as(futures), -1).mean(-1),
    }.items():
        for over, wanted in {"last": each[..., -1], "sum": each.sum(-1)}.items():
            got = ModelCost(model, z, [LatentGoal(goal, distance, over)])(actions)
            assert torch.allclose(got, wanted, atol=1e-5), (distance, over)
    with pytest.raises(ValueError, match="distance must be"):
        apart(futures, goal[:, None, None], "manhattan")


def test_other_terms_and_their_sum(case):
    model, z, goal, actions = case
    futures = by_hand(model, z, actions)
    other = Tokens(1)
    probe = lambda z: z.mean(-2)[..., :2] * 3  # noqa: E731
    state = torch.randn(3, 2)
    scale = torch.tensor([0.5, 0.0])
    wanted = {
        StateGoal(probe, state, scale=scale): ((probe(futures[:, :, -1]) - state[:, None])[..., 0] / 0.5).square(),
        Learned(lambda z: z.sum((-1, -2)), over="sum"): futures.sum((-1, -2, -3)),
        Learned(lambda z, g: (z - g).abs().sum((-1, -2)), goal): (futures[:, :, -1] - goal[:, None])
        .abs()
        .sum((-1, -2)),
        Disagreement([other]): (torch.stack([futures, by_hand(other, z, actions)]).var(0, correction=0))
        .mean((-1, -2))
        .sum(-1),
        Effort(torch.tensor([1.0, 0.0])): (actions - torch.tensor([1.0, 0.0])).square().mean(-1).sum(-1),
    }
    for term, value in wanted.items():
        assert torch.allclose(ModelCost(model, z, [term])(actions), value, atol=1e-5), term
    terms = [LatentGoal(goal, weight=2.0), Effort(weight=0.1), Learned(lambda z: z.sum((-1, -2)), weight=-1.0)]
    parts = [t.weight * ModelCost(model, z, [type(t)(**{**t.__dict__, "weight": 1.0})])(actions) for t in terms]
    model.rows.clear()
    assert torch.allclose(ModelCost(model, z, terms)(actions), sum(parts), atol=1e-5)
    assert len(model.rows) == 5, "one rollout serves all terms"
    both = together(ModelCost(model, z, terms), ModelCost(other, z, terms[:1]))
    assert torch.allclose(both(actions), sum(parts) + ModelCost(other, z, terms[:1])(actions), atol=1e-5)


@pytest.mark.parametrize("fit", [1, 3, 7, 10, 14, 100])
def test_parts_equal_the_whole_and_keep_to_their_size(case, fit: int):
    model, z, goal, actions = case
    terms = [LatentGoal(goal, over="sum"), Effort()]
    whole = ModelCost(model, z, terms)(actions)
    row = 4 * 6 * 24 * 4
    model.rows.clear()
    assert torch.allclose(ModelCost(model, z, terms, max_bytes=fit * row)(actions), whole, atol=1e-6)
    assert max(model.rows) <= fit and sum(model.rows) == 3 * 7 * 5


def test_latents_of_one_episode_are_not_copied():
    z = torch.randn(1, 4, 6)
    assert side_by_side(z, 300).data_ptr() == z.data_ptr()
    assert side_by_side(z, 300).untyped_storage().nbytes() == z.untyped_storage().nbytes()
    order = side_by_side(torch.arange(2.0)[:, None], 3)
    assert order.flatten().tolist() == [0, 0, 0, 1, 1, 1], "candidates of an episode are neighbours"


def test_gradients_reach_the_actions_and_nan_does_not_hide(case):
    model, z, goal, actions = case
    actions.requires_grad_()
    ModelCost(model, z, [LatentGoal(goal, "l2"), Effort()])(actions).sum().backward()
    assert (actions.grad.abs().sum((-1, -2)) > 0).all()
    same = LatentGoal(torch.zeros(1, 2), "l2")
    seen = Imagined(
        torch.zeros(1, 1, 1, 2, requires_grad=True), torch.zeros(1, 1, 1, 1), torch.zeros(1, 2), slice(None)
    )
    (slope,) = torch.autograd.grad(same(seen).sum(), seen.z)
    assert slope.isfinite().all(), "at the goal itself"


def test_wrong_shapes_are_named(case):
    model, z, goal, _ = case
    with pytest.raises(ValueError, match=r"actions must be \(B = 3"):
        ModelCost(model, z, [LatentGoal(goal)])(torch.zeros(2, 7, 5, 2))


def test_steps_goal_embeds_the_goal_once_and_equals_the_head(case):
    model, z, goal, actions = case
    head = ReachHead(24, width=16, groups=2, per_group=4)
    futures = by_hand(model, z, actions)  # (3, 7, 5, 4, 6)
    each = head(futures, goal[:, None, None].expand_as(futures))  # (3, 7, 5)
    for over, wanted in {"last": each[..., -1], "sum": each.sum(-1)}.items():
        found = ModelCost(model, z, [StepsGoal(head, goal, over)])(actions)
        assert torch.allclose(found, wanted, atol=1e-5)


def test_a_leap_is_what_a_step_covers_beyond_one(case):
    model, z, _, actions = case
    head = ReachHead(24, width=16, groups=2, per_group=4)
    with torch.no_grad():
        head.net[-1].weight *= 30.0  # far apart enough for some steps to count for more than one
    path = torch.cat([z[:, None, None].expand(3, 7, 1, 4, 6), by_hand(model, z, actions)], 2)  # (3, 7, 6, 4, 6)
    each = head(path[:, :, :-1].flatten(-2), path[:, :, 1:].flatten(-2))  # (3, 7, 5)
    assert (each > 1.5).any() and (each < 1.5).any()
    found = ModelCost(model, z, [Leap(head, 0.5)])(actions)
    assert torch.allclose(found, (each - 1.5).clamp_min(0).sum(-1), atol=1e-4)
    embedded = []
    plain, head.embed = head.embed, lambda z: embedded.append(z.dim()) or plain(z)  # type: ignore[method-assign]
    both = ModelCost(model, z, [StepsGoal(head, z, "sum"), Leap(head, 0.5)])(actions)
    assert embedded == [3, 5, 3], "goals, all futures once for both terms, starts"
    assert torch.allclose(both, found + ModelCost(model, z, [StepsGoal(head, z, "sum")])(actions), atol=1e-3)
    with pytest.raises(ValueError, match=r"leap must be 0 .* got 2\.0"):
        CostConfig(leap=2.0)
