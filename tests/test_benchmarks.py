"""The smallest form of benchmarks that train: they run, and what they measure is what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import openjepa
from benchmarks import drift, pedestrians, record, state, two_rooms, walls
from benchmarks.moving_mnist_model import Rollout
from benchmarks.state_scene import AT, make_scene, references
from openjepa.app.dreaming import dreamer
from openjepa.app.runs import Run


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


def walks(folder: Path, steps: int = 24) -> None:
    """Five scenes of people who walk straight at a speed of their own."""
    rng = np.random.default_rng(0)
    names = [n for names in pedestrians.SCENES.values() for n in names]
    for name in names:
        start, step = rng.uniform(-5, 5, (6, 2)), rng.uniform(-0.6, 0.6, (6, 2))
        rows = [(10 * t, who, *(start[who] + t * step[who])) for who in range(6) for t in range(steps)]
        np.savetxt(folder / f"{name}.txt", np.array(rows), fmt="%.6f")


def test_who_walks_straight_is_predicted_by_constant_velocity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    (tmp_path / "set").mkdir()
    walks(tmp_path / "set")
    words = ["--scenes", "eth", "univ", "--seeds", "0", "1", "--steps", "2", "--batch", "8", "--name", "few"]
    found = pedestrians.main(["--data", str(tmp_path / "set"), *words])["summary"]
    average = found["average"]
    assert average["constant velocity"]["ADE"]["mean"] < 1e-4 < 0.1 < average["copy-last"]["ADE"]["mean"]
    assert average["copy-last"]["minADE20"]["mean"] < average["copy-last"]["ADE"]["mean"]
    assert average["constant velocity, angles"]["minFDE20"]["mean"] > 1e-3
    assert found["seeds"] == [0, 1] and set(found["against constant velocity"]) == set(pedestrians.LEARNT)
    row = found["against constant velocity"]["mlp"]["FDE"]
    assert row["low"] <= row["value"] <= row["high"]


def test_windows_of_people_are_turned_and_their_future_is_not_seen() -> None:
    place = torch.cumsum(torch.randn(5, 20, 2, generator=torch.Generator().manual_seed(0)), 1)
    seen, speed = pedestrians.own_frame(place.double())
    assert seen[:, 6:8].abs().max() < 1e-9  # at the origin now, and one step ago
    ahead = torch.arange(1, 13)[:, None] * (place[:, 7] - place[:, 6])[:, None]
    expected = (place[:, 8:] - place[:, 7:8] - ahead).norm(dim=-1)
    assert torch.allclose(seen[:, 8:].norm(dim=-1), expected.double(), atol=1e-5)
    a = pedestrians.Tracks(seen, speed, torch.arange(5))
    later = a._replace(place=torch.cat([seen[:, :8], torch.randn(5, 12, 2).double()], 1))
    assert torch.equal(pedestrians.now(a), pedestrians.now(later))
    assert torch.equal(pedestrians.now(a), pedestrians.observations(a)[:, 0])


def test_the_drift_of_latents_and_pixels_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    for name, value in {"AHEAD": 2, "EPISODES": 3, "LEARN": 40, "READ_STEPS": 2, "SHOWN": (1, 2)}.items():
        monkeypatch.setattr(drift, name, value)
    found = drift.main(["--seeds", "0", "--steps", "2", "--name", "few"])
    models = found["runs"][0]["models"]
    assert set(models) == {"jepa", "pixels, unrolled", "pixels", "copy-last", "mean place"}
    assert abs(models["pixels"]["weights"] / models["jepa"]["weights"] - 1) < 0.1
    assert len(found["summary"]["pixels"]["centre"]["mean"]) == 2


def test_the_centre_of_a_dot_is_its_place() -> None:
    _, on = drift.scene(0, drift.PLDMConfig(**drift.one_room_pldm()["method"]).window, 8)
    read = drift.centre(on["sees"][:, 0].amin(0))
    apart = (read(on["obs"].flatten(0, 1)) - on["place"].flatten(0, 1)).norm(dim=-1)
    assert apart.mean() < 0.3, apart.mean()  # pixels


def test_both_ways_to_roll_out_moving_digits_know_the_same_and_begin_alike() -> None:
    model = Rollout("latent", dim=4, width=8, blocks=1).eval()
    torch.manual_seed(0)
    for p in model.predictor.parameters():
        torch.nn.init.normal_(p, std=0.2)
    z = torch.randn(2, 10, 4, 8, 8)
    later = z.index_add(1, torch.tensor([6]), torch.ones(2, 1, 4, 8, 8))
    with torch.no_grad():
        one, other = model.futures(z, 8, 8), model.futures_side_by_side(z, 8)
        moved = model.futures(later, 8, 8), model.futures_side_by_side(later, 8)
    for k, (a, b) in enumerate(zip(one, other, strict=True)):
        assert a.shape == b.shape == (2, 8 - k, 4, 8, 8)
        torch.testing.assert_close(a[:, 0], b[:, 0], rtol=1e-3, atol=1e-4)  # from the two true frames at the start
        blind = slice(0, max(0, 5 - k))  # k + 1 steps ahead of frame 5 at the latest
        for true, changed in ((a, moved[0][k]), (b, moved[1][k])):
            torch.testing.assert_close(true[:, blind], changed[:, blind], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one[0], other[0], rtol=1e-3, atol=1e-4)


def test_a_code_of_where_a_cell_lies_does_not_count_as_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Rollout("latent", dim=4, width=8, blocks=1)
    code = torch.randn(4, 8, 8)
    monkeypatch.setattr(model, "encode", lambda clips: code.expand(*clips.shape[:2], 4, 8, 8))
    _, terms = model.losses(torch.zeros(3, 10, 1, 64, 64))
    assert terms["variance"] > 0.9  # the hinge of features that never change, though the cells differ
    monkeypatch.setattr(model, "encode", lambda clips: 2 * torch.randn(*clips.shape[:2], 4, 8, 8))
    _, terms = model.losses(torch.zeros(3, 10, 1, 64, 64))
    assert terms["variance"] < 0.1


def test_what_was_learned_on_pixels_is_read_through_its_pictures() -> None:
    model = Rollout("pixels", dim=4, width=8, blocks=1).eval()
    maps = torch.randn(2, 3, 4, 8, 8)
    with torch.no_grad():
        drawn = model.decoder(maps.flatten(0, 1)).sigmoid().unflatten(0, (2, 3))  # type: ignore[misc]
        assert drawn.shape == (2, 3, 1, 64, 64)
        torch.testing.assert_close(model.seen_again(maps), model.encode(drawn))
        model.train()  # a norm over the batch would hold the statistics of one horizon, and fail the others
        torch.testing.assert_close(model.decoder(maps.flatten(0, 1)).sigmoid().unflatten(0, (2, 3)), drawn)
    assert Rollout("latent", dim=4, width=8, blocks=1).seen_again(maps) is maps


def test_a_predictor_that_was_trained_on_is_kept_as_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = openjepa.train(
        {"name": "pldm", "encoder": {"name": "keypoints", "width": 8}, "dim": 4, "norm": False, "predictor": "residual",
         "predictor_width": 8, "window": 3, "unroll": 2},
        data={"path": "two-rooms", "world": {"size": 33}, "episodes": 6, "steps": 20}, out=tmp_path / "run",
        batch_size=8, budget={"steps": 2}, device="cpu", log={"tensorboard": False},
    )  # fmt: skip
    monkeypatch.setattr(walls, "reader", lambda z, states, seed: lambda z: z)  # as many features as a state has numbers
    monkeypatch.setattr(walls, "SIDES", 40)
    asked = walls.Asked(str(run.path), policy="bumps", episodes=3, seed=0)
    assert set(asked.pushed()) == {"wall", "door"}
    asked.train_on(2, 0, batch=8)
    asked.keep(tmp_path / "new")
    before, after = (dreamer(Run(p), torch.device("cpu")).method.state_dict() for p in (run.path, tmp_path / "new"))
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"predictor"}
    assert all(torch.equal(after[f"predictor.{n}"], x) for n, x in asked.model.predictor.state_dict().items())


def test_a_variant_that_is_trained_already_is_measured_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openjepa.train(
        {"name": "pldm", "encoder": {"name": "keypoints", "width": 8}, "dim": 4, "norm": False, "predictor": "residual",
         "predictor_width": 8, "window": 3, "unroll": 2},
        data={"path": "two-rooms", "world": {"size": 33}, "episodes": 30, "steps": 20},
        out=tmp_path / "fixed-default-2-0", batch_size=8, budget={"steps": 2}, device="cpu", log={"tensorboard": False},
    )  # fmt: skip
    asked: dict[str, Any] = {}
    monkeypatch.setattr(openjepa.Run, "plan", lambda run, **how: asked.update(how) or {"rows": {"model": {"n": 3}}})
    row = two_rooms.work(("fixed", "default", 0, 2, 3, tmp_path))
    assert asked["protocol"] == "two-rooms-fixed" and asked["episodes"] == 3 and row["plan"] == {"n": 3}
    assert {"x", "y"} <= set(row["r2"]) and row["verdict"] == "too early to say" and row["processor_seconds"] < 60
