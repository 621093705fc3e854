"""The loop: order of things, precision, accumulation, budgets, what is written."""

import importlib.util
import json
import sys
import time
import types

import pytest
import torch

from openjepa.config import read_yaml
from openjepa.core.types import Clock
from openjepa.methods.base import total
from openjepa.train import checkpoint
from openjepa.train.budget import UNKNOWN
from openjepa.train.loop import fit
from openjepa.train.optim import learning_rate, make_optimizer, set_rates
from openjepa.train.run import RunConfig
from tests.train.toys import Toy, ToyConfig, ToyStream, toy, toy_run


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_equals_the_loop_written_out(tmp_path):
    run = toy_run(optim__clip=0.3)
    fit(trained := toy(), ToyStream(run), run, out=tmp_path / "a")

    plain = toy()
    optimizer = make_optimizer(plain, run.optim)
    batches, losses = ToyStream(run).batches(), []
    for step in range(10):
        clock = Clock(step, 10, run.seed)
        set_rates(optimizer, run.optim, step, 10)
        terms, _ = plain(next(batches), clock)
        loss = total(terms, plain.weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.3)
        optimizer.step()
        optimizer.zero_grad()
        plain.after_step(clock)
        losses.append(loss.item())
    assert [r["loss"] for r in rows(tmp_path / "a")] == losses
    assert all(
        torch.equal(a, b) for a, b in zip(trained.state_dict().values(), plain.state_dict().values(), strict=True)
    )
    assert trained.updates == 10 and losses[-1] < losses[0]


def test_rows_say_what_was_done(tmp_path):
    run = toy_run(log__every=4)
    fit(toy(), ToyStream(run), run, out=tmp_path / "fine")
    found = rows(tmp_path / "fine")
    assert [r["step"] for r in found] == [1, 4, 8, 10] and [r["progress"] for r in found] == [0.1, 0.4, 0.8, 1.0]
    names = {
        "step",
        "progress",
        "time",
        "loss",
        "terms/predict",
        "terms/spread",
        "lr",
        "wd",
        "grad_norm",
        "images_per_s",
    }
    assert all(r.keys() == names for r in found)
    assert found[1]["lr"] == learning_rate(run.optim, 3, 10)
    fit(toy(), ToyStream(run), toy_run(log__every=1), out=tmp_path / "all")
    every = [r["loss"] for r in rows(tmp_path / "all")]
    assert found[2]["loss"] == pytest.approx(sum(every[4:8]) / 4)  # a mean over the steps since the last row
    weighted = found[2]["terms/predict"] + 0.5 * found[2]["terms/spread"]
    assert found[2]["loss"] == pytest.approx(weighted)


def without_noise():
    return ToyConfig(dropout=0.0)


def test_accumulation_is_the_mean_over_micro_batches(tmp_path):
    """Two micro-batches of four, written out."""
    run = toy_run(accumulate=2, budget__steps=1, optim__warmup=0)
    fit(trained := toy(without_noise()), ToyStream(run), run, out=tmp_path / "a")
    plain, batches, losses = toy(without_noise()), ToyStream(run).batches(), []
    for micro in range(2):
        terms, _ = plain(next(batches), Clock(0, 1, run.seed, micro=micro))
        losses.append(total(terms, plain.weights))
    (sum(losses) / 2).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
    row = rows(tmp_path / "a")[0]
    assert row["loss"] == pytest.approx(sum(losses).item() / 2) and row["grad_norm"] == pytest.approx(float(norm))
    optimizer = make_optimizer(plain, run.optim)
    set_rates(optimizer, run.optim, 0, 1)
    optimizer.step()
    assert torch.allclose(trained.encoder.inlet.weight, plain.encoder.inlet.weight)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_and_is_near(tmp_path, precision):
    for name in ("fp32", precision):
        run = toy_run(precision=name, budget__steps=20)
        fit(toy(without_noise()), ToyStream(run), run, out=tmp_path / name)
    a, b = ([r["loss"] for r in rows(tmp_path / name)] for name in ("fp32", precision))
    assert a != b and a == pytest.approx(b, rel=0.1)
    state = checkpoint.read_training(tmp_path / precision / "checkpoints" / "last")
    assert bool(state["scaler"]) == (precision == "fp16")  # a scaler is for fp16 only


