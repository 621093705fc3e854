"""Picking tokens out of a picture, putting them back, and pictures as patches."""

from __future__ import annotations

import torch
from torch import Tensor

from openjepa.core.types import check_shape


def take(x: Tensor, index: Tensor) -> Tensor:
    """The tokens of `x` named by `index`, picture by picture: out[b, ...] = x[b, index[b, ...]].

    x        (B, N, D)
    index    (B, ...) int64 in [0, N): (B, K) for a context, (B, M, K) for M target blocks
    returns  (B, ..., D)

    Why      one `index_select` on the flattened batch: its backward adds whole rows, where `gather` with an expanded
             index adds single numbers: several times faster both ways on a CPU (benchmarks/masks.py).

    >>> take(torch.tensor([[[10.0], [11.0], [12.0]]]), torch.tensor([[2, 0]]))[..., 0]
    tensor([[12., 10.]])
    """
    check_shape("x", x, ("B", "N", "D"))
    if index.dim() < 2 or len(index) != len(x):
        raise ValueError(f"index must have shape ({len(x)}, ...) like x, got {tuple(index.shape)}.")
    rows = _flat(index, x.shape[1])
    return x.flatten(0, 1).index_select(0, rows).view(*index.shape, x.shape[2])  # (B, ..., D)


def put(x: Tensor, index: Tensor, num_tokens: int, *, fill: Tensor | None = None) -> Tensor:
    """The inverse of `take`: out[b, index[b, k]] = x[b, k], every other token is `fill` (zero by default).

    x        (B, K, D)
    index    (B, K) int64, no token twice in a row
    fill     anything that broadcasts to (B, num_tokens, D), such as a mask token (D,); it receives gradients too
    returns  (B, num_tokens, D)

    >>> put(torch.tensor([[[5.0], [7.0]]]), torch.tensor([[2, 0]]), 4)[..., 0]
    tensor([[7., 0., 5., 0.]])
    """
    check_shape("x", x, ("B", "K", "D"))
    check_shape("index", index, x.shape[:2])
    whole = (x.shape[0], num_tokens, x.shape[2])
    base = x.new_zeros(whole) if fill is None else fill.to(x.dtype).expand(whole)
    rows = _flat(index, num_tokens)
    return base.flatten(0, 1).index_copy(0, rows, x.flatten(0, 1)).view(whole)


def patchify(images: Tensor, patch: int) -> Tensor:
    """Pictures cut into square patches, in raster order.

    images   (B, C, H, W), H and W multiples of `patch`
    returns  (B, N, P): N = (H / patch) * (W / patch), P = patch * patch * C ordered row, column, channel

    >>> patchify(torch.arange(8.0).view(1, 1, 2, 4), 2)
    tensor([[[0., 1., 4., 5.],
             [2., 3., 6., 7.]]])
    """
    check_shape("images", images, ("B", "C", "H", "W"))
    b, c, height, width = images.shape
    if patch < 1 or height % patch or width % patch:
        raise ValueError(
            f"image sides must be multiples of patch {patch}, got {height} x {width}. Resize or pad first."
        )
    cells = images.view(b, c, height // patch, patch, width // patch, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch * patch * c)  # (B, N, P)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: (B, N, P) with `grid` = (rows, columns) -> (B, C, H, W).

    >>> x = torch.rand(2, 3, 8, 12)
    >>> torch.equal(unpatchify(patchify(x, 4), 4, (2, 3)), x)
    True
    """
    rows, columns = grid
    check_shape("patches", patches, ("B", rows * columns, "P"))
    if patches.shape[2] % (patch * patch):
        raise ValueError(f"patches must hold a multiple of {patch} * {patch} numbers, got {patches.shape[2]}.")
    cells = patches.view(len(patches), rows, columns, patch, patch, -1)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, rows * patch, columns * patch)  # (B, C, H, W)


def _flat(index: Tensor, num_tokens: int) -> Tensor:
    """Row numbers in the flattened batch, (B * ...,)."""
    start = torch.arange(len(index), device=index.device) * num_tokens
    return (index.flatten(1) + start[:, None]).flatten()
