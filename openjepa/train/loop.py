"""The one loop. It knows a method by its four members and a stream by one, and looks through observers."""

from __future__ import annotations

import importlib.util
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch

from openjepa.core.dist import rank, world_size
from openjepa.core.types import Moment, Seen
from openjepa.methods.base import Method
from openjepa.train import checkpoint, folder
from openjepa.train.budget import LOOKS, SAVES, Length, keep
from openjepa.train.environment import environment
from openjepa.train.failure import in_plain_words
from openjepa.train.launch import first_alone, from_first, resolve_device
from openjepa.train.log import Log, Row, clock_time, open_log
from openjepa.train.memory import keep_freed_memory
from openjepa.train.optim import learning_rate, weight_decay
from openjepa.train.rng import untouched
from openjepa.train.run import RunConfig
from openjepa.train.signals import Signals
from openjepa.train.state import check_rows, load_training, load_weights, save
from openjepa.train.step import Trainer, make_trainer
from openjepa.train.weights import load_initial

Observer = Callable[[Moment], dict[str, float]]


def rate_name(method: Method) -> str:
    """What a step counts: images_per_s, windows_per_s or clips_per_s."""
    return "images_per_s" if method.eats == "pictures" else f"{method.eats}_per_s"


class Stream(Protocol):
    """Where batches come from: a function of the step, so that a resumed run sees what it would have seen.

    `batches(start_step)` gives one batch per (step, micro-batch), already on the device, and does not end.
    """

    @property
    def steps_per_epoch(self) -> int: ...

    def batches(self, start_step: int = 0) -> Iterator[Any]: ...


def fit(
    method: Method,
    stream: Stream,
    run: RunConfig,
    *,
    out: str | Path,
    observers: Sequence[Observer] = (),
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    files: Mapping[str, Any] | None = None,
) -> Path:
    """Train `method` on `stream` as `run` says; everything about it goes to the folder `out`, which is returned.

    about   plain values added to the checkpoints' config.json (preprocess, data) and to env.json
    files   name -> plain values, written as JSON into the folder at the start
    resume  go on from the newest whole checkpoint in `out`; the settings must be those of `out`/config.yaml

    Observers are called every `log.look` steps and at the end, on the first process; what they return joins the row of
    that step. Where the method is sharded they are shown a whole copy of it.

    Raises `ValueError` for settings that do not fit, `RunFailed` when the run cannot go on. SIGTERM saves and raises
    `SystemExit(0)`; SIGINT saves and raises `KeyboardInterrupt`.
    """
    out, about = Path(out), dict(about or {})
    if run.threads:
        torch.set_num_threads(run.threads)
    with in_plain_words(run, out / "checkpoints"), Signals() as signals:
        require_sense(run)
        length = Length(run.budget, stream.steps_per_epoch, out)
        start = starting_point(method, run, out, resume)
        trainer = make_trainer(method, run, resolve_device(run.device))
        if trainer.device.type == "cpu":
            keep_freed_memory()
        step, elapsed = load_training(trainer, start) if start else (0, 0.0)
        open_folder(out, run, step, about, files or {})  # only now: what was wrong so far has left no folder behind
        with open_log(out, run, step, length.total) as log:
            log.line(greeting(trainer, length.total, step))
            corridor = Corridor(trainer, length, log, out, observers, about, step, elapsed)
            corridor.walk(stream.batches(step), signals)
    return out


def require_sense(run: RunConfig) -> None:
    """What no single field can check."""
    shares = run.accumulate * world_size()
    if run.batch_size % shares:
        raise ValueError(
            f"batch_size must be a multiple of accumulate x processes ({run.accumulate} x {world_size()}), "
            f"got {run.batch_size}. Do batch_size={max(1, run.batch_size // shares) * shares}."
        )
    if run.log.wandb and importlib.util.find_spec("wandb") is None:
        raise ValueError("log.wandb=true must have wandb installed, got none. Do pip install wandb.")


def starting_point(method: Method, run: RunConfig, out: Path, resume: bool) -> Path | None:
    """Check the run folder and load the weights that training starts from; gives the checkpoint to resume, if any."""
    start: Path | None = None
    with first_alone() as first:
        if first and resume:
            folder.require_same(out, run)
            checkpoint.clean(out / "checkpoints")
            start = checkpoint.newest_good(out / "checkpoints")
        elif first:
            folder.require_new(out)
    start = from_first(start)
    if start:
        load_weights(method, start)
    elif run.init_from:
        load_initial(method, run.init_from)
    return start


def open_folder(out: Path, run: RunConfig, step: int, about: Mapping[str, Any], files: Mapping[str, Any]) -> None:
    """Write what stands at the start of a run; drop what a stopped one wrote after the step it goes on from."""
    with first_alone() as first:
        if first:
            out.mkdir(parents=True, exist_ok=True)
            if not (out / "config.yaml").exists():
                folder.write_whole(out / "config.yaml", run.to_yaml())
            if not (out / "env.json").exists():
                checkpoint.write_json(out / "env.json", environment(resolve_device(run.device)) | dict(about))
            for name, values in files.items():
                checkpoint.write_json(out / name, values)
            folder.cut_metrics(out / "metrics.jsonl", step)


