"""A run that was stopped at any moment ends bit for bit like one that was not."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from openjepa.train import checkpoint
from openjepa.train.loop import fit
from tests.train.toys import ToyStream, toy, toy_run

WALL = ("time", "images_per_s")  # the only numbers that may differ


def rows(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in WALL} for row in lines]


def train(out, run, *, resume=False, **kwargs):
    return fit(toy(), ToyStream(run), run, out=out, resume=resume, **kwargs)


def assert_same_end(a: Path, b: Path):
    last_a, last_b = (checkpoint.listed(x / "checkpoints")[-1] for x in (a, b))
    assert last_a.name == last_b.name
    for file in last_a.glob("*.safetensors"):
        left, right = load_file(file), load_file(last_b / file.name)
        assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left), file.name
    left, right = checkpoint.read_training(last_a), checkpoint.read_training(last_b)
    for one, two in zip(left["optimizer"]["state"].values(), right["optimizer"]["state"].values(), strict=True):
        assert all(torch.equal(one[k], two[k]) for k in one)
    assert rows(a) == rows(b)


class StopAfter(ToyStream):
    """Ends the process's run by an exception, as a bug or a broken file would."""

    def __init__(self, run, steps):
        super().__init__(run)
        self.left = steps * run.accumulate

    def batches(self, start_step=0):
        for batch in super().batches(start_step):
            if self.left == 0:
                raise InterruptedError("the stream broke")
            self.left -= 1
            yield batch


@pytest.mark.parametrize(
    "changes", [{}, {"accumulate": 2}, {"precision": "bf16"}, {"log__every": 4}, {"optim__clip": 0.1}], ids=str
)
def test_five_and_five_are_ten(tmp_path, changes):
    run = toy_run(checkpoint__every=5, **changes)
    train(tmp_path / "whole", run)
    with pytest.raises(InterruptedError):
        fit(toy(), StopAfter(run, 7), run, out=tmp_path / "parts")
    assert checkpoint.listed(tmp_path / "parts" / "checkpoints")[-1].name == "step_5"
    torch.manual_seed(999)  # whatever the new process draws before must not matter
    fit(toy(seed=5), ToyStream(run), run, out=tmp_path / "parts", resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_looks_do_not_change_training(tmp_path):
    def greedy(moment):
        torch.rand(7), random.random()
        assert not moment.method.training
        return {"probe/step": float(moment.step)}

    run = toy_run(log__look=3)
    train(tmp_path / "blind", run)
    train(tmp_path / "seeing", run, observers=[greedy])
    seen = rows(tmp_path / "seeing")
    assert [r["step"] for r in seen if "probe/step" in r] == [3, 6, 9, 10]
    assert [{k: v for k, v in r.items() if k != "probe/step"} for r in seen] == rows(tmp_path / "blind")


def test_a_finished_run_stays_as_it_is(tmp_path):
    run = toy_run()
    train(tmp_path / "a", run)
    before = (tmp_path / "a" / "metrics.jsonl").read_bytes()
    train(tmp_path / "a", run, resume=True)
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == before


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path):
    run = toy_run(checkpoint__every=3, checkpoint__keep=3)
    train(tmp_path / "whole", run)
    train(tmp_path / "hurt", run)
    newest = tmp_path / "hurt" / "checkpoints" / "step_10"
    content = (newest / "training.pt").read_bytes()
    (newest / "training.pt").write_bytes(content[:1000])
    with pytest.warns(UserWarning, match=r"step_10 is damaged \(training.pt has 1000 bytes"):
        train(tmp_path / "hurt", run, resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "hurt")


def test_changed_settings_are_refused_and_named(tmp_path):
    run = toy_run()
    train(tmp_path / "a", run)
    changed = toy_run(optim__lr=0.5, budget__steps=20)
    with pytest.raises(
        ValueError, match=r"budget.steps \(was 10, now 20\), optim.lr \(was 0.01, now 0.5\).*init_from="
    ):
        train(tmp_path / "a", changed, resume=True)
    train(tmp_path / "a", toy_run(threads=1, out="elsewhere"), resume=True)  # these do not matter


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"new or empty folder, got .* with 1 entries"):
        train(tmp_path / "a", toy_run())
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must be a folder, got the file"):
        train(tmp_path / "file", toy_run())
    with pytest.raises(ValueError, match=r"without config\.yaml"):
        train(tmp_path / "a", toy_run(), resume=True)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["thesis.tex"]


