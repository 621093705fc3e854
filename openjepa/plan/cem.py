"""The cross-entropy method: draw plans, keep the best, draw about those.

Rubinstein and Kroese 2004; as planner of latent world models in PlaNet, DINO-WM, V-JEPA 2-AC and LeWM.
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


class CEMConfig(SearchConfig):
    """LeWM's settings by default: 300 samples, 30 iterations, 30 elites, horizon 5, sample 0 is the mean.

    elites      candidates that the next mean and standard deviation come from
    momentum    share of the old mean and standard deviation that stays
    std_floor   the search never narrows below this; it also stops early once all are at or below it, when it is > 0
    keep_mean   sample 0 is the mean itself
    returns     the last mean, or the best candidate of all
    structured  shares of candidates that hold headings or keep the plan so far; none by default
    """

    name: Literal["cem"] = "cem"
    elites: int = Field(30, ge=1)
    momentum: float = Field(0.0, ge=0, lt=1)
    std_floor: float = Field(0.0, ge=0)
    keep_mean: bool = True
    returns: Literal["mean", "best"] = "mean"
    structured: Structured | None = None


def cem(
    cost: Cost, bounds: Bounds, cfg: CEMConfig, generator: Generators, *,
    init: Plan | Tensor | None = None, batch: int | None = None,
) -> Plan:  # fmt: skip
    """x ~ N(mean, std^2) inside the bounds; mean and std of the `elites` cheapest become the next ones.

    Differences from LeWM's and eb_jepa's planners: candidates and the returned mean obey the bounds, candidates of
    infinite or NaN cost never become elites, and the standard deviation divides by the number of elites.

    >>> target = torch.tensor([[0.5, -0.2], [9.0, 0.0]])  # the second step wants more than is allowed
    >>> cfg = CEMConfig(horizon=2)
    >>> g = torch.Generator().manual_seed(0)
    >>> plan = cem(lambda a: (a - target).square().sum((2, 3)), Bounds.box([-1, -1], [1, 1]), cfg, g)
    >>> plan.actions.round(decimals=2).abs().tolist()[0]
    [[0.5, 0.20...], [1.0, 0.0]]
    """
    batch = episodes(generator, init, batch)
    mean = start(init, bounds, cfg, batch)
    std = torch.full_like(mean, cfg.std)
    judge, best, kept = Judge(cost, cfg, batch), Best(mean, cfg), None
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
            elite, worth = cheapest(x, cost_of, cfg.elites)
            fresh_mean, fresh_std = moments(elite, worth, mean, std)
            mean = torch.where(going, torch.lerp(fresh_mean, mean, cfg.momentum), mean)
            std = torch.where(going, torch.lerp(fresh_std, std, cfg.momentum).clamp_min(cfg.std_floor), std)
            kept = elite if kept is None else torch.where(going[..., None], elite, kept)
            if best.finished((std <= cfg.std_floor).flatten(1).all(1) if cfg.std_floor > 0 else None):
                break
    return finish(judge, best, bounds.project(mean) if cfg.returns == "mean" else best.knots, kept)


def cheapest(x: Tensor, cost: Tensor, elites: int) -> tuple[Tensor, Tensor]:
    """The `elites` candidates of lowest cost, best first: (B, E, K, A), and their costs (B, E)."""
    low, index = cost.topk(min(elites, cost.shape[1]), dim=1, largest=False)
    rows = torch.arange(x.shape[0], device=x.device)[:, None]
    return x[rows, index], low


def moments(elite: Tensor, cost: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the elites (B, E, K, A) of finite cost; the old ones where there is none."""
    fine = cost.isfinite()
    count = fine.sum(1)[:, None, None]
    weight = fine[..., None, None].to(elite)
    total = count.clamp_min(1)
    fresh = (elite * weight).sum(1) / total
    spread = (((elite - fresh[:, None]) * weight).square().sum(1) / total).sqrt()
    return torch.where(count > 0, fresh, mean), torch.where(count > 0, spread, std)
