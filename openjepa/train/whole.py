"""One call from settings to a trained run folder: open the source, build the method, walk the corridor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from openjepa.core.dist import rank
from openjepa.data.source import Bad
from openjepa.methods import METHODS, Method
from openjepa.train.folder import require_new, require_same
from openjepa.train.launch import first_alone, processes
from openjepa.train.loop import Observer, fit
from openjepa.train.opening import Data, open_data, undecided
from openjepa.train.run import RunConfig

Observers = Sequence[Observer] | Callable[[Method, Data], Sequence[Observer]]


def execute(run: RunConfig, *, method: Method | None = None, observers: Observers = (), resume: bool = False) -> Path:
    """Train as `run` says, and return the run folder.

    method     an instance to train instead of building `run.method`
    observers  called at every look; or a function (method, data) that makes them, once both exist; `data` is the source
               of pictures, or the stream of windows
    resume     go on from the newest whole checkpoint in `run.out`

    Started by `torchrun`, it joins the other processes. The files that could not be read are listed in
    `bad_files.txt` however the run ends; the held-out episodes of a run on windows are in `split.json`.
    """
    if not run.out:
        raise ValueError("out must be a folder for the run, got nothing. Write for example out=runs/a.")
    out = Path(run.out)
    with processes(run.device) as device:
        with first_alone() as first:  # before a large source is opened for nothing
            if first and not resume:
                require_new(out)
            elif first and not undecided(run.method):
                require_same(out, run)
        opened = open_data(run, device, method)
        run = opened.fitted(run)
        if resume:
            require_same_data(out, opened.facts["data"])
        if method is None:
            torch.manual_seed(run.seed)  # the same initial weights on every process
            make: Any = METHODS[run.method.name]  # type: ignore[attr-defined]
            method = make(run.method, **opened.keywords)
        torch.manual_seed(run.seed + rank())  # but not the same dropout
        watching = observers(method, opened.source) if callable(observers) else observers
        with listing_bad(opened.bad, out):
            try:
                return fit(
                    method, opened.stream, run, out=out, observers=watching, resume=resume, about=opened.facts,
                    files=opened.files,
                )  # fmt: skip
            finally:
                opened.stream.close()


def require_same_data(out: Path, data: dict[str, Any]) -> None:
    """A resumed run must find what it began with: the order of the data decides what every step sees."""
    try:
        began = json.loads((out / "env.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError):
        return  # stopped before it was written
    if began["fingerprint"] != data["fingerprint"]:
        what = "videos" if "videos" in data else "episodes" if "windows" in data else "pictures"
        raise ValueError(
            f"the {what} of a resumed run must be those it began with, got {data[what]} with fingerprint "
            f"{data['fingerprint']} instead of {began.get(what)} with {began['fingerprint']}. "
            f"To train on with these, start a new run with init_from={out}."
        )


@contextmanager
def listing_bad(bad: Callable[[], Bad], out: Path) -> Iterator[None]:
    """Write `bad_files.txt` at the end, also when the end is an error: it is then most wanted."""
    try:
        yield
    finally:
        if bad() and out.is_dir() and rank() == 0:
            lines = [f"{name}\t{reason}\n" for name, reason in bad()]
            (out / "bad_files.txt").write_text("".join(lines), encoding="utf-8")