def test_fp16_overflow_skips_the_update_and_lowers_the_scale(tmp_path):
    class Steep(Toy):
        def losses(self, batch, clock):
            terms, seen = super().losses(batch, clock)
            if clock.step == 2:
                terms["predict"] = terms["predict"] + (1e36 * (self.hidden - self.hidden.detach())).sum()
            return terms, seen

    torch.manual_seed(0)
    run = toy_run(precision="fp16", budget__steps=4)
    fit(Steep(without_noise()), ToyStream(run), run, out=tmp_path / "a")
    norms = [r["grad_norm"] for r in rows(tmp_path / "a")]
    assert norms[2] is None and norms[3] is not None
    scaler = checkpoint.read_training(tmp_path / "a" / "checkpoints" / "last")["scaler"]
    assert scaler["scale"] == 2.0 ** (16 - norms.count(None))


def test_activation_checkpointing_changes_nothing_but_memory(tmp_path):
    for name in ("plain", "recomputed"):
        run = toy_run(checkpoint_activations=name == "recomputed")
        fit(method := toy(), ToyStream(run), run, out=tmp_path / name)
        assert method.encoder.checkpoint == (name == "recomputed")
    assert [r["loss"] for r in rows(tmp_path / "plain")] == [r["loss"] for r in rows(tmp_path / "recomputed")]


def test_activation_checkpointing_without_anyone_who_offers_it(tmp_path):
    method = toy()
    del method.encoder.checkpoint, method.teacher.checkpoint
    method.encoder.forward = method.teacher.forward = lambda x: x[:, :1].expand(-1, 8)
    run = toy_run(checkpoint_activations=True)
    with pytest.warns(UserWarning, match="checkpoint_activations has no effect"):
        fit(method, ToyStream(run), run, out=tmp_path / "a")


