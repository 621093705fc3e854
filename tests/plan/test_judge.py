"""Success rules of a protocol's own, and what they leave as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from openjepa.nn.reach import ReachHead
from openjepa.plan import load_protocol
from openjepa.plan.agent import Heads, LatentAgent, Scales
from openjepa.plan.cost import CostConfig
from openjepa.plan.evaluate import evaluate
from openjepa.plan.judge import JudgeConfig, judged, spreads
from openjepa.plan.protocol import Protocol
from tests.plan.plane import Plane

RULE = {"units": {"x": 2.0, "y": 1.0}, "tolerance": 0.5}
BASE = {"name": "p", "world": {"name": "plane"}, "budget": 12, "planner": {"name": "cem", "horizon": 3},
        "tune": {"first": 0, "count": 9}, "report": {"first": 100, "count": 50}, "episodes": 20}  # fmt: skip


def test_every_variable_must_be_close_and_angles_go_round() -> None:
    world = judged(Plane(), JudgeConfig.model_validate(RULE))
    states = np.zeros((3, 3))
    goals = np.array([[0.9, 0.4, 7], [1.1, 0.0, 0], [0.0, 0.6, 0]])  # the counter n is not in the rule
    assert world.reached(states, goals).tolist() == [True, False, False]
    assert world.distance(states, goals)[1] == pytest.approx(np.sqrt((1.1 / 2) ** 2 / 2))
    turned = np.array([[3.0], [-3.0]]) * np.ones((2, 1))
    assert spreads(turned, ("theta",)).units["theta"] == pytest.approx(np.pi - 3, rel=1e-4)
    with pytest.raises(ValueError, match="variables of plane"):
        judged(Plane(), JudgeConfig(units={"z": 1.0}))


def test_no_start_is_solved_under_the_rule_and_a_wide_one_changes_the_numbers() -> None:
    narrow = Protocol.model_validate({**BASE, "judge": {**RULE, "tolerance": 0.01}})
    wide = Protocol.model_validate({**BASE, "judge": {**RULE, "tolerance": 1.2}})
    few, many = (evaluate(None, Plane(2.5), p, controls=("random",)).values for p in (narrow, wide))
    assert few["rows"]["random"]["any"]["rate"] < many["rows"]["random"]["any"]["rate"]
    assert many["manifest"]["refused"] > few["manifest"]["refused"]
    assert narrow.hash != wide.hash


def test_shipped_protocols_keep_their_hash() -> None:
    assert load_protocol("pendulum").hash == "5a2377639c2e18c7"
    assert json.loads(load_protocol("pendulum").model_dump_json())["judge"] is None


class Walk:
    def encode(self, obs: torch.Tensor) -> torch.Tensor:
        return obs

    def step(self, z: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return z + action


class Longer(Walk):
    def step(self, z: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return z + 2 * action


class Coordinates(ReachHead):
    """Counts the mean gap of the coordinates, one group each."""

    def embed(self, z: torch.Tensor) -> torch.Tensor:
        return z[..., None]


def test_costs_of_heads_by_hand() -> None:
    scales = Scales.of_world(Plane())
    now, goal, actions = torch.zeros(1, 2), torch.ones(1, 2), torch.full((1, 1, 2, 2), 0.5)

    def cost(heads: Heads | None = None, **how: object) -> float:
        cfg = CostConfig.model_validate(how)
        return LatentAgent(Walk(), scales, cfg, heads=heads).cost(now, goal)(actions).item()

    assert cost() == 0.0 and cost(over="sum") == pytest.approx(0.25)
    assert cost(Heads(state=lambda z: 10 * z[..., :1]), goal="state", over="sum") == pytest.approx(25.0)
    assert cost(Heads(steps=Coordinates(2)), goal="steps", over="sum") == pytest.approx(0.5)
    # z after two steps: 0.5, 1 and 1, 2, and the model's own 0.5, 1: variances 1/18 and 2/9
    doubted = cost(Heads(members=(Walk(), Longer())), doubt=3.0)
    assert doubted == pytest.approx(3 * (1 / 18 + 2 / 9), rel=1e-4)
    with pytest.raises(ValueError, match="heads must hold"):
        cost(goal="steps")
