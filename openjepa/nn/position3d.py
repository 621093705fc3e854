"""Positions of the tubelets of a clip: the fixed 3-D sine-cosine table of V-JEPA, rotary angles of V-JEPA 2 and 2.1."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Grid3 = tuple[int, int, int]  # (t, h, w) in tubelets, token = (t * h + row) * w + column
Form = Literal["tiled", "interleaved"]
NATIVE = 16  # rows and columns that the positions of V-JEPA 2.1 are rescaled to span: 256 pixels in patches of 16


class Turn(NamedTuple):
    """Factors of a rotary position for whole heads, (N, d) or (B, N, d), float32: x cos + (x, partners swapped) sin."""

    cos: Tensor
    sin: Tensor  # with the sign of the partner: minus for the first of a pair

    def of(self, keep: Tensor | None) -> Turn:
        """Those of the tokens `keep` (B, K), (B, K, d); None: all."""
        return self if keep is None else Turn(self.cos[keep], self.sin[keep])


def sincos_3d(dim: int, grid: Grid3) -> Tensor:
    """The fixed 3-D sine-cosine table of V-JEPA, (t * h * w, dim).

    Time, row and column each get c = 2 ceil(dim / 6) features, in this order, and what is more than `dim` is cut off.
    Inside an axis: [sin(p f_0) ... sin(p f_n), cos(p f_0) ... cos(p f_n)] with f_i = 10000^(-i / (c / 2)). Computed in
    float64, then cast to float32. Source: Bardes et al. 2024, arXiv 2404.08471 ("uniform power").

    >>> table = sincos_3d(10, (2, 3, 2))
    >>> table.shape, torch.equal(table[0, :4], table[5, :4])  # tokens 0 and 5 share a time
    (torch.Size([12, 10]), True)
    """
    if dim < 6:
        raise ValueError(f"width must be at least 6 for positions in three axes, got {dim}. Widen the network.")
    half = -(-dim // 6)
    f = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    axes = []
    for axis, length in enumerate(grid):
        angle = torch.arange(length, dtype=torch.float64)[:, None] * f
        shape = [1, 1, 1, 2 * half]
        shape[axis] = length
        axes.append(torch.cat([angle.sin(), angle.cos()], 1).view(shape).expand(*grid, -1))
    return torch.cat(axes, -1)[..., :dim].reshape(-1, dim).float()


def resize_3d(table: Tensor, old: Grid3, new: Grid3) -> Tensor:
    """A position table (1, N, D) of grid `old` on the grid `new`, so that both span the same clip; trilinear.

    >>> table = sincos_3d(12, (2, 4, 4))[None]
    >>> resize_3d(table, (2, 4, 4), (2, 4, 4)) is table, resize_3d(table, (2, 4, 4), (4, 6, 3)).shape
    (True, torch.Size([1, 72, 12]))
    """
    if old == new:
        return table
    x = table.float().reshape(1, *old, -1).permute(0, 4, 1, 2, 3)  # (1, D, t, h, w)
    x = F.interpolate(x, size=new, mode="trilinear", align_corners=False)
    return x.flatten(2).transpose(1, 2).to(table.dtype)  # (1, N', D)


def coordinates(grid: Grid3, device: torch.device | None = None) -> Tensor:
    """Time, row and column of every token, (t * h * w, 3), float32.

    >>> coordinates((2, 1, 2)).int().tolist()
    [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]
    """
    t, h, w = (torch.arange(n, dtype=torch.float32, device=device) for n in grid)
    return torch.cartesian_prod(t, h, w)


def rescaled(place: Tensor, grid: Grid3, side: int = NATIVE) -> Tensor:
    """Rows and columns of `place` (N, 3) stretched so that those of `grid` run from 0 to side - 1; times stay.

    row (side - 1) / (h - 1) and alike for columns, as in V-JEPA 2.1; a single row is row 0.

    >>> rescaled(coordinates((1, 2, 3)), (1, 2, 3), side=5)[-1].tolist()
    [0.0, 4.0, 4.0]
    """
    _, h, w = grid
    factor = (1.0, (side - 1) / max(1, h - 1), (side - 1) / max(1, w - 1))
    return place * torch.tensor(factor, device=place.device)


def turn_3d(dim: int, place: Tensor, form: Form) -> Turn:
    """The rotary factors of tokens at `place` (N, 3): time, row, column; for heads of `dim` features, (N, dim).

    Each axis turns c = 2 (dim // 6) features, time first, then row, then column; the rest of the head is left as it
    is. Features are paired (0, 1), (2, 3) ... and angle i is p * 10000^(-i / (c / 2)), i < c / 2.

        interleaved  pair j of an axis is turned by angle j: a rotation                            (V-JEPA 2.1)
        tiled        features 2 j and 2 j + 1 take angles 2 j mod (c / 2) and 2 j + 1 mod (c / 2)  (V-JEPA 2)

    The tiled form is no rotation, and how it came to be is a slip in the published code that its weights were trained
    with. Always float32, whatever autocast says. Source: arXiv 2506.09985 and its code.

    >>> turn = turn_3d(16, coordinates((1, 2, 2)), "tiled")
    >>> turn.cos.shape, turn.cos[0].tolist() == [1.0] * 16, turn.sin[:, 12:].any().item()  # 12 turn, 4 do not
    (torch.Size([4, 16]), True, False)
    """
    half = dim // 6
    if half < 1 or dim % 2:
        raise ValueError(f"width / heads must be even and at least 6 for positions in three axes, got {dim}.")
    if form not in ("tiled", "interleaved"):
        raise ValueError(f"form must be 'tiled' or 'interleaved', got {form!r}.")
    f = 1.0 / 10000.0 ** (torch.arange(half, dtype=torch.float32, device=place.device) / half)
    angle = place.float()[:, :, None] * f  # (N, 3, c / 2)
    angle = torch.cat([angle, angle], -1) if form == "tiled" else angle.repeat_interleave(2, -1)  # (N, 3, c)
    angle = F.pad(angle.flatten(1), (0, dim - 6 * half))  # (N, dim): an angle of 0 leaves a feature as it is
    sign = torch.tensor([-1.0, 1.0], device=place.device).repeat(dim // 2)
    return Turn(angle.cos(), angle.sin() * sign)


def turn_pairs(x: Tensor, turn: Turn) -> Tensor:
    """x (B, N, ..., d) with the feature pairs (0, 1), (2, 3) ... turned, in float32, back in the dtype of x."""
    between = (1,) * (x.dim() - 3)
    cos, sin = (f.view(*f.shape[:-1], *between, f.shape[-1]) for f in turn)  # (N, ..., d) or (B, N, ..., d)
    y = x.float()
    swapped = y.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(y * cos, swapped, sin).to(x.dtype)
