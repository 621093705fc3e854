"""Schedules: numbers that change while training, as pure functions of where training stands.

A schedule keeps no state, so a resumed run has the value the uninterrupted one would have had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def linear(start: float, end: float, progress: float) -> float:
    """A straight line from `start` to `end`.

        start + (end - start) * progress

    progress  share of the way, held to [0, 1]
    returns   `start` at 0, exactly `end` at 1

    >>> linear(0.996, 1.0, 0.5)
    0.998
    """
    p = _share(progress)
    return end if p == 1.0 else start + (end - start) * p


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine wave from `start` to `end`: flat at both ends, steepest in the middle.

        end + (start - end) * (1 + cos(pi * progress)) / 2

    progress  share of the way, held to [0, 1]
    returns   `start` at 0, the mean of both at 1/2, exactly `end` at 1

    Source    SGDR, arXiv 1608.03983, eq. 5, without restarts.

    >>> cosine(1.0, 0.0, 0.5)
    0.5
    """
    p = _share(progress)
    return end if p == 1.0 else end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * p))


def hold_then_fall(start: float, end: float, progress: float, cooldown: float) -> float:
    """Hold `start`, then fall in a straight line to `end` over the last `cooldown` share ("warm-up, stable, decay").

        start                                             while progress <= 1 - cooldown
        linear(start, end, (progress - 1 + cooldown) / cooldown)   after that

    progress, cooldown  shares, held to [0, 1]; cooldown 0 never falls before the very end

    Source    MiniCPM, arXiv 2404.06395, section 4, with a linear fall.

    >>> [hold_then_fall(1.0, 0.0, p, cooldown=0.5) for p in (0.0, 0.5, 0.75, 1.0)]
    [1.0, 1.0, 0.5, 0.0]
    """
    p, c = _share(progress), _share(cooldown)
    return start if p <= 1.0 - c else linear(start, end, (p - (1.0 - c)) / c)


def warm_up(step: float, steps: float, start: float = 0.0) -> float:
    """A factor that rises in a straight line from `start` to 1 during the first `steps` steps, and then stays 1.

        start + (1 - start) * step / steps      while step < steps

    step   steps done so far: 0 at the first update
    steps  length of the rise; 0 means none

    >>> [warm_up(s, 4, start=0.5) for s in (0, 2, 4, 9)]
    [0.5, 0.75, 1.0, 1.0]
    """
    return 1.0 if step >= steps else linear(start, 1.0, step / steps)


def stage(step: int, total: int, shares: Sequence[float]) -> tuple[int, int]:
    """First step and end of the stage that `step` (from 0) is in, of a run of `total` steps cut at `shares` of it.

    A stage begins with the first whole step at or after its share, and ends where the next one begins.

    >>> stage(3, 10, []), stage(3, 10, [0.35]), stage(4, 10, [0.35])
    ((0, 10), (0, 4), (4, 10))
    """
    cuts = [0, *(math.ceil(share * total - 1e-9) for share in sorted(shares)), total]
    return next((a, b) for a, b in zip(reversed(cuts[:-1]), reversed(cuts[1:]), strict=True) if a <= step or a == 0)


def _share(x: float) -> float:
    return min(1.0, max(0.0, x))
