"""Every planner of the table: finds known optima, stays inside its bounds, treats each episode as if it were alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from openjepa.plan import PLANNERS, Bounds, CEMConfig, Plan, Structured, cem, shift
from tests.plan.problems import CONTINUOUS, LinearQuadratic, Quadratic, configs, generators, wide


def solve(name: str, cost, bounds: Bounds, cfg, batch: int, seed: int = 0, **more) -> Plan:
    return PLANNERS[name].plan(cost, bounds, cfg, generators(batch, seed), **more)


def test_the_table_is_covered():
    assert set(CONTINUOUS) | {"categorical"} == set(PLANNERS)
    for name, planner in PLANNERS.items():
        assert planner.config().name == name


@pytest.mark.parametrize("name", CONTINUOUS)
def test_bottom_of_random_quadratics(name: str):
    cost = Quadratic(batch=3, horizon=2, actions=2)
    plan = solve(name, cost, wide(2), configs(2)[name], 3)
    assert plan.actions.shape == (3, 2, 2) and plan.cost.shape == (3,)
    assert torch.allclose(plan.cost, cost(plan.actions[:, None])[:, 0])
    near = 0.3 if name == "shooting" else 0.02
    assert (plan.actions - cost.target).abs().max() < near
    assert (plan.cost - cost.level).max() < near**2 * 8


@pytest.mark.parametrize("name", [n for n in CONTINUOUS if n != "shooting"])
def test_linear_quadratic_problem_against_riccati(name: str):
    problem = LinearQuadratic(batch=2)
    wanted = problem.best()
    floor = problem(wanted[:, None])[:, 0]
    random = problem(wanted[:, None] + 0.1 * torch.randn(2, 50, *wanted.shape[1:])).amin(1)
    assert (random > floor).all(), "the Riccati plan must be the best one"
    plan = solve(name, problem, wide(2), configs(6)[name], 2)
    assert (plan.cost / floor - 1).max() < 2e-3
    assert (plan.actions - wanted).abs().max() < 0.12


@pytest.mark.parametrize("name", CONTINUOUS)
def test_bounds_and_norm_hold_for_what_is_returned(name: str):
    """The best point is far outside: the returned plan, mean or not, is at the edge and never beyond it."""
    seen = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions.detach())
        return (actions - torch.tensor([3.0, 4.0])).square().sum((2, 3))

    box = Bounds.box([-0.5, -0.25], [0.5, 0.25])
    plan = solve(name, cost, box, configs(2)[name], 1)
    assert torch.allclose(plan.actions, torch.tensor([0.5, 0.25]).expand(1, 2, 2), atol=0.06)
    ball = Bounds.box([-2.45] * 2, [2.45] * 2, norm=2.45)
    solved = solve(name, cost, ball, configs(2, std=2.0)[name], 1)
    assert solved.actions.norm(dim=-1).max() <= 2.45 * (1 + 1e-6)
    assert (solved.actions.norm(dim=-1) > 2.3).all() and (solved.actions[..., 1] > solved.actions[..., 0]).all()
    for actions in seen:
        assert (actions.abs() <= torch.tensor([2.45, 2.45])).all() and actions.norm(dim=-1).max() <= 2.45 * (1 + 1e-6)


def test_the_ball_is_round_in_the_world_and_holds_for_every_joined_action():
    mean, std = torch.tensor([0.5, -0.2, 0.5, -0.2]), torch.tensor([1.0, 3.0, 1.0, 3.0])
    low, high = (torch.full((4,), s * 2.0).sub(mean).div(std) for s in (-1, 1))
    bounds = Bounds(low, high, norm=2.0, mean=mean, std=std, parts=2)
    world = bounds.world(bounds.project(5 * torch.randn(1000, 4)))
    assert world.unflatten(-1, (2, 2)).norm(dim=-1).max() <= 2.0 * (1 + 1e-6)
    assert torch.allclose(bounds.world(bounds.still), torch.zeros(4), atol=1e-6)
    place = Bounds.box([-2.0, -2.0], [2.0, 2.0], mean=torch.tensor([1.0, 3.0]), std=torch.tensor([0.5, 0.6]))
    assert torch.equal(place.still, torch.zeros(2)), "zero is on the edge of the first, outside of the second"
    inside = torch.zeros(4)
    assert torch.equal(bounds.project(inside), inside), "what is inside is not touched"
    with pytest.raises(ValueError, match="norm must be"):
        Bounds.box([1.0], [2.0], norm=1.0)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("tolerance", [0.0, 0.02])
def test_batch_equals_one_by_one(name: str, tolerance: float):
    cost = Quadratic(batch=4, horizon=3, actions=2)
    cost.matrix = torch.diag_embed(
        cost.matrix.diagonal(dim1=1, dim2=2)
    )  # elementwise: no sums that depend on the batch

    def alone(i: int):
        part = cost.rows(slice(i, i + 1))
        return lambda a: (
            (a - part.target[:, None]).flatten(2).square() * part.matrix.diagonal(dim1=1, dim2=2)[:, None]
        ).sum(-1)

    def together(a: Tensor) -> Tensor:
        return torch.cat([alone(i)(a[i : i + 1]) for i in range(4)])

    cfg = configs(3)[name]
    if tolerance and name != "mixed":
        cfg = cfg.model_copy(update={"tolerance": tolerance, "samples": min(cfg.samples, 64), "iterations": 40})
    both = solve(name, together, wide(2), cfg, 4)
    for i in range(4):
        g = [generators(4)[i]]
        one = PLANNERS[name].plan(alone(i), wide(2), cfg, g)
        assert torch.allclose(one.actions, both.actions[i : i + 1], atol=1e-6)
        assert torch.allclose(one.cost, both.cost[i : i + 1], atol=1e-6)


@pytest.mark.parametrize("name", list(PLANNERS))
def test_same_generator_same_plan_and_the_global_one_is_not_touched(name: str):
    bounds = Bounds.box([0.0] * 3, [1.0] * 3, choices=3)
    cfg = PLANNERS[name].config()
    cost = Quadratic(batch=2, horizon=5, actions=3)
    state = torch.get_rng_state()
    first, second, other = (
        PLANNERS[name].plan(cost, bounds, cfg, torch.Generator().manual_seed(s), batch=2) for s in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.actions, second.actions) and torch.equal(first.cost, second.cost)
    assert (name == "categorical") or not torch.equal(first.actions, other.actions)


@pytest.mark.parametrize("name", list(PLANNERS))
def test_nan_counts_as_infinite_and_is_counted(name: str):
    bounds = Bounds.box([0.0] * 2, [1.0] * 2, choices=2)

    def partly(actions: Tensor) -> Tensor:
        cost = (actions - 0.8).square().sum((2, 3))
        return torch.where(actions[:, :, 0, 0] > 0.9, torch.nan * cost, cost)

    init = torch.full((2, 5, 2), 0.4) if name != "categorical" else torch.tensor([0.0, 1.0]).expand(2, 5, 2)
    plan = solve(name, partly, bounds, PLANNERS[name].config(), 2, init=init)
    assert plan.cost.isfinite().all() and plan.actions.isfinite().all()
    assert name == "gradient" or (plan.info["nonfinite"] > 0).all()

    def never(actions: Tensor) -> Tensor:
        return actions.sum((2, 3)) * torch.nan

    lost = solve(name, never, bounds, PLANNERS[name].config(), 2, init=init)
    assert lost.cost.isinf().all() and lost.actions.isfinite().all()
    assert torch.allclose(lost.actions, init), "nothing is known: the start is returned"
    assert (lost.info["nonfinite"] == lost.info["evaluations"]).all()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_action_blocks(name: str):
    """Seven steps in blocks of three: three actions are searched for, the last is held once."""
    target = torch.tensor([0.5, -0.5, 0.25]).repeat_interleave(3)[:7, None]
    plan = solve(name, lambda a: (a - target).square().sum((2, 3)), wide(1), configs(7, action_block=3)[name], 1)
    assert torch.equal(plan.actions[0, 0], plan.actions[0, 2]) and torch.equal(plan.actions[0, 3], plan.actions[0, 5])
    assert (plan.actions[0] - target).abs().max() < (0.25 if name == "shooting" else 0.02)


@pytest.mark.parametrize("name", list(PLANNERS))
def test_a_warm_start_is_never_lost(name: str):
    bounds = Bounds.box([0.0] * 2, [1.0] * 2, choices=2)
    cost = lambda a: (a - torch.tensor([1.0, 0.0])).square().sum((2, 3))  # noqa: E731
    init = torch.tensor([1.0, 0.0]).expand(1, 5, 2)
    returns = {"returns": "best"} if "returns" in PLANNERS[name].config.model_fields else {}
    small = {"samples": 4, "iterations": 1, **returns}
    cfg = PLANNERS[name].config(**(small if name != "mixed" else {"cem": small, "gradient": {"iterations": 1}}))
    plan = solve(name, cost, bounds, cfg, 1, init=init)
    assert plan.cost.item() == 0 and torch.equal(plan.actions, init)
    moved = shift(plan, 2)
    again = solve(name, cost, bounds, cfg, 1, init=moved)
    assert again.cost.item() == 0


def test_stops_early_when_nothing_gets_better_or_the_spread_is_gone():
    flat = lambda a: torch.zeros(a.shape[:2])  # noqa: E731
    for name in ("cem", "icem", "mppi", "gradient", "shooting"):
        cfg = PLANNERS[name].config(iterations=30, tolerance=1e-3, patience=3)
        cost = flat if name != "gradient" else (lambda a: 0 * a.sum((2, 3)))
        assert solve(name, cost, wide(1), cfg, 1).info["iterations"] == 4
    cfg = CEMConfig(iterations=200, std_floor=0.05)
    plan = solve("cem", Quadratic(2, 5, 1), wide(1), cfg, 2)
    assert plan.info["iterations"] < 60


def test_history_never_rises_and_ends_at_the_best():
    cost = Quadratic(2, 5, 2)
    for name in CONTINUOUS:
        history = solve(name, cost, wide(2), PLANNERS[name].config(), 2).info["history"]
        assert (history.diff(dim=0) <= 0).all()


def test_cem_momentum_and_elites_by_hand():
    """One iteration: mean and std are those of the elites, mixed with the old ones."""
    seen = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions)
        return actions.square().sum((2, 3)) + actions.sum((2, 3))

    cfg = CEMConfig(horizon=2, samples=50, elites=7, iterations=2, momentum=0.25)
    plan = solve("cem", cost, wide(1), cfg, 1)
    mean, drawn = torch.zeros(2, 1), [s[0] for s in seen[:2]]
    for x in drawn:
        elite = x[(x.square() + x).sum((1, 2)).argsort()[:7]]
        mean = 0.75 * elite.mean(0) + 0.25 * mean
        assert torch.equal(x[0], x[0])
    assert torch.allclose(plan.actions[0], mean, atol=1e-6)
    first_mean = 0.75 * drawn[0][(drawn[0].square() + drawn[0]).sum((1, 2)).argsort()[:7]].mean(0)
    assert torch.allclose(drawn[1][0], first_mean, atol=1e-6), "sample 0 is the mean"
    assert torch.equal(drawn[0][0], torch.zeros(2, 1))


def test_errors_say_what_to_do():
    cost = lambda a: a.sum((2, 3))  # noqa: E731
    with pytest.raises(ValueError, match="cost must return"):
        cem(lambda a: a.sum(), wide(1), CEMConfig(), torch.Generator())
    with pytest.raises(ValueError, match="number of episodes"):
        cem(cost, wide(1), CEMConfig(), generators(2), init=torch.zeros(3, 5, 1))
    with pytest.raises(ValueError, match=r"init must have shape .* \(1, 5, 1\)"):
        cem(cost, wide(1), CEMConfig(), generators(1), init=torch.zeros(1, 4, 1))
    with pytest.raises(ValueError, match="differentiable"):
        PLANNERS["gradient"].plan(lambda a: a.detach().sum((2, 3)), wide(1), configs(5)["gradient"], generators(1))
    with pytest.raises(ValueError, match="choices"):
        PLANNERS["categorical"].plan(cost, wide(1), PLANNERS["categorical"].config(), generators(1))
    with pytest.raises(ValueError, match="bounds must be"):
        Bounds.box([1.0], [0.0])
    with pytest.raises(ValueError, match="at most 1"):
        Structured(hold=0.7, prefix=0.7)


@pytest.mark.parametrize("parts", [1, 2])
def test_categorical_finds_the_best_of_all_sequences(parts: int):
    """Every sequence is tried by hand; the costs of steps depend on each other."""
    g = torch.Generator().manual_seed(3)
    choices, horizon = 3, 4 // parts
    tables = torch.randn(2, 4, choices, choices, generator=g)

    def cost(actions: Tensor) -> Tensor:
        x = actions.unflatten(-1, (parts, choices)).flatten(2, 3)  # (B, S, 4, C)
        return torch.einsum("bsti,btij,bstj->bs", x, tables, x.roll(1, 2))

    every = torch.eye(choices)[torch.tensor(list(itertools.product(range(choices), repeat=4)))]  # (81, 4, C)
    lowest = cost(every.view(1, -1, horizon, parts * choices).expand(2, -1, -1, -1)).amin(1)
    bounds = Bounds.box([0.0] * parts * choices, [1.0] * parts * choices, choices=choices, parts=parts)
    cfg = PLANNERS["categorical"].config(horizon=horizon, samples=60, elites=8)
    plan = solve("categorical", cost, bounds, cfg, 2)
    assert torch.allclose(plan.cost, lowest)
    assert (plan.actions.unflatten(-1, (parts, choices)).sum(-1) == 1).all()
