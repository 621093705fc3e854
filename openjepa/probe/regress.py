"""Known factors: how much of a continuous quantity a linear map reads off frozen features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from openjepa.probe.intervals import Interval
from openjepa.probe.ridge import ridge


@dataclass(frozen=True)
class RegressResult:
    """R^2 of each target on the test pictures, with 95 % intervals over test pictures (bootstrap)."""

    names: tuple[str, ...]
    r2: tuple[float, ...]
    intervals: tuple[Interval, ...]
    n: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        found = zip(self.names, self.r2, self.intervals, strict=True)
        targets = [{"name": name, "r2": r2, "low": low, "high": high} for name, r2, (low, high) in found]
        return {"name": "regress", "targets": targets, "n": self.n, "settings": dict(self.settings)}


def regress(
    train_z: Tensor,
    train_targets: Tensor,
    test_z: Tensor,
    test_targets: Tensor,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> RegressResult:
    """What share of the variance of each target a ridge regression on frozen features explains, on new pictures.

        R^2 = 1 - sum (prediction - target)^2 / sum (target - mean target)^2

    z (N, D), targets (N, K) or (N,). 1 is perfect, 0 no better than the mean of the test targets, below 0 worse. An
    angle is not a quantity to regress: give its sine and its cosine as two targets. The penalty is chosen on the
    training pictures (leave-one-out). `seed` draws the bootstrap.

    >>> z = torch.randn(200, 3); found = regress(z[:100], z[:100, :1], z[100:], z[100:, :1], names=["x"])
    >>> found.names, round(found.r2[0], 3)
    (('x',), 1.0)
    """
    a = train_targets.float()[:, None] if train_targets.dim() == 1 else train_targets.float()
    b = test_targets.float()[:, None] if test_targets.dim() == 1 else test_targets.float()
    names = tuple(names or (str(i) for i in range(a.shape[1])))
    if len(names) != a.shape[1] or b.shape[1] != a.shape[1]:
        raise ValueError(
            f"names and targets must be {a.shape[1]} each, got {len(names)} names and {b.shape[1]} targets."
        )
    scale = a.std(0).clamp_min(1e-12)
    found = ridge(train_z.float(), a / scale)
    error = (found(test_z.float()) * scale - b).double().cpu()
    b = b.double().cpu()
    draws = torch.randint(len(b), (resamples, len(b)), generator=torch.Generator().manual_seed(seed))
    drawn = torch.stack([r2(error[rows], b[rows]) for rows in draws])  # (resamples, K)
    ends = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0).T.tolist()
    settings = {"l2": found.l2, "trained_on": len(a), "features": train_z.shape[1], "interval": "test pictures"}
    return RegressResult(names, tuple(r2(error, b).tolist()), tuple(Interval(*e) for e in ends), len(b), settings)


def r2(error: Tensor, targets: Tensor) -> Tensor:
    """(K,); 0 for a target that does not vary and is met, else what the formula gives."""
    total = (targets - targets.mean(0)).square().sum(0)
    return 1 - (error.square().sum(0) + 1e-300) / (total + 1e-300)
