"""Everything a run needs to go on exactly where it was, to disk and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from openjepa.config import Config
from openjepa.core.dist import is_distributed, rank
from openjepa.train import checkpoint
from openjepa.train.environment import version
from openjepa.train.failure import Diverged, diverged
from openjepa.train.launch import first_alone, from_all
from openjepa.train.parallel import load_optimizer, whole_optimizer, whole_weights
from openjepa.train.rng import rng_state, set_rng_state
from openjepa.train.step import Trainer
from openjepa.train.weights import join, load_strict, split


def save(trainer: Trainer, checkpoints: Path, step: int, elapsed: float, about: Mapping[str, Any]) -> None:
    """Write the checkpoint of `step` done steps. Numbers that are not finite are never saved: `Diverged` instead."""
    require_finite(trainer, checkpoints, step)
    weights = whole_weights(trainer.method)
    optimizer = whole_optimizer(trainer.method, trainer.optimizer)
    generators = from_all(rng_state(trainer.device))
    with first_alone() as first:
        if first:
            training = {
                "step": step,
                "position": {"step": step, "samples": step * trainer.run.batch_size},  # the stream is indexed by step
                "elapsed": elapsed,
                "optimizer": optimizer,
                "scaler": trainer.scaler.state_dict(),
                "rng": generators,
                "names": trainer.names,
                "rows": trainer.rows,
            }
            config = describe(trainer.method, trainer.run.method, step, about)
            checkpoint.write(checkpoints, step, split(trainer.method, weights), config, training)
            checkpoint.prune(checkpoints, trainer.run.checkpoint.keep)


def load_weights(method: nn.Module, path: Path) -> None:
    """The method's tensors from a checkpoint folder; to be called before the method is spread over processes."""
    load_strict(method, join(checkpoint.read_parts(path)), f"checkpoint {path}")


def load_training(trainer: Trainer, path: Path) -> tuple[int, float]:
    """Optimiser, scaler, generators and unlogged numbers from a checkpoint folder; returns (step, elapsed)."""
    state = checkpoint.read_training(path)
    load_optimizer(trainer.method, trainer.optimizer, state["optimizer"])
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.names, trainer.rows = list(state["names"]), [list(r) for r in state["rows"]]
    if rank() < len(state["rng"]):  # with more processes than before, the new ones keep the generators they have
        set_rng_state(state["rng"][rank()], trainer.device)
    return state["step"], state["elapsed"]


def describe(method: nn.Module, cfg: Config, step: int, about: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's `config.json`: enough to build the same networks again and to feed them the same pictures."""
    settings = cfg.model_dump(mode="json")
    return {
        "format": checkpoint.FORMAT,
        "method": settings,
        "encoder": settings.get("encoder"),
        "parts": sorted(split(method, method.state_dict())),
        **about,
        "step": step,
        "licence": "Apache-2.0",
        "version": version(),
    }


def require_finite(trainer: Trainer, checkpoints: Path, step: int) -> None:
    """Raise `Diverged` when a number of the last steps or a weight is not finite: on every process alike."""
    check_rows(trainer, trainer.read(), checkpoints, step)
    named = dict(trainer.method.named_parameters())
    local = [p.to_local() if isinstance(p, torch.distributed.tensor.DTensor) else p for p in named.values()]
    bad = torch.stack([~p.detach().isfinite().all() for p in local]).int()
    if is_distributed():
        dist.all_reduce(bad, op=dist.ReduceOp.MAX)
    for name, is_bad in zip(named, bad.tolist(), strict=True):
        if is_bad:
            raise Diverged(_sentence(trainer, f"the weight {name}", step, "not finite", checkpoints))


def check_rows(trainer: Trainer, rows: list[list[float]], checkpoints: Path, step: int) -> None:
    """`rows` are those of the last len(rows) steps, the newest being number `step` (counted from 1)."""
    for ago, row in zip(reversed(range(len(rows))), rows, strict=True):
        for name, value in zip(trainer.names, row, strict=True):
            skipped = name == "grad_norm" and trainer.scaler.is_enabled()  # fp16: the scaler leaves such steps out
            if value - value != 0.0 and not skipped:  # nan or infinite
                what = f"loss term {name.removeprefix('terms/')!r}" if name.startswith("terms/") else f"the {name}"
                raise Diverged(_sentence(trainer, what, step - ago, str(value), checkpoints))


def _sentence(trainer: Trainer, what: str, step: int, value: str, checkpoints: Path) -> str:
    optim = trainer.run.optim
    return diverged(what, step, value, optim.lr, optim.clip, checkpoints)


def read_config(path: Path) -> dict[str, Any]:
    return json.loads((path / "config.json").read_text(encoding="utf-8"))
