"""One call from settings to a trained run folder: open the source, build the method, walk the corridor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from openjepa.core.dist import rank, world_size
from openjepa.data import PictureStream, Source, open_source
from openjepa.methods import METHODS, Method
from openjepa.train.folder import require_new, require_same
from openjepa.train.launch import first_alone, first_then_rest, processes
from openjepa.train.loop import Observer, fit
from openjepa.train.run import RunConfig

Observers = Sequence[Observer] | Callable[[Method, Source], Sequence[Observer]]


def execute(run: RunConfig, *, method: Method | None = None, observers: Observers = (), resume: bool = False) -> Path:
    """Train as `run` says, and return the run folder.

    method     an instance to train instead of building `run.method`
    observers  called at every look; or a function (method, source) that makes them, once both exist
    resume     go on from the newest whole checkpoint in `run.out`

    Started by `torchrun`, it joins the other processes. The files that could not be read are listed in
    `bad_files.txt` however the run ends.
    """
    if not run.out:
        raise ValueError("out must be a folder for the run, got nothing. Write for example out=runs/a.")
    out = Path(run.out)
    with processes(run.device) as device:
        with first_alone() as first:  # before a large source is opened for nothing
            if first:
                require_same(out, run) if resume else require_new(out)
        source = first_then_rest(lambda: open_source(run.data, seed=run.seed))
        facts = about(source, run)
        if resume:
            require_same_pictures(out, facts["data"])
        if method is None:
            torch.manual_seed(run.seed)  # the same initial weights on every process
            make: Any = METHODS[run.method.name]  # type: ignore[attr-defined]
            method = make(run.method, size=source.size, channels=source.channels)
        torch.manual_seed(run.seed + rank())  # but not the same dropout
        stream = PictureStream(
            source, method.cfg.views, batch_size=run.batch_size, accumulate=run.accumulate, seed=run.seed,
            rank=rank(), world=world_size(), workers=run.data.workers, device=device,
        )  # fmt: skip
        watching = observers(method, source) if callable(observers) else observers
        with listing_bad(source, out):
            try:
                return fit(method, stream, run, out=out, observers=watching, resume=resume, about=facts)
            finally:
                stream.close()


def require_same_pictures(out: Path, data: dict[str, Any]) -> None:
    """A resumed run must find the pictures it began with: their order decides what every step sees."""
    try:
        began = json.loads((out / "env.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError):
        return  # stopped before it was written
    if began["fingerprint"] != data["fingerprint"]:
        raise ValueError(
            f"the pictures of a resumed run must be those it began with, got {data['pictures']} with fingerprint "
            f"{data['fingerprint']} instead of {began['pictures']} with {began['fingerprint']}. "
            f"To train on with these, start a new run with init_from={out}."
        )


def about(source: Source, run: RunConfig) -> dict[str, Any]:
    """What a checkpoint must know of its pictures: how to prepare others, and which these were."""
    return {
        "preprocess": {
            "size": source.size,
            "channels": source.channels,
            "mean": [float(x) for x in source.mean],
            "std": [float(x) for x in source.std],
            "resample": "bicubic",
        },
        "data": {**run.data.model_dump(mode="json"), "pictures": len(source), "fingerprint": source.fingerprint()},
    }


@contextmanager
def listing_bad(source: Source, out: Path) -> Iterator[None]:
    """Write `bad_files.txt` at the end, also when the end is an error: it is then most wanted."""
    try:
        yield
    finally:
        if source.bad and out.is_dir() and rank() == 0:
            lines = [f"{name}\t{reason}\n" for name, reason in source.bad]
            (out / "bad_files.txt").write_text("".join(lines), encoding="utf-8")
