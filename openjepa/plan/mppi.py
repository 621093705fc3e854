"""MPPI: the mean of all candidates, each weighted by how cheap it is.

Model predictive path integral control, Williams et al. 2017, arXiv 1509.01149 and 1707.02342.
"""

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
from openjepa.plan.candidates import Structured, propose
from openjepa.plan.cem import cheapest


class MPPIConfig(SearchConfig):
    """`temperature` divides: weight = exp(-(cost - lowest) / temperature), made to sum to 1. Small: few count.

    relative   costs are first divided by their standard deviation over the candidates, so that one temperature serves
               costs of any scale
    elites     only so many of the cheapest take part; None for all, as in the paper
    adapt_std  the standard deviation becomes the weighted one, no less than `std_floor` (TD-MPC); else it stays
    momentum   share of the old mean that stays
    keep_mean  sample 0 is the mean itself
    returns    the last mean, or the best candidate of all
    structured  shares of candidates that hold headings or keep the plan so far; none by default
    """

    name: Literal["mppi"] = "mppi"
    iterations: int = 10
    temperature: float = Field(0.1, gt=0)
    relative: bool = True
    elites: int | None = Field(None, ge=1)
    adapt_std: bool = False
    std_floor: float = Field(0.05, ge=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    keep_mean: bool = True
    returns: Literal["mean", "best"] = "mean"
    structured: Structured | None = None


def mppi(
    cost: Cost, bounds: Bounds, cfg: MPPIConfig, generator: Generators, *,
    init: Plan | Tensor | None = None, batch: int | None = None,
) -> Plan:  # fmt: skip
    """mean <- sum of weight * candidate, candidates from N(mean, std^2) inside the bounds.

    Differences from the paper: candidates and mean obey the bounds; no term couples noise and mean (its `gamma`),
    as effort, where it is wanted, is part of the cost.

    >>> g = torch.Generator().manual_seed(0)
    >>> plan = mppi(lambda a: (a - 0.5).square().sum((2, 3)), Bounds.box([-1], [1]), MPPIConfig(horizon=2), g)
    >>> plan.cost.item() < 0.01
    True
    """
    batch = episodes(generator, init, batch)
    mean = start(init, bounds, cfg, batch)
    std = torch.full_like(mean, cfg.std)
    judge, best = Judge(cost, cfg, batch), Best(mean, cfg)
    with torch.no_grad():
        for _ in range(cfg.iterations):
            noise = normal(generator, batch, cfg.samples, *mean.shape[1:], like=mean)
            x = propose(
                mean, std, noise, bounds, generator,
                keep_mean=cfg.keep_mean, structured=cfg.structured, so_far=best.knots,
            )  # fmt: skip
            cost_of = judge(x)
            going = ~best.done[:, None, None]
            best.see(x, cost_of)
            x, cost_of = (x, cost_of) if cfg.elites is None else cheapest(x, cost_of, cfg.elites)
            w = weights(cost_of, cfg.temperature, relative=cfg.relative)[..., None, None]  # (B, S, 1, 1)
            some = (w.sum(1) > 0) & going  # no candidate of finite cost: stay
            fresh = (w * x).sum(1)
            if cfg.adapt_std:
                spread = (w * (x - fresh[:, None]).square()).sum(1).sqrt().clamp_min(cfg.std_floor)
                std = torch.where(some, spread, std)
            mean = torch.where(some, torch.lerp(fresh, mean, cfg.momentum), mean)
            if best.finished():
                break
    return finish(judge, best, bounds.project(mean) if cfg.returns == "mean" else best.knots)


def weights(cost: Tensor, temperature: float, *, relative: bool = False) -> Tensor:
    """exp(-(cost - lowest) / temperature) over the candidates of each episode, (B, S), rows summing to 1.

    `relative`: the cost is divided by its standard deviation over the candidates of finite cost first. Infinite costs
    weigh nothing; a row of nothing else is all zeros.

    >>> weights(torch.tensor([[0.0, 1.0, torch.inf]]), 1.0).round(decimals=3).tolist()
    [[0.731..., 0.268..., 0.0]]
    """
    fine = cost.isfinite()
    count = fine.sum(1, keepdim=True).clamp_min(1)
    level = cost.masked_fill(~fine, torch.inf).amin(1, keepdim=True)
    excess = torch.where(fine, cost - level, 0.0)
    if relative:
        middle = excess.sum(1, keepdim=True) / count
        spread = (torch.where(fine, excess - middle, 0.0).square().sum(1, keepdim=True) / count).sqrt()
        excess = excess / spread.clamp_min(torch.finfo(cost.dtype).tiny)
    raw = torch.where(fine, torch.exp(-excess / temperature), 0.0)
    return raw / raw.sum(1, keepdim=True).clamp_min(torch.finfo(cost.dtype).tiny)
