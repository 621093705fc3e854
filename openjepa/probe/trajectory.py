"""Where things are and how fast they move, read off the features of clips, frame by frame, by a linear map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from openjepa.probe.clips import pooled_frames
from openjepa.probe.intervals import Interval
from openjepa.probe.regress import r2
from openjepa.probe.ridge import ridge

MOST = 4096  # rows or numbers of the ridge: what its eigenvalue problem takes


@dataclass(frozen=True)
class TrajectoryResult:
    """R^2 of each variable over all frames of the test clips, and per time step.

    names      of the K variables
    r2         (K,), 1 is perfect and 0 no better than the mean; `intervals` are 95 %, over test clips (bootstrap)
    steps      (t, K): the same within each time step
    clips      test clips
    """

    names: tuple[str, ...]
    r2: tuple[float, ...]
    intervals: tuple[Interval, ...]
    steps: tuple[tuple[float, ...], ...]
    clips: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict per variable, for a table."""
        found = zip(self.names, self.r2, self.intervals, strict=True)
        return [
            {"name": f"{name} (R2)", "r2": value, "low": low, "high": high, "n": self.clips, "settings": self.settings}
            for name, value, (low, high) in found
        ]


def trajectory(
    train: Tensor,
    train_targets: Tensor,
    test: Tensor,
    test_targets: Tensor,
    *,
    times: int,
    names: Sequence[str] | None = None,
    pooling: str = "mean",
    resamples: int = 1000,
    seed: int = 0,
) -> TrajectoryResult:
    """Ridge regression from the features of a time step to the variables at that time.

        R^2_k = 1 - sum (prediction - target)^2 / sum (target - mean target)^2,   over clips and time steps

    train, test   tokens (B, t N, D) of clips, time first; (B, D), one vector for a clip, counts for every step of it
    targets       (B, T, K) per frame; T a multiple of t: a step of several frames is asked for their mean
    pooling       "mean" over the tokens of a step, or "flatten": behind one another
    names         of the K variables

    Where the features do not lie apart in time, or `times` is 1, all frames of a clip are asked for at once. One linear
    map serves all time steps, and knows nothing of their number. The penalty is chosen on the training clips
    (leave-one-out); at most 4,096 rows are fitted where there are more features than that, evenly drawn. Intervals
    draw whole clips, since frames of one clip are not independent.

    >>> z = torch.randn(60, 8, 4); where = z[..., :2].repeat_interleave(2, 1)  # 8 steps of two frames
    >>> found = trajectory(z[:40], where[:40], z[40:], where[40:], times=8, names=("x", "y"))
    >>> [round(v, 3) for v in found.r2]
    [1.0, 1.0]
    """
    a, b = (pooled_frames(z.float(), times, how=pooling) for z in (train, test))  # (B, t, F)
    if not (bool(a.isfinite().all()) and bool(b.isfinite().all())):
        raise ValueError("features must be finite, got nan or inf. The run has diverged: probe an earlier checkpoint.")
    y, want = (_per_step(targets, times) for targets in (train_targets, test_targets))  # (B, t, K)
    if len(a) != len(y) or len(b) != len(want):
        raise ValueError(f"targets must be one per clip, got {len(y)} and {len(want)} for {len(a)} and {len(b)}.")
    names = tuple(names or (str(i) for i in range(y.shape[-1])))
    if len(names) != y.shape[-1] or want.shape[-1] != y.shape[-1]:
        raise ValueError(f"names must be as many as the {y.shape[-1]} variables, got {len(names)}.")
    rows, labels = a.flatten(0, 1), y.flatten(0, 1)
    if rows.shape[1] > MOST and len(rows) > MOST:
        kept = torch.linspace(0, len(rows) - 1, MOST).round().long()
        rows, labels = rows[kept], labels[kept]
    scale = labels.std(0).clamp_min(1e-12)
    found = ridge(rows, labels / scale)
    error = (found(b.flatten(0, 1)) * scale).unflatten(0, b.shape[:2]).double() - want.double()  # (B, t, K)
    draws = torch.randint(len(b), (resamples, len(b)), generator=torch.Generator().manual_seed(seed))
    ends = torch.quantile(_drawn(error, want.double(), draws), torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    steps = [tuple(r2(error[:, i], want[:, i].double()).tolist()) for i in range(times)]
    settings = {
        "l2": found.l2, "trained_on": len(rows), "features": rows.shape[1], "pooling": pooling, "times": times,
        "interval": "test clips",
    }  # fmt: skip
    return TrajectoryResult(
        names, tuple(r2(error.flatten(0, 1), want.double().flatten(0, 1)).tolist()),
        tuple(Interval(*pair) for pair in ends.T.tolist()), tuple(steps), len(b), settings,
    )  # fmt: skip


def _per_step(targets: Tensor, times: int) -> Tensor:
    """(B, T, K) -> (B, t, K), the mean over the frames of a step."""
    if targets.dim() != 3 or targets.shape[1] % times:
        raise ValueError(f"targets must be (B, T, K), T a multiple of {times} steps, got {tuple(targets.shape)}.")
    return targets.float().unflatten(1, (times, -1)).mean(2)


def _drawn(error: Tensor, targets: Tensor, draws: Tensor) -> Tensor:
    """R^2 (resamples, K) of clips drawn again, from the sums per clip: nothing is computed twice."""
    missed = error.square().sum(1)  # (B, K)
    first, second, count = targets.sum(1), targets.square().sum(1), targets.shape[1]
    n = draws.shape[1] * count
    total = second[draws].sum(1) - first[draws].sum(1).square() / n  # (resamples, K)
    return 1 - (missed[draws].sum(1) + 1e-300) / (total.clamp_min(0) + 1e-300)
