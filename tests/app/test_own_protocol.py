"""`openjepa plan` in a world of others, towards goals that are shown, and with other costs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import openjepa
from openjepa.app.cost_heads import acted
from openjepa.app.dreaming import dreamer

pytest.importorskip("gymnasium", reason="install openjepa[worlds]")
SEARCH = {"horizon": 4, "samples": 16, "iterations": 2}
CEM = {"name": "cem", "elites": 4, **SEARCH}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> openjepa.Run:
    out = tmp_path_factory.mktemp("own") / "run"
    data = {"path": "gym:Pendulum-v1", "episodes": 20, "steps": 30, "held_out": 0.3}
    return openjepa.train(
        {"name": "pldm", "dim": 4, "norm": False, "predictor": "residual", "members": 2, "window": 3, "unroll": 2},
        data=data, out=out, batch_size=16, budget={"steps": 2}, log={"tensorboard": False},
    )  # fmt: skip


def test_goals_are_from_held_out_episodes_and_the_rule_is_told(run: openjepa.Run) -> None:
    found = run.plan(planner=CEM, episodes=4, ahead=5, ceiling=2)
    assert found["rows"]["simulator"]["n"] == 2 and found["rows"]["model"]["n"] == 4
    assert "theta within" in found["table"] and "held-out episodes" in found["table"]
    folder = run.path / "plan" / "gym-Pendulum-v1"
    protocol, pairs = (json.loads((folder / f"{n}.json").read_text()) for n in ("protocol", "pairs"))
    assert protocol["judge"]["angles"] == ["theta"] and protocol["ahead"] == 5 and protocol["budget"] == 10
    held = set(json.loads((run.path / "split.json").read_text())["held_out_episodes"])
    assert {text.partition(": episode ")[2].rpartition(", step ")[0] for text in pairs["origin"]} <= held
    assert "data:image/gif;base64" in Path(found["report"]).read_text()
    again = run.plan(protocol=folder / "protocol.json", planner=CEM, episodes=4, controls=[], films=0, out=folder / "b")
    assert again["manifest"]["hash"] == found["manifest"]["hash"]
    with pytest.raises(ValueError, match="ahead must be left to"):
        run.plan(protocol=folder / "protocol.json", ahead=3)


STEPS = {"goal": "steps", "reach": {"steps": 10}}


@pytest.mark.parametrize("cost", [{"goal": "state"}, STEPS, {"doubt": 1.0}])
def test_other_costs_change_the_plan(run: openjepa.Run, tmp_path: Path, cost: dict[str, object]) -> None:
    kind = {"planner": CEM, "episodes": 2, "ahead": 5, "controls": [], "films": 0}
    usual, other = (run.plan(**kind, cost=c, out=tmp_path / n)["rows"]["model"] for c, n in (({}, "a"), (cost, "b")))
    assert usual["distance"] != other["distance"]


def test_steps_are_counted_on_episodes_of_another_policy(run: openjepa.Run, tmp_path: Path) -> None:
    found = dreamer(run, torch.device("cpu"))
    still = acted(found, "zero")
    assert len(still) == 20 and set(still.lengths.tolist()) == {31} and not np.any(still.action)
    begins = [e.state[e.offsets] for e in (still, found.episodes)]
    assert not np.isin(*begins).any(), "an episode that is held out must not be learned from"
    kind = {"planner": CEM, "episodes": 2, "ahead": 5, "controls": [], "films": 0}
    costs = {"own": STEPS, "still": {**STEPS, "reach": {"steps": 10, "policy": "zero"}}}
    own, other = (run.plan(**kind, cost=c, out=tmp_path / n)["rows"]["model"] for n, c in costs.items())
    assert own["distance"] != other["distance"]
    with pytest.raises(ValueError, match="must have a world to act in"):
        acted(replace(found, preprocess={**found.preprocess, "world": None}), "zero")


def test_a_goal_that_is_shown(run: openjepa.Run, tmp_path: Path) -> None:
    np.save(tmp_path / "goal.npy", np.array([1.0, 0.0, 0.0], np.float32))
    found = run.plan(planner=CEM, goal=str(tmp_path / "goal.npy"), start=[3.0, 0.0], ahead=5, out=tmp_path / "a")
    assert "cannot be told to be reached" in found["about"] and len(found["actions"]) == 10
    assert (tmp_path / "a" / "model_000.gif").stat().st_size > 500
    np.save(tmp_path / "start.npy", np.array([-1.0, 0.0, 0.5], np.float32))
    blind = run.plan(
        planner=CEM, start=str(tmp_path / "start.npy"), goal=str(tmp_path / "goal.npy"), out=tmp_path / "b"
    )
    assert len(blind["actions"]) == 4 and np.abs(blind["actions"]).max() <= 2 and "Nobody acted" in blind["about"]
    with pytest.raises(ValueError, match="goal must be numbers or a file"):
        run.plan(goal="nowhere.npy")


def test_whether_a_given_state_was_reached(run: openjepa.Run, tmp_path: Path) -> None:
    found = run.plan(planner=CEM, start=[3.0, 0.0], goal=[3.0, -1.5], ahead=5, controls=[], out=tmp_path / "c")
    assert found["n"] == 1 and found["about"].startswith("The goal was")


def test_a_world_whose_state_cannot_be_set_is_played_anew(tmp_path: Path) -> None:
    import tests.worlds.drifter  # noqa: F401  # registers its kinds
    from openjepa.data.collect import collect

    name = "gym:OpenJepaClosed-v0"
    collect(name, "ornstein-uhlenbeck", episodes=30, steps=6, out=tmp_path / "eps")
    run = openjepa.train(
        {"name": "pldm", "dim": 4, "norm": False, "predictor": "residual", "window": 3, "unroll": 2},
        data={"path": str(tmp_path / "eps"), "held_out": 0.3}, out=tmp_path / "run", batch_size=16,
        budget={"steps": 2}, log={"tensorboard": False},
    )  # fmt: skip
    found = run.plan(planner=CEM, episodes=4, ahead=2, tolerance=0.5, film="gif")
    assert list(found["rows"]) == ["model", "random", "zero", "goal_is_start"] and found["complete"]
    assert "No planner on the true simulator" in found["table"] and "No film" not in found["table"]
    page = Path(found["report"]).read_text()
    assert "No planner on the true simulator" in page and "data:image/gif;base64" in page
    pairs = json.loads((run.path / "plan" / "gym-OpenJepaClosed-v0" / "pairs.json").read_text())
    assert any(start[1] > 0 for start in pairs["starts"]), "from the middle of episodes, too"
    own = run.plan(planner=CEM, episodes=3, pairs="world", controls=["zero"], out=tmp_path / "own")
    assert own["n"] == 3 and own["protocol"]["pairs"] == "world" and not own["manifest"]["episodes"]
    one = run.plan(planner=CEM, goal=[0.5, 0.5], episodes=2, controls=[], out=tmp_path / "one")
    assert one["n"] == 2 and (tmp_path / "one" / "model_000.gif").exists()
    with pytest.raises(ValueError, match="start must be left out for gym:OpenJepaClosed-v0"):
        run.plan(planner=CEM, start=[0, 0, 0, 0, 0.5, 0.5], goal=[0.5, 0.5])
