"""`openjepa plan`: from a run to a success rate with controls, files and a film."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import openjepa
from openjepa.app.cli import main
from openjepa.app.requests import PlanRequest
from openjepa.config import nest


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> openjepa.Run:
    out = tmp_path_factory.mktemp("planning") / "run"
    data = {"path": "point-mass", "episodes": 12, "steps": 20, "world": {"force": 2.0}}
    return openjepa.train(
        {"name": "state", "horizons": [1, 2], "window": 3}, data=data, out=out, batch_size=16, budget={"steps": 2},
        log={"tensorboard": False},
    )  # fmt: skip


FEW = {"planner": {"name": "cem", "horizon": 4, "samples": 16, "iterations": 2, "elites": 4}, "episodes": 3}


def test_numbers_controls_and_files(run: openjepa.Run) -> None:
    found = run.plan(**FEW)
    assert set(found["rows"]) == {"model", "simulator", "goal_is_start", "zero", "random"}
    assert all(
        0 <= row["end"]["low"] <= row["end"]["rate"] <= row["end"]["high"] <= 1 for row in found["rows"].values()
    )
    out = run.path / "plan" / "point-mass"
    assert sorted(p.name for p in out.iterdir()) == ["model_000.gif", "pairs.json", "protocol.json", "result.json"]
    assert json.loads((out / "result.json").read_text())["rows"] == found["rows"]
    # The run's own world, and a protocol that says so: two newtons instead of the shipped settings.
    assert found["protocol"]["world"]["name"] == "point-mass"


def test_equal_seeds_equal_plans_and_other_pairs_for_tuning(run: openjepa.Run, tmp_path) -> None:
    kind = {**FEW, "controls": [], "films": 0}
    a, b = (run.plan(**kind, out=tmp_path / name) for name in "ab")
    c = run.plan(**kind, split="tune", out=tmp_path / "c")
    assert a["rows"]["model"]["distance"] == b["rows"]["model"]["distance"]
    assert a["manifest"]["hash"] == b["manifest"]["hash"] != c["manifest"]["hash"]


def test_one_start_and_one_goal(run: openjepa.Run, tmp_path) -> None:
    kind = {**FEW, "controls": ["simulator"], "out": tmp_path / "one", "start": (0.2, 0.2, 0, 0)}
    found = run.plan(**kind, goal=(0.8, 0.7, 0, 0))
    pairs = json.loads((tmp_path / "one" / "pairs.json").read_text())
    assert found["n"] == 1 and pairs["starts"] == [[0.2, 0.2, 0, 0]] and pairs["goals"] == [[0.8, 0.7, 0, 0]]
    with pytest.raises(ValueError, match="goal must be 4 numbers, x, y, vx, vy, got 2"):
        run.plan(**kind, goal=(0.8, 0.7))


def test_settings_of_the_world_are_given_as_to_collect() -> None:
    for words in (["world=two-rooms", "world.pixels=33"], ["world=two-rooms", "settings.pixels=33"]):
        asked = PlanRequest.model_validate(nest(words))
        assert (asked.world, asked.settings) == ("two-rooms", {"pixels": 33})
    assert PlanRequest.model_validate(nest(["world.pixels=33"])).world is None


def test_errors_are_one_line(run: openjepa.Run, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["plan", str(run.path), "protocol=point-mas"], "point-mass"),
        (["plan", str(run.path), "planner.name=cam"], "cem"),
        (["plan", str(run.path), "--world", "spring"], "must show and take what the model was trained on"),
        (["plan", str(run.path / "nowhere")], "config.yaml"),
    ):
        with pytest.raises(SystemExit) as e:
            main([*words, "episodes=1"])
        error = capsys.readouterr().err
        assert e.value.code == 2 and expected in error and len(error.strip().splitlines()) == 1, error


def test_an_interrupted_plan_says_what_it_kept(run: openjepa.Run, capsys, monkeypatch, tmp_path) -> None:
    from openjepa.worlds.physics.balls import PointMass

    def stop(self, states, goals):  # the ceiling's cost is the first to ask for the distance of many
        if len(states) > 10:
            raise KeyboardInterrupt
        return distance(self, states, goals)

    distance = PointMass.distance
    monkeypatch.setattr(PointMass, "distance", stop)
    words = [f"planner.{k}={v}" for k, v in FEW["planner"].items()]
    with pytest.raises(SystemExit) as e:
        main(["plan", str(run.path), *words, "episodes=3", f"out={run.path}/plan/cut"])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert e.value.code == 130 and "result.json keeps planner on the model; random" in last
    monkeypatch.undo()
    found = json.loads((run.path / "plan" / "cut" / "result.json").read_text())
    assert not found["complete"] and "simulator" not in found["rows"] and "goal_is_start" in found["rows"]
    (run.path / "plan" / "cut" / "model_000.mp4").write_bytes(b"of an earlier plan")
    page = Path(run.look()["report"]).read_text()
    assert "Interrupted before these were measured: planner on the true simulator" in page
    assert "video/mp4" not in page
