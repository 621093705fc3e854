"""Rectangles on a grid of tokens: how large they are, where they lie, and which cells they cover.

A size is (height, width) and a corner (top, left), both in cells, int64, in the last axis of a tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

Range = tuple[float, float]


def target_size(grid: tuple[int, int], scale: Tensor, aspect: Tensor) -> Tensor:
    """The size, (..., 2), of a block with a share `scale` of the grid's cells and height / width = `aspect`.

    A side that would be longer than the grid is cut to it, and the other one grows so that the area stays.

    >>> target_size((4, 16), torch.tensor(0.5), torch.tensor(1.0))
    tensor([4, 8])
    """
    height, width = grid
    area = scale * height * width
    h = (area * aspect).sqrt().clamp(max=height)
    w = (area / h).clamp(max=width)
    h = (area / w).clamp(max=height)
    return torch.stack([h, w], dim=-1).round().long().clamp(min=1)


def context_block(grid: tuple[int, int], scale: Tensor) -> Tensor:
    """The size, (..., 2), of a block of the grid's own shape with a share `scale` of its cells.

    >>> context_block((4, 16), torch.tensor(0.25))
    tensor([2, 8])
    """
    return (scale.sqrt()[..., None] * torch.tensor(grid)).round().long().clamp(min=1)


def published_size(grid: tuple[int, int], scale: Tensor, aspect: Tensor, spare: int = 1) -> Tensor:
    """The size, (..., 2), as the published I-JEPA code draws it: always shorter than the sides of the grid.

    spare  cells by which it is at least shorter: 1 in I-JEPA, 0 in V-JEPA

    >>> published_size((4, 4), torch.tensor(1.0), torch.tensor(1.0))
    tensor([3, 3])
    """
    area = (scale * grid[0] * grid[1]).floor()
    size = torch.stack([(area * aspect).sqrt().round(), (area / aspect).sqrt().round()], dim=-1).long()
    return torch.minimum(size, torch.tensor(grid) - spare)


def corners(room: Tensor, u: Tensor) -> Tensor:
    """Top and left of blocks, each uniform over `room` places, from u ~ U[0, 1): (B, M, 2).

    `room` is the number of places per side, grid - size + 1 when every place is allowed, and broadcasts to u.

    >>> corners(torch.tensor([4, 2]), torch.tensor([[[0.999, 0.0]]]))
    tensor([[[3, 0]]])
    """
    return (u * room).long()


def sides(grid: tuple[int, int], corner: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The rows, (B, M, H), and columns, (B, M, W), of each block: 1 inside, 0 outside."""
    y, x = torch.arange(grid[0]), torch.arange(grid[1])
    end = corner + size  # (B, M, 2)
    rows = (y >= corner[..., :1]) & (y < end[..., :1])
    columns = (x >= corner[..., 1:]) & (x < end[..., 1:])
    return rows.float(), columns.float()


def covered(grid: tuple[int, int], corner: Tensor, size: Tensor) -> Tensor:
    """The cells that lie in at least one of a picture's blocks: corner (B, M, 2) -> bool (B, N).

    A matrix product of the blocks' rows and columns counts the blocks over each cell; no (B, M, N) tensor is needed.

    >>> covered((2, 3), torch.tensor([[[0, 0], [1, 2]]]), torch.tensor([1, 1])).int()
    tensor([[1, 0, 0, 0, 0, 1]], dtype=torch.int32)
    """
    rows, columns = sides(grid, corner, size)
    return (rows.transpose(1, 2) @ columns > 0).flatten(1)  # (B, H * W)


def cells(grid: tuple[int, int], corner: Tensor, size: Tensor) -> Tensor:
    """Token indices of blocks of one size (2,), in raster order: corner (B, M, 2) -> (B, M, Kt).

    >>> cells((4, 4), torch.tensor([[[1, 2]]]), torch.tensor([2, 2]))
    tensor([[[ 6,  7, 10, 11]]])
    """
    height, width = size.tolist()
    offset = (torch.arange(height)[:, None] * grid[1] + torch.arange(width)).flatten()  # (Kt,)
    return corner[..., :1] * grid[1] + corner[..., 1:] + offset


def between(u: Tensor, limits: Range) -> Tensor:
    """u ~ U[0, 1) carried to U(limits)."""
    return limits[0] + u * (limits[1] - limits[0])
