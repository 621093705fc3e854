"""Pixels from latents, for looking at what a world model imagines. Never part of a loss that reaches the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.nn.impala import group_norm
from openjepa.nn.state import mlp


class PixelDecoder(nn.Module):
    """z (B, D) or tokens (B, N, D) to pictures (B, C, H, W), in the values that the model's stream gives.

    An MLP to a map of at most 8 cells a side (tokens are joined first), then (upsample by two, 3x3 convolution, group
    norm, SiLU) up to the size, or from 48 pixels on up to a quarter of it, and a last 3x3 convolution, which then draws
    4 x 4 pixels per cell; cut to (H, W).

    >>> PixelDecoder((32,), (2, 65, 65))(torch.zeros(3, 32)).shape
    torch.Size([3, 2, 65, 65])
    """

    def __init__(self, z: tuple[int, ...], obs: tuple[int, int, int], width: int = 32):
        super().__init__()
        self.obs, self.fine, doublings = obs, 4 if max(obs[1:]) >= 48 else 1, 0
        side = -(-max(obs[1:]) // self.fine)
        while side > 8:
            side, doublings = -(-side // 2), doublings + 1
        self.side = side
        numbers = z[0] if len(z) == 1 else z[0] * z[1]
        self.first = mlp(numbers, 256, width * side * side)
        stages = list[nn.Module]()
        for _ in range(doublings):
            narrower = max(16, width // 2)
            stages.append(nn.Sequential(nn.Conv2d(width, narrower, 3, padding=1), group_norm(narrower), nn.SiLU()))
            width = narrower
        self.stages = nn.ModuleList(stages)
        self.last = nn.Conv2d(width, obs[0] * self.fine**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z.flatten(1)).unflatten(1, (-1, self.side, self.side))
        x = x.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(F.interpolate(x, scale_factor=2, mode="nearest"))
        return F.pixel_shuffle(self.last(x), self.fine)[..., : self.obs[1], : self.obs[2]]
