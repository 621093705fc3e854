"""Parts of planners against closed forms: MPPI's weights, coloured noise, structured candidates, other libraries."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from openjepa.plan import Bounds, CEMConfig, MPPIConfig, Structured, cem, icem, mppi
from openjepa.plan.candidates import detours, headings, structure
from openjepa.plan.icem import ICEMConfig, coloured
from openjepa.plan.mppi import weights
from tests.plan.problems import LinearQuadratic, Quadratic, generators, wide


def test_mppi_one_iteration_is_the_weighted_mean():
    kept = []

    def cost(actions: Tensor) -> Tensor:
        kept.append(actions)
        return (actions - 0.7).square().sum((2, 3))

    for temperature in (0.05, 1.0, 20.0):
        kept.clear()
        cfg = MPPIConfig(horizon=3, samples=64, iterations=1, temperature=temperature, relative=False)
        plan = mppi(cost, wide(2), cfg, generators(2))
        x = kept[0].double()
        w = torch.exp(-((x - 0.7).square().sum((2, 3))) / temperature)
        wanted = (w[..., None, None] * x).sum(1) / w.sum(1)[:, None, None]
        assert torch.allclose(plan.actions.double(), wanted, atol=1e-5)


def test_mppi_of_a_quadratic_has_the_posterior_mean():
    """exp(-a^2 k / T) times N(m, s^2) is a Gaussian: with many samples the weighted mean is its mean."""
    k, temperature, m, s = 2.0, 0.8, 1.5, 0.6
    cfg = MPPIConfig(horizon=1, samples=200_000, iterations=1, temperature=temperature, relative=False, std=s)
    plan = mppi(lambda a: k * a.square().sum((2, 3)), wide(1), cfg, generators(1), init=torch.full((1, 1, 1), m))
    wanted = (m / s**2) / (1 / s**2 + 2 * k / temperature)
    assert plan.actions.item() == pytest.approx(wanted, abs=0.01)


def test_weights_do_not_depend_on_level_and_relative_not_on_scale():
    cost = torch.randn(3, 40).abs()
    assert torch.allclose(weights(cost + 100, 0.5), weights(cost, 0.5), atol=1e-5)
    assert torch.allclose(weights(cost * 1e4, 0.5, relative=True), weights(cost, 0.5, relative=True), atol=1e-5)
    assert torch.allclose(weights(cost, 2.0).log().diff(dim=1), -cost.diff(dim=1) / 2.0, atol=1e-4), "it divides"
    assert not weights(torch.full((1, 3), torch.inf), 1.0).any()
    assert torch.allclose(weights(torch.zeros(1, 4), 1.0, relative=True), torch.full((1, 4), 0.25))


@pytest.mark.parametrize("steps", [7, 16])
@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_coloured_noise(steps: int, beta: float):
    x = coloured(torch.Generator().manual_seed(0), 1, 20000, steps, 2, beta=beta, like=torch.zeros(1))[0]
    assert x.shape == (20000, steps, 2)
    assert x.square().mean() == pytest.approx(1.0, abs=0.02), "unit variance whatever the colour"
    power = torch.fft.rfft(x, dim=1).abs().square().mean((0, 2))
    frequency = torch.fft.rfftfreq(steps)[1:]
    wanted = frequency[0] ** beta / frequency**beta
    assert torch.allclose(power[1:] / power[1], wanted, rtol=0.06)
    near = (x[:, 1:] * x[:, :-1]).mean()
    assert abs(near) < 0.02 if beta == 0 else near > 0.3, "neighbours agree when the noise is coloured"


def test_icem_remembers():
    """The best plan of last time, shifted, is among the candidates: even one sample finds it again."""
    cost = Quadratic(1, 5, 2)
    plan = icem(cost, wide(2), ICEMConfig(), generators(1))
    assert plan.memory is not None and plan.memory.shape == (1, 30, 5, 2)
    small = ICEMConfig(samples=30, iterations=1)
    blank = icem(cost, wide(2), small, generators(1, 5), init=torch.zeros(1, 5, 2))
    again = icem(cost, wide(2), small, generators(1, 5), init=plan._replace(actions=torch.zeros(1, 5, 2)))
    assert again.cost < blank.cost and again.cost <= cost(plan.memory).amin() + 1e-6


def test_structured_candidates():
    bounds = Bounds.box([-2.45] * 2, [2.45] * 2, norm=2.45)
    cfg = Structured(hold=0.5, prefix=0.5, detour=0.0, stretch=4.0, rest=0.25)
    so_far = bounds.project(torch.randn(3, 12, 2))
    x = structure(so_far, bounds, cfg, 400, torch.Generator().manual_seed(0))
    assert x.shape == (3, 401, 12, 2) and x.norm(dim=-1).max() <= 2.45 * (1 + 1e-6)
    assert not x[:, 0].any(), "standing still is one of them"
    common = (x[:, 1:201] == so_far[:, None]).all(-1).long().cumprod(-1).sum(-1)  # steps kept of the plan so far
    assert common.min() == 0 and common.max() == 12
    assert common.float().mean() == pytest.approx(6.0, abs=0.4), "any length is equally likely"
    paths = headings(1, 4000, 12, bounds, cfg, torch.Generator().manual_seed(0))[0]
    held = (paths[:, 1:] == paths[:, :-1]).all(-1).float().mean()
    assert held == pytest.approx(3 / 4 + 0.25 * 0.25**2, abs=0.02), (
        "a turn every four steps; rest after rest is no turn"
    )
    assert (paths == 0).all(-1).float().mean() == pytest.approx(0.25, abs=0.02)
    assert (paths.norm(dim=-1) > 2.44).float().mean() > 0.4, "full speed is a common choice"


def test_detours_go_out_across_and_back():
    bounds = Bounds.box([-2.45] * 2, [2.45] * 2, norm=2.45)
    so_far = torch.arange(1.0, 13.0)[:, None].expand(1, 12, 2) / 10
    paths = detours(so_far, 4000, bounds, torch.Generator().manual_seed(0))[0]
    assert paths.norm(dim=-1).max() <= 2.45 * (1 + 1e-6)
    begun_at_once = (paths[:, 0] != so_far[0, 0]).any(-1)
    assert begun_at_once.float().mean() == pytest.approx(0.5 + 0.5 / 12, abs=0.03)
    complete = paths[begun_at_once][:, -1] == 0  # rests at the end: there was time to come back
    x = paths[begun_at_once][complete.all(-1)]
    out = (x == x[:, :1]).all(-1).long().cumprod(-1).sum(-1)  # steps out
    back = ((x + x[:, :1]).abs() < 1e-5).all(-1).sum(-1)
    assert torch.equal(out, back) and len(x) > 200, "as far back as out"
    short = out.float().log2().clamp_max(3)
    assert (short == 0).float().mean() > 0.2, "short ones are common"
    other = (paths[:, -1] != 0).any(-1) & begun_at_once
    assert (paths[other][:, -1, None] == so_far[0]).all(-1).any(-1).float().mean() > 0.15, "or the plan goes on, later"


def test_structured_candidates_get_around_a_wall():
    """A far goal behind a wall with one door, cost the distance summed over time: noise about standing still never
    gets there; headings that are held, and plans that are continued, do."""
    goal = torch.tensor([20.0, 0.0])

    def cost(actions: Tensor) -> Tensor:
        at, total = torch.zeros(*actions.shape[:2], 2), 0.0
        for t in range(actions.shape[2]):
            after = at + actions[:, :, t]
            through = (at[..., 0] < 10) & (after[..., 0] >= 10) & ((after[..., 1] - 8).abs() > 1.5)
            at = torch.where(through[..., None], at, after)
            total = total + (at - goal).norm(dim=-1)
        return total

    bounds = Bounds.box([-1.0] * 2, [1.0] * 2, norm=1.0)
    plain = {"horizon": 50, "iterations": 20, "samples": 200, "elites": 20, "returns": "best"}
    noise = cem(cost, bounds, CEMConfig(**plain), generators(8))
    held = cem(cost, bounds, CEMConfig(**plain, structured=Structured()), generators(8))
    assert (noise.cost > 500).all() and (held.cost < 500).float().mean() > 0.7, (held.cost, noise.cost)


def test_against_pytorch_mppi():
    """The same problem, samples and temperature: the same control, within sampling noise."""
    other = pytest.importorskip("pytorch_mppi", reason="pip install --no-deps pytorch-mppi arm-pytorch-utilities")
    problem = LinearQuadratic(batch=1, horizon=4)
    temperature, samples, n = 1.0, 20000, 4

    def running(state: Tensor, action: Tensor, t: int | None = None) -> Tensor:
        return ((state @ problem.q) * state).sum(-1) + ((action @ problem.r) * action).sum(-1)  # the state after

    theirs, ours = [], []
    for seed in range(n):
        torch.manual_seed(seed)
        controller = other.MPPI(
            lambda s, a: s @ problem.a.T + a @ problem.b.T, running, 4, torch.eye(2), num_samples=samples, horizon=4,
            lambda_=temperature, U_init=torch.zeros(4, 2),
        )  # fmt: skip
        controller.command(problem.x0[0], shift_nominal_trajectory=False)
        theirs.append(controller.U)
        cfg = MPPIConfig(horizon=4, samples=samples, iterations=1, temperature=temperature, relative=False)
        ours.append(mppi(problem, wide(2), cfg, generators(1, seed)).actions[0])
    noise = torch.stack(theirs).std(0).max()
    assert (torch.stack(theirs).mean(0) - torch.stack(ours).mean(0)).abs().max() < 4 * noise / n**0.5 + 1e-3
    assert torch.stack(ours).mean(0).abs().max() > 10 * noise, "the comparison must not be of zeros"


def test_against_torchrl_cem():
    """torchrl's planner and ours on the linear-quadratic problem: both reach the Riccati plan."""
    pytest.importorskip("torchrl", reason="pip install --no-deps torchrl tensordict pyvers orjson")
    from tests.plan.torchrl_problem import torchrl_cem

    problem = LinearQuadratic(batch=1, horizon=6)
    theirs = torchrl_cem(problem, samples=400, elites=40, iterations=30)
    plan = cem(problem, wide(2), CEMConfig(horizon=6, samples=400, elites=40, iterations=30), generators(1))
    first = problem.best()[0, 0]
    assert (theirs - first).abs().max() < 0.1
    assert (plan.actions[0, 0] - first).abs().max() < 0.1
