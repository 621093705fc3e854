"""From the command line to a measured run, on real digits: every verb once, and what it must leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import openjepa
from openjepa.app.cli import main
from openjepa.app.looking import rebuilt
from openjepa.app.subjects import even, labelled, of_run, with_split
from openjepa.data.config import DataConfig

pytest.importorskip("sklearn", reason="the digits come with scikit-learn: install openjepa[eval]")

SMALL = {
    "lejepa": ["method.slices=64", "method.projector_hidden=64", "method.projector_out=16"],
    "ijepa": ["method.encoder.name=vit_nano/2", "method.predictor_width=32", "method.predictor_depth=1"],
}
RUN = [
    "batch_size=32",
    "budget.steps=12",
    "probe.limit=100",
    "log.every=4",
    "log.look=4",
    "device=cpu",
    "data.limit=300",
]


def call(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    assert stop.value.code == 0, err
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One short run of each method; nothing below changes their weights."""
    found = {}
    for method in ("lejepa", "ijepa"):
        out = tmp_path_factory.mktemp("runs") / method
        openjepa.train(f"digits-{method}", out=out, overrides=[*SMALL[method], *RUN])
        found[method] = out
    return found


@pytest.fixture(params=["lejepa", "ijepa"])
def run(request: pytest.FixtureRequest, runs: dict[str, Path]) -> Path:
    return runs[request.param]


def test_a_run_folder_holds_what_it_should(run: Path) -> None:
    names = {p.name for p in run.iterdir()}
    assert {"config.yaml", "env.json", "train.log", "metrics.jsonl", "health.json", "checkpoints"} <= names
    assert (run / "checkpoints/last/encoder.safetensors").is_file()
    last = openjepa.Run(run).metrics()[-1]
    assert last["step"] == 12 and last["progress"] == 1.0
    assert {"loss", "lr", "health/spread", "health/rank", "probe/knn", "probe/linear"} <= last.keys()
    assert json.loads((run / "health.json").read_text()) == openjepa.Run(run).verdict().as_dict()


def test_labels_never_change_the_weights(runs: dict[str, Path], tmp_path: Path) -> None:
    """The same run without any look at labels ends in the same weights, bit for bit."""
    words = [*SMALL["lejepa"], *RUN, "probe.online=false", "log.look=1000"]
    blind = openjepa.train("digits-lejepa", out=tmp_path / "blind", overrides=words)
    ours, theirs = (load_file(p / "checkpoints/last/encoder.safetensors") for p in (runs["lejepa"], blind.path))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert "probe/knn" not in blind.metrics()[-1]


def test_probe(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=digits", "kinds=[knn,linear]", "layers=[-1]", "name=mine"]
    found = json.loads(call(capsys, "probe", str(run), *words, "--json"))
    assert (found["data"], found["test"]) == ("digits (train)", "digits (test)")
    for row in found["scores"]:
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert row["n"] == 450
    by_name = {row["name"]: row["accuracy"] for row in found["scores"]}
    assert by_name["linear (standardised)"] > 0.8, "digits are easy: even a small network gives most of them"
    saved = json.loads((run / "eval/mine.json").read_text())
    assert saved == {k: v for k, v in found.items() if k != "file"}
    python = openjepa.probe(run, "digits", kinds=["knn", "linear"], layers=[-1], name="mine")
    assert python == found
    assert "linear (raw)" in call(capsys, "probe", str(run), *words)


def test_embed_in_every_format(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = openjepa.Run(runs["lejepa"])
    z = run.embed({"path": "digits", "split": "test"})
    assert z.shape[0] == 450 and z.dtype == np.float32
    for name in ("z.npz", "z.npy", "z.parquet"):
        out = tmp_path / name
        said = json.loads(
            call(capsys, "embed", str(run.path), "data=digits", "data.split=test", f"out={out}", "--json")
        )
        assert said["pictures"] == 450 and said["features"] == z.shape[1]
    np.testing.assert_array_equal(np.load(tmp_path / "z.npz")["z"], z)
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), z)
    half = run.embed({"path": "digits", "split": "test"}, tmp_path / "half.npz", dtype="float16")
    np.testing.assert_allclose(half, z, rtol=2e-3, atol=1e-3)


def test_the_encoder_sees_pictures_as_in_training(runs: dict[str, Path]) -> None:
    """Embedding its own pictures by the run's preprocessing equals running the saved network by hand."""
    run = openjepa.Run(runs["lejepa"])
    model = run.load()
    source = openjepa.data.open_source(run.config.data, seed=run.config.seed)
    images, _, _ = next(openjepa.data.evaluation(source, batch_size=8))
    with torch.no_grad():
        by_hand = model.encoder.eval()(images)[:, model.encoder.prefix :].mean(1)
    np.testing.assert_allclose(run.embed()[:8], by_hand.numpy(), rtol=1e-4, atol=1e-5)
    method, _ = rebuilt(run, torch.device("cpu"))
    with torch.no_grad():
        assert torch.allclose(method.encode(images).mean(1), by_hand, atol=1e-5)


