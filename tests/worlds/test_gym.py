"""Gymnasium environments as worlds: honest states where they can be set, tickets where they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="install openjepa[worlds]")

from openjepa.worlds import World, make_policy, make_world  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CLASSIC = ["Pendulum-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1"]


class Drifter(gymnasium.Env):  # type: ignore[misc, name-defined]
    """A point that a push moves; `noise` makes its future random, `clock` hides a counter in it."""

    metadata = {"render_modes": []}

    def __init__(self, noise: float = 0.0, clock: bool = False, carries: bool = True, render_mode: Any = None) -> None:
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float64)
        self.x, self.t, self.noise, self.clock = np.zeros(2), 0, noise, clock
        if carries:
            self.get_state, self.set_state = lambda: self.x.copy(), self._put

    def _put(self, row: np.ndarray) -> None:
        self.x = row.copy()

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1, 1, 2), 0
        return self.x.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        push = action * (1 + self.t) if self.clock else action
        self.x = self.x + push + self.noise * self.np_random.standard_normal(2)
        return self.x.copy(), 0.0, self.t >= 5 and not hasattr(self, "set_state"), False, {}


for _name, _options in (
    ("Plain", {}),
    ("Noisy", {"noise": 0.1}),
    ("Clock", {"clock": True}),
    ("Closed", {"carries": False}),
):
    gymnasium.register(f"OpenJepa{_name}-v0", entry_point=Drifter, kwargs=_options)


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
    assert world.names[:3] == ("episode", "tick", "ended")
    states = world.reset(3, rng)
    push = np.full((3, 2), 0.25)
    after = world.step(states, push)
    assert np.allclose(world.observe(after) - world.observe(states), 0.25)
    with pytest.raises(ValueError, match=r"tick 0 of episode 1, which is at tick 1\. .*get_state\(\)"):
        world.step(states, push)
    with pytest.raises(ValueError, match="different episodes"):
        world.step(after[[0, 0]], push[:2])
    with pytest.raises(ValueError, match="must come from episodes"):
        world.goals(after, rng)
    some = world.step(after[1:2], push[:1])  # one of them alone
    assert some[0, 1] == 2
    world.reset(2, rng)
    with pytest.raises(ValueError, match="which is over"):
        world.step(after[:1], push[:1])


def test_an_ended_episode_stands_still() -> None:
    world, rng = make_world("gym:OpenJepaClosed-v0"), np.random.default_rng(0)
    states = world.reset(2, rng)
    for _ in range(5):
        states = world.step(states, np.full((2, 2), 0.1))
    assert states[:, 2].all()
    later = world.step(states, np.full((2, 2), 0.1))
    assert np.array_equal(later[:, 3:], states[:, 3:]) and (later[:, 1] == 6).all()
    assert world.distance(later, states).tolist() == [0, 0]


def test_a_package_is_imported_for_its_environments() -> None:
    pytest.importorskip("gym_pusht")
    world = make_world("gym:gym_pusht:gym_pusht/PushT-v0")
    assert not world.settable and world.obs == (5,)  # type: ignore[attr-defined]
    assert world.step(world.reset(2, np.random.default_rng(0)), np.full((2, 2), 256.0)).shape == (2, 8)


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
