"""Random shooting: many random plans, the best is taken. The floor of every search."""

from __future__ import annotations

from typing import Literal

import torch
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


class ShootingConfig(SearchConfig):
    """`samples` x `iterations` candidates, all drawn about the start of the search: nothing is learnt between them.

    structured  shares of candidates that hold headings or keep the plan so far; none by default
    """

    name: Literal["shooting"] = "shooting"
    iterations: int = 1
    structured: Structured | None = None


def shooting(
    cost: Cost, bounds: Bounds, cfg: ShootingConfig, generator: Generators, *,
    init: Plan | Tensor | None = None, batch: int | None = None,
) -> Plan:  # fmt: skip
    """The best of samples * iterations draws from N(init, std^2), brought inside the bounds.

    >>> g = torch.Generator().manual_seed(0)
    >>> target = torch.tensor([0.3])
    >>> cfg = ShootingConfig(horizon=1, samples=2000)
    >>> plan = shooting(lambda a: (a - target).square().sum((2, 3)), Bounds.box([-1], [1]), cfg, g)
    >>> abs(plan.actions.item() - 0.3) < 0.01
    True
    """
    batch = episodes(generator, init, batch)
    mean = start(init, bounds, cfg, batch)
    judge, best = Judge(cost, cfg, batch), Best(mean, cfg)
    std = torch.full_like(mean, cfg.std)
    with torch.no_grad():
        for _ in range(cfg.iterations):
            noise = normal(generator, batch, cfg.samples, *mean.shape[1:], like=mean)
            x = propose(mean, std, noise, bounds, generator, keep_mean=True, structured=cfg.structured, so_far=mean)
            best.see(x, judge(x))
            if best.finished():
                break
    return finish(judge, best, best.knots)
