"""Distances that may differ in the two directions, and what makes one of them the length of the shortest way."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def quasimetric(a: Tensor, b: Tensor) -> Tensor:
    """d(a, b) = mean over groups of max over l of max(0, b_l - a_l), for embeddings (..., G, L): (...).

    d(a, a) = 0, d >= 0 and d(a, c) <= d(a, b) + d(b, c), whatever network gave a and b; d(a, b) and d(b, a) may differ.
    With as many features as places, and feature l of a place the distance from it to place l, every such distance on
    finitely many places has this form; a network needs far fewer. Source: the asymmetric part of metric residual
    networks, Liu et al., arXiv 2208.08133.

    >>> import torch
    >>> a, b, c = torch.randn(3, 5, 4, 8)
    >>> bool((quasimetric(a, c) <= quasimetric(a, b) + quasimetric(b, c) + 1e-6).all())
    True
    """
    return (b - a).clamp_min(0).amax(-1).mean(-1)


def overrun(distance: Tensor, limit: float = 1.0) -> Tensor:
    """mean(max(0, d - limit)^2): neighbours in time must not be further apart than the step that was taken."""
    return (distance - limit).clamp_min(0).square().mean()


def nearness(distance: Tensor, offset: float, sharpness: float = 0.1) -> Tensor:
    """mean softplus(offset - d): falls as things are pushed apart, and no longer cares far beyond `offset` steps.

    softplus(x) = log(1 + exp(sharpness x)) / sharpness. With `overrun` held near zero, the distance that minimises this
    is that of the shortest way made of steps that were seen. Source: quasimetric reinforcement learning, Wang et al.,
    arXiv 2304.01203.
    """
    return F.softplus(offset - distance, beta=sharpness).mean()
