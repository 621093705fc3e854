"""Planning by gradient: Adam on the actions, through the cost and the model behind it."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from openjepa.plan.base import (
    Best,
    Bounds,
    Cost,
    Generators,
    Judge,
    Plan,
    SearchConfig,
    episodes,
    finish,
    normal,
    start,
)


class GradientConfig(SearchConfig):
    """`samples` are restarts: the first is the start of the search, the others lie `std` about it.

    lr     Adam's step, in the units of the search
    betas  Adam's averages
    noise  standard deviation of what is added to the actions after every step (DINO-WM: 0.003)
    """

    name: Literal["gradient"] = "gradient"
    samples: int = 8
    iterations: int = 100
    lr: float = Field(0.05, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    noise: float = Field(0.0, ge=0)


def gradient(
    cost: Cost, bounds: Bounds, cfg: GradientConfig, generator: Generators, *,
    init: Plan | Tensor | None = None, batch: int | None = None, restarts: Tensor | None = None,
) -> Plan:  # fmt: skip
    """The best point on the paths of all restarts; actions are brought inside the bounds after every step.

    restarts  (B, R, K, A), one action per block, to start from besides `init`, instead of random ones

    The cost must be differentiable with respect to the actions. A restart whose gradient is not finite stays where it
    is for that step.

    >>> g = torch.Generator().manual_seed(0)
    >>> plan = gradient(lambda a: (a - 0.5).square().sum((2, 3)), Bounds.box([-1], [1]), GradientConfig(), g)
    >>> plan.cost.item() < 1e-4
    True
    """
    batch = episodes(generator, init, batch)
    first = start(init, bounds, cfg, batch)
    if restarts is None:
        away = normal(generator, batch, cfg.samples - 1, *first.shape[1:], like=first)
        others = bounds.project(first[:, None] + cfg.std * away)
    else:
        others = bounds.project(restarts.to(first)[:, : cfg.samples - 1])
    x = torch.cat([first[:, None], others], 1)  # (B, R, K, A)
    judge, best = Judge(cost, cfg, batch), Best(first, cfg)
    slope_mean, slope_power = torch.zeros_like(x), torch.zeros_like(x)
    for i in range(1, cfg.iterations + 1):
        cost_of, slope = _slope(judge, x)
        best.see(x, cost_of)
        slope_mean = torch.lerp(slope, slope_mean, cfg.betas[0])
        slope_power = torch.lerp(slope.square(), slope_power, cfg.betas[1])
        size = (slope_power / (1 - cfg.betas[1] ** i)).sqrt() + 1e-8
        x = x - cfg.lr * slope_mean / (1 - cfg.betas[0] ** i) / size
        if cfg.noise > 0:
            x = x + cfg.noise * normal(generator, batch, *x.shape[1:], like=x)
        x = bounds.project(x)
        if best.finished():
            break
    with torch.no_grad():
        best.see(x, judge(x), log=False)
    return finish(judge, best, best.knots)


def _slope(judge: Judge, x: Tensor) -> tuple[Tensor, Tensor]:
    """Costs (B, R) and their gradient (B, R, K, A): each candidate has its own, as none enters another's cost."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        cost = judge(x)
        if not cost.requires_grad:
            raise ValueError("the cost must be differentiable for this planner, got one without a gradient. Use cem.")
        (slope,) = torch.autograd.grad(cost.masked_fill(~cost.isfinite(), 0.0).sum(), x)
    return cost.detach(), torch.nan_to_num(slope, 0.0, 0.0, 0.0)
