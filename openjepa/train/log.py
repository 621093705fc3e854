"""What a run says while it runs: to a file that is the truth, to trackers, and to a person."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from openjepa.core.dist import rank
from openjepa.train.run import RunConfig

Row = dict[str, Any]
PATIENCE = 5.0  # seconds between plain lines
FEW = 4  # an observer that returns more numbers than this writes for the report, not for the line


class Sink(Protocol):
    def row(self, row: Row) -> None: ...
    def line(self, text: str) -> None: ...
    def close(self) -> None: ...


class Log:
    """All sinks behind one call. On processes other than the first there are none."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = sinks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for sink in self.sinks:
            sink.close()

    def row(self, row: Row) -> None:
        """One line of numbers; those that are not finite are written as null."""
        row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        for sink in self.sinks:
            sink.row(row)

    def line(self, text: str) -> None:
        for sink in self.sinks:
            sink.line(text)


def open_log(out: Path, run: RunConfig, step: int, total: int | None) -> Log:
    """The sinks that the run asks for; `step` is where it starts or goes on."""
    if rank() != 0:
        return Log([])
    sinks: list[Sink] = [MetricsFile(out / "metrics.jsonl"), TextFile(out / "train.log")]
    sinks.append(Bar(step, total) if sys.stderr.isatty() else Lines(sys.stderr, total))
    if run.log.tensorboard:
        sinks.append(TensorBoard(out, step))
    if run.log.wandb:
        sinks.append(Wandb(out, run))
    return Log(sinks)


class MetricsFile:
    """`metrics.jsonl`: one JSON object per row, on the disk at once."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", encoding="utf-8")

    def row(self, row: Row) -> None:
        self.file.write(json.dumps(row, allow_nan=False) + "\n")
        self.file.flush()

    def line(self, text: str) -> None:
        return None

    def close(self) -> None:
        self.file.close()


class TextFile:
    """`train.log`: what a person was told, with the time."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", encoding="utf-8")

    def row(self, row: Row) -> None:
        self.line(sentence(row, None))

    def line(self, text: str) -> None:
        self.file.write(f"{datetime.now().isoformat(sep=' ', timespec='seconds')}  {text}\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class Lines:
    """Plain lines where no terminal is: every few seconds at most, the first and the last row always."""

    def __init__(self, stream: TextIO, total: int | None) -> None:
        self.stream, self.total = stream, total
        self.next_at = 0.0
        self.pace = Pace()

    def row(self, row: Row) -> None:
        self.pace.note(row)
        if time.monotonic() >= self.next_at or row["progress"] == 1.0:
            self.line(sentence(row, self.pace.seconds_left(row)))
            self.next_at = time.monotonic() + PATIENCE

    def line(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def close(self) -> None:
        return None


class Bar:
    """A progress bar on a terminal."""

    def __init__(self, step: int, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.pace = Pace()
        self.progress = Progress(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), console=Console(stderr=True)
        )
        self.task = self.progress.add_task("starting", total=total, completed=step)
        self.progress.start()

    def row(self, row: Row) -> None:
        self.pace.note(row)
        total = round(row["step"] / row["progress"]) if row["progress"] else None
        text = sentence(row, self.pace.seconds_left(row)).partition("  ")[2]
        self.progress.update(self.task, completed=row["step"], total=total, description=text)

    def line(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self.progress.stop()


class TensorBoard:
    """Event files for TensorBoard. After a resume, what lies beyond the resumed step is marked as overwritten."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(out), purge_step=step + 1 if step else None)

    def row(self, row: Row) -> None:
        for name, value in numbers(row).items():
            self.writer.add_scalar(name, value, row["step"])

    def line(self, text: str) -> None:
        return None

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """Weights & Biases, only when asked for with log.wandb=true."""

    def __init__(self, out: Path, run: RunConfig) -> None:
        import wandb

        self.run = wandb.init(dir=str(out), name=out.name, config=run.model_dump(mode="json"))

    def row(self, row: Row) -> None:
        self.run.log(numbers(row), step=row["step"])

    def line(self, text: str) -> None:
        return None

    def close(self) -> None:
        self.run.finish()


class Pace:
    """Time left, from how fast progress was made since the run was started or resumed (looks and saves included)."""

    def __init__(self) -> None:
        self.first: tuple[float, float] | None = None

    def note(self, row: Row) -> None:
        if row["progress"] and self.first is None:
            self.first = (row["progress"], row["time"])

    def seconds_left(self, row: Row) -> float | None:
        if self.first is None or row["progress"] <= self.first[0]:
            return None
        done, spent = row["progress"] - self.first[0], row["time"] - self.first[1]
        return spent / done * (1.0 - row["progress"])


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}


def sentence(row: Row, seconds_left: float | None) -> str:
    """A row for a person: the loss, its terms when there are several, what observers found, the rate, the time left.

    >>> row = {"step": 20, "progress": 0.5, "time": 9.0, "loss": 0.4, "terms/predict": 0.4, "images_per_s": 812.0}
    >>> sentence(row, 65)
    'step 20/40  loss 0.4  812 images/s  1:05 left'
    """
    total = f"/{round(row['step'] / row['progress'])}" if row["progress"] else ""
    terms = [k for k in row if k.startswith("terms/")]
    groups = Counter(k.partition("/")[0] for k in row)
    found = [k for k in row if "/" in k and k not in terms and groups[k.partition("/")[0]] <= FEW]
    shown = ["loss", *(terms if len(terms) > 1 else []), *found]
    words = [f"{k.removeprefix('terms/')} {row[k]:.4g}" for k in shown if isinstance(row.get(k), int | float)]
    words += [f"{row[k]:.0f} {k.removesuffix('_per_s')}/s" for k in row if k.endswith("_per_s")]
    if seconds_left is not None:
        words.append(f"{clock_time(seconds_left)} left")
    return "  ".join([f"step {row['step']}{total}", *words])


def clock_time(seconds: float) -> str:
    """
    >>> clock_time(3725), clock_time(5)
    ('1:02:05', '0:05')
    """
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