def test_init_from_takes_weights_only(tmp_path):
    train(tmp_path / "a", toy_run())
    run = toy_run(init_from=str(tmp_path / "a"), budget__steps=1, optim__lr=1e-30)
    train(tmp_path / "b", run)
    a, b = (load_file(tmp_path / x / "checkpoints" / "last" / "encoder.safetensors") for x in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)
    state = checkpoint.read_training(tmp_path / "b" / "checkpoints" / "last")
    assert state["step"] == 1 and state["optimizer"]["state"][0]["step"] == 1


def victim(out: str, steps: int, pause: float) -> None:
    """A process's whole life: start, or go on with what is there."""
    torch.set_num_threads(1)
    run = toy_run(budget__steps=steps, checkpoint__every=3, log__every=2, accumulate=2)
    fit(toy(), ToyStream(run, pause=pause), run, out=out, resume=(Path(out) / "config.yaml").exists())


def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.test_resume"])
    return context


def kill_again_and_again(tmp_path, kills, seed):
    context, steps, pause = processes(), 40, 0.01
    victim(str(tmp_path / "whole"), steps, 0.0)
    choice, survived = random.Random(seed), 0
    for _ in range(kills):
        process = context.Process(target=victim, args=(str(tmp_path / "killed"), steps, pause))
        process.start()
        process.join(choice.uniform(0.0, 1.5))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        else:
            survived += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    last = context.Process(target=victim, args=(str(tmp_path / "killed"), steps, 0.0))
    last.start()
    last.join()
    assert last.exitcode == 0 and survived < kills
    assert_same_end(tmp_path / "whole", tmp_path / "killed")
    assert [r["step"] for r in rows(tmp_path / "killed")] == [1, *range(2, steps + 1, 2)]


def test_killed_at_random_moments(tmp_path):
    kill_again_and_again(tmp_path, kills=6, seed=int(time.time()))


def fragile(out: str, operation: int) -> None:
    """Dies at the given file operation, as if the power went: between any two of them."""
    left = operation

    def counted(work):
        def dying(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(9)
            return work(*args, **kwargs)

        return dying

    for owner, name in [(checkpoint, "flush"), (checkpoint, "save_file"), (Path, "rename"), (os, "replace")]:
        setattr(owner, name, counted(getattr(owner, name)))
    victim(out, 40, 0.0)


def test_killed_at_every_file_operation_of_a_save(tmp_path):
    victim(str(tmp_path / "whole"), 40, 0.0)
    codes = []
    for operation in (2, *range(1, 20, 2), 10_000):
        process = processes().Process(target=fragile, args=(str(tmp_path / "killed"), operation))
        process.start()
        process.join()
        codes.append(process.exitcode)
    assert codes[-1] == 0 and codes.count(9) >= 9 and set(codes) == {0, 9}
    assert_same_end(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_many_random_moments(tmp_path, seed):
    kill_again_and_again(tmp_path, kills=12, seed=seed)


def polite(out: str) -> None:
    torch.set_num_threads(1)
    run = toy_run(budget__steps=400, checkpoint__every=1000)
    fit(toy(), ToyStream(run, pause=0.01), run, out=out, resume=(Path(out) / "config.yaml").exists())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_a_signal_saves_the_step_in_hand(tmp_path, number, code):
    out = tmp_path / "a"
    process = processes().Process(target=polite, args=(str(out),))
    process.start()
    metrics = out / "metrics.jsonl"
    for _ in range(400):
        if metrics.exists() and metrics.read_text().count("\n") > 3:
            break
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == code  # a KeyboardInterrupt that nobody catches ends a process with 1
    saved = checkpoint.listed(out / "checkpoints")
    assert len(saved) == 1 and checkpoint.damage(saved[0]) is None
    assert rows(out)[-1]["step"] == checkpoint.step_of(saved[0])
    log = (out / "train.log").read_text()
    assert f"Stopped by {number.name} after step {checkpoint.step_of(saved[0])}" in log
    assert f"openjepa train --resume {out}" in log
