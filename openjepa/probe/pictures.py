"""What features look like: tensors in, uint8 pictures out. No files, no plotting library."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CONTEXT = (0.13, 0.55, 0.95)  # frame of what the predictor is given
TARGETS = ((0.95, 0.35, 0.20), (0.98, 0.70, 0.15), (0.30, 0.75, 0.35), (0.75, 0.35, 0.85))  # one colour per block


@torch.no_grad()
def pca_maps(tokens: Tensor, grid: tuple[int, int], *, size: int | None = None) -> Tensor:
    """The three leading principal components of patch tokens, shown as red, green and blue.

    One basis is fitted to the tokens of all pictures together, so a colour means the same thing in every map. Each
    component is scaled by its own 2nd and 98th percentile. The sign of a component, so which end is bright, is
    arbitrary; it is fixed by making the largest entry of each direction positive.

    tokens   (B, N, D), N = rows * columns of `grid`
    size     side of the maps; by default one pixel per token. Enlarged by nearest neighbour: nothing is invented
    returns  (B, 3, H, W) uint8; features that do not vary give even grey

    >>> maps = pca_maps(torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0)), (4, 4), size=8)
    >>> maps.shape, maps.dtype
    (torch.Size([2, 3, 8, 8]), torch.uint8)
    """
    b, n, d = tokens.shape
    rows, columns = grid
    if n != rows * columns:
        raise ValueError(
            f"tokens must have rows * columns = {rows * columns} per picture, got {n}. Drop prefix tokens."
        )
    x = tokens.detach().float().reshape(b * n, d)
    x = x - x.mean(0)
    scale = x.pow(2).mean().sqrt()
    _, axes = torch.linalg.eigh(x.T @ x)  # ascending
    axes = axes[:, -3:].flip(1)  # (D, 3)
    axes = axes * torch.sign(axes.gather(0, axes.abs().argmax(0, keepdim=True)))
    shown = x @ axes  # (B*N, 3)
    shown = F.pad(shown, (0, 3 - shown.shape[1]))
    low, high = torch.quantile(_thin(shown), torch.tensor([0.02, 0.98], device=x.device), dim=0)
    flat = (high - low) <= 1e-6 * scale.clamp_min(1e-12)
    unit = ((shown - low) / (high - low).clamp_min(1e-30)).clamp(0, 1)
    unit = torch.where(flat | (scale < 1e-12), torch.full_like(unit, 0.5), unit)
    maps = unit.reshape(b, rows, columns, 3).permute(0, 3, 1, 2)  # (B, 3, rows, columns)
    return to_uint8(maps if size is None else F.interpolate(maps, (size, size), mode="nearest"))


def _thin(x: Tensor) -> Tensor:
    """At most a million rows: torch.quantile refuses more than sixteen million values."""
    return x[:: max(1, len(x) // 1_000_000)]


@torch.no_grad()
def nearest(z: Tensor, queries: Tensor, *, k: int = 6) -> tuple[Tensor, Tensor]:
    """The k nearest pictures of each query, by cosine after removing the mean feature; a picture is not its own.

    Without removing the mean every pair of pictures looks alike, because features share a large constant part.

    z        (N, D) pooled features
    queries  (Q,) rows of z
    returns  (Q, k) rows of z, nearest first, and their (Q, k) cosines

    >>> z = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, -0.2]])
    >>> nearest(z, torch.tensor([0, 2]), k=1)[0].flatten().tolist()
    [1, 3]
    """
    if not 1 <= k < len(z):
        raise ValueError(f"k must be from 1 to the number of pictures less one ({len(z) - 1}), got {k}.")
    x = z.detach().float()
    x = F.normalize(x - x.mean(0), dim=1)
    similarity = x[queries] @ x.T  # (Q, N)
    similarity.scatter_(1, queries.unsqueeze(1), -torch.inf)
    values, index = similarity.topk(k, dim=1)
    return index, values


def show(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalised pictures back to uint8 RGB, (B, C, H, W) -> (B, 3, H, W).

    >>> show(torch.zeros(1, 1, 2, 2), torch.tensor([0.5]), torch.tensor([0.2]))[0, :, 0, 0]
    tensor([128, 128, 128], dtype=torch.uint8)
    """
    x = images.detach().float() * std.view(1, -1, 1, 1).to(images.device) + mean.view(1, -1, 1, 1).to(images.device)
    return to_uint8(x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x)


def to_uint8(x: Tensor) -> Tensor:
    """[0, 1] floats to uint8, rounded."""
    return (x.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


@torch.no_grad()
def mask_overlay(images: Tensor, context: Tensor, targets: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What the encoder of a masked method is shown, and what it must predict.

    images   (B, 3, H, W) uint8
    context  (B, K) token indices that are kept
    targets  (B, M, Kt) token indices of M blocks
    returns  two (B, 3, H, W) uint8: the context alone (hidden patches fade to grey), and the picture with every target
             block outlined in a colour of its own

    >>> image = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    >>> seen, asked = mask_overlay(image, torch.tensor([[0]]), torch.tensor([[[3]]]), (2, 2))
    >>> seen[0, 0, 0, 0].item(), seen[0, 0, 7, 7].item() < 200, asked[0, :, 4, 4].tolist() != [200, 200, 200]
    (200, True, True)
    """
    b, _, h, w = images.shape
    picture = images.float() / 255
    kept = _patch_mask(context, grid, (h, w)).unsqueeze(1)  # (B, 1, H, W)
    seen = torch.where(kept, picture, 0.5 + 0.08 * (picture - 0.5))
    anywhere = torch.zeros(b, 1, h, w, dtype=torch.bool, device=images.device)
    asked = picture
    for m in range(targets.shape[1]):
        block = _patch_mask(targets[:, m], grid, (h, w)).unsqueeze(1)
        colour = torch.tensor(TARGETS[m % len(TARGETS)], device=images.device).view(1, 3, 1, 1)
        asked = torch.where(block & ~anywhere, 0.72 * asked + 0.28 * colour, asked)
        anywhere |= block
        asked = torch.where(_edge(block, max(1, min(h, w) // 64)), colour, asked)
    asked = torch.where(anywhere | _edge(anywhere, 1), asked, 0.35 * asked + 0.65 * asked.mean(1, keepdim=True))
    return to_uint8(seen), to_uint8(asked)


def _patch_mask(index: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(B, K) token indices -> (B, H, W) true on the pixels of those tokens."""
    flat = torch.zeros(len(index), grid[0] * grid[1], device=index.device)
    flat.scatter_(1, index, 1.0)
    cells = flat.view(-1, 1, *grid)
    return F.interpolate(cells, size, mode="nearest").squeeze(1) > 0.5


def _edge(mask: Tensor, width: int) -> Tensor:
    """Pixels of the mask within `width` of its outside."""
    outside = F.pad((~mask).float(), (width,) * 4, value=1.0)
    return mask & (F.max_pool2d(outside, 2 * width + 1, stride=1) > 0.5)