def test_compile_where_it_does_not_work_goes_on_without(tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("No working C++ compiler found\nand a long trace")

    monkeypatch.setattr(torch, "compile", broken)
    run = toy_run(compile=True)
    with pytest.warns(UserWarning, match="compile=true does not work here and is left out: No working C"):
        fit(toy(), ToyStream(run), run, out=tmp_path / "a")
    assert len(rows(tmp_path / "a")) == 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler about itself
def test_compile_keeps_names_and_numbers(tmp_path):
    for name in ("plain", "compiled"):
        run = toy_run(compile=name == "compiled")
        fit(toy(without_noise()), ToyStream(run), run, out=tmp_path / name)
    a, b = (checkpoint.read_parts(tmp_path / n / "checkpoints" / "last") for n in ("plain", "compiled"))
    assert {k: set(v) for k, v in a.items()} == {k: set(v) for k, v in b.items()}
    losses = [[r["loss"] for r in rows(tmp_path / n)] for n in ("plain", "compiled")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


class TestBudget:
    def test_epochs(self, tmp_path):
        run = toy_run(budget__epochs=1.5)
        fit(toy(), ToyStream(run, steps_per_epoch=4), run, out=tmp_path / "a")
        assert rows(tmp_path / "a")[-1]["step"] == 6

    def test_minutes_are_turned_into_steps_once(self, tmp_path):
        looks = []

        def slow_look(moment):
            looks.append(moment.step)
            time.sleep(0.002)
            return {"probe/x": 1.0}

        run = toy_run(budget__minutes=0.02, log__every=10)
        begin = time.perf_counter()
        fit(toy(), ToyStream(run, pause=0.005), run, out=tmp_path / "a", observers=[slow_look])
        seconds = time.perf_counter() - begin
        kept = json.loads((tmp_path / "a" / "budget.json").read_text())
        last = rows(tmp_path / "a")[-1]
        assert last["step"] == kept["steps"] and last["progress"] == 1.0 and looks[0] == kept["fixed_at"]
        assert kept["fixed_at"] <= 25 and kept["fixed_at"] < kept["steps"]
        assert seconds < 10
        assert rows(tmp_path / "a")[0]["lr"] == learning_rate(run.optim, 0, UNKNOWN)  # the start of the warm-up

    def test_a_run_killed_before_its_first_checkpoint_keeps_its_length(self, tmp_path):
        run = toy_run(budget__minutes=0.01)
        fit(toy(), ToyStream(run), run, out=tmp_path / "a")
        first = rows(tmp_path / "a")
        for path in checkpoint.listed(tmp_path / "a" / "checkpoints"):
            (path / "files.json").write_text("{")
        with pytest.warns(UserWarning, match="damaged"):
            fit(toy(), ToyStream(run), run, out=tmp_path / "a", resume=True)
        again = rows(tmp_path / "a")
        assert [(r["step"], r["loss"], r["lr"]) for r in first] == [(r["step"], r["loss"], r["lr"]) for r in again]

    def test_none(self, tmp_path):
        with pytest.raises(ValueError, match="budget must name one of"):
            fit(toy(), ToyStream(toy_run()), toy_run(budget__steps=None), out=tmp_path / "a")


class TestFolder:
    @pytest.fixture
    def out(self, tmp_path):
        run = toy_run(log__tensorboard=True)
        about = {"data": {"path": "nowhere", "fingerprint": "abc"}, "preprocess": {"size": 4}}
        return fit(toy(), ToyStream(run), run, out=tmp_path / "a", about=about)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_everything_is_there(self, out):
        names = {p.name.split(".out.")[0] for p in out.iterdir()}
        assert names == {"config.yaml", "env.json", "train.log", "metrics.jsonl", "events", "checkpoints"}
        saved = read_yaml(out / "config.yaml")
        assert saved == toy_run(log__tensorboard=True).model_dump(mode="json")
        config = json.loads((out / "checkpoints" / "last" / "config.json").read_text())
        assert config["format"] == "openjepa/1" and config["method"]["name"] == "toy" and config["step"] == 10
        assert config["preprocess"] == {"size": 4} and config["licence"] == "Apache-2.0" and config["version"]
        env = json.loads((out / "env.json").read_text())
        assert env["torch"] == torch.__version__ and env["data"]["fingerprint"] == "abc"
        assert any(p.startswith("torch==") for p in env["packages"])
        log = (out / "train.log").read_text()
        assert "294 trained parameters on cpu, fp32; 10 steps." in log and "Done: 10 steps" in log

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_events_hold_the_same_numbers(self, out):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(out))
        events.Reload()
        assert [e.value for e in events.Scalars("loss")] == pytest.approx([r["loss"] for r in rows(out)])


def test_wandb_only_when_asked(tmp_path, monkeypatch):
    assert importlib.util.find_spec("wandb") is None
    with pytest.raises(ValueError, match="pip install wandb"):
        fit(toy(), ToyStream(toy_run()), toy_run(log__wandb=True), out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    seen = []
    fake = types.SimpleNamespace(log=lambda row, step: seen.append((step, row["loss"])), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **_: fake))
    fit(toy(), ToyStream(toy_run()), toy_run(log__wandb=True), out=tmp_path / "b")
    assert seen == [(r["step"], r["loss"]) for r in rows(tmp_path / "b")]


def test_observers_see_the_moment(tmp_path):
    moments = []

    def observer(moment):
        moments.append(moment)
        return {"health/std": float("inf")}

    run = toy_run(log__look=5, log__every=100)
    method = toy()
    method.teacher.eval()
    fit(method, ToyStream(run), run, out=tmp_path / "a", observers=[observer])
    assert [m.step for m in moments] == [5, 10] and moments[0].total == 10 and moments[0].method is method
    assert moments[0].terms.keys() == {"predict", "spread"} and moments[0].seen["z"].shape == (8, 8)
    assert not moments[0].seen["z"].requires_grad
    assert method.training and not method.teacher.training and method.encoder.training  # modes are put back
    assert [r["health/std"] for r in rows(tmp_path / "a") if "health/std" in r] == [None, None]  # JSON knows no inf


def test_a_term_without_weight_is_refused(tmp_path):
    method = toy()
    method.weights = {"predict": 1.0}
    with pytest.raises(ValueError, match="loss terms must be"):
        fit(method, ToyStream(toy_run()), toy_run(), out=tmp_path / "a")


@pytest.mark.parametrize("device", ["cuda", "abacus"])
def test_a_device_that_is_not_there(tmp_path, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ValueError, match="device must be"):
        fit(toy(), ToyStream(toy_run()), toy_run(device=device), out=tmp_path / "a")


def test_a_run_is_its_config():
    run = toy_run(optim__lr=0.3)
    assert isinstance(run, RunConfig) and run.optim.lr == 0.3 and isinstance(run.method, ToyConfig)
