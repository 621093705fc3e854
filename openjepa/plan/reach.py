"""Steps to a goal, learned from episodes alone: a cost that knows the way round."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from openjepa.config import Config
from openjepa.core.quasimetric import nearness, overrun, quasimetric
from openjepa.nn.reach import ReachHead


class ReachConfig(Config):
    """How a `ReachHead` is fitted.

    steps, lr  of Adam; the rate is warmed up, then brought to zero along a cosine
    episodes   per step, drawn anew, and so many `frames` of each
    across     push frames of different episodes apart too. Leave it out where every episode has a world of its own
               (walls that move): nothing leads from one to another, and such pairs teach nothing
    offset     steps beyond which it does not matter how far things are
    slack      root mean square by which neighbours may be further apart than one step
    latents    at most so many frames are encoded, whole episodes
    policy     learn it from fresh episodes of this policy, as many and as long as the run's own, in the run's world.
               None: from the run's own. What it can learn is what somebody did: one that crosses from room to room all
               the time teaches the way round, one that runs into walls teaches little of it
    """

    width: int = Field(256, ge=8)
    groups: int = Field(8, ge=1)
    per_group: int = Field(16, ge=1)
    steps: int = Field(2000, ge=1)
    episodes: int = Field(8, ge=1)
    frames: int = Field(24, ge=2)
    across: bool = True
    lr: float = Field(1e-3, gt=0)
    offset: float = Field(60.0, gt=0)
    slack: float = Field(0.25, gt=0)
    latents: int = Field(100_000, ge=2)
    policy: str | None = None
    seed: int = 0


class Latents(NamedTuple):
    """Encoded episodes, end to end."""

    z: Tensor  # (F, ...)
    lengths: Tensor  # (E,) int64, summing to F; each at least 2


def fit_reach(latents: Latents, cfg: ReachConfig, tell: Callable[[int, float, float], None] | None = None) -> ReachHead:
    """The head whose distance is as large as it can be while one step never covers more than one.

    minimise   mean softplus(offset - d(z_i, z_j))   over random pairs
    such that  mean max(0, d(z_t, z_t+1) - 1)^2 <= slack^2   over neighbours in time

    with a multiplier for the constraint that follows by gradient ascent. The minimum is the number of steps of the
    shortest way that can be put together from steps of the data, in whichever episodes they were taken: no goals, no
    rewards, no labels, no bootstrapping.

    tell  called with step, mean distance of the pairs, and root mean square overrun, ten times

    Source: quasimetric reinforcement learning, Wang et al., arXiv 2304.01203. Differences: latents are given and stay
    as they are; all pairs of a few episodes instead of independent ones; another family of distances.
    """
    z = latents.z.flatten(1)  # (F, D)
    lengths = latents.lengths
    if len(lengths) == 0 or int(lengths.min()) < 2 or int(lengths.sum()) != len(z):
        raise ValueError(
            f"lengths must be at least 2 each and sum to the {len(z)} latents, got {lengths.tolist()[:5]} ... "
            "Leave out episodes of one frame."
        )
    g = torch.Generator().manual_seed(cfg.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        head = ReachHead(z.shape[1], width=cfg.width, groups=cfg.groups, per_group=cfg.per_group)
    head.to(z.device).scale_to(z)
    multiplier = torch.tensor(10.0, device=z.device)
    optim = torch.optim.Adam(head.parameters(), cfg.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optim, cfg.lr, total_steps=cfg.steps + 1, pct_start=0.05)
    begins = lengths.cumsum(0) - lengths
    for step in range(cfg.steps):
        now = draw(begins, lengths, cfg, g).to(z.device)  # (E, P)
        a, later = head.embed(torch.stack([z[now], z[now + 1]]))  # (E, P, G, L)
        broken = overrun(quasimetric(a, later))
        pairs = a.flatten(0, 1)[None] if cfg.across else a  # (1, E P, G, L), or an episode at a time
        apart = quasimetric(pairs[:, :, None], pairs[:, None])
        loss = nearness(apart, cfg.offset) + multiplier * broken
        optim.zero_grad(set_to_none=True)
        loss.backward()
        optim.step()
        schedule.step()
        multiplier = multiplier * (RATE * (broken.detach() / cfg.slack**2 - 1).clamp(-1, 1)).exp()
        if tell is not None and (step + 1) % max(1, cfg.steps // 10) == 0:
            tell(step + 1, apart.detach().mean().item(), broken.detach().sqrt().item())
    return head.eval().requires_grad_(False)


RATE = 0.02  # the multiplier moves by at most so much per step, as a share of itself


def draw(begins: Tensor, lengths: Tensor, cfg: ReachConfig, generator: torch.Generator) -> Tensor:
    """Positions (E, P) of frames that have a next one: `cfg.episodes` episodes, `cfg.frames` frames of each."""
    e = torch.randint(len(lengths), (cfg.episodes, 1), generator=generator)
    u = torch.rand(cfg.episodes, cfg.frames, generator=generator)
    return begins[e] + (u * (lengths[e] - 1)).long()
