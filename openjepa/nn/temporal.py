"""Time: a transformer that lets each place of a clip look along its own time line, and positions of clip tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openjepa.nn.layers import Block, init_transformer
from openjepa.nn.position import Grid, sincos


class TemporalEncoder(nn.Module):
    """Mixes the tokens of each place over time: (B, T, N, D) -> (B, T, N, D), every frame seeing every other.

    Frames are encoded one by one before; here each of the N places is a sequence of T tokens. Fixed sine-cosine
    positions in time are added first, for clips of at most `frames` frames; layer norm at the end.

    >>> TemporalEncoder(16, frames=4, depth=1, heads=2)(torch.zeros(2, 3, 5, 16)).shape
    torch.Size([2, 3, 5, 16])
    """

    time: Tensor

    def __init__(self, dim: int, frames: int, depth: int = 2, heads: int = 12) -> None:
        super().__init__()
        self.register_buffer("time", times(dim, frames))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        init_transformer(self)

    def forward(self, x: Tensor) -> Tensor:
        b, t, n, d = x.shape
        if t > len(self.time):
            raise ValueError(f"clips must have at most {len(self.time)} frames, got {t}. Cut them, or raise frames.")
        x = (x + self.time[:t, None]).transpose(1, 2).reshape(b * n, t, d)  # (B N, T, D)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).view(b, n, t, d).transpose(1, 2)  # (B, T, N, D)


def times(dim: int, frames: int) -> Tensor:
    """The fixed sine-cosine table of time, (frames, dim): [sin(t f_i), cos(t f_i)], f_i = 10000^(-i / (dim / 2)).

    >>> times(4, 2)[0]
    tensor([0., 0., 1., 1.])
    """
    if dim % 2:
        raise ValueError(f"width must be even for sine-cosine positions, got {dim}. Round it up.")
    f = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    angle = torch.arange(frames, dtype=torch.float64)[:, None] * f
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


def clip_positions(dim: int, frames: int, grid: Grid) -> Tensor:
    """Positions of the tokens of a clip, time first, (frames * h * w, dim): half the features say when, half where.

    >>> clip_positions(16, 3, (2, 2)).shape
    torch.Size([12, 16])
    """
    if dim % 8:
        raise ValueError(f"width must be a multiple of 8 for positions in clips, got {dim}. Round it up.")
    when, where = times(dim // 2, frames), sincos(dim // 2, grid)
    both = torch.cat([when[:, None].expand(-1, len(where), -1), where.expand(frames, -1, -1)], dim=2)
    return both.flatten(0, 1)
