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

    train, test   tokens (B, t N, D) of clips, time first; or (B, D), one vector for a clip, with `times=1`
    targets       (B, T, K) per frame; T a multiple of t: a step of several frames is asked for their mean
    pooling       "mean" over the tokens of a step, or "flatten": behind one another
    names         of the K variables

    One linear map serves all time steps, and knows nothing of their number. With `times=1`, for features of the whole
    clip, the variables of all its frames are asked for at once, each by a map of its own. The penalty is chosen on the
    training clips (leave-one-out); at most 4,096 rows are fitted where there are more features than that, evenly drawn.
    Intervals draw whole clips, since frames of one clip are not independent.

    >>> z = torch.randn(60, 8, 4); where = z[..., :2].repeat_interleave(2, 1)  # 8 steps of two frames
    >>> found = trajectory(z[:40], where[:40], z[40:], where[40:], times=8, names=("x", "y"))
    >>> [round(v, 3) for v in found.r2]
    [1.0, 1.0]
    """
    a, b = (pooled_frames(z.float(), times, how=pooling) for z in (train, test))  # (B, t, F)
    if not (bool(a.isfinite().all()) and bool(b.isfinite().all())):
        raise ValueError("features must be finite, got nan or inf. The run has diverged: probe an earlier checkpoint.")
    steps_asked = train_targets.shape[1] if times == 1 else times
    y, want = (_per_step(targets, steps_asked) for targets in (train_targets, test_targets))  # (B, t, K)
    if len(a) != len(y) or len(b) != len(want):
        raise ValueError(f"targets must be one per clip, got {len(y)} and {len(want)} for {len(a)} and {len(b)}.")
    names = tuple(names or (str(i) for i in range(y.shape[-1])))
    if len(names) != y.shape[-1] or want.shape[-1] != y.shape[-1]:
        raise ValueError(f"names must be as many as the {y.shape[-1]} variables, got {len(names)}.")
    rows, labels = a.flatten(0, 1), (y.flatten(1) if times == 1 else y.flatten(0, 1))
    if rows.shape[1] > MOST and len(rows) > MOST:
        kept = torch.linspace(0, len(rows) - 1, MOST).round().long()
        rows, labels = rows[kept], labels[kept]
    scale = labels.std(0).clamp_min(1e-12)
    found = ridge(rows, labels / scale)
    error = (found(b.flatten(0, 1)) * scale).view(want.shape).double() - want.double()  # (B, t, K)
    draws = torch.randint(len(b), (resamples, len(b)), generator=torch.Generator().manual_seed(seed))
    ends = torch.quantile(_drawn(error, want.double(), draws), torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    steps = [tuple(r2(error[:, i], want[:, i].double()).tolist()) for i in range(steps_asked)]
    settings = {
        "l2": found.l2, "trained_on": len(rows), "features": rows.shape[1], "pooling": pooling, "times": times,
        "interval": "test clips",
    }  # fmt: skip
    return TrajectoryResult(
        names, tuple(r2(error.flatten(0, 1), want.double().flatten(0, 1)).tolist()),
        tuple(Interval(*pair) for pair in ends.T.tolist()), tuple(steps), len(b), settings,
    )  # fmt: skip


def motion(factors: Mapping[str, Any]) -> tuple[tuple[str, ...], Tensor]:
    """Names and values (n, T, K) of what moves in drawn clips: "position" and "velocity", each (n, T, objects, 2).

    Of several objects: their mean, which does not depend on which is which, and the first one's own, where the first is
    the one whose identity ("digit" or "shape") is lower. To know the first one's place, features must hold what is
    where; the mean can be had from brightness alone. Clips of two equal objects have no first: its values are nan.

    >>> import numpy as np
    >>> known = {"position": np.zeros((3, 5, 2, 2)), "velocity": np.ones((3, 5, 2, 2))}
    >>> known["digit"] = np.array([[[1, 7]] * 5] * 3)
    >>> names, values = motion(known)
    >>> names[:4], values.shape
    (('x', 'y', 'vx', 'vy'), torch.Size([3, 5, 8]))
    """
    found = [torch.tensor(factors[name]).float() for name in ("position", "velocity")]  # (n, T, objects, 2)
    mean = torch.cat([x.mean(2) for x in found], -1)
    names = ("x", "y", "vx", "vy")
    identity = factors.get("digit", factors.get("shape"))
    if found[0].shape[2] == 1 or identity is None:
        return names, mean
    who = torch.tensor(identity)  # (n, T, objects)
    order = who.argsort(dim=-1, stable=True)[..., :1, None].expand(-1, -1, -1, 2)
    first = torch.cat([x.gather(2, order)[:, :, 0] for x in found], -1)
    low = who.sort(-1).values
    first = torch.where((low[..., 0] == low[..., 1])[..., None], torch.nan, first)
    return (*names, *(f"{name} of the first" for name in names)), torch.cat([mean, first], -1)


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
