"""Gymnasium environments as worlds: honest states where they can be set, tickets where they cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="install openjepa[worlds]")

import tests.worlds.drifter  # noqa: E402, F401  # registers its kinds
from openjepa.data.collect import collect  # noqa: E402
from openjepa.data.episodes import EpisodeConfig, open_episodes  # noqa: E402
from openjepa.worlds import World, make_policy, make_world  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CLASSIC = ["Pendulum-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1"]


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_control_steps_as_the_environment_does(name: str) -> None:
    world, env = make_world(f"gym:{name}"), gymnasium.make(name).unwrapped
    assert world.settable  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    states = world.reset(3, rng)
    first, _ = env.reset(seed=int(np.random.default_rng(0).integers(0, 2**31, 3)[0]))
    assert np.allclose(world.observe(states)[0], first, atol=1e-6)
    policy = make_policy("random", world)
    for _ in range(8):
        actions = policy.act(states, rng)
        native = int(actions[0, 0]) if world.discrete else actions[0].astype(np.float32)
        seen, *_ = env.step(native)
        states = world.step(states, actions)
        assert np.allclose(world.observe(states)[0], seen, atol=1e-5)


@pytest.mark.parametrize("name", ["gym:Pendulum-v1", "gym:CartPole-v1", "gym:OpenJepaPlain-v0"])
def test_contract(name: str) -> None:
    world, rng = make_world(name), np.random.default_rng(0)
    assert isinstance(world, World)
    states = world.reset(4, rng)
    actions = make_policy("random", world).act(states, rng)
    after = world.step(states, actions)
    world.step(after, actions)
    assert np.array_equal(after, world.step(states, actions))
    assert np.allclose(after[2:3], world.step(states[2:3], actions[2:3]))
    goals = world.goals(states, rng)
    assert goals.shape == states.shape and not world.reached(states, goals).all()
    assert world.reached(states, states).all()
    assert world.observe(states).shape == (4, *world.obs)
    assert len(world.obs_names) == world.obs[0]  # type: ignore[attr-defined]
    again = make_world(world.cfg.model_dump(mode="json"))  # type: ignore[attr-defined]
    assert np.array_equal(again.step(states, actions), after)


def test_cartpole_has_two_choices_and_goes_on_after_its_end() -> None:
    world = make_world("gym:CartPole-v1")
    assert (world.discrete, world.action) == (2, 1)
    fallen = np.array([[3.0, 0.0, 1.0, 0.0]])
    right, left = (world.step(fallen, np.array([[a]])) for a in (1, 0))
    assert right[0, 1] > left[0, 1]


def test_pendulum_pictures_and_names() -> None:
    pytest.importorskip("pygame")
    world = make_world("gym:Pendulum-v1", pixels=40)
    assert world.obs == (40, 40, 3)
    up, down = world.observe(np.array([[0.0, 0.0], [np.pi, 0.0]])).astype(int)
    rows = [(255 - p[..., 1]).sum(1) @ np.arange(40) / (255 - p[..., 1]).sum() for p in (up, down)]
    assert rows[0] < 19 < rows[1]
    assert world.names == ("theta", "omega")
    assert world.groups == {"positions": (0, 1), "velocities": (2,)}  # type: ignore[attr-defined]


def test_a_users_environment_with_get_and_set_state_is_settable() -> None:
    world = make_world("gym:OpenJepaPlain-v0")
    assert world.settable and world.names == ("s0", "s1")  # type: ignore[attr-defined]
    assert np.allclose(world.step(np.array([[0.0, 1.0]]), np.array([[0.5, -3.0]])), [[0.5, 0.0]])


@pytest.mark.parametrize("name", ["Noisy", "Clock"])
def test_noise_and_hidden_state_are_found_out(name: str) -> None:
    """Both have get_state and set_state, and both break the promise: a trial when the world is made shows it."""
    assert not make_world(f"gym:OpenJepa{name}-v0").settable  # type: ignore[attr-defined]


def test_an_environment_that_cannot_be_set_goes_forward_only() -> None:
    world, rng = make_world("gym:OpenJepaClosed-v0"), np.random.default_rng(0)
    assert not world.settable  # type: ignore[attr-defined]
    assert world.names[:4] == ("episode", "tick", "ended", "seed")
    states = world.reset(3, rng)
    push = np.full((3, 2), 0.25)
    after = world.step(states, push)
    assert np.allclose(world.observe(after) - world.observe(states), 0.25)
    with pytest.raises(ValueError, match=r"tick 0 of episode 0, which is at tick 1\. .*get_state\(\)"):
        world.step(states, push)
    with pytest.raises(ValueError, match="different episodes"):
        world.step(after[[0, 0]], push[:2])
    some = world.step(after[1:2], push[:1])  # one of them alone
    assert some[0, 1] == 2
    world.reset(2, rng)
    with pytest.raises(ValueError, match="which is over"):
        world.step(after[:1], push[:1])


@pytest.mark.parametrize("name", ["Closed", "Clock"])
def test_it_comes_back_to_a_state_by_seed_and_actions(name: str) -> None:
    world, rng = make_world(f"gym:OpenJepa{name}-v0"), np.random.default_rng(0)
    begin = world.reset(3, rng)
    push = [rng.uniform(-0.2, 0.2, (3, 2)) for _ in range(4)]
    played = [world.replay(int(begin[i, 3]), np.stack([p[i] for p in push])) for i in range(3)]  # type: ignore[attr-defined]
    assert np.array_equal(played[0][0, 1:], begin[0, 1:]) and played[0].shape == (5, len(world.names))
    there = np.stack([played[0][2], played[1][4], played[0][3]])  # two of them from one episode
    rows = world.again(there)  # type: ignore[attr-defined]
    assert np.array_equal(rows[:, 1:], there[:, 1:]) and rows[:, 0].tolist() == [0, 1, 2]
    after = world.step(rows, np.stack([push[2][0], push[0][0], push[3][0]]))
    assert np.array_equal(after[[0, 2]][:, 1:], np.stack([played[0][3], played[0][4]])[:, 1:])
    goals = world.goals(world.reset(2, rng), rng)
    assert (goals[:, 1] == 25).all() and np.array_equal(world.again(goals)[:, 1:], goals[:, 1:])  # type: ignore[attr-defined]
    unknown = there.copy()
    unknown[0, 4] += 0.5
    with pytest.raises(ValueError, match="must be ones that were reached here, got tick 2"):
        world.again(unknown)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="a world whose state cannot be set"):
        make_world("gym:OpenJepaPlain-v0").replay(0, push[0])  # type: ignore[attr-defined]


def test_noise_that_no_seed_decides_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world("gym:OpenJepaClosed-v0")
    rows = world.replay(5, np.full((3, 2), 0.1))  # type: ignore[attr-defined]
    assert np.array_equal(world.again(rows[2:3])[:, 1:], rows[2:3, 1:])  # type: ignore[attr-defined]
    monkeypatch.setattr(world.live.envs[0].unwrapped, "noise", 0.5)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="got another one at tick 2 of seed 5"):
        world.again(rows[2:3])  # type: ignore[attr-defined]


def test_pictures_of_states_that_are_over() -> None:
    world = make_world("gym:OpenJepaClosed-v0", pixels=24)
    rows = world.replay(3, np.full((4, 2), 0.1))  # type: ignore[attr-defined]
    along = world.draw(rows, 24)
    backwards = world.draw(rows[::-1], 24)[::-1]
    assert np.array_equal(along, backwards) and len(np.unique(along.reshape(5, -1), axis=0)) == 5
    now = world.again(rows[1:2])  # type: ignore[attr-defined]
    assert np.array_equal(world.observe(now), along[1:2])


def test_an_ended_episode_stands_still() -> None:
    world, rng = make_world("gym:OpenJepaClosed-v0"), np.random.default_rng(0)
    states = world.reset(2, rng)
    for _ in range(5):
        states = world.step(states, np.full((2, 2), 0.1))
    assert states[:, 2].all()
    later = world.step(states, np.full((2, 2), 0.1))
    assert np.array_equal(later[:, 4:], states[:, 4:]) and (later[:, 1] == 6).all()
    assert world.distance(later, states).tolist() == [0, 0]


def test_a_package_is_imported_for_its_environments() -> None:
    pytest.importorskip("gym_pusht")
    world = make_world("gym:gym_pusht:gym_pusht/PushT-v0")
    assert not world.settable and world.obs == (5,)  # type: ignore[attr-defined]
    assert world.step(world.reset(2, np.random.default_rng(0)), np.full((2, 2), 256.0)).shape == (2, 9)


def test_errors() -> None:
    with pytest.raises(ValueError, match="Did you mean: `Pendulum`"):
        make_world("gym:Pendulumm-v1")
    with pytest.raises(ValueError, match="gym:ID"):
        make_world("gym:")
    with pytest.raises(ValueError, match="installed"):
        make_world("gym:nosuchpackage:Thing-v0")
    with pytest.raises(ValueError, match="Check the id, its options"):
        make_world("gym:Pendulum-v1", options={"gravityy": 3})
    world = make_world("gym:Pendulum-v1")
    with pytest.raises(ValueError, match="actions of gym:Pendulum-v1 must have shape"):
        world.step(np.zeros((2, 2)), np.zeros((2, 3)))


def test_a_package_of_ones_own_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ownworlds.py").write_text(
        "import gymnasium\n"
        "from tests.worlds.drifter import Drifter\n"
        "gymnasium.register('Own/Drift-v0', entry_point=Drifter, kwargs={'carries': False})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="must be gym:ID of an environment"):
        make_world("gym:Own/Drift-v0")
    collect("gym:ownworlds:Own/Drift-v0", episodes=2, steps=4, out=tmp_path / "eps")
    episodes = open_episodes(EpisodeConfig(path=str(tmp_path / "eps")))
    assert episodes.about.world["name"] == "gym:ownworlds:Own/Drift-v0" and len(episodes) == 2  # type: ignore[index]
    assert episodes.variables[:4] == ("episode", "tick", "ended", "seed") and episodes.obs.shape[1] == 2
    again = make_world(episodes.about.world)  # type: ignore[arg-type]
    one = episodes[1]
    assert np.array_equal(again.replay(int(one.state[0, 3]), one.action[:-1])[:, 1:], one.state[:, 1:])  # type: ignore[attr-defined]
