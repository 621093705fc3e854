"""The cross-entropy method for actions that are choices: each step has its own chances, learnt from the elites."""

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
    to_knots,
    uniform,
)
from openjepa.plan.cem import cheapest


class CategoricalConfig(SearchConfig):
    """CEM over choices; actions are one-hot. `std` has no meaning here.

    elites    candidates that the next chances come from
    momentum  share of the old chances that stays
    floor     no choice falls below this chance: the search can always come back
    sure      chance that the start of the search gives to the choices of `init`
    returns   the best candidate of all, or the likeliest choice of every step
    """

    name: Literal["categorical"] = "categorical"
    iterations: int = 10
    elites: int = Field(30, ge=1)
    momentum: float = Field(0.1, ge=0, lt=1)
    floor: float = Field(0.01, ge=0, lt=1)
    sure: float = Field(0.5, ge=0, le=1)
    returns: Literal["mode", "best"] = "best"


def categorical(
    cost: Cost, bounds: Bounds, cfg: CategoricalConfig, generator: Generators, *,
    init: Plan | Tensor | None = None, batch: int | None = None,
) -> Plan:  # fmt: skip
    """One-hot plans (B, H, A); `bounds.choices` must be set, A = parts * choices.

    >>> wanted = torch.eye(3)[[2, 0, 1]]
    >>> bounds = Bounds.box([0.0] * 3, [1.0] * 3, choices=3)
    >>> g = torch.Generator().manual_seed(0)
    >>> plan = categorical(lambda a: -(a * wanted).sum((2, 3)), bounds, CategoricalConfig(horizon=3), g)
    >>> plan.actions.argmax(-1).tolist()
    [[2, 0, 1]]
    """
    choices = bounds.choices
    if choices is None:
        raise ValueError("bounds.choices must be the number of choices for the categorical planner, got None. Use cem.")
    if cfg.floor * choices > 1:
        raise ValueError(f"floor must be at most 1 / choices = {1 / choices:.3g}, got {cfg.floor}.")
    batch = episodes(generator, init, batch)
    one_hot = torch.eye(choices, dtype=bounds.low.dtype, device=bounds.low.device)
    chance = torch.full((batch, cfg.knots, bounds.parts, choices), 1 / choices).to(one_hot)
    first = one_hot[chance.argmax(-1)].flatten(-2)  # (B, K, A)
    if init is not None:
        steps = (init.actions if isinstance(init, Plan) else init).to(one_hot)
        first = one_hot[to_knots(steps, cfg).unflatten(-1, (bounds.parts, choices)).argmax(-1)].flatten(-2)
        chance = torch.lerp(chance, first.unflatten(-1, (bounds.parts, choices)), cfg.sure)
    judge, best, kept = Judge(cost, cfg, batch), Best(first, cfg), None
    with torch.no_grad():
        for _ in range(cfg.iterations):
            u = uniform(generator, batch, cfg.samples, *chance.shape[1:-1], 1, like=chance)  # (B, S, K, parts, 1)
            index = (u > chance.cumsum(-1)[:, None, ..., :-1]).sum(-1)
            x = one_hot[index].flatten(-2)  # (B, S, K, A)
            x[:, 0] = best.knots
            cost_of = judge(x)
            going = ~best.done[:, None, None, None]
            best.see(x, cost_of)
            elite, worth = cheapest(x, cost_of, cfg.elites)
            fine = worth.isfinite().to(elite)[..., None, None]
            count = fine.sum(1)
            share = ((elite * fine).sum(1) / count.clamp_min(1)).unflatten(-1, (bounds.parts, choices))
            fresh = torch.lerp(share, chance, cfg.momentum)
            fresh = fresh * (1 - cfg.floor * choices) + cfg.floor
            chance = torch.where(going & (count[..., None] > 0), fresh, chance)
            kept = elite if kept is None else torch.where(going, elite, kept)
            if best.finished():
                break
    likeliest = one_hot[chance.argmax(-1)].flatten(-2)
    return finish(judge, best, likeliest if cfg.returns == "mode" else best.knots, kept)
