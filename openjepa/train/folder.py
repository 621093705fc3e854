"""The run folder: who may write into it, and what is put back when a run is resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openjepa.config import read_yaml
from openjepa.train.run import RunConfig

# Settings that change where or how fast a run happens, not what it computes: they may differ on resume.
FREE = {"out", "threads", "log.tensorboard", "log.wandb", "data.workers", "data.cache", "data.cache_dir"}


def require_new(out: Path) -> None:
    """Refuse a folder with anything in it: no run ever writes over another."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"out must be a folder, got the file {out}. Choose another name.")
    entries = (
        [p for p in out.iterdir() if p.suffix != ".draft"] if out.exists() else []
    )  # a draft: killed in its first ms
    if entries:
        raise ValueError(
            f"out must be a new or empty folder, got {out} with {len(entries)} entries. "
            f"Do openjepa train --resume {out} to go on with it, or choose another out."
        )


def require_same(out: Path, run: RunConfig) -> None:
    """Check that `out` is the folder of this very run."""
    if not (out / "config.yaml").is_file():
        raise ValueError(f"resume must name the folder of a run, got {out} without config.yaml. Check the path.")
    changed = differences(read_yaml(out / "config.yaml"), run.model_dump(mode="json"))
    if changed:
        listing = ", ".join(f"{name} (was {old!r}, now {new!r})" for name, (old, new) in changed.items())
        raise ValueError(
            f"a resumed run must keep its settings, got other values for {listing}. "
            f"To train on with other settings, start a new run with init_from={out}."
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (old, new) of every setting that differs and matters.

    >>> differences({"seed": 0, "optim": {"lr": 1.0}}, {"seed": 0, "optim": {"lr": 2.0}})
    {'optim.lr': (1.0, 2.0)}
    """
    a, b = flat(old), flat(new)
    return {k: (a.get(k), b.get(k)) for k in (a | b) if a.get(k) != b.get(k) and k not in FREE}


def flat(group: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in group.items():
        name = f"{above}{key}"
        out |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return out


def cut_metrics(path: Path, step: int) -> None:
    """Drop the rows of `metrics.jsonl` after `step`, and a last line that a killed process left unfinished."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            break
        if row["step"] > step or not line.endswith("\n"):
            break
        kept.append(line)
    write_whole(path, "".join(kept))


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the new one, never half of it."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    os.replace(draft, path)
