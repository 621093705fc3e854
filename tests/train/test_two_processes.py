"""Two processes, by DDP or by FSDP2, train like one process on the joined batch."""

import json
import multiprocessing
import os
import signal
import socket

import pytest
import torch
import torch.distributed as td

from openjepa.core.dist import rank, world_size
from openjepa.data import PictureStream, open_source
from openjepa.methods import METHODS
from openjepa.train import checkpoint
from openjepa.train.failure import RunFailed
from openjepa.train.launch import first_alone, from_all, from_first, processes
from openjepa.train.loop import fit
from openjepa.train.opening import open_data
from openjepa.train.optim import param_groups
from openjepa.train.run import RunConfig
from tests.train.toys import ToyConfig, ToyStream, toy, toy_run

VIT = {"name": "vit_nano/4", "width": 32, "depth": 2, "heads": 2}
METHOD = {
    "ijepa": {"name": "ijepa", "encoder": VIT, "predictor_width": 32, "predictor_depth": 1, "ema": (0.9, 1.0)},
    "lejepa": {
        "name": "lejepa", "encoder": VIT, "projector_hidden": 32, "projector_out": 8, "slices": 32, "lam": 0.1,
        "global_views": {"count": 2}, "local_views": {"count": 1, "size": 8},
    },
    "vjepa21": {
        "name": "vjepa21", "encoder": VIT | {"pos": "rope", "levels": 2, "picture_patch": True},
        "views": [{"frames": 4, "stride": 1, "count": 2}, {"frames": 1}], "masks": [{"scale": (0.1, 0.1)}],
        "mask_tokens": 2, "predictor_width": 32, "predictor_depth": 1, "predictor_heads": 2,
    },
    "pldm": {
        "name": "pldm", "dim": 6, "norm": False, "predictor": "residual", "window": 3, "unroll": 2, "replay": 2,
        "memory": 20,
    },
    "settled": {
        "name": "pldm", "dim": 6, "norm": False, "predictor": "residual", "window": 3, "unroll": 2, "replay": 2,
        "memory": 8, "settle": 0.6,
    },
}  # fmt: skip
SPRING = {"path": "spring", "episodes": 12, "steps": 10}
DATA = {"vjepa21": {"path": "bouncing-shapes:32", "size": 16}, "pldm": SPRING, "settled": SPRING}


