"""Multinomial logistic regression on fixed features: the same optimum as any solver, in few passes.

The features are rotated onto their principal axes once, and the weights are scaled per axis so that the curvature is
about the same everywhere. L-BFGS then needs tens of steps where it would need hundreds; nothing is approximated.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Scaling = Literal["standardised", "raw"]
WIDEST = 4096  # beyond min(N, D) = this the principal axes cost more than they save
DEAD = 1e-6  # a feature that varies less than this share of its mean is rounding noise, not a feature


class Axes(NamedTuple):
    """Centring, scaling and rotation learned from training features: `apply` gives (N, R) on principal axes."""

    mean: Tensor  # (D,)
    scale: Tensor  # (D,) multiplied after centring; 0 for features that do not vary
    rotation: Tensor | None  # (D, R); None: left as they are
    variance: Tensor  # (R,) of the training features along the axes
    spread: float  # mean standard deviation of the features as they came

    def apply(self, z: Tensor) -> Tensor:
        x = (z - self.mean) * self.scale
        return x if self.rotation is None else x @ self.rotation


class Readout(NamedTuple):
    """logits = axes.apply(z) @ weight.T + bias"""

    weight: Tensor  # (C, R)
    bias: Tensor  # (C,)
    steps: int  # evaluations of the loss


def axes_of(z: Tensor, scaling: Scaling) -> Axes:
    """What is done to features (N, D) before the fit.

    "standardised"  each feature is centred and divided by its own standard deviation
    "raw"           centred, and all divided by one number (the root mean variance): directions that hardly vary stay
                    small, so the penalty keeps the readout from living on them
    """
    mean = z.mean(0)
    std = z.std(0, unbiased=False)
    alive = std > DEAD * mean.abs()
    level = std.square().mean().sqrt()
    divisor = std if scaling == "standardised" else level.expand_as(std)
    scale = torch.where(alive & (divisor > 0), 1 / divisor.clamp_min(1e-30), 0.0)
    spread = float(std.mean())
    x = (z - mean) * scale
    n, d = x.shape
    if min(n, d) > WIDEST:
        return Axes(mean, scale, None, x.square().mean(0), spread)
    if d <= n:
        variance, rotation = torch.linalg.eigh(x.T @ x / n)  # ascending
        return Axes(mean, scale, rotation, variance.clamp_min(0), spread)
    # Fewer pictures than features: the optimum lies in the span of the pictures, so their inner products suffice.
    variance, vectors = torch.linalg.eigh((x.double() @ x.T.double()) / n)
    kept = variance > 1e-10 * variance[-1].clamp_min(1e-30)
    variance, vectors = variance[kept], vectors[:, kept]
    rotation = (x.T.double() @ vectors) / (variance * n).sqrt()  # (D, R), orthonormal columns
    return Axes(mean, scale, rotation.float(), variance.float(), spread)


def fit(
    x: Tensor,
    labels: Tensor,
    variance: Tensor,
    *,
    classes: int,
    l2: float,
    start: Readout | None = None,
    max_steps: int = 300,
) -> Readout:
    """The readout that minimises, over (C, R) weights W and biases b that are not penalised,

        mean cross-entropy(x W^T + b, labels) + l2 / 2 |W|^2

    x (N, R) and `variance` (R,) come from `Axes`; `start` is a readout to begin with. `l2` is 1 / (C N) of a solver
    that sums the loss and takes an inverse strength C. Full-batch L-BFGS with strong Wolfe line search, float32.

    >>> z = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
    >>> axes = axes_of(z, "raw"); x = axes.apply(z)
    >>> found = fit(x, torch.tensor([0, 0, 1, 1]), axes.variance, classes=2, l2=0.01)
    >>> predict(x, found)
    tensor([0, 0, 1, 1])
    """
    # With weights W = p A, the curvature along every axis of A is near p^2 (variance / C + l2): made equal by this p.
    p = (variance + classes * l2 + 1e-7 * variance.max() + 1e-30).rsqrt()  # (R,)
    # Classes first: on a CPU, products of this shape are several times faster than with the few classes last.
    target = F.one_hot(labels, classes).T.to(x.dtype)  # (C, N)
    a = torch.zeros(classes, x.shape[1] + 1, dtype=x.dtype, device=x.device)  # the last column is the bias
    if start is not None:
        a[:, :-1], a[:, -1] = start.weight / p, start.bias
    a.requires_grad_(True)
    solver = torch.optim.LBFGS(
        [a], max_iter=max_steps, max_eval=2 * max_steps, history_size=20, tolerance_grad=1e-6, tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    steps = 0

    @torch.no_grad()
    def loss() -> float:
        nonlocal steps
        steps += 1
        w = p * a[:, :-1]
        logp = F.log_softmax(w @ x.T + a[:, -1:], dim=0)  # (C, N)
        slope = (logp.exp() - target) / len(x)
        a.grad = torch.cat([p * (slope @ x + l2 * w), slope.sum(1, keepdim=True)], dim=1)
        return float(-(logp * target).sum() / len(x) + 0.5 * l2 * w.square().sum())

    solver.step(loss)
    a = a.detach()
    return Readout(p * a[:, :-1], a[:, -1].clone(), steps)


def predict(x: Tensor, readout: Readout) -> Tensor:
    """Classes (N,) of features on axes (N, R)."""
    return (readout.weight @ x.T + readout.bias[:, None]).argmax(0)
