"""How a dot moves among the walls of Two Rooms: what stops it, what happens then, and the shortest way round.

The dot is a point. It is free inside the square [low, high]^2, except in the wall, whose faces are at x = left and
x = right and which is open for y in [bottom, top], the door. All of it is in pixels, and every function takes n dots.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Walls(NamedTuple):
    """Where the surfaces are; `left` to `top` are (n,) and differ from world to world."""

    low: float
    high: float
    left: np.ndarray
    right: np.ndarray
    bottom: np.ndarray
    top: np.ndarray


def first_hit(p: np.ndarray, d: np.ndarray, walls: Walls) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first surface that the step from p (n, 2) by d (n, 2) runs into.

    returns  t (n,) in [0, 1], the share of the step done by then, or infinity; axis (n,), 0 where the surface stops x
             and 1 where it stops y; surface (n,), its coordinate along that axis
    """
    (x, y), (dx, dy) = p.T, d.T
    right, down = dx > 0, dy > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        face = np.where(right, walls.left, walls.right)
        t_face = (face - x) / dx
        y_face = y + t_face * dy
        solid = (y_face < walls.bottom) | (y_face > walls.top)
        t_face = np.where(solid & np.where(right, x <= face, x >= face) & (dx != 0), t_face, np.inf)
        edge = np.where(down, walls.top, walls.bottom)
        t_edge = (edge - y) / dy
        x_edge = x + t_edge * dx
        between = (x_edge > walls.left) & (x_edge < walls.right)
        t_edge = np.where(between & np.where(down, y <= edge, y >= edge) & (dy != 0), t_edge, np.inf)
        border_x, border_y = np.where(right, walls.high, walls.low), np.where(down, walls.high, walls.low)
        t_x = np.where(dx != 0, np.maximum((border_x - x) / dx, 0), np.inf)
        t_y = np.where(dy != 0, np.maximum((border_y - y) / dy, 0), np.inf)
    times = np.stack([t_face, t_x, t_edge, t_y])  # (4, n)
    which = times.argmin(0)
    rows = np.arange(len(p))
    t = times[which, rows]
    surface = np.stack([face, border_x, edge, border_y])[which, rows]
    return np.where(t <= 1, t, np.inf), which // 2, surface


def slide(p: np.ndarray, d: np.ndarray, walls: Walls) -> np.ndarray:
    """A surface takes the part of the step that points into it; the rest goes on along it. At most three surfaces."""
    p, d = p.copy(), d.copy()
    todo = np.arange(len(p))
    for _ in range(4):
        some = Walls(walls.low, walls.high, *(w[todo] for w in walls[2:]))
        t, axis, surface = first_hit(p[todo], d[todo], some)
        hit = np.isfinite(t)
        done = todo[~hit]
        p[done] += d[done]
        todo, t, axis, surface = todo[hit], t[hit], axis[hit], surface[hit]
        if not len(todo):
            return p
        p[todo] += t[:, None] * d[todo]
        d[todo] *= (1 - t)[:, None]
        p[todo, axis], d[todo, axis] = surface, 0.0
    return p


def freeze(p: np.ndarray, d: np.ndarray, walls: Walls) -> np.ndarray:
    """A step that would run into a surface is not taken at all."""
    t, _, _ = first_hit(p, d, walls)
    return np.where(np.isfinite(t)[:, None], p, p + d)


def bounce(p: np.ndarray, d: np.ndarray, walls: Walls, noise: np.ndarray, clearance: float) -> np.ndarray:
    """Where a step runs into a surface the dot is put there, plus noise (n, 2) whose part across it points back.

    On walls and borders the result is then kept within the room it came from, `clearance` away from its walls where it
    would touch them; at the edges of the door it is not.
    """
    t, axis, surface = first_hit(p, d, walls)
    hit = np.isfinite(t)
    rows = np.arange(len(p))
    at = p + np.where(hit, t, 0)[:, None] * d
    at[rows, axis] = surface
    kick = noise.copy()
    kick[rows, axis] = -np.sign(d[rows, axis]) * np.abs(noise[rows, axis])
    end = at + kick
    middle = (walls.left + walls.right) / 2
    west = p[:, 0] < middle
    lower = np.stack([np.where(west, walls.low, walls.right), np.full(len(p), walls.low)], -1)
    upper = np.stack([np.where(west, walls.left, walls.high), np.full(len(p), walls.high)], -1)
    kept = np.where(end <= lower, lower + clearance, np.where(end >= upper, upper - clearance, end))
    at_door = (axis == 1) & (surface != walls.low) & (surface != walls.high)
    return np.where(hit[:, None], np.where(at_door[:, None], end, kept), p + d)


def hashed_normal(rows: np.ndarray, seed: int) -> np.ndarray:
    """Two normal numbers per row that are a function of its bits: noise, and yet equal rows get equal noise."""
    bits = np.ascontiguousarray(rows + 0.0, np.float64).view(np.uint64)  # + 0.0 makes -0.0 and 0.0 one number
    h = np.full(len(rows), seed, np.uint64)
    draws = []
    for column in [*bits.T, np.uint64(1), np.uint64(2)]:
        h = (h ^ column) + np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h = h ^ (h >> np.uint64(31))
        draws.append(h)
    u, v = (((w >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53 for w in draws[-2:])
    radius = np.sqrt(-2 * np.log(u))
    return radius[:, None] * np.stack([np.cos(2 * np.pi * v), np.sin(2 * np.pi * v)], -1)


def shortest(a: np.ndarray, b: np.ndarray, walls: Walls) -> np.ndarray:
    """Length of the shortest free way from a (n, 2) to b (n, 2), straight or taut round the corners of the door.

    The door is a short corridor with a mouth on either side. A shortest way goes straight, or over one corner, or over
    one corner of each mouth; those that would leave the corridor do not count.
    """
    swap = (a[:, 0] > b[:, 0])[:, None]
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    enters = (a[:, 0] < walls.left) & (b[:, 0] > walls.left)  # passes the left mouth, and the right one
    leaves = (a[:, 0] < walls.right) & (b[:, 0] > walls.right)

    def fits(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Whether the straight line from u to v (u left of v) passes both mouths it has to pass."""
        ok = np.ones(len(u), bool)
        for mouth, needed in ((walls.left, enters), (walls.right, leaves)):
            inside = (u[:, 0] < mouth) & (v[:, 0] > mouth) & needed
            share = (mouth - u[:, 0]) / np.where(inside, v[:, 0] - u[:, 0], 1)
            y = u[:, 1] + share * (v[:, 1] - u[:, 1])
            ok &= ~inside | ((y >= walls.bottom - 1e-9) & (y <= walls.top + 1e-9))
        return ok

    def length(*points: np.ndarray) -> np.ndarray:
        return np.asarray(sum(np.linalg.norm(v - u, axis=-1) for u, v in pairwise(points)))

    best = np.where(fits(a, b), length(a, b), np.inf)
    mouths = [[np.stack([x, y], -1) for y in (walls.bottom, walls.top)] for x in (walls.left, walls.right)]
    for corners, needed in zip(mouths, (enters, leaves), strict=True):
        for c in corners:
            best = np.where(needed & fits(a, c) & fits(c, b), np.minimum(best, length(a, c, b)), best)
    for c in mouths[0]:
        for e in mouths[1]:
            best = np.where(enters & leaves, np.minimum(best, length(a, c, e, b)), best)
    return best
