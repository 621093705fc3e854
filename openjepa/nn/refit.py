"""Weights from clips or pictures of another size: their fixed tables of positions, interpolated to the new grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from openjepa.nn.position import resize, sincos
from openjepa.nn.position3d import Grid3, resize_3d, sincos_3d


def refit(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """`state` with every table of positions on the grid of `module`; what fits, or is unknown, stays as it is.

    A sine-cosine table is the same function of the grid everywhere, so the grid that it was made for is found by
    comparing: of all (t, h, h) with its number of tokens, the one whose table it is. Rotary positions have no table.

    >>> from openjepa.nn import build_clip_encoder
    >>> old, new = (build_clip_encoder("vit_micro/4", size=16, frames=n) for n in (4, 8))
    >>> refit(old.state_dict(), new)["pos_embed"].shape, new.pos_embed.shape
    (torch.Size([1, 64, 96]), torch.Size([1, 64, 96]))
    """
    own, out = module.state_dict(), dict(state)
    grid = getattr(module, "grid", None)
    for name, table in state.items():
        fits = name not in own or own[name].shape == table.shape
        if fits or grid is None or not name.endswith("pos_embed") or table.dim() != 3:
            continue
        old = grid_of(table, clips=len(grid) == 3)
        if old is not None:
            out[name] = resize_3d(table, old, grid) if len(grid) == 3 else resize(table, old[1:], grid)
    return out


def grid_of(table: Tensor, *, clips: bool) -> Grid3 | None:
    """The grid (t, h, h) of a fixed sine-cosine table (1, N, D), None where it is none; t is 1 for pictures.

    >>> grid_of(sincos_3d(12, (8, 2, 2))[None], clips=True), grid_of(torch.zeros(1, 32, 12), clips=True)
    ((8, 2, 2), None)
    """
    for grid in _grids(table.shape[1]):
        if not clips and grid[0] > 1:
            continue
        made = sincos_3d(table.shape[2], grid) if clips else sincos(table.shape[2], grid[1:])
        if torch.allclose(made, table[0].float().cpu(), atol=1e-3):
            return grid
    return None


def _grids(tokens: int) -> Iterator[Grid3]:
    for side in range(1, int(tokens**0.5) + 1):
        if tokens % (side * side) == 0:
            yield tokens // (side * side), side, side
