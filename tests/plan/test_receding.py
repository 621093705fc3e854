"""Receding horizon on a toy world: scales there and back, who sees what, episodes that drop out, warm starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openjepa.plan import CEMConfig, Plan
from openjepa.plan.agent import LatentAgent, Scales, SimulatorAgent
from openjepa.plan.cost import CostConfig, ModelCost
from openjepa.plan.receding import MPC, Random, Still, drive
from openjepa.plan.simulator import Simulator
from openjepa.worlds import make_world
from tests.plan.plane import PREPROCESS, Compass, Exact, Plane

SEARCH = CEMConfig(horizon=6, samples=128, elites=12, iterations=8, std=1.0)


def scene(n: int = 5, seed: int = 0) -> tuple[Plane, np.ndarray, np.ndarray]:
    world, rng = Plane(), np.random.default_rng(seed)
    starts = world.reset(n, rng)
    return world, starts, world.goals(starts, rng)


def mpc(world: Plane, goals: np.ndarray, *, skip: int = 1, model: Exact | None = None, **more) -> MPC:
    scales = Scales.of(PREPROCESS, world, skip=skip, norm=more.pop("norm", None))
    agent = LatentAgent(model or Exact(skip), scales, CostConfig(over="sum"))
    return MPC(agent, world.observe(goals), more.pop("planner", SEARCH), **more)


@pytest.mark.parametrize("skip", [1, 2, 3])
@pytest.mark.parametrize("take", [1, 2])
def test_goals_are_reached_and_held(skip: int, take: int):
    world, starts, goals = scene()
    search = SEARCH.model_copy(update={"horizon": 6 // skip})
    # 18 is a whole number of planned actions: the model does not know where the world is in between.
    done = drive(world, starts, goals, mpc(world, goals, skip=skip, take=take, planner=search), budget=18)
    assert done.reached[:, -1].all() and done.states.shape == (5, 19, 3) and done.actions.shape == (5, 18, 2)
    # What was recorded is what the world does.
    again = starts
    for t in range(18):
        again = world.step(again, done.actions[:, t])
        assert np.allclose(again, done.states[:, t + 1])
    assert (np.abs(done.actions) <= 1).all() and (done.steps == 18).all()
    least = np.ceil(np.abs(starts - goals)[:, :2].max(1) - 0.6).clip(0)
    first = done.reached.argmax(1)
    assert (first >= least).all() and (first <= least + 2 + 2 * skip * take).all(), "nearly the shortest way"


def test_scales_there_and_back():
    world = Plane()
    scales = Scales.of(PREPROCESS, world, skip=2, norm=1.0)
    bounds = scales.bounds()
    planned = bounds.project(3 * torch.randn(500, 3, 4))
    actions = scales.unscale(planned)  # (500, 3, 2, 2)
    assert actions.shape == (500, 3, 2, 2) and (np.abs(actions) <= 1).all()
    assert np.linalg.norm(actions, axis=-1).max() <= 1 + 1e-6
    assert np.allclose(bounds.world(planned).view(500, 3, 2, 2).numpy(), actions, atol=1e-6)
    assert np.allclose(scales.see(np.array([[0.5, -0.5], [3.5, 1.5]], np.float32)).numpy(), [[0, 0], [1, 1]])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    channels = Scales(
        type(scales.scale)((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), (0.0,), (1.0,)), world.low[:1], world.high[:1]
    )
    wanted = (pixels / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    assert np.allclose(channels.see(pixels).numpy(), wanted.transpose(0, 3, 1, 2), atol=1e-5)


def test_the_model_sees_observations_only_and_the_planner_no_simulator():
    world, starts, goals = scene()
    model = Exact()
    controller = mpc(world, goals, model=model)
    assert world.stepped == 0
    stepped = []
    for _ in range(3):
        controller.act(np.arange(5), world.observe(starts))
        stepped.append(world.stepped)
    assert stepped == [0, 0, 0], "planning does not step the world"
    assert all(x.shape[-1] == 2 for x in model.seen), "the hidden counter is never shown"
    scales = Scales.of_world(world)
    for wrong in (world, Simulator(world, scales.unscale)):
        with pytest.raises(TypeError, match="learned model"):
            LatentAgent(wrong, scales)
    ceiling = MPC(SimulatorAgent(world, scales), goals, SEARCH)
    with pytest.raises(TypeError, match="simulator"):
        ceiling.act(np.arange(5), starts)
    allowed = MPC(SimulatorAgent(world, scales, CostConfig(over="sum")), goals, SEARCH, ceiling=True)
    assert drive(world, starts, goals, allowed, budget=15).reached[:, -1].all()


def test_the_simulator_as_a_model_is_the_world():
    world, starts, _ = scene()
    scales = Scales.of_world(world, skip=2)
    model = Simulator(world, scales.unscale)
    planned = torch.randn(5, 4)
    z = model.step(model.encode(torch.from_numpy(starts)), planned)
    by_hand = starts
    for i in range(2):
        by_hand = world.step(by_hand, scales.unscale(planned)[:, i])
    assert z.dtype == torch.float64 and np.array_equal(z.numpy(), by_hand)


def test_finished_episodes_drop_out_and_the_others_do_not_notice():
    world, starts, goals = scene(6)
    controller = mpc(world, goals, seed=3)
    stopped = drive(world, starts, goals, controller, budget=20, stop=True)
    sizes = controller.times.episodes
    assert sizes[0] == 6 - stopped.reached[:, 0].sum() and sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]
    assert sum(sizes) == stopped.steps.sum(), "no plan is made for an episode that is over"
    whole = drive(world, starts, goals, mpc(world, goals, seed=3), budget=20)
    for i in range(6):
        k = stopped.steps[i]
        assert np.allclose(stopped.actions[i, :k], whole.actions[i, :k], atol=1e-5)
        assert not stopped.actions[i, k:].any() and stopped.reached[i, k:].all()
        assert np.array_equal(stopped.states[i, k:], np.repeat(stopped.states[i, k : k + 1], 21 - k, 0))
        alone = mpc(world, goals[i : i + 1], seed=3, episodes=[i])
        one = drive(world, starts[i : i + 1], goals[i : i + 1], alone, budget=20, stop=True)
        assert np.allclose(one.actions, stopped.actions[i : i + 1], atol=1e-4)


def test_a_warm_start_is_the_shifted_plan(monkeypatch: pytest.MonkeyPatch):
    world, starts, goals = scene(2)
    from openjepa.plan import PLANNERS, Planner

    seen: list[Plan | None] = []
    returned: list[Plan] = []

    def watched(cost, bounds, cfg, generator, *, init=None, batch=None):
        assert isinstance(cost, ModelCost)
        seen.append(init)
        returned.append(PLANNERS["shooting"].plan(cost, bounds, cfg, generator, init=init, batch=batch))
        return returned[-1]

    monkeypatch.setitem(PLANNERS, "cem", Planner(watched, CEMConfig))
    cfg = PLANNERS["shooting"].config(horizon=6).model_copy(update={"name": "cem"})
    drive(world, starts, goals, mpc(world, goals, planner=cfg, take=2), budget=6)
    assert seen[0] is None and len(seen) == 3
    for before, init in zip(returned, seen[1:], strict=False):
        assert torch.equal(init.actions[:, :4], before.actions[:, 2:]) and torch.equal(
            init.actions[:, 5], before.actions[:, 5]
        )
    seen.clear()
    drive(world, starts, goals, mpc(world, goals, planner=cfg, take=2, warm=False), budget=6)
    assert seen == [None] * 3


def test_choices_are_planned_too():
    world, rng = Compass(), np.random.default_rng(1)
    starts = world.reset(3, rng)
    goals = np.concatenate([starts[:, :2] + rng.integers(-3, 4, (3, 2)), starts[:, 2:]], -1)
    from openjepa.plan import CategoricalConfig

    preprocess = PREPROCESS | {"discrete": 5, "action_mean": [0.0], "action_std": [1.0]}
    for skip in (1, 2):
        scales = Scales.of(preprocess, world, skip=skip)
        agent = LatentAgent(Exact(skip, preprocess, Compass.moves), scales, CostConfig(over="sum"))
        cfg = CategoricalConfig(horizon=8 // skip, samples=200, elites=20)
        done = drive(world, starts, goals, MPC(agent, world.observe(goals), cfg), budget=12)
        assert done.reached[:, -1].all() and done.actions.shape == (3, 12, 1)


def test_floors():
    world, starts, goals = scene(400)
    still = drive(world, starts, goals, Still(world), budget=3)
    assert np.array_equal(still.states[:, -1, :2], starts[:, :2]) and not still.actions.any()
    box = drive(world, starts, goals, Random(world), budget=5)
    assert np.abs(box.actions).max() <= 1 and abs(box.actions.std() - 1 / 3**0.5) < 0.02
    ball = drive(world, starts, goals, Random(world, ball=True), budget=5)
    radius = np.linalg.norm(ball.actions, axis=-1)
    assert radius.max() <= 1 and abs((radius**2).mean() - 0.5) < 0.02, "uniform in the disc"
    again = drive(world, starts, goals, Random(world, ball=True), budget=5)
    assert np.array_equal(again.actions, ball.actions)


def test_an_episode_that_breaks_is_over_and_not_reached():
    class Fragile(Plane):
        def step(self, states, actions):
            after = super().step(states, actions)
            after[states[:, 2] == 2] = np.nan
            return after

    world, rng = Fragile(), np.random.default_rng(0)
    starts = world.reset(3, rng)
    starts[0, 2] = -9  # its counter comes to 2 too late
    done = drive(world, starts, starts.copy(), Still(world), budget=6)
    assert done.reached[0].all() and done.reached[1:, :3].all() and not done.reached[1:, 3:].any(), done.reached
    assert np.isfinite(done.states).all() and done.steps.tolist() == [6, 2, 2]


def test_errors():
    world, _, goals = scene()
    with pytest.raises(ValueError, match="take must be"):
        mpc(world, goals, take=7)
    with pytest.raises(ValueError, match="scales of a world model"):
        Scales.of({"size": 32}, world)
    with pytest.raises(ValueError, match="must show and take"):
        Scales.of(PREPROCESS | {"obs_mean": [0.0], "obs_std": [1.0]}, world)
    with pytest.raises(ValueError, match="encode and step"):
        LatentAgent(torch.nn.Linear(2, 2), Scales.of_world(world))


def test_there_is_no_planning_where_nobody_acts():
    with pytest.raises(ValueError, match="nobody acts in this world"):
        Scales.of_world(make_world("pendulum")).bounds()
    Scales.of_world(make_world("pendulum", torque=15.0)).bounds()
