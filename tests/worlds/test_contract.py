"""What every world and every policy must do, over the tables."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from openjepa.worlds import POLICIES, WORLDS, Policy, World, known_policies, make_policy, make_world

# worlds of other people's simulators run in the tests of their own files, where their libraries are installed
OURS = [name for name, home in WORLDS.items() if not home.startswith(("openjepa.worlds.gym", "openjepa.worlds.mujoco",
                                                                      "openjepa.worlds.pusht"))]  # fmt: skip
CONTROLLED = {"pendulum": {"torque": 2.0}, "spring": {"force": 1.0, "dims": 2}, "two-rooms": {"size": 33}}
CASES = [(name, {}) for name in OURS] + list(CONTROLLED.items())


@pytest.fixture(params=CASES, ids=lambda c: c[0] + "".join(f" {k}={v}" for k, v in c[1].items()))
def world(request: pytest.FixtureRequest) -> World:
    return make_world(request.param[0], **request.param[1])


def test_members(world: World) -> None:
    assert isinstance(world, World)
    assert len(world.low) == len(world.high) == world.action
    assert (np.asarray(world.low) < np.asarray(world.high)).all()
    assert len(set(world.names)) == len(world.names) and world.dt > 0


def test_shapes_and_types(world: World) -> None:
    rng = np.random.default_rng(0)
    states = world.reset(5, rng)
    assert states.shape == (5, len(world.names)) and states.dtype == np.float64 and np.isfinite(states).all()
    goals = world.goals(states, rng)
    assert goals.shape == states.shape and np.isfinite(goals).all()
    assert world.step(states, np.zeros((5, world.action))).shape == states.shape
    seen = world.observe(states)
    assert seen.shape == (5, *world.obs)
    assert seen.dtype == (np.uint8 if len(world.obs) == 3 else np.float32)
    picture = world.draw(states, 48)
    assert picture.shape == (5, 48, 48, 3) and picture.dtype == np.uint8
    assert (picture.std((1, 2, 3)) > 1).all()
    for value, kind in ((world.distance(states, goals), np.floating), (world.reached(states, goals), np.bool_)):
        assert value.shape == (5,) and np.issubdtype(value.dtype, kind)
    assert np.allclose(world.distance(states, states), 0) and world.reached(states, states).all()


def test_step_is_a_pure_function_that_does_not_touch_its_arguments(world: World) -> None:
    rng = np.random.default_rng(0)
    states = world.reset(6, rng)
    actions = rng.uniform(world.low, world.high, (6, world.action))
    kept = states.copy(), actions.copy()
    first = world.step(states, actions)
    world.step(world.reset(3, rng), np.zeros((3, world.action)))
    assert np.array_equal(first, world.step(states, actions))
    assert np.array_equal(states, kept[0]) and np.array_equal(actions, kept[1])
    assert not np.shares_memory(first, states)


def test_side_by_side_equals_one_by_one(world: World) -> None:
    rng = np.random.default_rng(0)
    states = world.reset(7, rng)
    together, alone = states, [states[i : i + 1] for i in range(7)]
    for _ in range(15):
        actions = rng.uniform(world.low, world.high, (7, world.action))
        together = world.step(together, actions)
        alone = [world.step(s, actions[i : i + 1]) for i, s in enumerate(alone)]
    assert np.allclose(together, np.concatenate(alone), atol=1e-12)
    assert np.array_equal(world.observe(together)[2:3], world.observe(together[2:3]))
    assert np.array_equal(world.draw(together, 32)[4:5], world.draw(together[4:5], 32))


def test_a_seed_gives_the_same_episode(world: World) -> None:
    def episode(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        states = world.reset(3, rng)
        policy = make_policy("random", world)
        rows = [states]
        for _ in range(5):
            rows.append(world.step(rows[-1], policy.act(rows[-1], rng)))
        return np.stack([*rows, world.goals(states, rng)])

    assert np.array_equal(episode(0), episode(0))
    assert not np.array_equal(episode(0), episode(1))


def test_actions_beyond_their_bounds_act_as_the_bound(world: World) -> None:
    if not world.action:
        pytest.skip("nobody acts")
    states = world.reset(8, np.random.default_rng(0))
    beyond = world.step(states, np.tile(50 * world.high, (8, 1)))
    at = world.step(states, np.tile(world.high, (8, 1)))
    assert np.allclose(beyond, at, atol=1e-12)
    assert not np.array_equal(at, world.step(states, np.tile(world.low, (8, 1))))


def test_settings_rebuild_the_world(world: World) -> None:
    again = make_world(world.cfg.model_dump(mode="json"))  # type: ignore[attr-defined]
    assert again.cfg == world.cfg and type(again) is type(world)  # type: ignore[attr-defined]
    assert np.array_equal(again.reset(3, np.random.default_rng(5)), world.reset(3, np.random.default_rng(5)))


def test_wrong_shapes_are_named(world: World) -> None:
    states = world.reset(4, np.random.default_rng(0))
    with pytest.raises(ValueError, match=f"states of {world.name} must have shape"):
        world.step(states[:, :-1], np.zeros((4, world.action)))
    with pytest.raises(ValueError, match=f"actions of {world.name} must have shape"):
        world.step(states, np.zeros((3, world.action)))


def test_groups_are_columns_of_the_vector_and_cover_it(world: World) -> None:
    groups, names = world.groups, world.obs_names  # type: ignore[attr-defined]
    assert sorted(i for columns in groups.values() for i in columns) == list(range(len(names)))
    assert "positions" in groups


@pytest.mark.parametrize("name", [n for n in OURS if n != "two-rooms"])
def test_pictures_instead_of_numbers(name: str) -> None:
    world = make_world(name, pixels=32)
    states = world.reset(3, np.random.default_rng(0))
    assert world.obs == (32, 32, 3)
    assert np.array_equal(world.observe(states), world.draw(states, 32))


def test_policies(world: World) -> None:
    for name in known_policies(world):
        rng = np.random.default_rng(0)
        states = world.reset(6, rng)
        policy = make_policy(name, world, seed=1)
        assert isinstance(policy, Policy)
        for _ in range(20):
            actions = policy.act(states, rng)
            assert actions.shape == (6, world.action)
            assert ((actions >= world.low - 1e-9) & (actions <= world.high + 1e-9)).all()
            states = world.step(states, actions)
        if name != "zero" and world.action:
            assert actions.std() > 0
        own = [make_policy(name, world, seed=s).act(states) for s in (1, 1)]  # type: ignore[call-arg]
        assert np.array_equal(*own)


def test_a_noisy_expert_is_between_the_expert_and_noise() -> None:
    world, rng = make_world("point-mass"), np.random.default_rng(0)
    starts = world.reset(200, rng)
    goals, near = world.goals(starts, rng), {}
    for name in ("expert", "noisy-expert", "ornstein-uhlenbeck"):
        policy, states, draws = make_policy(name, world), starts, np.random.default_rng(1)
        known = {"expert": policy, "noisy-expert": getattr(policy, "expert", None)}.get(name)
        if known is not None:
            known.aim(goals)  # type: ignore[attr-defined]
        for _ in range(40):
            states = world.step(states, policy.act(states, draws))
        near[name] = float(world.distance(states, goals).mean())
    assert near["expert"] < near["noisy-expert"] < near["ornstein-uhlenbeck"]
    assert "noisy-expert" not in known_policies(make_world("orbit"))


def test_a_policy_that_remembers_refuses_other_worlds_until_restarted() -> None:
    world = make_world("point-mass")
    policy = make_policy("ornstein-uhlenbeck", world)
    rng = np.random.default_rng(0)
    policy.act(world.reset(4, rng), rng)
    with pytest.raises(ValueError, match="restart"):
        policy.act(world.reset(5, rng), rng)
    policy.restart()  # type: ignore[attr-defined]
    assert policy.act(world.reset(5, rng), rng).shape == (5, 2)


def test_ornstein_uhlenbeck_keeps_its_spread_and_its_memory() -> None:
    world = make_world("point-mass", force=3.0)
    policy, rng = make_policy("ornstein-uhlenbeck", world), np.random.default_rng(0)
    states = world.reset(2000, rng)
    a = np.stack([policy.act(states, rng) for _ in range(12)])
    inner = a[..., 0] / 3
    clipped = np.clip(0.6 * rng.standard_normal(200_000), -1, 1)
    assert inner[0].std() == pytest.approx(clipped.std(), rel=0.05) == pytest.approx(inner[-1].std(), rel=0.05)
    assert np.corrcoef(inner[0], inner[1])[0, 1] == pytest.approx(0.85, abs=0.04)


@pytest.mark.parametrize(("name", "settings"), [("point-mass", {}), ("spring", {"force": 2.0}),
                                                ("pendulum", {"torque": 2.0})])  # fmt: skip
def test_experts_reach_their_goals(name: str, settings: dict[str, object]) -> None:
    world, rng = make_world(name, **settings), np.random.default_rng(0)
    states = world.reset(50, rng)
    goals = world.goals(states, rng)
    assert world.reached(states, goals).mean() < 0.3
    expert = make_policy("expert", world).aim(goals)  # type: ignore[attr-defined]
    for _ in range(400):
        states = world.step(states, expert.act(states, rng))
    assert world.reached(states, goals).all()


def test_a_world_where_nobody_acts_has_no_expert() -> None:
    assert "expert" not in known_policies(make_world("pendulum"))
    assert "expert" in known_policies(make_world("pendulum", torque=1.0))


def test_unknown_names_give_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'two-rooms'"):
        make_world("two-room")
    with pytest.raises(ValueError, match="Did you mean 'size'"):
        make_world("two-rooms", sise=33)
    with pytest.raises(ValueError, match=r"size: .* got 5"):
        make_world("two-rooms", size=5)
    with pytest.raises(ValueError, match="must have a name"):
        make_world({"size": 33})
    with pytest.raises(ValueError, match="Did you mean 'random'"):
        make_policy("randm", make_world("orbit"))
    assert set(POLICIES) == {"random", "ornstein-uhlenbeck", "zero"}


def test_importing_worlds_brings_numpy_only() -> None:
    code = "import sys, openjepa.worlds; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "gymnasium", "mujoco", "PIL", "pygame", "pymunk", "cv2"} & set(eval(done.stdout))
