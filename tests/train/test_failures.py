"""What ends a run says so in one line, and never costs the last good checkpoint."""

import errno
import os
import subprocess

import pytest
import torch

from openjepa.train import checkpoint
from openjepa.train.failure import Diverged, RunFailed, is_disk_full, is_out_of_memory
from openjepa.train.loop import fit
from tests.train.toys import Toy, ToyConfig, ToyStream, toy, toy_run


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def saved(out):
    paths = checkpoint.listed(out / "checkpoints")
    assert all(checkpoint.damage(p) is None for p in paths)
    return [p.name for p in paths]


class Poisoned(ToyStream):
    """A batch with one value that is not a number, at one step."""

    def __init__(self, run, at):
        super().__init__(run)
        self.at = at

    def batches(self, start_step=0):
        for step, batch in enumerate(super().batches(start_step), start_step):
            if step + 1 == self.at:
                batch[0, 0] = float("nan")
            yield batch


@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_a_loss_that_is_not_a_number(tmp_path, log_every):
    run = toy_run(checkpoint__every=2, log__every=log_every)
    with pytest.raises(Diverged) as error:
        fit(toy(), Poisoned(run, at=7), run, out=tmp_path / "a")
    text = one_line(error)
    assert text.startswith("loss term 'predict' became nan at step 7;")  # the step itself, however late it is read
    assert "step_6." in text and "optim.lr (now 0.01)" in text and "optim.clip=1" in text
    assert saved(tmp_path / "a") == ["step_4", "step_6"]
    assert torch.load(tmp_path / "a" / "checkpoints" / "last" / "training.pt", weights_only=True)["step"] == 6


def test_before_the_first_checkpoint(tmp_path):
    run = toy_run(checkpoint__every=5)
    with pytest.raises(RunFailed, match=r"at step 2.*There is no checkpoint yet"):
        fit(toy(), Poisoned(run, at=2), run, out=tmp_path / "a")


def test_a_weight_that_overflows_is_not_saved(tmp_path):
    """The loss and the gradient of the step are finite; only the update is not."""

    class Overflowing(Toy):
        def after_step(self, clock):
            if clock.step == 3:
                self.encoder.inlet.weight.data[0, 0] = float("inf")

    torch.manual_seed(0)
    run = toy_run(checkpoint__every=2, log__every=100)
    with pytest.raises(Diverged, match=r"the weight encoder\.inlet\.weight became not finite at step 4"):
        fit(Overflowing(ToyConfig()), ToyStream(run), run, out=tmp_path / "a")
    assert saved(tmp_path / "a") == ["step_2"]


def test_a_gradient_that_is_not_a_number(tmp_path):
    class Steep(Toy):
        def losses(self, batch, clock):
            terms, seen = super().losses(batch, clock)
            if clock.step == 3:  # sqrt has an infinite slope at 0
                terms["spread"] = terms["spread"] + (self.hidden * 0.0).sum().sqrt()
            return terms, seen

    torch.manual_seed(0)
    run = toy_run(log__every=100)
    with pytest.raises(Diverged, match="the grad_norm became nan at step 4"):
        fit(Steep(ToyConfig()), ToyStream(run), run, out=tmp_path / "a")


class Breaking(ToyStream):
    def __init__(self, run, error, at):
        super().__init__(run)
        self.error, self.at = error, at

    def batches(self, start_step=0):
        for step, batch in enumerate(super().batches(start_step), start_step):
            if step + 1 == self.at:
                raise self.error
            yield batch


CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."
)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), MemoryError(), RuntimeError(CPU_ALLOCATOR)], ids=repr)
def test_memory_runs_out(tmp_path, error):
    run = toy_run(checkpoint__every=2, precision="fp32")
    with pytest.raises(RunFailed) as caught:
        fit(toy(), Breaking(run, error, at=6), run, out=tmp_path / "a")
    text = one_line(caught)
    for advice in (
        "accumulate (now 1)",
        "checkpoint_activations=true",
        "precision=bf16",
        "batch_size (now 8)",
        "step_4",
    ):
        assert advice in text
    assert caught.value.__cause__ is error
    assert saved(tmp_path / "a") == ["step_2", "step_4"]


def test_a_real_allocation_that_cannot_be_had_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_other_errors_are_left_alone(tmp_path):
    run = toy_run()
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        fit(toy(), Breaking(run, RuntimeError("a bug"), at=2), run, out=tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        fit(toy(), Breaking(run, FileNotFoundError("gone"), at=2), run, out=tmp_path / "b")


@pytest.mark.parametrize("step", ["save_file", "write_json", "flush"])
def test_no_room_while_saving(tmp_path, monkeypatch, step):
    """The disk fills up during the third save: nothing of it remains, the second is whole, and resuming works."""
    run, out = toy_run(checkpoint__every=2), tmp_path / "a"
    work, calls = getattr(checkpoint, step), 0

    def full(*args, **kwargs):
        nonlocal calls
        if len(checkpoint.listed(out / "checkpoints")) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return work(*args, **kwargs)

    monkeypatch.setattr(checkpoint, step, full)
    with pytest.raises(RunFailed) as caught:
        fit(toy(), ToyStream(run), run, out=out)
    text = one_line(caught)
    assert "is full" in text and "step_4." in text and f"--resume {out}" in text
    assert saved(out) == ["step_2", "step_4"]
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["last", "step_2", "step_4"]
    monkeypatch.setattr(checkpoint, step, work)
    fit(toy(), ToyStream(run), run, out=out, resume=True)
    assert saved(out) == ["step_8", "step_10"]


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_really_full(small_disk):
    run, out = toy_run(checkpoint__every=2, method=ToyConfig(width=64)), small_disk / "a"
    with pytest.raises(RunFailed, match="is full"):
        fit(toy(ToyConfig(width=64)), ToyStream(run), run, out=out)
    assert len(saved(out)) >= 1


def test_disk_errors_are_recognised_through_the_writers():
    assert is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert is_disk_full(Exception("Error while serializing: I/O error: No space left on device (os error 28)"))
    inner = RuntimeError("unexpected pos 704 vs 598")
    inner.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_disk_full(inner)
    assert not is_disk_full(OSError(errno.EACCES, "denied")) and not is_disk_full(RuntimeError("28"))


def test_a_stream_that_ends(tmp_path):
    class Short(ToyStream):
        def batches(self, start_step=0):
            yield from [b for b, _ in zip(super().batches(start_step), range(3), strict=False)]

    run = toy_run()
    with pytest.raises(ValueError, match="one batch per step and micro-batch, got its end at step 3"):
        fit(toy(), Short(run), run, out=tmp_path / "a")


def test_a_batch_that_cannot_be_shared_out(tmp_path):
    run = toy_run(batch_size=10, accumulate=4)
    with pytest.raises(ValueError, match=r"multiple of accumulate x processes \(4 x 1\), got 10. Do batch_size=8"):
        fit(toy(), ToyStream(run), run, out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
