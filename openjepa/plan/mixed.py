"""First the cross-entropy method, which finds the right valley, then the gradient, which finds its floor."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from openjepa.config import Config
from openjepa.plan.base import Bounds, Cost, Generators, Plan
from openjepa.plan.cem import CEMConfig, cem
from openjepa.plan.gradient import GradientConfig, gradient


class MixedConfig(Config):
    """Settings of both; `horizon` and `action_block` are those of `cem` and hold for both."""

    name: Literal["mixed"] = "mixed"
    cem: CEMConfig = CEMConfig(iterations=10)
    gradient: GradientConfig = GradientConfig(iterations=30, samples=4)

    @property
    def horizon(self) -> int:
        return self.cem.horizon

    @property
    def action_block(self) -> int:
        return self.cem.action_block


def mixed(
    cost: Cost, bounds: Bounds, cfg: MixedConfig, generator: Generators, *,
    init: Plan | Tensor | None = None, batch: int | None = None,
) -> Plan:  # fmt: skip
    """The gradient planner, started from the plan of CEM and from its best elites."""
    rough = cem(cost, bounds, cfg.cem, generator, init=init, batch=batch)
    same: dict[str, Any] = {"horizon": cfg.cem.horizon, "action_block": cfg.cem.action_block}
    assert rough.memory is not None
    elites = rough.memory[:, :, :: cfg.cem.action_block]  # (B, E, K, A): each block holds one action
    fine = gradient(cost, bounds, cfg.gradient.model_copy(update=same), generator, init=rough, restarts=elites)
    info = {key: rough.info[key] + fine.info[key] for key in ("iterations", "evaluations", "nonfinite")}
    info["history"] = torch.cat([rough.info["history"], fine.info["history"]]).cummin(0).values  # (iterations, B)
    return fine._replace(info=info, memory=rough.memory)
