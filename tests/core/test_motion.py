"""Known answers of the terms and draws that live on time."""

from __future__ import annotations

import pytest
import torch

from openjepa.core.motion import (
    by_time,
    compose,
    draw_horizon,
    inverse_dynamics,
    slowness,
    stretches,
    variance_in_time,
)
from openjepa.core.spread import variance
from openjepa.core.types import Clock


def test_slowness_of_a_straight_line_is_its_speed_squared() -> None:
    v = torch.tensor([0.5, -2.0])
    z = v * torch.arange(6.0)[None, :, None]
    assert slowness(z) == pytest.approx(float(v.square().mean()))
    assert slowness(torch.ones(3, 4, 2)) == 0
    assert slowness(3 * z) == pytest.approx(9 * float(slowness(z)))


def test_slowness_pulls_neighbours_together() -> None:
    z = torch.tensor([[[0.0], [1.0], [3.0]]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(slowness(z.double()), z)
    assert torch.allclose(grad.flatten(), torch.tensor([-1.0, -1.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize("z", [torch.zeros(3, 2), torch.zeros(3, 1, 2)])
def test_slowness_needs_two_times(z: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="two time steps"):
        slowness(z)


def test_inverse_dynamics_pairs_neighbours_with_the_action_between() -> None:
    z = torch.randn(4, 6, 2)
    exact = z[:, 1:] - z[:, :-1]
    assert inverse_dynamics(lambda a, b: b - a, z, exact) == 0
    assert inverse_dynamics(lambda a, b: b - a, z, exact + 1) == pytest.approx(1.0, rel=1e-5)
    with pytest.raises(ValueError, match=r"\(4, 5, A\)"):
        inverse_dynamics(lambda a, b: b - a, z, torch.zeros(4, 6, 2))


def test_inverse_dynamics_gives_the_encoder_a_gradient() -> None:
    z = torch.randn(4, 6, 2, requires_grad=True)
    inverse_dynamics(lambda a, b: b - a, z, torch.zeros(4, 5, 2)).backward()
    assert z.grad is not None and z.grad.abs().sum() > 0


def test_variance_in_time_is_variance_with_time_as_the_batch() -> None:
    z = torch.randn(5, 7, 3)
    assert variance_in_time(z) == pytest.approx(float(variance(z)), rel=1e-5)
    assert variance_in_time(10 * z) < variance_in_time(z)


def test_by_time_gives_one_sample_per_step() -> None:
    """Every step constant over the batch: no spread within a step, whatever happens along time."""
    z = torch.arange(4.0)[None, :, None].expand(8, 4, 2)
    assert variance(by_time(z)) == pytest.approx(0.99, abs=1e-4)
    assert variance(z) == 0


def test_horizons_are_equally_likely_and_repeat() -> None:
    horizons = (1, 2, 4, 8, 10)
    drawn = [draw_horizon(horizons, Clock(step=i, seed=3)) for i in range(4000)]
    counts = torch.tensor([drawn.count(k) for k in horizons], dtype=torch.float64)
    chi2 = ((counts - 800).square() / 800).sum()
    assert chi2 < 18.5  # 99.9 % of chi squared with four degrees of freedom
    assert drawn[:50] == [draw_horizon(horizons, Clock(step=i, seed=3)) for i in range(50)]
    assert draw_horizon(horizons, Clock(step=7, rank=0, world=2)) == draw_horizon(horizons, Clock(7, rank=1, world=2))
    with pytest.raises(ValueError, match="at least 1"):
        draw_horizon((0, 1), Clock())


@pytest.mark.parametrize("k", [1, 3, 5])
def test_stretches_are_the_actions_from_every_start(k: int) -> None:
    action = torch.randn(2, 5, 3)
    found = stretches(action, k)
    assert found.shape == (2, 6 - k, k, 3)
    for t in range(6 - k):
        assert torch.equal(found[:, t], action[:, t : t + k])
    with pytest.raises(ValueError, match="between 1 and the 5"):
        stretches(action, 6)
    assert stretches(torch.zeros(2, 5, 0), k).shape == (2, 6 - k, k, 0)


def test_compose() -> None:
    for k in range(1, 101):
        parts = compose(k, (1, 2, 4, 8, 10))
        assert sum(parts) == k and parts == sorted(parts, reverse=True)
    assert compose(100, (1, 2, 4, 8, 10)) == [10] * 10
    with pytest.raises(ValueError, match="horizon 1"):
        compose(5, (2, 4))