def start(target, *args, world=2):
    """Run `target(*args)` in `world` processes with the environment that torchrun gives; their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.test_two_processes"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [context.Process(target=member, args=(r, world, port, target, *args)) for r in range(world)]
    for process in running:
        process.start()
    return running


def member(r, world, port, target, *args):
    torch.set_num_threads(1)
    place = {"RANK": r, "LOCAL_RANK": r, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({k: str(v) for k, v in place.items()})
    with processes("cpu"):
        target(*args)
    assert not td.is_initialized()


def together(target, *args):
    assert codes(start(target, *args)) == [0, 0]


def codes(running, seconds=120):
    """Exit codes; a process that hangs is killed, and shows as such."""
    for process in running:
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
    return [p.exitcode for p in running]


def picture_run(name, **changes):
    base = {
        "method": METHOD[name],
        "data": DATA.get(name, {"path": "shapes:32", "size": 16}),
        "batch_size": 8,
        "budget": {"steps": 4},
        "device": "cpu",
        "optim": {"lr": 1e-3, "warmup": 0, "clip": 1.0},
        "checkpoint": {"every": 1000},
        "log": {"every": 1, "tensorboard": False},
    }
    return RunConfig.model_validate({**base, **changes})


def learn(out, run, resume=False):
    if isinstance(run.method, ToyConfig):
        fit(method := toy(run.method), ToyStream(run), run, out=out, resume=resume)
        return method
    torch.manual_seed(run.seed)
    if METHODS[run.method.name].eats in ("clips", "windows"):
        opened = open_data(run, torch.device("cpu"))
        fit(method := METHODS[run.method.name](run.method, **opened.keywords), opened.stream, run, out=out)
        return method
    source = open_source(run.data, seed=run.seed)
    method = METHODS[run.method.name](run.method, size=source.size)
    stream = PictureStream(
        source, run.method.views, batch_size=run.batch_size, accumulate=run.accumulate, seed=run.seed,
        rank=rank(), world=world_size(), workers=0,
    )  # fmt: skip
    fit(method, stream, run, out=out, resume=resume)
    return method


def learn_all(jobs):
    for out, run in jobs:
        learn(out, run)


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out):
    parts = checkpoint.read_parts(out / "checkpoints" / "last")
    return {f"{part}.{name}": x for part, xs in parts.items() for name, x in xs.items()}


def gradients(out, method):
    """Per parameter, the gradient that AdamW remembers: after one step its first moment is a tenth of it."""
    state = checkpoint.read_training(out / "checkpoints" / "last")["optimizer"]["state"]
    if 0 in state:  # numbered in the order of the groups
        named = {id(p): n for n, p in method.named_parameters()}
        order = [named[id(p)] for group in param_groups(method) for p in group["params"]]
        state = {order[i]: x for i, x in state.items()}
    return {name: 10 * x["exp_avg"] for name, x in state.items()}


def assert_same_losses(one, two):
    for a, b in zip(rows(one), rows(two), strict=True):
        for name in (n for n in a if n in ("grad_norm", "loss") or n.startswith("terms/")):
            assert b[name] == pytest.approx(a[name], rel=1e-4), (name, a["step"])


def assert_same_gradients(one, two, method):
    """To the rounding of float32 sums, measured by the whole gradient."""
    a, b = gradients(one, method), gradients(two, method)
    assert a.keys() == b.keys() == {n for n, p in method.named_parameters() if p.requires_grad}
    norm = rows(one)[0]["grad_norm"]
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-6 * norm), (name, (a[name] - b[name]).abs().max())
    assert sum(x.square().sum().item() for x in a.values()) ** 0.5 == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_toy(tmp_path, how, accumulate):
    changes = {"method": ToyConfig(dropout=0.0), "distributed": how, "accumulate": accumulate, "batch_size": 16}
    compare(tmp_path, lambda steps, clip: toy_run(budget__steps=steps, optim__clip=clip, **changes))


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["ijepa", "lejepa", "pldm", "settled", "vjepa21"])
def test_methods(tmp_path, name, how):
    optim = {"lr": 1e-3, "warmup": 0}
    compare(
        tmp_path,
        lambda steps, clip: picture_run(name, distributed=how, budget={"steps": steps}, optim={**optim, "clip": clip}),
    )


def compare(tmp_path, make):
    """All gradients of the first step, and the losses of four, clipped and with the teacher following."""
    runs = {"first": make(1, None), "four": make(4, 0.1)}
    together(learn_all, [(tmp_path / folder / "two", run) for folder, run in runs.items()])
    for folder, run in runs.items():
        method = learn(tmp_path / folder / "one", run)
        assert_same_losses(tmp_path / folder / "one", tmp_path / folder / "two")
        assert weights(tmp_path / folder / "one").keys() == weights(tmp_path / folder / "two").keys()
        if folder == "first":
            assert_same_gradients(tmp_path / folder / "one", tmp_path / folder / "two", method)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_resume(tmp_path, how):
    """Dropout differs between processes, so their generators matter too."""
    run = toy_run(distributed=how, checkpoint__every=5)
    together(learn_in_parts, tmp_path, run)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [r["loss"] for r in rows(tmp_path / "whole")] == [r["loss"] for r in rows(tmp_path / "parts")]


def learn_in_parts(folder, run):
    learn(folder / "whole", run)
    stop_after_seven(folder / "parts", run)
    assert checkpoint.listed(folder / "parts" / "checkpoints")[-1].name == "step_5"
    learn(folder / "parts", run, resume=True)


def stop_after_seven(out, run):
    class Stream(ToyStream):
        def batches(self, start_step=0):
            yield from [b for b, _ in zip(super().batches(start_step), range(7), strict=False)]

    with pytest.raises(ValueError, match="got its end"):
        fit(toy(run.method), Stream(run), run, out=out)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_observers_are_shown_a_whole_method(tmp_path, how):
    """The sum of squares that the observer finds is that of the checkpoint of the same step."""
    together(observed, tmp_path / "a", how)
    found = {r["step"]: r["probe/norm"] for r in rows(tmp_path / "a") if "probe/norm" in r}
    trained = {n for n, _ in toy().named_parameters()}
    saved = {n.removeprefix("method."): x for n, x in weights(tmp_path / "a").items()}
    want = sum(x.double().square().sum().item() for n, x in saved.items() if n in trained)
    assert list(found) == [2, 4] and found[4] == pytest.approx(want, rel=1e-12) and found[2] != found[4]


def observed(out, how):
    def observer(moment):
        assert rank() == 0
        assert all(type(p) is torch.nn.Parameter for p in moment.method.parameters())
        z = moment.method.predictor(moment.method.encode(torch.ones(3, 6))[:, 0])  # any part may be used alone
        assert z.shape == (3, 8)
        return {"probe/norm": sum(p.double().square().sum() for p in moment.method.parameters()).item()}

    run = toy_run(distributed=how, log__look=2, budget__steps=4)
    fit(toy(run.method), ToyStream(run), run, out=out, observers=[observer])


def test_a_refusal_reaches_every_process(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("")
    together(refused, tmp_path / "a")


def refused(out):
    with pytest.raises(ValueError if rank() == 0 else RunFailed, match="new or empty folder"):
        fit(toy(), ToyStream(toy_run()), toy_run(), out=out)


def test_a_loss_that_is_not_a_number_on_one_process_stops_both(tmp_path):
    together(poisoned, tmp_path / "a")
    assert [p.name for p in checkpoint.listed(tmp_path / "a" / "checkpoints")] == ["step_2"]


def poisoned(out):
    class Stream(ToyStream):
        def batches(self, start_step=0):
            for step, batch in enumerate(super().batches(start_step)):
                yield batch * float("nan") if rank() == 1 and step == 3 else batch

    run = toy_run(checkpoint__every=2)
    with pytest.raises(RunFailed, match="became nan at step 4"):
        fit(toy(), Stream(run), run, out=out)


def test_a_parameter_that_takes_no_part_is_named(tmp_path):
    together(idle, tmp_path / "a")


def idle(out):
    method = toy()
    method.spare = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"no gradient for spare\.weight, spare\.bias"):
        fit(method, ToyStream(toy_run()), toy_run(), out=out)


def test_talk():
    together(talk)


def talk():
    assert world_size() == 2
    assert from_first(("of", rank())) == ("of", 0)
    assert from_all(rank()) == [0, 1]
    with pytest.raises(OSError if rank() == 0 else RunFailed, match="no room"), first_alone() as first:
        if first:
            raise OSError("no room")


def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path):
    running = start(long_run, tmp_path / "a")
    metrics = tmp_path / "a" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert all(p.is_alive() for p in running)
        running[0].join(0.05)
    os.kill(running[1].pid, signal.SIGTERM)
    assert codes(running, 60) == [0, 0]
    last = rows(tmp_path / "a")[-1]["step"]
    saved = checkpoint.listed(tmp_path / "a" / "checkpoints")
    assert last % 10 == 0 and [checkpoint.step_of(p) for p in saved] == [last]


def long_run(out):
    run = toy_run(budget__steps=10_000)
    fit(toy(), ToyStream(run, pause=0.01), run, out=out)
