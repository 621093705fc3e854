"""Stretches of held-out episodes, and numbers over them whose intervals span episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

RESAMPLES = 1000
BEYOND = 1e30  # an error that has no bound


class Places(NamedTuple):
    """Where R stretches lie in frames that stand end to end."""

    frames: Tensor  # (R, H + 2) rows: the step before the start, the start, then 1 .. H steps after it
    valid: Tensor  # (R, H) whether that step still lies in the episode; rows beyond its end repeat its last frame
    episode: Tensor  # (R,) which episode


class Stretches(NamedTuple):
    """R stretches of held-out episodes, with what the model saw in them, encoded once."""

    z: Tensor  # (F, D) or (F, N, D) of every frame
    state: Tensor  # (F, P) in the variables' own units, float64; P = 0 where unknown
    owner: Tensor  # (F,) which episode a frame is of
    at: Places
    action: Tensor  # (R, H, A) as the model takes them

    @property
    def start(self) -> Tensor:
        """(R, ...)"""
        return self.z[self.at.frames[:, 1]]


def places(lengths: Sequence[int], *, steps: int = 100, skip: int = 1, starts: int = 4) -> Places:
    """Up to `starts` stretches of each episode, begun at even distances, of `steps` steps of `skip` frames or as many
    as half of the episodes can give.

    lengths  frames of each episode; one that is too short for a step before and one after a start is left out

    >>> found = places([10, 10], steps=100, starts=2)
    >>> found.frames.shape, found.frames[0].tolist()
    (torch.Size([4, 10]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    >>> found.frames[1].tolist(), int(found.valid[1].sum())
    ([3, 4, 5, 6, 7, 8, 9, 9, 9, 9], 5)
    """
    reach = [(n - 1 - skip) // skip for n in lengths]
    fits = sorted((r for r in reach if r > 0), reverse=True)
    if not fits:
        raise ValueError(f"episodes must have {2 * skip + 1} frames, got at most {max(lengths, default=0)}.")
    steps = min(steps, fits[(len(fits) - 1) // 2])
    offset, rows = 0, []  # rows of (episode, start, first frame and last frame of the episode)
    for e, n in enumerate(lengths):
        room = n - 1 - 2 * skip  # from the first possible start to the last
        if room >= 0:
            rows += [
                (e, offset + skip + s, offset + n - 1) for s in sorted({room * i // starts for i in range(starts)})
            ]
        offset += n
    table = torch.tensor(rows)  # (R, 3)
    frames = table[:, 1:2] + skip * torch.arange(-1, steps + 1)
    last = table[:, 2:]
    return Places(torch.minimum(frames, last), frames[:, 2:] <= last, table[:, 0])


def others(episode: Tensor, seed: int) -> Tensor | None:
    """For each stretch another one of another episode, (R,); None where there is no such pairing.

    >>> others(torch.tensor([0, 0, 1, 1]), seed=0).tolist()
    [2, 3, 0, 1]
    >>> others(torch.tensor([0, 0, 0, 1]), seed=0) is None
    True
    """
    g = torch.Generator().manual_seed(seed)
    place = torch.randperm(int(episode.max()) + 1, generator=g)[episode]
    order = place.argsort(stable=True)  # stretches of an episode stand together
    most = int(episode.bincount().max())
    if 2 * most > len(episode):
        return None
    partner = torch.empty_like(order)
    partner[order] = order.roll(-most)
    return partner


class Resampled:
    """Sums over the rows of each episode, and the same sums over episodes drawn again and again (with replacement).

    Rows of one episode are alike, so an interval over rows would be too narrow: whole episodes are drawn.
    """

    def __init__(self, episode: Tensor, *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        known, self.group = episode.unique(return_inverse=True)
        self.episodes = len(known)
        g = torch.Generator().manual_seed(seed)
        drawn = torch.randint(self.episodes, (resamples, self.episodes), generator=g)
        weight = torch.zeros(resamples, self.episodes, dtype=torch.float64)
        self.weight = weight.scatter_add_(1, drawn, torch.ones_like(weight))  # (resamples, E)

    def sums(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(R, ...) -> the sum over all rows (...), and that of every draw (resamples, ...)."""
        each = torch.zeros((self.episodes, *rows.shape[1:]), dtype=torch.float64)
        each.index_add_(0, self.group, rows.double())
        return each.sum(0), (self.weight @ each.flatten(1)).unflatten(1, each.shape[1:])


def rms(squares: Tensor, valid: Tensor, draws: Resampled) -> dict[str, Any]:
    """Root mean square over the valid rows at each step, with its interval: lists of H numbers."""
    total, drawn = draws.sums(torch.where(valid, squares, 0.0))
    count, counts = draws.sums(valid)
    return with_ends((total / count).sqrt(), (drawn / counts).sqrt())


def ratio(above: Tensor, below: Tensor, valid: Tensor, draws: Resampled) -> dict[str, Any]:
    """How many times larger the root mean square of one is than that of another, on the same rows and draws."""
    (a, drawn_a), (b, drawn_b) = (draws.sums(torch.where(valid, x, 0.0)) for x in (above, below))
    return with_ends((a / b).sqrt(), (drawn_a / drawn_b).sqrt())


def median(values: Tensor, valid: Tensor, draws: Resampled) -> dict[str, Any]:
    """Median over the valid rows at each step, with its interval: for errors of which single ones have no bound.

    The lower median, so that it is one of the values; what is no number, or beyond 1e30, counts as 1e30.

    >>> rows = torch.tensor([[3.0], [1.0], [torch.nan]])
    >>> median(rows, torch.ones(3, 1, dtype=torch.bool), Resampled(torch.arange(3)))["value"]
    [3.0]
    """
    value, drawn = [], []
    for column, inside in zip(values.double().nan_to_num(nan=BEYOND).clamp(-BEYOND, BEYOND).T, valid.T, strict=True):
        rows = inside.nonzero()[:, 0]
        order = rows[column[rows].argsort()]
        weight = draws.weight[:, draws.group[order]].cumsum(1)  # (resamples, R)
        at = torch.searchsorted(weight, weight[:, -1:] / 2).clamp_max(len(order) - 1)[:, 0]
        value.append(column[order[(len(order) - 1) // 2]])
        drawn.append(column[order[at]])
    return with_ends(torch.stack(value), torch.stack(drawn, 1))


def with_ends(value: Tensor, drawn: Tensor) -> dict[str, Any]:
    """95 % percentile interval (Efron 1979) over the first axis of `drawn`."""
    low, high = torch.nanquantile(drawn, torch.tensor([0.025, 0.975], dtype=drawn.dtype), dim=0)
    return {"value": value.tolist(), "low": low.tolist(), "high": high.tolist()}
