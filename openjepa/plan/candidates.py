"""Candidates of a planner: noise about a mean, and structured ones that noise does not find.

Independent noise per step is a bad explorer where getting anywhere takes many steps in one direction: its mean path
goes as the root of time. So some candidates hold a heading, some keep the beginning of the plan so far and go on
otherwise, and one stands still, which is how a reached goal is held. Where a goal lies behind a wall, none of these
gets cheaper by small changes: detours go out, across, and back.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from openjepa.config import Config
from openjepa.plan.base import Bounds, Generators, normal, uniform


class Structured(Config):
    """Shares of the candidates that are structured; the rest is noise about the mean.

    hold     one heading, kept for a while, then the next
    prefix   the plan so far up to a random step, then as `hold`
    detour   the plan so far up to a random step, then out along a heading, across along another, back along the first,
             and then the rest of the plan or nothing
    still    one candidate does nothing
    stretch  mean length of a heading, in actions that are searched for
    rest     chance that the next heading is: none
    """

    shorthand: ClassVar[str] = "hold"
    hold: float = Field(0.1, ge=0, le=1)
    prefix: float = Field(0.2, ge=0, le=1)
    detour: float = Field(0.6, ge=0, le=1)
    still: bool = True
    stretch: float = Field(20.0, ge=1)
    rest: float = Field(0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _shares(self) -> Structured:
        if self.hold + self.prefix + self.detour > 1 + 1e-9:
            raise ValueError(f"hold + prefix + detour must be at most 1, got {self.hold}, {self.prefix}, {self.detour}")
        return self

    def counts(self, samples: int) -> tuple[int, int, int]:
        """How many of `samples` hold a heading, keep a prefix, make a detour."""
        return int(self.hold * samples), int(self.prefix * samples), int(self.detour * samples)


def gaussian(mean: Tensor, std: Tensor, noise: Tensor, bounds: Bounds, *, keep_mean: bool) -> Tensor:
    """mean + std * noise inside the bounds, (B, K, A) twice and (B, S, K, A) -> (B, S, K, A); sample 0 is the mean."""
    x = mean[:, None] + std[:, None] * noise  # (B, S, K, A)
    if keep_mean:
        x[:, 0] = mean
    return bounds.project(x)


def propose(
    mean: Tensor, std: Tensor, noise: Tensor, bounds: Bounds, generator: Generators, *, keep_mean: bool,
    structured: Structured | None, so_far: Tensor,
) -> Tensor:  # fmt: skip
    """`gaussian`, its last candidates replaced by structured ones about the plan `so_far` (B, K, A)."""
    x = gaussian(mean, std, noise, bounds, keep_mean=keep_mean)
    if structured is None:
        return x
    extra = structure(so_far, bounds, structured, x.shape[1], generator)
    room = min(extra.shape[1], x.shape[1] - 1)  # the mean stays
    return torch.cat([x[:, : x.shape[1] - room], extra[:, :room]], 1) if room else x


def structure(so_far: Tensor, bounds: Bounds, cfg: Structured, samples: int, generator: Generators) -> Tensor:
    """(B, K, A) -> (B, n, K, A): standing still, then prefixes, then headings, then detours."""
    batch, steps, _ = so_far.shape
    hold, prefix, detour = cfg.counts(samples)
    parts = []
    if cfg.still:
        parts.append(bounds.still.expand(batch, 1, steps, -1))
    if hold + prefix:
        paths = headings(batch, hold + prefix, steps, bounds, cfg, generator)
        keep = (uniform(generator, batch, prefix, 1, like=so_far) * (steps + 1)).long()  # (B, n, 1): 0 .. K steps
        kept = torch.arange(steps, device=so_far.device) < keep  # (B, n, K)
        parts.append(torch.where(kept[..., None], so_far[:, None], paths[:, :prefix]))
        parts.append(paths[:, prefix:])
    if detour:
        parts.append(detours(so_far, detour, bounds, generator))
    return torch.cat(parts, 1) if parts else so_far[:, :0, None].expand(-1, 0, steps, -1)


def headings(
    batch: int, samples: int, steps: int, bounds: Bounds, cfg: Structured, generator: Generators
) -> Tensor:  # (B, n, K, A)
    """Paths of constant stretches. A heading is normal about the middle of the box with half its width as the standard
    deviation (1 where it has no ends), so that many lie on the edge of the bounds: full speed is a common choice."""
    drawn = normal(generator, batch, samples, steps, len(bounds.low), like=bounds.low)
    chance = uniform(generator, batch, samples, steps, 2, like=bounds.low)
    fresh = torch.where(chance[..., :1] < cfg.rest, bounds.still, aimed(drawn, bounds))
    turn = chance[..., 1] < 1 / cfg.stretch  # (B, n, K)
    at = torch.where(turn, torch.arange(steps, device=turn.device), 0).cummax(-1).values  # step of the last turn
    return fresh.gather(2, at[..., None].expand_as(fresh))


def detours(so_far: Tensor, samples: int, bounds: Bounds, generator: Generators) -> Tensor:
    """(B, K, A) -> (B, n, K, A): out, across, back. Lengths are log-uniform: short ones are as likely as long ones."""
    batch, steps, numbers = so_far.shape
    out, across = aimed(normal(generator, batch, samples, 2, numbers, like=so_far), bounds)[..., None, :].unbind(2)
    back = bounds.project(2 * bounds.still - out)  # (B, n, 1, A)
    u = uniform(generator, batch, samples, 5, like=so_far)
    far, wide = (steps ** u[..., :2]).long().unbind(-1)  # 1 .. K steps out, and across
    begin = torch.where(u[..., 2] < 0.5, 0, (u[..., 3] * steps).long())
    t = torch.arange(steps, device=so_far.device) - begin[..., None]  # (B, n, K): steps since it began
    far, wide = far[..., None], wide[..., None]
    rest = (t + begin[..., None] - (2 * far + wide)).clamp_min(0)[..., None].expand(-1, -1, -1, numbers)
    after = so_far[:, None].expand(-1, samples, -1, -1).gather(2, rest)  # the plan so far, delayed by the detour
    after = torch.where(u[..., 4, None, None] < 0.5, bounds.still, after)
    path = torch.where((t < 2 * far + wide)[..., None], back, after)
    path = torch.where((t < far + wide)[..., None], across, path)
    path = torch.where((t < far)[..., None], out, path)
    return torch.where((t < 0)[..., None], so_far[:, None], path)


def aimed(drawn: Tensor, bounds: Bounds) -> Tensor:
    """Normal numbers (..., A) as actions about the middle of the box, inside the bounds."""
    wide = (bounds.high - bounds.low).isfinite()
    middle = torch.where(wide, (bounds.high + bounds.low) / 2, bounds.still)
    width = torch.where(wide, (bounds.high - bounds.low) / 2, 1.0)
    return bounds.project(middle + width * drawn)
