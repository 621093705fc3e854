"""A tiny method and a tiny stream that use everything the loop offers: a teacher, dropout, named draws, counters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn

from openjepa.config import Config, merge, nest
from openjepa.core.dist import all_mean, rank, world_size
from openjepa.core.schedule import linear
from openjepa.core.teach import ema_
from openjepa.core.types import Clock, Seen, Terms
from openjepa.methods.base import Method
from openjepa.nn.layers import BatchNorm
from openjepa.train.run import RunConfig


class ToyConfig(Config):
    name: Literal["toy"] = "toy"
    width: int = 8
    depth: int = 2
    dropout: float = 0.2


class ToyEncoder(nn.Module):
    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.checkpoint = False
        self.inlet = nn.Linear(6, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inlet(x)
        for block in self.blocks:
            if self.checkpoint:
                x = x + torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
            else:
                x = x + block(x)
        return self.dropout(x)


class Toy(Method):
    """Predict the teacher's view of a picture with a part of it hidden."""

    Config = ToyConfig
    cfg: ToyConfig

    def __init__(self, cfg: ToyConfig) -> None:
        super().__init__()
        self.cfg, self.weights = cfg, {"predict": 1.0, "spread": 0.5}
        self.encoder = ToyEncoder(cfg.width, cfg.depth, cfg.dropout)
        self.predictor = nn.Sequential(nn.Linear(cfg.width, cfg.width), BatchNorm(cfg.width))
        self.teacher = deepcopy(self.encoder).requires_grad_(False)
        self.hidden = nn.Parameter(torch.zeros(6))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def losses(self, batch: Tensor, clock: Clock) -> tuple[Terms, Seen]:
        mask = clock.uniform("mask", len(batch), 6).to(batch.device) < 0.5
        prediction = self.predictor(self.encoder(torch.where(mask, self.hidden, batch)))
        with torch.no_grad():
            target = self.teacher(batch)
        size = all_mean(prediction.square().mean())
        terms = {"predict": (prediction - target).square().mean(), "spread": (size - 2).square()}
        return terms, {"z": prediction.detach(), "target": target}

    def encode(self, obs: Tensor) -> Tensor:
        return self.encoder(obs)[:, None]

    def after_step(self, clock: Clock) -> None:
        ema_(self.teacher.parameters(), self.encoder.parameters(), linear(0.9, 1.0, clock.progress))
        self.updates += 1


class ToyStream:
    """Batches that are a function of (step, micro) only; this process's rows of the joined batch."""

    def __init__(self, run: RunConfig, *, steps_per_epoch: int = 4, pause: float = 0.0) -> None:
        self.run, self.steps_per_epoch, self.pause = run, steps_per_epoch, pause

    def batches(self, start_step: int = 0) -> Iterator[Tensor]:
        run, step = self.run, start_step
        each = run.batch_size // (run.accumulate * world_size())
        while True:
            for micro in range(run.accumulate):
                g = torch.Generator().manual_seed(1000 * step + 10 * micro + run.seed)
                joined = torch.randn(each * world_size(), 6, generator=g)
                if self.pause:
                    time.sleep(self.pause)
                yield joined[rank() * each : (rank() + 1) * each]
            step += 1


def toy_run(**changes: object) -> RunConfig:
    """A run of the toy method; keyword arguments use dotted names with `__` for the dot."""
    base = {
        "method": ToyConfig(),
        "data": "nowhere",
        "batch_size": 8,
        "budget": {"steps": 10},
        "device": "cpu",
        "optim": {"lr": 0.01, "weight_decay_end": 0.1},
        "checkpoint": {"every": 1000},  # and at the end
        "log": {"every": 1, "tensorboard": False},
    }
    dotted = {k.replace("__", "."): v for k, v in changes.items()}
    if any(k.startswith("budget.") for k in dotted):
        base["budget"] = {}
    return RunConfig.model_validate(merge(base, nest(dotted)))


def toy(cfg: ToyConfig | None = None, seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    return Toy(cfg or ToyConfig())
