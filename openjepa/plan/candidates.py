"""Candidates of a planner: noise about a mean, and structured ones that noise does not find.

Independent noise per step is a bad explorer where getting anywhere takes many steps in one direction: its mean path
goes as the root of time. So some candidates hold a heading, some keep the beginning of the plan so far and go on
otherwise, and one stands still, which is how a reached goal is held.
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
    still    one candidate does nothing
    stretch  mean length of a heading, in actions that are searched for
    rest     chance that the next heading is: none
    """

    shorthand: ClassVar[str] = "hold"
    hold: float = Field(0.4, ge=0, le=1)
    prefix: float = Field(0.4, ge=0, le=1)
    still: bool = True
    stretch: float = Field(20.0, ge=1)
    rest: float = Field(0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _shares(self) -> Structured:
        if self.hold + self.prefix > 1:
            raise ValueError(f"hold + prefix must be at most 1, got {self.hold} + {self.prefix}")
        return self

    def counts(self, samples: int) -> tuple[int, int]:
        """How many of `samples` hold a heading, and how many keep a prefix."""
        return int(self.hold * samples), int(self.prefix * samples)


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
    """(B, K, A) -> (B, n, K, A): standing still, then those that keep a prefix, then those that hold headings."""
    batch, steps, _ = so_far.shape
    hold, prefix = cfg.counts(samples)
    parts = []
    if cfg.still:
        parts.append(bounds.still.expand(batch, 1, steps, -1))
    if hold + prefix:
        paths = headings(batch, hold + prefix, steps, bounds, cfg, generator)
        keep = (uniform(generator, batch, prefix, 1, like=so_far) * (steps + 1)).long()  # (B, n, 1): 0 .. K steps
        kept = torch.arange(steps, device=so_far.device) < keep  # (B, n, K)
        parts.append(torch.where(kept[..., None], so_far[:, None], paths[:, :prefix]))
        parts.append(paths[:, prefix:])
    return torch.cat(parts, 1) if parts else so_far[:, :0, None].expand(-1, 0, steps, -1)


def headings(
    batch: int, samples: int, steps: int, bounds: Bounds, cfg: Structured, generator: Generators
) -> Tensor:  # (B, n, K, A)
    """Paths of constant stretches. A heading is normal about the middle of the box with half its width as the standard
    deviation (1 where it has no ends), so that many lie on the edge of the bounds: full speed is a common choice."""
    like = bounds.low
    wide = (bounds.high - bounds.low).isfinite()
    middle = torch.where(wide, (bounds.high + bounds.low) / 2, bounds.still)
    width = torch.where(wide, (bounds.high - bounds.low) / 2, 1.0)
    drawn = normal(generator, batch, samples, steps, len(like), like=like)
    chance = uniform(generator, batch, samples, steps, 2, like=like)
    fresh = bounds.project(middle + width * drawn)
    fresh = torch.where((chance[..., :1] < cfg.rest), bounds.still, fresh)
    turn = chance[..., 1] < 1 / cfg.stretch  # (B, n, K)
    at = torch.where(turn, torch.arange(steps, device=like.device), 0).cummax(-1).values  # step of the last turn
    return fresh.gather(2, at[..., None].expand_as(fresh))
