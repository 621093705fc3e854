"""Positions of patches: fixed 2-D sine-cosine tables, rotary angles, and both on grids other than the native one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]  # (h, w) in patches, raster order: token = row * w + column
Rotation = tuple[Tensor, Tensor]  # cos and sin, (N, d / 2) or (B, N, d / 2), float32


def sincos(dim: int, grid: Grid) -> Tensor:
    """The fixed 2-D sine-cosine table of I-JEPA, (h * w, dim).

    The first half of the features encodes the **column** (w), the second the row (h). Inside a half:
    [sin(p f_0) ... sin(p f_n), cos(p f_0) ... cos(p f_n)] with f_i = 10000^(-i / (dim / 4)). Computed in float64, then
    cast to float32.

    >>> table = sincos(8, (2, 3))
    >>> table.shape, table[1].tolist()[:4] == table[4].tolist()[:4]  # tokens 1 and 4 share a column
    (torch.Size([6, 8]), True)
    """
    if dim % 4:
        raise ValueError(f"width must be a multiple of 4 for sine-cosine positions, got {dim}. Round it up.")
    h, w = grid
    f = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def half(p: Tensor) -> Tensor:
        angle = p[:, None] * f
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    columns = half(torch.arange(w, dtype=torch.float64)).expand(h, w, -1)  # (h, w, dim / 2)
    rows = half(torch.arange(h, dtype=torch.float64))[:, None].expand(h, w, -1)
    return torch.cat([columns, rows], dim=2).reshape(h * w, dim).float()


def resize(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """A position table (1, N, D) of grid `old` on the grid `new`, so that both span the same picture; bicubic.

    >>> table = sincos(8, (4, 4))[None]
    >>> resize(table, (4, 4), (4, 4)) is table, resize(table, (4, 4), (6, 3)).shape
    (True, torch.Size([1, 18, 8]))
    """
    if old == new:
        return table
    x = table.float().reshape(1, *old, -1).permute(0, 3, 1, 2)  # (1, D, h, w)
    x = F.interpolate(x, size=new, mode="bicubic", align_corners=False)
    return x.flatten(2).transpose(1, 2).to(table.dtype)  # (1, N', D)


def rotation(dim: int, grid: Grid, native: Grid, device: torch.device | None = None) -> Rotation:
    """cos and sin of the 2-D rotary angles of every patch, each (h * w, dim / 2), always float32.

    Angles 0 .. dim/4 - 1 turn with the row, the others with the column; angle i of either is p * 100^(-i / (dim / 4)).
    Positions are in native patches: on another grid they are stretched so that the grid spans the same picture,
    (p + 0.5) * native / actual - 0.5, which is what `resize` does to a table.
    Source: Heo et al. 2024, arXiv 2403.13298, axial form (base 100, since picture grids are short).

    >>> cos, sin = rotation(8, (2, 3), native=(2, 3))
    >>> cos.shape, cos[0].tolist()  # the first patch sits at the origin
    (torch.Size([6, 4]), [1.0, 1.0, 1.0, 1.0])
    """
    if dim % 4:
        raise ValueError(
            f"width / heads must be a multiple of 4 for rotary positions, got {dim}. Change heads or width."
        )
    (h, w), f = grid, 100.0 ** (-torch.arange(dim // 4, dtype=torch.float32, device=device) / (dim // 4))
    rows = (torch.arange(h, dtype=torch.float32, device=device) + 0.5) * (native[0] / h) - 0.5
    columns = (torch.arange(w, dtype=torch.float32, device=device) + 0.5) * (native[1] / w) - 0.5
    angle = torch.cat([(rows[:, None] * f)[:, None].expand(h, w, -1), (columns[:, None] * f).expand(h, w, -1)], dim=2)
    angle = angle.reshape(h * w, dim // 2)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the feature pairs (i, i + d / 2) of x (B, heads, N, d) by the angles i of `rotation`.

    The last rows of x are the patches; rows before them (class token, registers) have no place and stay as they are.
    Turned in float32 and returned in the dtype of x.
    """
    cos, sin = rotation
    if cos.dim() == 3:
        cos, sin = cos[:, None], sin[:, None]  # (B, 1, N, d / 2)
    prefix = x.shape[2] - cos.shape[-2]
    patches = x[:, :, prefix:] if prefix else x
    a, b = patches.float().chunk(2, dim=-1)
    turned = torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)
    return torch.cat([x[:, :, :prefix], turned], dim=2) if prefix else turned
