"""Univariate tests of standard normality, on many directions at once: alternatives to Epps-Pulley in `sigreg`.

Each takes samples z (N, D) and unit vectors (K, D) and returns the statistic of each projection, (K,), over the samples
of all ranks. All grow in proportion to N away from N(0, 1) and have an expectation at N(0, 1) that does not depend on
N: 1/6, 1 and 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from openjepa.core import dist


def cramer_von_mises(z: Tensor, unit: Tensor) -> Tensor:
    """Squared distance of the empirical distribution function to F, the normal one; blind to how far a far sample is.

        1/(12 N) + sum_i ((2i - 1)/(2N) - F(x_(i)))^2,   x_(1) <= ... <= x_(N) the samples of all ranks

    >>> cramer_von_mises(torch.zeros(3, 1), torch.ones(1, 1))  # F is 1/2 everywhere: 1/36 + 2/9
    tensor([0.2500])
    """
    x = _sorted_projections(z, unit)  # (K, N)
    n = x.shape[1]
    middle = (torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) / n
    return (middle - torch.special.ndtr(x)).square().sum(1) + 1 / (12 * n)


def anderson_darling(z: Tensor, unit: Tensor) -> Tensor:
    """The same distance, weighted by 1 / (F (1 - F)): the tails count, with a pull that grows like the distance.

        -N - 1/N sum_i (2i - 1) [log F(x_(i)) + log(1 - F(x_(N+1-i)))]

    The logarithms of tails are computed as such: samples at any distance give finite values and gradients.

    >>> anderson_darling(torch.tensor([[-40.0], [40.0]]), torch.ones(1, 1))
    tensor([802.6085])
    """
    x = _sorted_projections(z, unit)  # (K, N)
    n = x.shape[1]
    odd = 2 * torch.arange(n, device=x.device, dtype=x.dtype) + 1
    terms = torch.special.log_ndtr(x) * odd + torch.special.log_ndtr(-x) * odd.flip(0)
    return -(terms / n + 1).sum(1)  # the + 1 inside: a float32 sum near -N would round away a statistic near 1


def moments(z: Tensor, unit: Tensor) -> Tensor:
    """Mean, variance, skewness and kurtosis, in the form that makes them independent: Neyman's smooth test.

        N/4 sum_{j=1..4} (mean_n H_j(x_n))^2
        H = x, (x^2 - 1)/sqrt 2, (x^3 - 3x)/sqrt 6, (x^4 - 6x^2 + 3)/sqrt 24      E H_i H_j = [i = j] under N(0, 1)

    The gradient of a far sample grows like its seventh power: clip gradients.

    >>> moments(torch.zeros(2, 1), torch.ones(1, 1))  # 2/4 (1/2 + 9/24)
    tensor([0.4375])
    """
    x = z @ unit.t()  # (N, K)
    square = x.square()
    hermite = [
        x.mean(0),
        (square - 1).mean(0) / math.sqrt(2),
        (x * (square - 3)).mean(0) / math.sqrt(6),
        (square * (square - 6) + 3).mean(0) / math.sqrt(24),
    ]
    means = dist.all_mean(torch.stack(hermite))  # (4, K)
    return means.square().mean(0) * (z.shape[0] * dist.world_size())


def _sorted_projections(z: Tensor, unit: Tensor) -> Tensor:
    """Projections of the samples of all ranks, ascending, (K, N)."""
    return (unit @ dist.gather(z).t()).sort(dim=1).values
