"""From a world to a trained world model by the command line alone, and what the other verbs say to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import openjepa
from openjepa.app.cli import main
from openjepa.app.fields import train_help
from openjepa.data.episodes import EpisodeConfig, open_episodes

STATE = ["method.dim=16", "method.width=16", "method.window=5", "method.horizons=[1,2]"]
RUN = ["budget.steps=12", "batch_size=32", "log.every=4", "log.look=3", "device=cpu", "log.tensorboard=false"]


def call(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    assert stop.value.code == code, err
    return out if code == 0 else err


@pytest.fixture(scope="module")
def eps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "eps"
    openjepa.collect("point-mass", out=out, episodes=40, steps=20, seed=1)
    return out


@pytest.fixture(scope="module")
def run(eps: Path, tmp_path_factory: pytest.TempPathFactory) -> openjepa.Run:
    out = tmp_path_factory.mktemp("runs") / "state"
    return openjepa.train("state", data=str(eps), out=out, overrides=[*STATE, *RUN])


def test_collect_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "eps"
    words = ["collect", "two-rooms", "episodes=6", "steps=7", f"out={out}", "seed=3", "policy=walk", "world.size=33"]
    words += ["world.wall_x=16", "world.wall=fixed", "world.door_y=10"]
    said = json.loads(call(capsys, *words, "--json"))
    assert (said["episodes"], said["frames"], said["obs"]) == (6, 48, [33, 33, 2])
    assert said["settings"]["size"] == 33 and said["policy"] == "walk"
    e = open_episodes(EpisodeConfig(path=str(out)))
    assert e.about.world is not None and e.about.world["size"] == 33 and e.about.seed == 3
    found = json.loads(call(capsys, "data", "check", str(out), "held_out=0.4", "--json"))
    assert found["ok"] and found["episodes"] == 6 and found["obs"]["kind"] == "pictures"
    assert found["split"]["train"] + found["split"]["held_out"] == 6
    assert "new or empty folder" in call(capsys, *words, code=2)
    assert "Did you mean 'two-rooms'" in call(capsys, "collect", "two-roms", f"out={tmp_path / 'b'}", code=2)
    assert "unknown key 'sise'" in call(capsys, "collect", "two-rooms", f"out={tmp_path / 'b'}", "world.sise=3", code=2)
    assert "must be given a world" in call(capsys, "collect", code=2)
    assert "actions per episode" in call(capsys, "collect", "--help")


def test_a_run_on_episodes_is_looked_at_and_judged(run: openjepa.Run, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row for row in run.metrics() if "health/spread" in row]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert rows[0]["start/health/spread"] > 0 and rows[0]["health/windows"] == 1
    assert not {"health/border_share", "health/view_spread", "health/input_correlation"} & rows[-1].keys()
    assert run.verdict().name != "too early to say"
    assert json.loads((run.path / "health.json").read_text()) == run.verdict().as_dict()
    assert (run.path / "split.json").is_file()
    assert "Verdict: " in call(capsys, "look", str(run.path), f"out={run.path / 'r.html'}")
    assert (run.path / "r.html").stat().st_size > 5_000
    assert json.loads(call(capsys, "info", str(run.path), "--json"))["step"] == 12


def test_a_collapsing_world_model_is_told_from_a_healthy_one(eps: Path, tmp_path: Path) -> None:
    """A teacher that follows at once, and nothing else, lets the features die: the monitor sees it on states too."""
    words = [*STATE, *RUN, "method.variance=0", "method.sigreg=0", "method.mask_share=0"]
    dead = ["method.teacher=none", "budget.steps=200", "log.look=20", "optim.lr=0.01"]
    sick = openjepa.train("state", data=str(eps), out=tmp_path / "sick", overrides=[*words, *dead])
    assert sick.verdict().name in ("collapsed", "collapsing")
    assert any("variance" in line for line in sick.verdict().advice)


def test_a_world_in_place_of_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=pendulum", "data.episodes=20", "data.steps=15", "data.world.length=0.5", f"out={tmp_path / 'a'}"]
    call(capsys, "train", "state", *words, *STATE, *RUN)
    made = openjepa.Run(tmp_path / "a").config.data
    assert isinstance(made, EpisodeConfig) and made.world == {"length": 0.5}
    call(capsys, "train", "--resume", str(tmp_path / "a"))


def test_what_does_not_go_together_is_said_in_one_line(
    run: openjepa.Run, eps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = call(capsys, "train", "lejepa", f"data={eps}", f"out={tmp_path / 'a'}", code=2)
    assert "data must be pictures for method lejepa, got episodes" in said and "state" in said
    assert "data must be episodes" in call(capsys, "train", "state", "data=shapes:64", f"out={tmp_path / 'a'}", code=2)
    for verb in ("embed", "compare"):
        assert "a world model" in call(capsys, verb, str(run.path), code=2)
    assert "unknown key 'size'" in call(
        capsys, "train", "state", f"data={eps}", "data.size=8", f"out={tmp_path / 'a'}", code=2
    )
    assert not (tmp_path / "a").exists()


def test_help_shows_the_settings_of_episodes_where_they_are_eaten() -> None:
    assert "data.held_out" in train_help("state") and "data.image_column" not in train_help("state")
    assert "data.held_out" not in train_help("lejepa") and "data.image_column" in train_help("lejepa")
