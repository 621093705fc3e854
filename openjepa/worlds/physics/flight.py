"""Motion along one axis between two walls, in closed form: what balls in a box are made of."""

from __future__ import annotations

import numpy as np


def reflect(x: np.ndarray, v: np.ndarray, low: float, high: float, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Free flight with elastic walls: unfold the walls into a straight line, fold it back. Any number of bounces.

    >>> x, v = reflect(np.array([0.9]), np.array([1.0]), 0.0, 1.0, 0.3)
    >>> round(float(x[0]), 12), float(v[0])
    (0.8, -1.0)
    """
    width = high - low
    u = np.mod(x - low + v * dt, 2 * width)
    back = u > width
    return low + np.where(back, 2 * width - u, u), np.where(back, -v, v)


def fall(y: np.ndarray, v: np.ndarray, low: float, high: float, g: float, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Flight under gravity g > 0 (towards `low`) with elastic floor and ceiling.

    The motion is periodic. It is written by its phase, the time since the last rise from the floor:

        s = speed at the floor, c = speed at the ceiling (0 where it is not reached), tau = (s - c) / g
        phase in [0, tau):       rising,  y = s phase - g phase^2 / 2
        phase in [tau, 2 tau):   falling, the same arc backwards

    so the energy v^2 / 2 + g y is kept to rounding, over any number of bounces.
    """
    h, top = y - low, high - low
    s = np.sqrt(np.maximum(v * v + 2 * g * h, 0))
    c = np.sqrt(np.maximum(s * s - 2 * g * top, 0))
    tau = (s - c) / g
    rising = (s - v) / g  # for v < 0 without a ceiling this is already the time since the floor
    phase = np.where(v >= 0, rising, tau + (-v - c) / g)
    turn = np.maximum(2 * tau, 1e-300)
    phase = np.where(tau > 0, np.mod(phase + dt, turn), 0)
    up = phase < tau
    since = np.where(up, phase, 2 * tau - phase)  # the falling half mirrors the rising one
    speed = s - g * since
    height = np.clip(since * (s + speed) / 2, 0, top)
    return low + height, np.where(up, speed, -speed)


def push(
    x: np.ndarray, v: np.ndarray, a: np.ndarray, low: float, high: float, dt: float
) -> tuple[np.ndarray, np.ndarray]:
    """Constant acceleration `a` with walls that stop: a wall takes the speed into it, and nothing else.

    At most two walls are met: one at the present speed, and the opposite one after leaving the first from rest.
    """
    left = np.broadcast_to(np.float64(dt), x.shape)
    for _ in range(3):
        hit, wall = _first_wall(x, v, a, low, high)
        t = np.minimum(hit, left)
        blocked = hit < left
        x, v = x + v * t + a * t * t / 2, v + a * t
        x, v = np.where(blocked, wall, x), np.where(blocked, 0.0, v)
        left = left - t
    return np.clip(x, low, high), v


def _first_wall(x: np.ndarray, v: np.ndarray, a: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Time until a wall is met at a speed or pressed on, and which wall; infinity when none is."""
    times = []
    for wall, out in ((low, -1.0), (high, 1.0)):
        gap = np.maximum(out * (wall - x), 0)  # distance to the wall; s and b point at it
        s, b = out * v, out * a
        root = np.sqrt(np.maximum(s * s + 2 * b * gap, 0))
        meets = (s * s + 2 * b * gap >= 0) & ((s > 0) | (b > 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(s >= 0, 2 * gap / (s + root), (root - s) / b)  # neither form subtracts equal numbers
        t = np.where((gap == 0) & (s >= 0), 0.0, t)
        times.append(np.where(meets, t, np.inf))
    first = np.minimum(*times)
    return first, np.where(times[0] <= times[1], low, high)
