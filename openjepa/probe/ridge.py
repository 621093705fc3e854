"""Ridge regression with its penalty chosen in closed form: one eigenvalue problem, no seed, no step."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from openjepa.probe.logistic import Axes, Scaling, axes_of

GRID = tuple(10.0**e for e in range(-6, 3))


class Ridge(NamedTuple):
    """targets = axes.apply(z) @ weight + mean"""

    axes: Axes
    weight: Tensor  # (R, K)
    mean: Tensor  # (K,)
    l2: float

    def __call__(self, z: Tensor) -> Tensor:
        return self.axes.apply(z) @ self.weight + self.mean


def ridge(z: Tensor, targets: Tensor, *, grid: tuple[float, ...] = GRID, scaling: Scaling = "standardised") -> Ridge:
    """The linear map from features (N, D) to targets (N, K) with the least

        mean |z W + b - targets|^2 + l2 |W|^2

    for the l2 of `grid` with the least leave-one-out error, which is known without leaving any out:
    residual_i / (1 - h_i), with h_i the leverage of picture i. All on the principal axes of z, where W is diagonal
    division. Features are scaled as in `logistic.axes_of`; b is not penalised.

    >>> import torch
    >>> z = torch.linspace(-1, 1, 20)[:, None]
    >>> ridge(z, 3 * z + 1)(torch.tensor([[2.0]]))
    tensor([[7.0000]])
    """
    axes = axes_of(z, scaling)
    x, mean = axes.apply(z), targets.mean(0)
    y = targets - mean
    if axes.rotation is None:
        raise ValueError(f"features must have min(N, D) up to 4096 for a ridge, got {tuple(z.shape)}. Pool them.")
    cross = x.T @ y / len(x)  # (R, K)
    best = (float("inf"), 0.0, cross)
    for l2 in sorted(grid, reverse=True):
        shrink = 1 / (axes.variance + l2)  # (R,)
        weight = cross * shrink[:, None]
        leverage = (x.square() @ shrink + 1) / len(x)  # the 1 is the mean, which is fitted too
        error = float(((y - x @ weight) / (1 - leverage).clamp_min(1e-6)[:, None]).square().mean())
        if error < best[0]:
            best = (error, l2, weight)
    return Ridge(axes, best[2], mean, best[1])


def ridge_classes(train_z: Tensor, labels: Tensor, z: Tensor, *, classes: int) -> Tensor:
    """Classes of `z` (M, D): the largest of `classes` ridge regressions on one-hot labels. Quick and without chance."""
    found = ridge(train_z, F.one_hot(labels, classes).to(train_z.dtype))
    return found(z).argmax(1)
