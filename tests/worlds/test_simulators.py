"""Reacher, PointMaze, other MuJoCo environments, and Push-T, where their libraries are installed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="install openjepa[worlds]")

from openjepa.worlds import World, make_policy, make_world
from openjepa.worlds.mujoco_camera import choose_backend
from openjepa.worlds.physics.pendulum import wrap

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
NEEDS = {"reacher": "mujoco", "pointmaze": "gymnasium_robotics", "gym:HalfCheetah-v5": "mujoco", "pusht": "gym_pusht"}


def need(name: str, **settings: object) -> World:
    choose_backend()  # before mujoco is imported
    pytest.importorskip(NEEDS[name])
    return make_world(name, **settings)


def drawn(world: World, states: np.ndarray, size: int) -> np.ndarray:
    try:
        return world.draw(states, size)
    except ValueError as e:
        pytest.skip(str(e))


@pytest.mark.parametrize("name", NEEDS)
def test_contract(name: str) -> None:
    world, rng = need(name), np.random.default_rng(0)
    assert isinstance(world, World) and world.settable  # type: ignore[attr-defined]
    states = world.reset(3, rng)
    assert states.shape == (3, len(world.names)) and len(set(world.names)) == len(world.names)
    actions = rng.uniform(world.low, world.high, (3, world.action))
    after = world.step(states, actions)
    world.step(after, actions)
    assert np.array_equal(after, world.step(states, actions))
    assert np.array_equal(after[1:2], world.step(states[1:2], actions[1:2]))
    goals = world.goals(states, rng)
    assert goals.shape == states.shape and not world.reached(states, goals).any()
    assert world.reached(states, states).all()
    assert world.observe(states).shape == (3, *world.obs) and world.observe(states).dtype == np.float32
    again = make_world(world.cfg.model_dump(mode="json"))  # type: ignore[attr-defined]
    assert np.array_equal(again.reset(2, np.random.default_rng(3)), world.reset(2, np.random.default_rng(3)))
    with pytest.raises(ValueError, match=f"states of {name} must have shape"):
        world.step(states[:, 1:], actions)


@pytest.mark.parametrize("name", NEEDS)
def test_pictures(name: str) -> None:
    world = need(name, pixels=48)
    states = world.reset(2, np.random.default_rng(0))
    drawn(world, states, 48)
    seen = world.observe(states)
    assert seen.shape == (2, 48, 48, 3) == (2, *world.obs) and seen.dtype == np.uint8
    assert (seen[0] != seen[1]).any() and np.array_equal(seen, world.observe(states))


def test_mujoco_steps_as_the_environment_does() -> None:
    """But for the warm start of the solver, which the environment keeps and the world does not."""
    import gymnasium

    world = need("gym:HalfCheetah-v5")
    env = gymnasium.make("HalfCheetah-v5").unwrapped
    rng = np.random.default_rng(0)
    states = world.reset(1, np.random.default_rng(0))
    env.reset(seed=int(np.random.default_rng(0).integers(0, 2**31, 1)[0]))
    for _ in range(10):
        action = rng.uniform(-1, 1, (1, 6))
        states = world.step(states, action)
        seen, *_ = env.step(action[0])
        assert np.allclose(np.concatenate([env.data.qpos, env.data.qvel]), states[0], atol=1e-4)
    assert np.allclose(world.observe(states)[0], seen, atol=1e-4)


def test_reacher_shows_its_arm_where_the_joints_say() -> None:
    world = need("reacher")
    states = np.zeros((4, 8))
    states[:, 0] = [0, np.pi / 2, np.pi, -np.pi / 2]  # stretched to the right, up, left, down
    pictures = drawn(world, states, 64).astype(float)
    arm = pictures[..., 2] - pictures[..., 0] > 15  # bluer than the grey floor
    y, x = np.mgrid[0:64, 0:64] - 31.5
    place = np.array([[x[a].mean(), -y[a].mean()] for a in arm])
    assert (np.sign(np.rint(place / 8)) == [[1, 0], [0, 1], [-1, 0], [0, -1]]).all()


def test_reacher_distance_goes_round_the_first_joint_only() -> None:
    world = need("reacher")
    a, b = np.zeros((2, 1, 8))
    a[0, :2], b[0, :2] = [3.1, 2.7], [-3.1, 2.7]
    assert world.distance(a, b)[0] == pytest.approx(2 * np.pi - 6.2)
    b[0, 1] = -2.7
    assert world.distance(a, b)[0] == pytest.approx(5.4)
    assert wrap(np.array(6.2)) == pytest.approx(6.2 - 2 * np.pi)


def test_the_arm_of_dm_control_moves_as_there() -> None:
    choose_backend()
    pytest.importorskip("mujoco")
    suite = pytest.importorskip("dm_control.suite")
    world = make_world({"name": "reacher", "arm": "dm_control"})
    there, rng = suite.load("reacher", "easy").physics, np.random.default_rng(0)
    for state in world.reset(4, rng):
        there.data.qpos[:], there.data.qvel[:], there.data.qacc_warmstart[:] = state[:2], state[2:], 0
        there.forward()
        states = state[None]
        for _ in range(50):
            action = rng.uniform(-1, 1, (1, 2))
            there.data.ctrl[:] = action[0]
            there.step()
            states = world.step(states, action)
        assert np.allclose(states[0], np.concatenate([there.data.qpos, there.data.qvel]), atol=1e-5)


def test_the_expert_of_either_arm_holds_its_goal() -> None:
    pytest.importorskip("mujoco")
    world, rng = make_world({"name": "reacher", "arm": "dm_control"}), np.random.default_rng(0)
    assert world.names == ("joint0", "joint1", "v_joint0", "v_joint1") and world.settable
    states = world.reset(10, rng)
    goals = world.goals(states, rng)
    assert (goals[:, 2:] == 0).all()
    expert = make_policy("expert", world).aim(goals)  # type: ignore[attr-defined]
    for _ in range(150):
        states = world.step(states, expert.act(states, rng))
    assert world.reached(states, goals).mean() >= 0.9


def test_pointmaze_shows_the_ball_where_the_state_says_and_walls_stop_it() -> None:
    world = need("pointmaze")
    states = world.reset(20, np.random.default_rng(0))
    pictures = drawn(world, states, 64).astype(float)
    ball = pictures[..., 1] - np.maximum(pictures[..., 0], pictures[..., 2]) > 10  # green
    y, x = np.mgrid[0:64, 0:64] - 31.5
    place = np.array([[x[b].mean(), -y[b].mean()] for b in ball])
    for axis in (0, 1):
        assert np.corrcoef(place[:, axis], states[:, axis])[0, 1] > 0.99
    for _ in range(300):
        states = world.step(states, np.ones((20, 2)))
    limit = np.abs(world.cells).max() + world.cell / 2  # type: ignore[attr-defined]
    assert np.abs(states[:, :2]).max() < limit


@pytest.mark.parametrize(("name", "steps", "share"), [("reacher", 100, 0.9), ("pointmaze", 500, 0.9)])
def test_experts_reach_their_goals(name: str, steps: int, share: float) -> None:
    world, rng = need(name), np.random.default_rng(0)
    states = world.reset(10, rng)
    goals = world.goals(states, rng)
    expert = make_policy("expert", world).aim(goals)  # type: ignore[attr-defined]
    best = np.zeros(10, bool)
    for _ in range(steps):
        states = world.step(states, expert.act(states, rng))
        best |= world.reached(states, goals)
    assert best.mean() >= share


def test_pointmaze_path_counts_cells() -> None:
    world = need("pointmaze")
    hops = world.hops()  # type: ignore[attr-defined]
    assert np.isfinite(hops).all() and np.array_equal(hops, hops.T) and hops.max() == 6  # the two ends of the U


def test_pusht_steps_without_contact_as_the_environment_does() -> None:
    world = need("pusht")
    from gym_pusht.envs.pusht import PushTEnv

    env = PushTEnv(obs_type="state")
    env.reset(seed=0, options={"reset_to_state": [100.0, 100.0, 300.0, 300.0, 0.5]})
    row = np.zeros((1, 10))
    row[0, [0, 1, 4, 5, 6]] = [*env.agent.position, *env.block.position, env.block.angle]
    for action in ([80.0, 150.0], [200.0, 90.0], [60.0, 60.0]):
        seen, *_ = env.step(np.array(action))
        row = world.step(row, np.array([action]))
        assert np.allclose(world.observe(row)[0], seen, atol=1e-4)


def test_pusht_pictures_are_those_of_the_environment() -> None:
    world = need("pusht", target=True)
    states = world.reset(3, np.random.default_rng(0))
    for row, picture in zip(states, drawn(world, states, 96), strict=True):
        world.write(row)  # type: ignore[attr-defined]
        assert np.array_equal(picture, world.env._get_img(world.env._draw(), 96, 96))  # type: ignore[attr-defined]


def test_pusht_pushes_the_block_and_success_is_the_published_one() -> None:
    world, rng = need("pusht"), np.random.default_rng(0)
    states = start = world.reset(6, rng)
    push = make_policy("push", world)
    for _ in range(30):
        states = world.step(states, push.act(states, rng))
    moved = np.linalg.norm(states[:, 4:6] - start[:, 4:6], axis=-1)
    assert (moved > 5).mean() > 0.5
    near, turned, away = (states.copy() for _ in range(3))
    near[:, 4] += 12
    near[:, 0] += 12
    turned[:, 6] += np.pi / 8
    away[:, 4] += 15
    away[:, 0] += 15
    assert world.reached(states, near).all()
    assert not world.reached(states, turned).any() and not world.reached(states, away).any()


def test_without_a_way_to_draw_the_packages_are_named() -> None:
    pytest.importorskip("mujoco")
    code = """
import warnings; warnings.simplefilter("ignore")
import numpy as np
from openjepa.worlds import make_world
world = make_world("reacher")
print(world.step(world.reset(2, np.random.default_rng(0)), np.zeros((2, 2))).shape)
try:
    world.draw(world.reset(1, np.random.default_rng(0)), 32)
except ValueError as e:
    print(e)
"""
    import os

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "MUJOCO_GL": "disable"}
    )
    assert done.stdout.startswith("(2, 8)"), done.stderr
    assert "libosmesa6" in done.stdout


def test_the_simulators_do_not_bring_torchvision() -> None:
    code = """
import sys, warnings; warnings.simplefilter("ignore")
from openjepa.worlds import make_world
for name in ("gym:Pendulum-v1", "reacher", "pointmaze", "pusht"):
    try:
        make_world(name)
    except ValueError as e:
        print(e, file=sys.stderr)
print("torchvision" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("False"), done.stderr
