"""How sure a share is: Wilson's interval, for probes and for plans alike."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """Both ends of an interval."""

    low: float
    high: float


def wilson(correct: int, n: int, *, level: float = 0.95) -> Interval:
    """Interval of a share that was `correct` times out of `n`: what another sample of the same kind would give.

        (p + q^2 / 2n -+ q sqrt(p (1 - p) / n + q^2 / 4n^2)) / (1 + q^2 / n),  q the normal quantile

    It stays inside [0, 1] and has a width even at 0 or 1. It says nothing about another training run.
    Source: Wilson 1927, without continuity correction.

    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]
    """
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"correct must be between 0 and n >= 1, got {correct} of {n}.")
    q, p = NormalDist().inv_cdf((1 + level) / 2), correct / n
    centre = (p + q * q / (2 * n)) / (1 + q * q / n)
    half = q * math.sqrt(p * (1 - p) / n + q * q / (4 * n * n)) / (1 + q * q / n)
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    return Interval(low, 1.0 if correct == n else min(1.0, centre + half))
