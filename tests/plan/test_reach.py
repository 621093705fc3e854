"""Steps to a goal, learned from episodes: around a wall, one way only, and as a cost of plans."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from openjepa.nn.reach import ReachHead
from openjepa.plan.base import Bounds
from openjepa.plan.cem import CEMConfig, cem
from openjepa.plan.cost import Learned, ModelCost
from openjepa.plan.reach import Latents, ReachConfig, fit_reach

SIDE = 7  # a U of corridors on a 7 x 7 board: (0, 0) up to (0, 6), across to (6, 6), down to (6, 0)
QUICK = ReachConfig(width=64, groups=4, per_group=8, steps=500, episodes=6, frames=12, lr=3e-3, offset=30.0)


def corridor(position: Tensor) -> Tensor:
    """Place along the U, 0 to 18, as coordinates (..., 2)."""
    x = (position - 6).clamp(0, 6)
    y = torch.where(position <= 6, position, torch.where(position <= 12, 6.0, 18 - position))
    return torch.stack([x.expand_as(y), y], -1)


def walks(episodes: int, steps: int, back: float) -> Latents:
    """Walks along the corridor by up to one per step; `back` scales the steps towards its beginning."""
    g = torch.Generator().manual_seed(0)
    p = torch.rand(episodes, generator=g) * 18
    heading = torch.where(torch.rand(episodes, generator=g) < 0.5, -1.0, 1.0)
    places = [p]
    for _ in range(steps):
        heading = torch.where(torch.rand(episodes, generator=g) < 0.05, -heading, heading)
        heading = torch.where(p >= 18, -1.0, torch.where(p <= 0, 1.0, heading))
        p = (p + torch.where(heading > 0, heading, back * heading)).clamp(0, 18)
        places.append(p)
    z = corridor(torch.stack(places, 1))  # (E, T, 2)
    return Latents(z.flatten(0, 1), torch.full((episodes,), steps + 1))


@pytest.fixture(scope="module")
def head() -> ReachHead:
    return fit_reach(walks(60, 60, back=1.0), QUICK)


def test_counts_the_steps_of_the_way_round_and_not_the_straight_line(head):
    ends, near = corridor(torch.tensor([0.0, 18.0])), corridor(torch.tensor([0.0, 6.0]))
    round_the_u, straight_up = head(ends[:1], ends[1:]).item(), head(near[:1], near[1:]).item()
    assert 13 < round_the_u < 23  # 18 steps; as the crow flies the two ends are as near as the first corridor is long
    assert 4 < straight_up < 8
    assert head(ends, ends).abs().max() == 0


def test_the_way_back_may_be_longer():
    head = fit_reach(walks(60, 60, back=0.5), QUICK)
    a, b = corridor(torch.tensor([[2.0], [14.0]])).squeeze(1)
    there, back = head(a, b).item(), head(b, a).item()
    assert back > 1.4 * there


def test_as_a_cost_it_leads_round_where_distance_in_the_latent_is_stuck(head):
    class Along:
        """The corridor as a world model: the latent is the place on the board."""

        def encode(self, obs: Tensor) -> Tensor:
            return obs

        def step(self, z: Tensor, action: Tensor) -> Tensor:
            x, y = z.unbind(-1)
            p = torch.where(x < 0.5, y, torch.where(x > 5.5, 18 - y, 6 + x))
            return corridor((p + action[:, 0].clamp(-1, 1)).clamp(0, 18))

    start, goal = corridor(torch.tensor([[3.0]])).view(1, 2), corridor(torch.tensor([[15.0]])).view(1, 2)
    cost = ModelCost(Along(), start, [Learned(head, goal, over="sum")])
    plan = cem(cost, Bounds.box([-1], [1]), CEMConfig(horizon=16, samples=100, iterations=12, elites=10),
               torch.Generator().manual_seed(0))  # fmt: skip
    z = start
    for action in plan.actions.unbind(1):
        z = Along().step(z, action)
    assert (z - goal).norm() < 1.5


def test_same_seed_same_head_and_global_randomness_untouched():
    cfg = QUICK.model_copy(update={"steps": 5})
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b = (fit_reach(walks(5, 10, 1.0), cfg) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_refuses_lengths_that_do_not_fit():
    with pytest.raises(ValueError, match="lengths must be at least 2 each and sum to the 6 latents"):
        fit_reach(Latents(torch.zeros(6, 2), torch.tensor([3, 2])), QUICK)
