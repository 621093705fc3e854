"""How sure a number is: 95 % intervals for a share, over test pictures, and over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import torch
from torch import Tensor

from openjepa.core.interval import Interval as Interval  # both are part of this page for those who import it
from openjepa.core.interval import wilson as wilson


def t_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Interval of the mean of what was measured under several seeds or resamples (Student's t).

        mean -+ t_(len - 1) std / sqrt(len)

    One value has no interval: both ends are that value.

    >>> [round(end, 3) for end in t_interval([0.5, 0.6, 0.7])]
    [0.352, 0.848]
    """
    if not values:
        raise ValueError("values must hold at least one number, got none.")
    mean = fmean(values)
    if len(values) == 1:
        return Interval(mean, mean)
    half = t_quantile(level, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean - half, mean + half)


def bootstrap(
    scores: Tensor, *, resamples: int = 2000, seed: int = 0, level: float = 0.95, chunk: int = 2**22
) -> Interval:
    """Interval of the mean of `scores` (N,), one per test picture, by drawing N of them again and again.

    The percentile method (Efron 1979). For the difference of two probes on the same pictures use `paired`.

    >>> low, high = bootstrap(torch.tensor([0.0, 1.0]).repeat(200))
    >>> 0.44 < low < 0.46, 0.54 < high < 0.56
    (True, True)
    """
    scores = scores.detach().double().cpu()
    generator = torch.Generator().manual_seed(seed)
    step = max(1, chunk // len(scores))
    means = [
        scores[torch.randint(len(scores), (min(step, resamples - i), len(scores)), generator=generator)].mean(1)
        for i in range(0, resamples, step)
    ]
    ends = torch.quantile(torch.cat(means), torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return Interval(*ends.tolist())


def paired(a: Tensor, b: Tensor, *, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """Interval of mean(a) - mean(b), both measured on the same N pictures: narrower than two intervals side by side.

    >>> right = torch.arange(400) % 2
    >>> paired(right, right)
    Interval(low=0.0, high=0.0)
    """
    if a.shape != b.shape:
        raise ValueError(f"a and b must be measured on the same pictures, got {len(a)} and {len(b)}.")
    return bootstrap(a.double().cpu() - b.double().cpu(), resamples=resamples, seed=seed, level=level)


def t_quantile(level: float, df: int) -> float:
    """The t with P(|T| <= t) = level for Student's t with `df` degrees of freedom, by bisection.

    >>> round(t_quantile(0.95, 1), 3), round(t_quantile(0.95, 9), 3)
    (12.706, 2.262)
    """
    low, high = 0.0, 1.0
    while _t_inside(high, df) < level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, df) < level else (low, middle)
    return high


def _t_inside(t: float, df: int) -> float:
    """P(|T| <= t) for whole degrees of freedom: a finite sum (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(df))
    square = math.cos(angle) ** 2
    term, total = 1.0, 0.0
    for k in range(1 + df % 2, df, 2):  # 1, 3, ... for even df; 2, 4, ... for odd
        total += term
        term *= k / (k + 1) * square
    if df % 2 == 0:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)
