"""The smallest form of benchmarks that train: they run, and what they measure is what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import record, state
from benchmarks.state_scene import AT, make_scene, references


def test_the_ablations_of_the_state_jepa_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    words = "--worlds spring --seeds 0 1 --steps 2 --batch 4 --episodes 12 --variants default k4 untrained raw-mlp"
    results = state.main([*words.split(), "--name", "few"])
    (file,) = tmp_path.iterdir()
    again = state.main([*words.split(), "--name", "few", "--resume"])
    assert again["runs"] == results["runs"]  # nothing is run twice
    kept = json.loads(file.read_text())["results"]
    assert [r["variant"] for r in kept["runs"][:5]] == ["references", "default", "k4", "untrained", "raw-mlp"]
    rows = {r["variant"]: r for r in kept["runs"]}
    assert rows["references"]["simulator_largest_error"] == 0.0
    assert rows["raw-mlp"]["r2"]["x"] == pytest.approx(1.0, abs=1e-4)  # the states themselves
    assert set(rows["default"]["steps"]["error"]) == {str(k) for k in AT}
    assert "steps" not in rows["k4"] and set(rows["k4"]["jumps"]["error"]) == {str(k) for k in AT if k % 4 == 0}
    assert set(results["summary"]["against_default"]) == {"k4", "untrained", "raw-mlp"}
    assert results["summary"]["against_default"]["k4"]["error_20_by_jumps"]["pairs"] == 2


@pytest.mark.parametrize("world", state.WORLDS)
def test_true_observations_read_as_true_states_without_error(world: str) -> None:
    scene = make_scene(world, 0, 12, 4)
    found = scene.errors([scene.physical(scene.held[:, k]) for k in AT], AT)
    assert max(found["error"].values()) < 1e-5
    assert max(found["energy"].values()) < 1e-4
    beside = references(scene)
    assert beside["copy-last"]["error"]["4"] > 0.01
    if world == "bouncing-ball":  # until it meets a wall it flies straight: the typical ball does, for one step
        assert beside["constant-velocity"]["error"]["1"] < 1e-9
    assert np.isfinite(list(beside["constant-velocity"]["energy"].values())).all()
