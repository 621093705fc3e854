"""iCEM: the cross-entropy method with noise that is correlated in time, and with memory of good plans.

Pinneri et al. 2020, arXiv 2008.06389.
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
    to_knots,
)
from openjepa.plan.candidates import Structured, gaussian, structure
from openjepa.plan.cem import cheapest, moments


class ICEMConfig(SearchConfig):
    """The paper's settings by default, where they do not depend on the task.

    elites    candidates that the next mean and standard deviation come from
    beta      the noise has power 1 / frequency^beta: 0 white, 1 pink, 2 red; the paper takes 2 to 4 for smooth tasks
    keep      share of the elites that stay in the race: in the next iteration, and in the next plan shifted by a step
    momentum  share of the old mean and standard deviation that stays
    decay     each iteration has 1 / decay of the samples of the one before, and never fewer than two per elite
    returns   the best candidate of all, as in the paper, or the last mean
    structured  shares of candidates that hold headings or keep the plan so far; none by default
    """

    name: Literal["icem"] = "icem"
    iterations: int = 10
    elites: int = Field(30, ge=1)
    beta: float = Field(2.0, ge=0)
    keep: float = Field(0.3, ge=0, le=1)
    momentum: float = Field(0.1, ge=0, lt=1)
    decay: float = Field(1.25, ge=1)
    returns: Literal["mean", "best"] = "best"
    structured: Structured | None = None


def icem(
    cost: Cost, bounds: Bounds, cfg: ICEMConfig, generator: Generators, *,
    init: Plan | Tensor | None = None, batch: int | None = None,
) -> Plan:  # fmt: skip
    """As `cem`; candidates = mean + std * coloured noise, the kept elites, and in the last iteration the mean.

    `init` may be the last plan after `shift`: its `memory` is the shifted elites. Difference from the paper: the last
    action of a shifted elite repeats the one before it instead of being drawn.

    >>> g = torch.Generator().manual_seed(0)
    >>> plan = icem(lambda a: (a - 0.5).square().sum((2, 3)), Bounds.box([-1], [1]), ICEMConfig(), g)
    >>> plan.actions.shape, plan.cost.item() < 0.01
    (torch.Size([1, 5, 1]), True)
    """
    batch = episodes(generator, init, batch)
    mean = start(init, bounds, cfg, batch)
    std = torch.full_like(mean, cfg.std)
    judge, best = Judge(cost, cfg, batch), Best(mean, cfg)
    stay = int(cfg.keep * min(cfg.elites, cfg.samples))
    kept = mean[:, :0, None].expand(-1, 0, *mean.shape[1:])  # (B, 0, K, A): no elites yet
    if isinstance(init, Plan) and init.memory is not None:
        kept = bounds.project(to_knots(init.memory.to(mean), cfg))
    with torch.no_grad():
        for i in range(cfg.iterations):
            samples = max(int(cfg.samples * cfg.decay**-i), 2 * cfg.elites) if i else cfg.samples
            noise = coloured(generator, batch, samples, *mean.shape[1:], beta=cfg.beta, like=mean)
            x = [kept[:, :stay], gaussian(mean, std, noise, bounds, keep_mean=i in (0, cfg.iterations - 1))]
            if cfg.structured is not None:
                x.append(structure(best.knots, bounds, cfg.structured, samples, generator))
            candidates = torch.cat(x, 1)  # (B, S, K, A)
            cost_of = judge(candidates)
            going = ~best.done[:, None, None]
            best.see(candidates, cost_of)
            elite, worth = cheapest(candidates, cost_of, cfg.elites)
            fresh_mean, fresh_std = moments(elite, worth, mean, std)
            mean = torch.where(going, torch.lerp(fresh_mean, mean, cfg.momentum), mean)
            std = torch.where(going, torch.lerp(fresh_std, std, cfg.momentum), std)
            kept = elite if kept.shape != elite.shape else torch.where(going[..., None], elite, kept)
            if best.finished():
                break
    return finish(judge, best, bounds.project(mean) if cfg.returns == "mean" else best.knots, kept)


def coloured(
    generator: Generators, batch: int, samples: int, steps: int, numbers: int, *, beta: float, like: Tensor
) -> Tensor:
    """Gaussian noise (B, S, K, A) of unit variance whose power over time falls as 1 / frequency^beta.

    Made in the frequency domain: a complex normal number per frequency f, times f^(-beta / 2), transformed back; the
    constant part is treated as the frequency 1 / K. With beta = 0 it is white. Source: Timmer and Koenig 1995.
    """
    white = normal(generator, batch, samples, numbers, steps, like=like)
    if beta > 0 and steps > 1:
        frequency = torch.fft.rfftfreq(steps, dtype=like.dtype, device=like.device)
        frequency[0] = 1 / steps
        scale = frequency ** (-beta / 2)
        # White noise has a spectrum of independent normals already: scaling it is the whole work.
        pairs = torch.full_like(scale, 2.0)  # a frequency stands for itself and its mirror image,
        pairs[0] = 1.0  # except the constant
        if steps % 2 == 0:
            pairs[-1] = 1.0  # and the highest
        size = ((pairs * scale.square()).sum() / steps).sqrt()
        white = torch.fft.irfft(torch.fft.rfft(white) * (scale / size), n=steps)
    return white.transpose(-1, -2)  # (B, S, K, A)
