"""A head that tells how many steps it takes from one latent to another, around whatever is in the way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openjepa.core.quasimetric import quasimetric


class ReachHead(nn.Module):
    """Steps from z to a goal: (..., D), (..., D) -> (...); zero at the goal, and never negative.

    z is shifted and scaled by `mean` and `std` (of the latents it was fitted on), embedded by an MLP with layer norms
    into `groups` x `per_group` numbers, and compared by `core.quasimetric.quasimetric`: the triangle inequality holds
    by construction. Latents of tokens, (..., N, d), are joined first: dim = N d.

    >>> head = ReachHead(6, width=16, groups=4, per_group=4)
    >>> z = torch.randn(5, 6); head(z, z).tolist(), head(z[:1], z).shape
    ([0.0, 0.0, 0.0, 0.0, 0.0], torch.Size([5]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, *, width: int = 256, groups: int = 8, per_group: int = 16):
        super().__init__()
        self.dim, self.groups = dim, groups
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.net = nn.Sequential(
            nn.Linear(dim, width), nn.LayerNorm(width), nn.SiLU(),
            nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU(),
            nn.Linear(width, groups * per_group),
        )  # fmt: skip

    def scale_to(self, z: Tensor) -> None:
        """Take mean and standard deviation from latents (F, D)."""
        self.mean.copy_(z.mean(0))
        self.std.copy_(z.std(0).clamp_min(1e-6))

    def embed(self, z: Tensor) -> Tensor:
        """(..., D) or (..., N, d) with N d = D -> (..., G, L)."""
        if z.shape[-1] != self.dim:
            z = z.flatten(-2)
        return self.net((z - self.mean) / self.std).unflatten(-1, (self.groups, -1))

    def forward(self, z: Tensor, goal: Tensor) -> Tensor:
        return quasimetric(self.embed(z), self.embed(goal))