def test_ijepa_is_measured_by_its_teacher(runs: dict[str, Path]) -> None:
    run = openjepa.Run(runs["ijepa"])
    teacher, student = run.embed(weights="teacher"), run.embed(weights="encoder")
    np.testing.assert_array_equal(run.embed(), teacher)
    assert not np.array_equal(teacher, student)


def test_look(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    said = call(capsys, "look", str(run), f"out={out}", "pictures=4", "gallery=64")
    assert "Verdict: " in said and str(out) in said
    page = out.read_text()
    assert page.count("data:image/png") > 8 and 'src="http' not in page
    for part in ("Nearest neighbours", "What it sees", "digits"):
        assert part in page
    assert ("Targets: blocks to predict" in page) == (run.name == "ijepa")


def test_compare(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(runs["lejepa"]), str(runs["ijepa"]), "pixels", "init", "kinds=[knn]", f"out={tmp_path / 'c.json'}"]
    found = json.loads(call(capsys, "compare", *words, "--json"))
    assert list(found["table"]) == [str(runs["lejepa"]), str(runs["ijepa"]), "pixels", "init"]
    assert json.loads((tmp_path / "c.json").read_text()) == found
    pixels = found["table"]["pixels"]["knn (weighted)"]["accuracy"]
    assert pixels > 0.9, "nearest neighbours on raw digits are known to be good"
    printed = call(capsys, "compare", *words[:-1])
    assert "pixels" in printed and f"{100 * pixels:.1f} %" in printed


def test_compare_needs_a_run() -> None:
    with pytest.raises(ValueError, match="must be given a run beside 'pixels'"):
        openjepa.compare("pixels", data="digits")


def test_export(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(call(capsys, "export", str(runs["ijepa"]), "--to", str(tmp_path / "ours"), "--json"))
    assert said["format"] == "openjepa" and "model.safetensors" in said["files"]
    again = openjepa.load(tmp_path / "ours")
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.encoder(x), openjepa.Run(runs["ijepa"]).load().encoder(x))
    assert json.loads(call(capsys, "info", str(tmp_path / "ours"), "--json"))["format"] == "openjepa/1"


def test_info(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(call(capsys, "info", str(run), "--json"))
    assert found["step"] == 12 and found["checkpoint"]["step"] == 12
    weights = run / "checkpoints/last/encoder.safetensors"
    numbers = sum(x.numel() for x in load_file(weights).values())
    assert json.loads(call(capsys, "info", str(weights), "--json"))["numbers"] == numbers
    training = json.loads(call(capsys, "info", str(run / "checkpoints/last/training.pt"), "--json"))
    assert training["numbers"] > numbers, "two moments per trained weight"
    assert json.loads(call(capsys, "info", "--json"))["torch"] == torch.__version__


def test_info_does_not_run_what_is_in_a_pickle(tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    (tmp_path / "model.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(ValueError, match=r"model\.pt"):
        openjepa.info(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


def test_resume_goes_on_and_refuses_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = [*SMALL["lejepa"], *RUN, "checkpoint.every=4", "checkpoint.keep=3"]
    openjepa.train("digits-lejepa", out=whole, overrides=words)
    openjepa.train("digits-lejepa", out=parts, overrides=words)
    last = parts / "checkpoints/last"
    last.unlink()
    for step in (8, 12):  # as if the run had been killed after step 4
        import shutil

        shutil.rmtree(parts / f"checkpoints/step_{step}")
    call(capsys, "train", "--resume", str(parts))
    ours, theirs = (load_file(p / "checkpoints/last/encoder.safetensors") for p in (whole, parts))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    with pytest.raises(ValueError, match=r"optim\.lr"):
        openjepa.train(resume=parts, overrides=["optim.lr=0.5"])


def test_an_encoder_of_ones_own(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 12, 3, stride=2, padding=1), torch.nn.GELU())
    before = net[0].weight.detach().clone()
    run = openjepa.train("digits-lejepa", encoder=net, out=tmp_path / "own", overrides=[*SMALL["lejepa"], *RUN])
    assert run.metrics()[-1]["step"] == 12
    assert not torch.equal(before, net[0].weight.detach()), "it was trained in place"


def test_init_from_takes_weights_only(runs: dict[str, Path], tmp_path: Path) -> None:
    words = [*SMALL["lejepa"], *RUN, "budget.steps=1", "optim.lr=1e-12", "optim.weight_decay=0"]
    run = openjepa.train("digits-lejepa", out=tmp_path / "more", init_from=runs["lejepa"], overrides=words)
    old, new = (load_file(p / "checkpoints/last/encoder.safetensors") for p in (runs["lejepa"], run.path))
    assert all(torch.allclose(old[k], new[k], atol=1e-6) for k in old if k.endswith("weight"))
    assert run.metrics()[-1]["step"] == 1


def test_no_picture_is_on_both_sides() -> None:
    from openjepa.interop.preprocess import Preprocess

    grey = Preprocess(8, 1, (0.5,), (0.5,))
    data = DataConfig(path="digits", channels=1)
    sides = labelled(data, None, grey, seed=0)
    assert (sides.train.split, sides.test.split) == ("train", "test")
    held = labelled(data.model_copy(update={"split": "test"}), None, grey, seed=0)
    assert held.train_rows is not None and held.test_rows is not None
    assert not set(held.train_rows.tolist()) & set(held.test_rows.tolist())
    assert len(held.train_rows) + len(held.test_rows) == 450
    with pytest.raises(ValueError, match="other pictures than data"):
        labelled(data, data, grey, seed=0)


def test_a_parquet_file_called_train_is_measured_on_the_one_called_test(data_dir: Path) -> None:
    train, test = with_split(DataConfig(path=str(data_dir / "mnist/train.parquet"), limit=100))
    assert test is not None and Path(test.path).name == "test.parquet" and test.limit is None
    assert train.limit == 100


def test_probing_needs_labels(tmp_path: Path, runs: dict[str, Path]) -> None:
    np.save(tmp_path / "plain.npy", np.zeros((40, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="must have labels"):
        openjepa.probe(runs["lejepa"], str(tmp_path / "plain.npy"))


def test_few_pictures_hold_all_classes() -> None:
    """The online probe sees a small draw: every class that can be measured was also learnt from."""
    from openjepa.interop.preprocess import Preprocess

    grey = Preprocess(8, 1, (0.5,), (0.5,))
    sides = labelled(DataConfig(path="digits", channels=1, split="train"), None, grey, seed=0)
    for limit in (12, 20, 64):
        learn, measure = sides.some(grey, limit, 0, torch.device("cpu"))
        learnt, asked = (set(b.labels.tolist()) for b in (learn, measure))
        assert asked <= learnt
        assert len(learn.labels) == limit - limit // 5 and len(measure.labels) <= limit // 5
    assert learnt == set(range(10))


def test_even_rows_are_a_draw_without_repetition() -> None:
    source = openjepa.data.open_source(DataConfig(path="digits", channels=1))
    rows = even(source, None, 40, seed=1)
    assert rows.tolist() == sorted(set(rows.tolist())) and len(rows) == 40
    assert set(np.bincount(source.labels[rows.numpy()])) == {4}
    assert even(source, torch.tensor([3, 5]), 9, seed=0).tolist() == [3, 5]


def test_layers_and_pooling_change_the_features(runs: dict[str, Path]) -> None:
    run = openjepa.Run(runs["ijepa"])
    last, two = run.embed(), run.embed(layers=[-2, -1])
    assert two.shape[1] == 2 * last.shape[1]
    assert run.embed(pooling="mean+max").shape[1] == 2 * last.shape[1]
    assert of_run(run, "auto", torch.device("cpu")).name == str(run.path)


def test_demo_at_its_smallest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = tmp_path / "runs/demo"  # an earlier demo, which stays as it is
    first.mkdir(parents=True)
    said = call(capsys, "demo", "--tiny", "resamples=3", "device=cpu")
    assert not any(first.iterdir())
    (tmp_path / "runs/demo-2").rename(tmp_path / "demo")
    for word in ("LeJEPA features", "raw pixels", "untrained", "planner on the true simulator", "Report: "):
        assert word in said
    found = json.loads((tmp_path / "demo/demo.json").read_text())
    assert set(found["table"]["raw pixels"]) == {"1", "5", "10"}
    assert (tmp_path / "demo/report.html").stat().st_size > 20_000
    assert set(found["world"]["rows"]) == {"model", "simulator", "goal_is_start", "zero", "random"}
    film, page = (Path(found["world"][key]).relative_to("runs/demo-2") for key in ("film", "report"))
    assert (tmp_path / "demo" / film).stat().st_size > 1000 and (tmp_path / "demo" / page).is_file()
    with pytest.raises(ValueError, match="new or empty folder"):
        openjepa.demo(out=tmp_path / "demo")


def test_interrupting_saves_and_leaves_one_line(tmp_path: Path) -> None:
    import signal
    import time

    out = tmp_path / "run"
    words = [*SMALL["lejepa"], *RUN, "budget.steps=100000", "log.every=1", "log.look=100000"]
    command = [sys.executable, "-m", "openjepa", "train", "digits-lejepa", f"out={out}", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (out / "metrics.jsonl").exists():
            time.sleep(0.2)
        while process.poll() is None and not (out / "metrics.jsonl").read_text():
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert (out / "checkpoints/last/encoder.safetensors").is_file()
