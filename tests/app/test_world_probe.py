"""`openjepa probe` and `openjepa look` on world models: numbers, files, and a page that says what is missing."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import openjepa
from openjepa.app import world_pictures, world_text
from openjepa.app.cli import main
from openjepa.app.report import page, read_run
from openjepa.app.world_report import WorldParts, read_world
from openjepa.probe.decode import fit_decoder
from tests.app.test_report import parsed

RUN = {"budget": {"steps": 2}, "batch_size": 8, "log": {"tensorboard": False}, "device": "cpu"}


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> openjepa.Run:
    data = {"path": "pendulum", "episodes": 10, "steps": 30, "held_out": 0.4, "world": {"torque": 2.0}}
    method = {"name": "state", "horizons": [1, 2], "window": {"steps": 5, "skip": 2}, "dim": 8, "width": 8}
    return openjepa.train(method, data=data, out=tmp_path_factory.mktemp("states") / "run", **RUN)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> openjepa.Run:
    data = {"path": "two-rooms", "episodes": 6, "steps": 8, "held_out": 0.4, "world": {"size": 33}}
    method = {
        "name": "pldm", "encoder": {"name": "impala"}, "window": {"steps": 3}, "unroll": 2, "dim": 8,
        "predictor": "residual", "predictor_width": 8, "inverse_width": 8,
    }  # fmt: skip
    return openjepa.train(method, data=data, out=tmp_path_factory.mktemp("rooms") / "run", **RUN)


def call(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    assert stop.value.code == code, err
    return out if code == 0 else err


def test_a_world_model_of_states(states: openjepa.Run, capsys: pytest.CaptureFixture[str]) -> None:
    look = call(capsys, "look", str(states.path)) and (states.path / "report.html").read_text()
    assert f"openjepa probe {states.path}" in look and f"openjepa plan {states.path}" in look

    said = call(capsys, "probe", str(states.path))
    for words in (
        "cos theta",
        "omega",
        "copy last",
        "constant velocity",
        "energy, share of its mean",
        "a step is 2 of the world's, 0.1 s",
        "action",
    ):
        assert words in said, words
    found = json.loads((states.path / "eval" / "world.json").read_text())
    assert [row["name"] for row in found["variables"]] == ["omega", "cos theta", "sin theta"]
    assert all(row["low"] <= row["r2"] <= row["high"] <= 1 for row in found["variables"])
    drift = found["drift"]
    assert drift["steps"] == list(range(1, 15)) and found["skip"] == 2  # 31 frames, one step before the start
    assert set(drift["variables"]) == {"theta", "omega"} and drift["variables"]["theta"]["copy_last"]["value"][0] < 1
    energy = found["energy"]  # of a pendulum with a motor: copying errs too
    assert energy["steps"] == drift["steps"] and energy["scale"] > 0 and energy["copy_last"]["value"][-1] > 0
    ends = (energy["model"][k] for k in ("low", "value", "high"))
    assert all(low <= v <= high for low, v, high in zip(*ends, strict=True))
    for name in ("shuffled", "zero"):
        row = found["actions"][name]["latent"]
        assert all(low <= v <= high for low, v, high in zip(row["low"], row["value"], row["high"], strict=True))
    again = states.probe()
    assert {k: again[k] for k in found} == found  # nothing is drawn anew

    look = call(capsys, "look", str(states.path)) and (states.path / "report.html").read_text()
    assert not parsed(look).open and "What it imagines" in look and "The latent" in look
    assert f"openjepa probe {states.path}" not in look and "Nearest neighbours" not in look
    assert found["about_actions"].split(":")[0] in look


def test_a_world_model_of_pictures(rooms: openjepa.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_pictures, "fit_decoder", partial(fit_decoder, steps=3))  # how well it draws is not asked
    found = rooms.probe()
    assert found["world"] == "two-rooms" and math.isfinite(found["decoder_r2"])
    parts = read_world(rooms.path)
    count = len(parts.pictures["ahead"])
    assert parts.pictures["ahead"].tolist() == [0, 1, 2, 5, 7][:count] and count == 5
    for name in ("true", "decoded", "imagined"):
        assert parts.pictures[name].shape == (2, 5, 3, 33, 33) and parts.pictures[name].dtype == np.uint8
    # Nothing was imagined yet at the start: both are drawn from the same z.
    assert np.array_equal(parts.pictures["decoded"][:, 0], parts.pictures["imagined"][:, 0])
    assert not np.array_equal(parts.pictures["true"][:, 0], parts.pictures["true"][:, -1])
    rooms.plan(
        planner={"name": "cem", "horizon": 3, "samples": 8, "iterations": 1, "elites": 2}, episodes=1,
        controls=["random"], protocol="two-rooms-published",
    )  # fmt: skip
    text = Path(rooms.look()["report"]).read_text()
    assert not parsed(text).open
    for words in ("True against imagined", "What it imagined", "data:image/gif;base64,", "random policy", "two-rooms"):
        assert words in text, words


def test_settings_of_pictures_are_refused(states: openjepa.Run, capsys: pytest.CaptureFixture[str]) -> None:
    for words, named in (
        (["probe", "kinds=[knn]", "data=digits"], "got data, kinds."),
        (["look", "gallery=64"], "got gallery."),
    ):
        error = call(capsys, words[0], str(states.path), *words[1:], code=2)
        assert named in error and "a world model" in error and len(error.strip().splitlines()) == 1, error


def test_a_film_too_large_and_a_page_without_numbers(states: openjepa.Run) -> None:
    share = {"count": 1, "rate": 0.5, "low": 0.1, "high": 0.9}
    result = {"rows": {"zero": {"any": share, "end": share, "n": 2}}, "split": "report", "manifest": {"hash": "ab"}}
    inputs = read_run(states.path)
    parts = WorldParts(plans=[("rooms <1>", result, [("model_000.gif", None), ("b.gif", b"GIF89a")])])
    text = page(type(inputs)(inputs.title, inputs.history, folder="runs/w", world=parts))
    parsed(text)
    assert "runs/w/plan/rooms &lt;1&gt;/model_000.gif" in text and "50.0 %" in text and "openjepa probe runs/w" in text


def test_the_sentence_about_actions() -> None:
    def said(low: float | None, high: float, errors: list[float], spread: float = 1.0) -> str:
        row = {"latent": {"value": [1.0, 2.0], "low": [1.0, low], "high": [1.0, high]}}
        drift = {"latent": {"spread": spread, "model": {"value": errors}}}
        return world_text.about_actions({"actions": {"steps": [1, 2], "shuffled": row}, "drift": drift})

    good = [0.1, 0.2]
    assert said(1.5, 2.5, good).startswith("The actions matter: 2 steps ahead its error in z is 2 [1.5, 2.5] times")
    assert said(0.9, 1.04, good).startswith("The model hardly looks at the actions: 2 steps")
    assert said(0.9, 2.5, good).startswith("It cannot be told")
    assert "1 step ahead" in said(1.5, 2.5, [0.1, 3.0])  # beyond the spread nothing can get much worse
    assert said(1.5, 2.5, good, spread=0.0).startswith("The latent is the same everywhere")
    assert said(None, 2.5, good).startswith("Actions could not be checked")
    nobody = {"actions": None, "drift": {"latent": {"spread": 1.0}}}
    assert world_text.about_actions(nobody).startswith("Actions were not checked")
