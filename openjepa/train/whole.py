"""One call from settings to a trained run folder: open the source, build the method, walk the corridor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from openjepa.core.dist import rank, world_size
from openjepa.data import PictureStream, Source, open_source
from openjepa.methods import METHODS, Method
from openjepa.train.launch import first_alone, processes
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
        with first_alone():  # the first process fills the cache that the others then open
            source = open_source(run.data, seed=run.seed)
        if method is None:
            torch.manual_seed(run.seed)  # the same initial weights on every process
            make: Any = METHODS[run.method.name]  # type: ignore[attr-defined]
            method = make(run.method, size=source.size, channels=source.channels)
        stream = PictureStream(
            source, method.cfg.views, batch_size=run.batch_size, accumulate=run.accumulate, seed=run.seed,
            rank=rank(), world=world_size(), workers=run.data.workers, device=device,
        )  # fmt: skip
        watching = observers(method, source) if callable(observers) else observers
        with listing_bad(source, out):
            try:
                return fit(method, stream, run, out=out, observers=watching, resume=resume, about=about(source, run))
            finally:
                stream.close()


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