class Corridor:
    """From the first step to the last: step, then log, look and save when they are due."""

    def __init__(
        self,
        trainer: Trainer,
        length: Length,
        log: Log,
        out: Path,
        observers: Sequence[Observer],
        about: Mapping[str, Any],
        step: int,
        elapsed: float,
    ) -> None:
        self.trainer, self.length, self.log, self.out = trainer, length, log, out
        self.observers, self.about, self.done = observers, about, step
        self.checkpoints = out / "checkpoints"
        self.begin = time.perf_counter() - elapsed
        self.mark = (step, time.perf_counter())  # where the rate is counted from
        self.look_seconds = 0.0

    def walk(self, batches: Iterator[Any], signals: Signals) -> None:
        trainer, length, log = self.trainer, self.length, self.trainer.run.log
        while length.total is None or self.done < length.total:
            seen = trainer.step(batches, self.done, length.at(self.done))
            self.done += 1

            timed = length.measured(self.done, self.elapsed, trainer.device)
            look_due = bool(self.observers) and (timed is not None or self.due(log.look, LOOKS))
            if look_due or self.done == 1 or self.due(log.every, LOOKS):
                self.report(seen, look_due)
            if timed is not None:
                self.fix_length(timed)
            if self.due(trainer.run.checkpoint.every, SAVES):
                self.save()
            number = signals.stop_at(self.done, trainer.device)
            if number and self.done != length.total:
                self.stop(number)
        self.log.line(f"Done: {self.done} steps in {clock_time(self.elapsed)}. Checkpoint: {self.checkpoints / 'last'}")

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.begin

    def due(self, every: int | None, times: int) -> bool:
        """Every so many steps, or `times` times per run where no number is given; always at the end."""
        total = self.length.total
        if every is None:
            every = max(1, total // times) if total else None
        return self.done == total or (every is not None and self.done % every == 0)

    def report(self, seen: Seen, look_due: bool) -> None:
        """One row: means over the steps since the last row, plus what observers found."""
        trainer, optim = self.trainer, self.trainer.run.optim
        check_rows(trainer, trainer.read(), self.checkpoints, self.done)
        seconds = time.perf_counter() - self.mark[1]
        found = self.look(seen) if look_due else {}
        means = {n: sum(x) / len(x) for n, x in zip(trainer.names, zip(*trainer.rows, strict=True), strict=True)}
        trainer.rows.clear()
        at = self.length.at(self.done - 1)
        row: Row = {
            "step": self.done,
            "progress": self.done / self.length.total if self.length.total else 0.0,
            "time": round(self.elapsed, 3),
            "loss": means.pop("loss"),
            **means,
            "lr": learning_rate(optim, self.done - 1, at, trainer.method.stages),
            "wd": weight_decay(optim, self.done - 1, at),
            rate_name(trainer.method): round(trainer.run.batch_size * (self.done - self.mark[0]) / seconds, 1),
            **found,
        }
        self.log.row(row)
        self.mark = (self.done, time.perf_counter())

    def look(self, seen: Seen) -> dict[str, float]:
        """Ask the observers. They see the method in eval mode; afterwards modes and generators are as before."""
        trainer, begin = self.trainer, time.perf_counter()
        method = trainer.whole()
        if rank() != 0:
            return {}
        last = dict(zip(trainer.names, trainer.rows[-1], strict=True))
        terms = {n.removeprefix("terms/"): v for n, v in last.items() if n.startswith("terms/")}
        moment = Moment(self.done, self.length.total or self.done, method, terms, seen)
        modes = [(m, m.training) for m in method.modules()]
        method.eval()
        found: dict[str, float] = {}
        with untouched(trainer.device):
            for observer in self.observers:
                found |= observer(moment)
        for module, training in modes:
            module.training = training
        if method is not trainer.method:
            method.cpu()  # a whole copy keeps no room on the device between looks
        self.look_seconds = time.perf_counter() - begin
        return found

    def fix_length(self, step_seconds: float) -> None:
        total = self.length.fix(self.done, self.elapsed, step_seconds, self.look_seconds)
        with first_alone() as first:
            if first:
                keep(self.length)
        self.log.line(f"A step takes {step_seconds:.3g} s: the run will have {total} steps.")

    def save(self) -> None:
        begin = time.perf_counter()
        save(self.trainer, self.checkpoints, self.done, self.elapsed, self.about)
        self.mark = (self.mark[0], self.mark[1] + time.perf_counter() - begin)  # not counted in the rate

    def stop(self, number: int) -> NoReturn:
        """Save, say how to go on, and leave: exit status 0 for SIGTERM, as schedulers that restart a job expect."""
        if checkpoint.listed(self.checkpoints)[-1:] != [self.checkpoints / f"step_{self.done}"]:
            self.save()
        name = signal.Signals(number).name
        text = f"Stopped by {name} after step {self.done}; it is saved. Go on with: openjepa train --resume {self.out}"
        self.log.line(text)
        if number == signal.SIGTERM:
            raise SystemExit(0)
        raise KeyboardInterrupt(text)


def greeting(trainer: Trainer, total: int | None, step: int) -> str:
    """The first line of a run: what is trained, where, and how long."""
    size = sum(p.numel() for p in trainer.net.parameters() if p.requires_grad)
    length = f"{total} steps" if total else f"{trainer.run.budget.minutes:g} minutes"
    start = f", resumed after step {step}" if step else ""
    place = f"{trainer.device}, {trainer.precision}" + (f", {world_size()} processes" if world_size() > 1 else "")
    return f"{type(trainer.method).__name__}: {size:,} trained parameters on {place}; {length}{start}."
