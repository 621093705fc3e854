"""The planners on the real worlds: with the true simulator as model, and with an exact model of what is observed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from openjepa.plan import load_protocol, protocols, run_protocol
from openjepa.plan.cost import Imagined
from openjepa.plan.judge import JudgeConfig, judged
from openjepa.plan.simulator import WorldGoal
from openjepa.worlds import WORLDS, make_world


@pytest.mark.parametrize("name", protocols())
def test_the_world_of_a_shipped_protocol_is_known(name: str):
    assert load_protocol(name).world["name"] in WORLDS


@pytest.mark.parametrize("name", ["pendulum", "point-mass"])
def test_small_protocols_are_solved_by_the_planner_on_the_simulator(name: str):
    planner = load_protocol(name).planner | {"samples": 24, "iterations": 3, "elites": 6}
    result = run_protocol(None, None, None, name, planner, episodes=4, controls=("simulator", "random"))
    rows = result.values["rows"]
    assert rows["simulator"]["any"]["count"] >= 3 and rows["random"]["end"]["count"] <= 2


class Free:
    """A model of Two Rooms that knows the dot and the largest step, and no wall; actions normalised by 2."""

    def encode(self, obs: Tensor) -> Tensor:
        return obs

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        assert (2 * action).norm(dim=-1).max() <= 2.45 * (1 + 1e-5), "the ball of actions holds inside the planner"
        return torch.cat([z[..., :2] + 2 * action, z[..., 2:]], -1)


def test_two_rooms_from_states(tmp_path):
    """Starts and goals are in different rooms; the planner on the simulator finds the door."""
    world = make_world("two-rooms", observe="state")
    preprocess = {
        "obs_mean": [0.0] * 4, "obs_std": [1.0] * 4, "action_mean": [0.0] * 2, "action_std": [2.0] * 2,
        "discrete": None,
    }  # fmt: skip
    planner = load_protocol("two-rooms-published").planner | {"samples": 100, "iterations": 3, "elites": 10}
    protocol = load_protocol("two-rooms-published").override({"budget": 50, "take": 10})
    result = run_protocol(
        Free(), preprocess, world, protocol, planner, episodes=4, controls=("simulator", "zero"), out=tmp_path
    )  # fmt: skip
    rows = result.values["rows"]
    assert rows["simulator"]["any"]["count"] >= 3 and rows["zero"]["any"]["count"] == 0
    different = (result.manifest.starts[:, 0] > result.manifest.starts[:, 2]) != (
        result.manifest.goals[:, 0] > result.manifest.goals[:, 2]
    )  # fmt: skip
    assert different.all() and np.linalg.norm(result.drives["model"].actions, axis=-1).max() <= 2.45 * (1 + 1e-6)
    assert (tmp_path / "model_000.gif").stat().st_size > 1000


def test_the_ceiling_goes_round_a_wall_and_not_against_it():
    """The straight distance would keep the dot behind the wall: 36 steps at most do not lead away from a goal."""
    planner = {"samples": 64, "iterations": 2, "elites": 8}
    protocol = load_protocol("two-rooms-fixed").override({"budget": 60})
    result = run_protocol(None, None, None, protocol, planner, episodes=6, controls=("simulator",))
    assert result.values["rows"]["simulator"]["end"]["count"] == 6
    world, over = make_world("two-rooms", wall="fixed"), protocol.cost.over
    assert over == "sum"
    states = np.array([[20.0, 50.0, 32.0, 18.0], [30.0, 20.0, 32.0, 18.0]])
    goals = np.array([[44.0, 50.0, 32.0, 18.0], [34.0, 20.0, 32.0, 18.0]])
    seen = Imagined(torch.from_numpy(states)[None, :, None], torch.zeros(1, 2, 1, 2), torch.zeros(1, 4), slice(0, 1))
    far = WorldGoal(world, torch.from_numpy(goals[:1]), over)(seen)[0].numpy()
    straight = np.hypot(*(states - goals[:1])[:, :2].T)
    assert np.allclose(far, world.path(states, goals[[0, 0]])) and far[0] > straight[0] + 30
    rule = JudgeConfig(units={"x": 1.0, "y": 1.0})
    measured = WorldGoal(judged(world, rule), torch.from_numpy(goals[:1]), over)(seen)[0].numpy()
    assert np.allclose(measured, straight / 2**0.5), "a rule of the protocol's own is measured as it is judged"
