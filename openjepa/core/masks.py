"""Which tokens an encoder sees and which are to be predicted: every mask sampler, drawn for a whole batch at once.

All draws come from the clock, on the CPU, keyed by step and by position in the joined batch: two processes draw what
one would have drawn for both their batches, and a resumed run draws what the uninterrupted one would have drawn.
Token (row, column) of an (H, W) grid has index row * W + column. Masks of clips are in `openjepa.core.tubes`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from openjepa.core.blocks import Range, between, cells, context_block, corners, covered, published_size, target_size
from openjepa.core.types import Clock, check_shape

PUBLISHED_MIN_KEEP = 10  # the published sampler wants more cells than this in every block ...
PUBLISHED_PATIENCE = 20  # ... and lets go of one target block after so many tries
ROUNDS = 16  # how often positions that leave too little context are drawn again


class Masks(NamedTuple):
    """`context` (B, K) and `targets` (B, M, Kt): int64 token indices, sorted along the last axis."""

    context: Tensor
    targets: Tensor

    def to(self, device: torch.device | str) -> Masks:
        return Masks(*(index.to(device, non_blocking=True) for index in self))


class Coverage(NamedTuple):
    """Per cell, the share of pictures in which it is context, and in which it is in at least one target; each (N,)."""

    context: Tensor
    target: Tensor


def multiblock(
    grid: tuple[int, int],
    batch: int,
    *,
    clock: Clock,
    num_targets: int = 4,
    target_scale: Range = (0.15, 0.2),
    target_aspect: Range = (0.75, 1.5),
    context_scale: Range = (0.85, 1.0),
    context_keep: int | float | None = None,
    paper_exact: bool = False,
) -> Masks:
    """I-JEPA's masks: a large context block with some target blocks cut out of it.

    Per step one target size (share of the grid ~ U(target_scale), height / width ~ U(target_aspect), independent) and
    one context size (share ~ U(context_scale), of the grid's own shape), so that tensors are rectangular. Per picture,
    every block lies anywhere it fits, first and last row and column included; targets may overlap each other.

    Every picture keeps the same number K of context tokens, whatever the batch: `context_keep` (a count, or a share of
    the grid below 1), by default the lower decile of |context block - targets| over the settings (`context_size`).
    Where a picture has more, a uniformly random subset stays; where it has fewer, the rest comes uniformly from the
    other cells outside the targets. Targets that leave fewer than K cells in all (1 % on 16 x 16) are drawn again, up
    to 16 times; should none of these fit, which takes a `context_keep` near its limit, the picture's targets are laid
    on top of each other.

    returns  context (B, K), targets (B, M, Kt); never a cell in both

    Source   Assran et al., arXiv 2301.08243. `paper_exact=True` gives the distribution of the published code instead:
             scale and aspect from one random number, blocks shorter than the grid's sides and never in its last row or
             column, context square in cells, at least 11 cells per block (after every 20 failed tries one target less
             is cut out of the context), and all contexts cut to the shortest of this process's batch by keeping their
             first tokens in raster order. On 16 x 16 at batch 128 that leaves 26.5 % of the tokens, most of them at
             the top. K then depends on the batch, and a batch split over processes is cut in each of them.

    Raises   `ValueError` for settings that leave no context.

    >>> masks = multiblock((16, 16), 128, clock=Clock(step=3, total=10))
    >>> masks.context.shape, masks.targets.shape[:2]
    (torch.Size([128, 90]), torch.Size([128, 4]))
    """
    _check(grid, batch, num_targets, target_scale, target_aspect, context_scale)
    if paper_exact:
        if context_keep is not None:
            raise ValueError(f"context_keep must be None with paper_exact, got {context_keep}. Leave one of them out.")
        return _published(grid, batch, clock, num_targets, target_scale, target_aspect, context_scale)
    settings = (grid, num_targets, target_scale, target_aspect, context_scale)
    keep = context_size(*settings) if context_keep is None else _keep(context_keep, *settings)

    u = torch.rand(3, generator=clock.generator("masks/size"))
    size = target_size(grid, between(u[0], target_scale), between(u[1], target_aspect))  # (2,)
    block = context_block(grid, between(u[2], context_scale))  # (2,)
    keep = min(keep, grid[0] * grid[1] - int(size.prod()))  # stacked targets must leave room, whatever was rounded up

    corner, hidden = _fitting_targets(grid, batch, clock, num_targets, size, keep)  # (B, M, 2), (B, N)
    place = corners(_room(grid, block), clock.uniform("masks/context", batch, 1, 2))  # (B, 1, 2)
    outside = ~covered(grid, place, block)  # (B, N)
    return Masks(_pick(keep, outside + 2.0 * hidden, clock), cells(grid, corner, size))


def block_mask(
    grid: tuple[int, int],
    batch: int,
    *,
    clock: Clock,
    ratio: float = 0.75,
    blocks: int = 1,
    aspect: Range = (0.75, 1.5),
) -> Masks:
    """`blocks` rectangles that together hide about `ratio` of the grid; the context is everything outside them.

    One size per step (area ratio / blocks of the grid, height / width ~ U(aspect)), positions per picture. Blocks may
    overlap; the context has N - blocks * Kt tokens, what overlap spares is left out at random.

    returns  context (B, N - blocks * Kt), targets (B, blocks, Kt)

    >>> block_mask((14, 14), 2, clock=Clock(), ratio=0.75).context.shape[0]
    2
    """
    share = _ratio(ratio) / blocks if blocks >= 1 else 0.0
    _check(grid, batch, blocks, (share, share), aspect, (1.0, 1.0))
    u = torch.rand((), generator=clock.generator("masks/size"))
    size = target_size(grid, torch.full((), share), between(u, aspect))
    total = grid[0] * grid[1]
    if blocks * int(size.prod()) >= total:  # rounded up to the whole grid: one line less
        size = size - torch.eye(2, dtype=torch.long)[size.argmax()]
    keep = total - blocks * int(size.prod())
    if keep < 1 or int(size.min()) < 1:
        raise ValueError(
            f"blocks must leave context, got {blocks} for a ratio of {ratio} on a grid of {grid[0]} x {grid[1]}. "
            "Take fewer blocks, a lower ratio or a finer grid."
        )
    corner = corners(_room(grid, size), clock.uniform("masks/target/0", batch, blocks, 2))
    return Masks(_pick(keep, covered(grid, corner, size).float(), clock), cells(grid, corner, size))


def random_mask(grid: tuple[int, int], batch: int, *, clock: Clock, ratio: float = 0.75) -> Masks:
    """round(ratio * N) tokens hidden, drawn uniformly for each picture, as one target; the others are the context.

    returns  context (B, N - Kt), targets (B, 1, Kt); together every token once

    >>> masks = random_mask((4, 4), 2, clock=Clock(), ratio=0.75)
    >>> masks.context.shape, masks.targets.shape
    (torch.Size([2, 4]), torch.Size([2, 1, 12]))
    """
    _check_grid(grid, batch)
    total = grid[0] * grid[1]
    hidden = min(max(round(_ratio(ratio) * total), 1), total - 1)
    order = clock.uniform("masks/keep", batch, total).argsort(dim=1)
    context, target = order[:, hidden:], order[:, :hidden]
    return Masks(context.sort(dim=1).values, target.sort(dim=1).values[:, None])


def coverage(masks: Masks, num_tokens: int) -> Coverage:
    """How often each of `num_tokens` cells is context, and how often it is in some target, over the batch.

    >>> coverage(Masks(torch.tensor([[0], [0]]), torch.tensor([[[1]], [[2]]])), 3)
    Coverage(context=tensor([1., 0., 0.]), target=tensor([0.0000, 0.5000, 0.5000]))
    """
    check_shape("context", masks.context, ("B", "K"))
    check_shape("targets", masks.targets, ("B", "M", "Kt"))
    return Coverage(*(_hit(index.flatten(1), num_tokens).float().mean(0) for index in masks))


@lru_cache(maxsize=256)
def context_size(
    grid: tuple[int, int],
    num_targets: int = 4,
    target_scale: Range = (0.15, 0.2),
    target_aspect: Range = (0.75, 1.5),
    context_scale: Range = (0.85, 1.0),
) -> int:
    """How many context tokens `multiblock` keeps by default: nine pictures in ten have at least as many.

    The lower decile of |context block - targets| over 4,096 fixed draws of sizes and positions: a function of the
    settings only. Never so many that the targets of every second picture would have to be drawn again.

    >>> context_size((16, 16))
    90
    """
    left, _ = _calibrate(grid, num_targets, target_scale, target_aspect, context_scale)
    limit = _most(grid, num_targets, target_scale, target_aspect)
    if limit < 1:
        raise ValueError(
            f"targets must leave context, got {num_targets} of scale {target_scale} on {grid[0]} x {grid[1]} cells. "
            "Lower num_targets or target_scale, or take a finer grid."
        )
    return min(max(int(left[len(left) // 10]), 1), limit)


def _keep(keep: int | float, grid: tuple[int, int], num_targets: int, *ranges: Range) -> int:
    """`context_keep` as a count, refused where the targets leave too few cells."""
    count = round(keep * grid[0] * grid[1]) if isinstance(keep, float) and keep < 1 else int(keep)
    limit = _most(grid, num_targets, ranges[0], ranges[1])
    if not 1 <= count <= limit:
        raise ValueError(
            f"context_keep must be from 1 to {limit} of {grid[0] * grid[1]} tokens with {num_targets} targets of scale "
            f"{ranges[0]}, got {keep}. Lower it, num_targets or target_scale."
        )
    return count


def _most(grid: tuple[int, int], num_targets: int, scale: Range, aspect: Range) -> int:
    """The largest K that every second draw of the largest targets allows, and one target alone of any aspect."""
    widest = target_size(grid, torch.tensor(scale[1]), between(torch.linspace(0, 1, 1025), aspect)).prod(-1).max()
    _, outside = _calibrate(grid, num_targets, (scale[1], scale[1]), aspect, (1.0, 1.0))
    return min(int(outside[len(outside) // 2]), grid[0] * grid[1] - int(widest))


@lru_cache(maxsize=256)
def _calibrate(
    grid: tuple[int, int], num_targets: int, target_scale: Range, target_aspect: Range, context_scale: Range
) -> tuple[Tensor, Tensor]:
    """Sorted |context block - targets| and |grid - targets| of 4,096 draws, (S,) each; the seed is fixed."""
    g = torch.Generator().manual_seed(0)
    draws = 4096
    u, v = torch.rand(3, draws, 1, generator=g), torch.rand(draws, num_targets + 1, 2, generator=g)
    size = target_size(grid, between(u[0], target_scale), between(u[1], target_aspect))  # (S, 1, 2)
    block = context_block(grid, between(u[2], context_scale))  # (S, 1, 2)
    free = ~covered(grid, corners(_room(grid, size), v[:, 1:]), size)  # (S, N)
    inside = covered(grid, corners(_room(grid, block), v[:, :1]), block)  # (S, N)
    return (free & inside).sum(1).sort().values, free.sum(1).sort().values


def _fitting_targets(
    grid: tuple[int, int], batch: int, clock: Clock, num: int, size: Tensor, keep: int
) -> tuple[Tensor, Tensor]:
    """Corners (B, M, 2) whose blocks leave at least `keep` cells, and the cells that they hide (B, N)."""
    corner = corners(_room(grid, size), clock.uniform("masks/target/0", batch, num, 2))
    hidden = covered(grid, corner, size)
    for again in range(1, ROUNDS + 1):
        bad = (~hidden).sum(1) < keep  # (B,)
        if not bad.any():
            return corner, hidden
        corner[bad] = corners(_room(grid, size), clock.uniform(f"masks/target/{again}", batch, num, 2)[bad])
        hidden[bad] = covered(grid, corner[bad], size)
    bad = (~hidden).sum(1) < keep
    corner[bad] = corner[bad][:, :1].expand(-1, num, -1)
    hidden[bad] = covered(grid, corner[bad], size)
    return corner, hidden


def _pick(keep: int, order: Tensor, clock: Clock) -> Tensor:
    """`keep` cells per row, sorted, (B, keep): those of the lowest `order` (B, N), uniformly among equals."""
    rank = order + clock.uniform("masks/keep", *order.shape)
    return rank.topk(keep, dim=1, largest=False, sorted=False).indices.sort(dim=1).values


def _published(
    grid: tuple[int, int], batch: int, clock: Clock, num: int, scale: Range, aspect: Range, context_scale: Range
) -> Masks:
    """The published distribution, faults included; see `multiblock`."""
    _check_published(grid, scale, aspect, context_scale)
    u = torch.rand(2, generator=clock.generator("masks/size"), dtype=torch.float64)
    size = published_size(grid, between(u[0], scale), between(u[0], aspect))
    block = published_size(grid, between(u[1], context_scale), torch.ones((), dtype=torch.float64))
    room = torch.tensor(grid) - size  # the last place is never drawn, as published
    corner = corners(room, clock.uniform("masks/target/0", batch, num, 2))  # (B, M, 2)

    context = torch.zeros(batch, grid[0] * grid[1], dtype=torch.bool)
    bad = torch.ones(batch, dtype=torch.bool)
    for tries in range((num + 1) * PUBLISHED_PATIENCE):
        place = corners(torch.tensor(grid) - block, clock.uniform(f"masks/context/{tries}", batch, 1, 2)[bad])
        obeyed = corner[bad, : num - tries // PUBLISHED_PATIENCE]
        context[bad] = covered(grid, place, block) & ~covered(grid, obeyed, size)
        bad = context.sum(1) <= PUBLISHED_MIN_KEEP
        if not bad.any():
            break
    keep = int(context.sum(1).min())
    first = (~context).to(torch.uint8).argsort(dim=1, stable=True)[:, :keep]  # raster order: the cut that leans upwards
    return Masks(first, cells(grid, corner, size))


def _room(grid: tuple[int, int], size: Tensor) -> Tensor:
    """In how many places per side a block fits."""
    return torch.tensor(grid) - size + 1


def _hit(index: Tensor, num_tokens: int) -> Tensor:
    """Which tokens occur in each row: (B, K) -> bool (B, N)."""
    return torch.zeros(len(index), num_tokens, dtype=torch.bool, device=index.device).scatter_(1, index, True)


def _check_grid(grid: tuple[int, int], batch: int) -> None:
    if len(grid) != 2 or min(grid) < 1 or grid[0] * grid[1] < 2:
        raise ValueError(f"grid must be (rows, columns) with at least 2 cells, got {grid}.")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}.")


def _ratio(ratio: float) -> float:
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"ratio must be between 0 and 1, both excluded, got {ratio}. It is the share that is hidden.")
    return ratio


def _check(grid: tuple[int, int], batch: int, num: int, target: Range, aspect: Range, context: Range) -> None:
    _check_grid(grid, batch)
    if num < 1:
        raise ValueError(f"the number of target blocks must be at least 1, got {num}.")
    for name, (low, high) in (("target scale", target), ("context scale", context)):
        if not 0.0 < low <= high <= 1.0:
            raise ValueError(f"{name} must be (low, high) with 0 < low <= high <= 1, got ({low}, {high}).")
    if not (0.0 < aspect[0] <= aspect[1] and math.isfinite(aspect[1])):
        raise ValueError(f"target aspect must be (low, high) with 0 < low <= high, got {aspect}.")


@lru_cache(maxsize=256)
def _check_published(grid: tuple[int, int], scale: Range, aspect: Range, context_scale: Range) -> None:
    """Refuse settings under which the published code would look for a block of 11 cells without end."""
    u = torch.linspace(0, 1, 1025, dtype=torch.float64)
    sizes = {
        "target": published_size(grid, between(u, scale), between(u, aspect)),
        "context": published_size(grid, between(u, context_scale), torch.ones_like(u)),
    }
    for name, size in sizes.items():
        smallest = size[size.prod(-1).argmin()].tolist()
        if smallest[0] * smallest[1] <= PUBLISHED_MIN_KEEP:
            raise ValueError(
                f"paper_exact needs {name} blocks of more than {PUBLISHED_MIN_KEEP} cells, got down to {smallest[0]} x "
                f"{smallest[1]} on {grid[0]} x {grid[1]} cells. Take a finer grid or larger blocks, or leave "
                "paper_exact off."
            )
