"""Masks for clips: tubes and boxes over the (t, h, w) grid of tokens, and the future masked from the past.

Token (t, row, column) has index (t * h + row) * w + column. Draws as in `openjepa.core.masks`: keyed by step and by
position in the joined batch.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from openjepa.core.blocks import Range, between, corners, covered, published_size, target_size
from openjepa.core.masks import ROUNDS, Masks
from openjepa.core.types import Clock

Grid3 = tuple[int, int, int]
PUBLISHED_TRIES = 1000  # the published code looks for a clip with any context at all without end
CELLS = 2**25  # of the grids that are looked at together when sizes are calibrated


def tubes(
    grid: Grid3,
    batch: int,
    *,
    clock: Clock,
    blocks: int = 8,
    scale: Range = (0.15, 0.15),
    aspect: Range = (0.75, 1.5),
    time_scale: Range = (1.0, 1.0),
    context_keep: int | float | None = None,
    target_keep: int | float | None = None,
    kind: int = 0,
    paper_exact: bool = False,
) -> Masks:
    """V-JEPA's masks: `blocks` rectangles through time are hidden, what is outside all of them is the context.

    Per step one block size (share of the picture ~ U(scale), height / width ~ U(aspect), share of the clip's length ~
    U(time_scale), all independent). Per clip, every block lies anywhere, and what leaves the grid on one side comes in
    on the other. So every cell in space and time is hidden with the same probability,

        P(hidden) = 1 - (1 - a)^blocks,  a = cells of a block / cells of the grid,

    (before clips are drawn again), the middle and the borders, the first tubelets and the last. With blocks inside the
    grid, a block of 70 % always covers the middle, which then never is context.

    Every clip has the same number K of context tokens and Kt of targets, whatever the batch: `context_keep` and
    `target_keep` (counts, or shares of the grid below 1), by default what the settings leave (`tube_sizes`). Where
    there is more, a uniformly random subset stays; clips with less are drawn again, up to 16 times, and in the one in
    hundreds that still has less, random cells of the other side are taken. None of this looks at where a cell is, so
    coverage stays equal.

    kind     number of this kind of mask, when a step has several: each draws for itself
    returns  context (B, K), targets (B, 1, Kt), sorted; never a cell in both

    Short range as published: 8 blocks of 0.15; long range: 2 of 0.7.

    Source   Bardes et al., arXiv 2404.08471. `paper_exact=True` gives the distribution of the published code instead:
             blocks inside the grid, and all contexts and all targets cut to the shortest of this process's batch by
             keeping their first tokens, time first. On (8, 14, 14) at batch 24 a short-range context falls from 37 % of
             the tokens to 23 %, a long-range one from 19 % to 7 %, and the last tubelets lose nearly all of theirs.

    Raises   `ValueError` for settings that leave no context.

    >>> masks = tubes((8, 14, 14), 4, clock=Clock(step=3))
    >>> masks.context.shape[0], masks.targets.shape[:2]
    (4, torch.Size([4, 1]))
    """
    _check(grid, batch, blocks, scale, aspect, time_scale)
    if paper_exact:
        if context_keep is not None or target_keep is not None:
            raise ValueError("context_keep and target_keep must be None with paper_exact. Leave one of them out.")
        return _published(grid, batch, clock, blocks, scale, aspect, time_scale, kind)
    keep = _asked(context_keep, target_keep, grid, blocks, scale, aspect, time_scale)
    u = torch.rand(3, generator=clock.generator(f"tubes/{kind}/size"))
    size = _size(grid, u, scale, aspect, time_scale)  # (3,)
    hidden = _place(grid, size, clock.uniform(f"tubes/{kind}/0", batch, blocks, 3))  # (B, N)
    for again in range(1, ROUNDS + 1):
        count = hidden.sum(1)
        bad = (count < keep[1]) | (count > hidden.shape[1] - keep[0])  # (B,)
        if not bad.any():
            break
        hidden[bad] = _place(grid, size, clock.uniform(f"tubes/{kind}/{again}", batch, blocks, 3)[bad])

    order = (hidden + clock.uniform(f"tubes/{kind}/keep", *hidden.shape)).argsort(1)
    context, target = order[:, : keep[0]], order[:, order.shape[1] - keep[1] :]
    return Masks(context.sort(1).values, target.sort(1).values[:, None])


@lru_cache(maxsize=256)
def tube_sizes(
    grid: Grid3,
    blocks: int = 8,
    scale: Range = (0.15, 0.15),
    aspect: Range = (0.75, 1.5),
    time_scale: Range = (1.0, 1.0),
) -> tuple[int, int]:
    """How many tokens `tubes` keeps by default, (context, targets): a function of the settings only.

    The median of what lies outside the blocks, and the lower decile of what lies inside, over fixed draws of sizes and
    positions. Of (8, 14, 14) that is 26.5 % and 63 % for short-range masks, 6 % and 79 % for long-range ones: near the
    24 % and 48 %, 7 % and 70 % that the published cut leaves at batch 24.

    >>> tube_sizes((8, 14, 14)), tube_sizes((8, 14, 14), 2, (0.7, 0.7))
    ((416, 992), (96, 1232))
    """
    hidden, total = _calibrate(grid, blocks, scale, aspect, time_scale), math.prod(grid)
    context, target = total - int(hidden[len(hidden) // 2]), int(hidden[len(hidden) // 10])
    if context < 1:
        raise ValueError(
            f"tubes must leave context, got {blocks} blocks of scale {scale} on {grid[1]} x {grid[2]} cells. "
            "Lower blocks or scale, or take a finer grid."
        )
    return context, target


def future(frames: int, grid: tuple[int, int], batch: int, *, horizon: int = 1, past: int | None = None) -> Masks:
    """The first `past` frames are the context, each of the `horizon` frames after them is one target.

    past     frames seen; by default all but the last `horizon`
    returns  over frames * H * W tokens: context (B, past * H * W), targets (B, horizon, H * W). Nothing is drawn.

    >>> masks = future(3, (1, 2), 1)
    >>> masks.context, masks.targets
    (tensor([[0, 1, 2, 3]]), tensor([[[4, 5]]]))
    """
    _check_grid((frames, *grid), batch)
    past = frames - horizon if past is None else past
    if horizon < 1 or past < 1 or past + horizon > frames:
        raise ValueError(
            f"past and horizon must be at least 1 and together at most {frames} frames, got {past} and {horizon}. "
            "Give longer clips or a shorter horizon."
        )
    cells = grid[0] * grid[1]
    index = torch.arange((past + horizon) * cells).expand(batch, -1)
    return Masks(index[:, : past * cells].contiguous(), index[:, past * cells :].unflatten(1, (horizon, cells)))


def repeat(masks: Masks, frames: int, num_tokens: int) -> Masks:
    """The same spatial masks in every frame: context (B, T * K), targets (B, M, T * Kt) over T * num_tokens tokens.

    >>> repeat(Masks(torch.tensor([[0]]), torch.tensor([[[1, 2]]])), 2, 3).targets
    tensor([[[1, 2, 4, 5]]])
    """
    start = torch.arange(frames, device=masks.context.device)[:, None] * num_tokens  # (T, 1)
    return Masks(*((index.unsqueeze(-2) + start).flatten(-2) for index in masks))


def distance(index: Tensor, grid: Grid3) -> Tensor:
    """How far every token of the grid is from the nearest one in `index` (B, K), in cells: (B, N), 0 for those in it.

    Euclidean over (t, row, column), exact: the squared distance is a minimum over one axis after the other.

    >>> distance(torch.tensor([[0]]), (2, 1, 3)).square().round().int()
    tensor([[0, 1, 4, 1, 2, 5]], dtype=torch.int32)
    """
    inside = torch.zeros(len(index), math.prod(grid), dtype=torch.bool, device=index.device).scatter_(1, index, True)
    far = torch.where(inside, 0.0, torch.inf).view(-1, *grid)
    for axis in (3, 2, 1):
        place = torch.arange(far.shape[axis], device=far.device, dtype=torch.float32)
        step = (place[:, None] - place).square()  # (L, L): where it is asked from, where the nearest one is
        far = (far.movedim(axis, -1)[..., None, :] + step).amin(-1).movedim(-1, axis)
    return far.flatten(1).sqrt()


def _size(grid: Grid3, u: Tensor, scale: Range, aspect: Range, time_scale: Range) -> Tensor:
    """The size of a block in cells, (..., 3), from three random numbers (3, ...)."""
    side = target_size(grid[1:], between(u[0], scale), between(u[1], aspect))  # (..., 2)
    length = (between(u[2], time_scale) * grid[0]).round().long().clamp(min=1)
    return torch.cat([length[..., None], side], -1)


def _place(grid: Grid3, size: Tensor, u: Tensor) -> Tensor:
    """The cells that blocks of `size` (..., 3) cover at places drawn by u (B, M, 3), wrapped around: bool (B, N)."""
    t, h, w = (_wrapped(n, size[..., i], u[..., i]) for i, n in enumerate(grid))  # each (B, M, n)
    if bool((size[..., 0] == grid[0]).all()):
        picture = h.transpose(1, 2) @ w > 0  # (B, H, W)
        return picture.flatten(1)[:, None].expand(-1, grid[0], -1).flatten(1)
    lines = (t[..., None] * h[..., None, :]).flatten(2)  # (B, M, T H)
    return (lines.transpose(1, 2) @ w > 0).flatten(1)


def _wrapped(length: int, size: Tensor, u: Tensor) -> Tensor:
    """Which of `length` places each block covers along one axis, 1 or 0, (B, M, length); size () or (B, 1)."""
    start = (u * length).long()  # (B, M)
    return ((torch.arange(length) - start[..., None]) % length < size[..., None]).float()


@lru_cache(maxsize=256)
def _calibrate(grid: Grid3, blocks: int, scale: Range, aspect: Range, time_scale: Range) -> Tensor:
    """How many tokens are hidden in 4,096 draws (1,024 on very large grids), sorted, (S,); the seed is fixed."""
    g, total = torch.Generator().manual_seed(0), math.prod(grid)
    draws = 4096 if total <= 2**14 else 1024
    part = max(1, min(draws, CELLS // (total * 4)))
    counts = []
    for _ in range(0, draws, part):
        size = _size(grid, torch.rand(3, part, 1, generator=g), scale, aspect, time_scale)  # (S, 1, 3)
        counts.append(_place(grid, size, torch.rand(part, blocks, 3, generator=g)).sum(1))
    return torch.cat(counts).sort().values


def _asked(
    context: int | float | None, target: int | float | None, grid: Grid3, blocks: int, scale: Range, *ranges: Range
) -> tuple[int, int]:
    """The numbers of tokens that were asked for; refused where fewer than a tenth of the draws hold as many."""
    hidden, total = _calibrate(grid, blocks, scale, *ranges), math.prod(grid)
    tenth = len(hidden) // 10

    def count(name: str, keep: int | float, limit: int) -> int:
        found = round(keep * total) if isinstance(keep, float) and keep < 1 else int(keep)
        if not 1 <= found <= limit:
            raise ValueError(
                f"{name} must be from 1 to {limit} of {total} tokens with {blocks} blocks of scale {scale}, "
                f"got {keep}. Lower it, or change blocks or scale."
            )
        return found

    k = tube_sizes(grid, blocks, scale, *ranges)[0] if context is None else 0
    k = k if context is None else count("context_keep", context, total - int(hidden[tenth]))
    most = min(int(hidden[-tenth - 1]), total - k)
    kt = int(hidden[tenth]) if target is None else count("target_keep", target, most)
    return k, min(kt, most)


def _published(
    grid: Grid3, batch: int, clock: Clock, blocks: int, scale: Range, aspect: Range, time_scale: Range, kind: int
) -> Masks:
    """The published distribution, its cut included; see `tubes`."""
    u = torch.rand(3, generator=clock.generator(f"tubes/{kind}/size"), dtype=torch.float64)
    side = published_size(grid[1:], between(u[0], scale), between(u[1], aspect), spare=0).clamp(min=1)
    length = int((between(u[2], time_scale) * grid[0]).clamp(min=1))
    room = torch.tensor(grid) - torch.cat([torch.tensor([length]), side]) + 1

    hidden = torch.ones(batch, math.prod(grid), dtype=torch.bool)
    for tries in range(PUBLISHED_TRIES):
        bad = hidden.all(1)
        if not bad.any():
            break
        corner = corners(room, clock.uniform(f"tubes/{kind}/{tries}", batch, blocks, 3)[bad])  # (b, M, 3)
        hidden[bad] = _boxes(grid, corner, length, side)
    else:
        raise ValueError(f"tubes must leave context, got {blocks} blocks of scale {scale}. Lower blocks or scale.")
    keep = int((~hidden).sum(1).min()), int(hidden.sum(1).min())
    order = hidden.to(torch.uint8).argsort(dim=1, stable=True)  # context first, each side in time-major order
    first = order.gather(1, (~hidden).sum(1, keepdim=True) + torch.arange(keep[1]))
    return Masks(order[:, : keep[0]], first[:, None])


def _boxes(grid: Grid3, corner: Tensor, length: int, side: Tensor) -> Tensor:
    """The cells of boxes inside the grid: corner (b, M, 3) -> bool (b, N)."""
    if length == grid[0]:
        return covered(grid[1:], corner[..., 1:], side)[:, None].expand(-1, grid[0], -1).flatten(1)
    cell = [torch.arange(n) - corner[..., i : i + 1] for i, n in enumerate(grid)]
    inside = [((x >= 0) & (x < s)).float() for x, s in zip(cell, (length, *side.tolist()), strict=True)]
    lines = (inside[0][..., None] * inside[1][..., None, :]).flatten(2)  # (b, M, T H)
    return (lines.transpose(1, 2) @ inside[2] > 0).flatten(1)


def _check_grid(grid: Grid3, batch: int) -> None:
    if len(grid) != 3 or min(grid) < 1 or math.prod(grid) < 2:
        raise ValueError(f"grid must be (time, rows, columns) with at least 2 cells, got {grid}.")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}.")


def _check(grid: Grid3, batch: int, blocks: int, scale: Range, aspect: Range, time_scale: Range) -> None:
    _check_grid(grid, batch)
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1, got {blocks}.")
    for name, (low, high) in (("scale", scale), ("time_scale", time_scale)):
        if not 0.0 < low <= high <= 1.0:
            raise ValueError(f"{name} must be (low, high) with 0 < low <= high <= 1, got ({low}, {high}).")
    if not (0.0 < aspect[0] <= aspect[1] and math.isfinite(aspect[1])):
        raise ValueError(f"aspect must be (low, high) with 0 < low <= high, got {aspect}.")
