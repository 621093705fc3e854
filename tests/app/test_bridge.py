"""Real robot episodes, from files of others to a trained world model, its numbers and its page."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import openjepa
from openjepa.app import world_pictures
from openjepa.data.episodes import EpisodeConfig, open_episodes
from openjepa.probe.decode import fit_decoder
from tests.app.test_report import parsed

SMALL = {
    "pldm": {
        "window": {"steps": 5}, "unroll": 4, "dim": 8, "inverse_width": 8, "predictor": "residual",
        "predictor_width": 8, "predictor_layers": 2, "encoder": {"name": "convnet_lean"},
    },
    "lewm": {"window": {"steps": 4, "skip": 3}, "encoder": "vit_micro/8"},
}  # fmt: skip


def test_actions_lead_from_a_frame_to_the_next(data_dir: Path) -> None:
    """Row t of the actions moves the arm from frame t to frame t + 1: the next row explains that step less well."""
    found = open_episodes(EpisodeConfig(path=str(data_dir / "bridge")))
    assert len(found) == 25 and found.obs.shape == (250, 64, 64, 3) and found.bad == []
    assert found.action.shape == (250, 7) and found.state.shape == (250, 7)
    whole = [found[i] for i in range(25)]
    moved = np.concatenate([np.diff(e.state[:, :3], axis=0) for e in whole])
    taken, later = (np.concatenate([e.action[rows, :3] for e in whole]) for rows in (slice(0, 9), slice(1, 10)))
    for axis in range(3):
        right, wrong = (np.corrcoef(moved[:, axis], a[:, axis])[0, 1] for a in (taken, later))
        assert right > 0.8 > wrong + 0.1, (axis, right, wrong)


@pytest.mark.parametrize("name", list(SMALL))
def test_from_the_folder_to_a_report(
    name: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_pictures, "fit_decoder", partial(fit_decoder, steps=3))  # how well it draws is not asked
    run = openjepa.train(
        {"name": name, **SMALL[name]}, data={"path": str(data_dir / "bridge"), "held_out": 0.2}, out=tmp_path / "run",
        budget={"steps": 2}, batch_size=8, device="cpu", log={"tensorboard": False},
    )  # fmt: skip
    found = run.probe()
    assert found["held_out_episodes"] == 6 and [v["name"] for v in found["variables"]] == [f"s{i}" for i in range(7)]
    assert found["world"] is None and found["energy"] is None and math.isfinite(found["decoder_r2"])
    assert found["drift"]["steps"][-1] == (8 if name == "pldm" else 2)  # ten frames, one before the start
    assert found["actions"]["zero"]["latent"]["value"][0] > 0
    text = Path(run.look()["report"]).read_text()
    assert not parsed(text).open and "True against imagined" in text


def test_windows_that_are_too_long_say_what_would_fit(data_dir: Path, tmp_path: Path) -> None:
    data = {"path": str(data_dir / "bridge")}
    fits = r"longest episode of 10\. Set method\.window\.steps=4 and method\.window\.skip=3\."
    with pytest.raises(ValueError, match=fits):
        openjepa.train("lewm", data=data, out=tmp_path / "run")
