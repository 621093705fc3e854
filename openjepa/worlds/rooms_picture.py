"""Pictures of Two Rooms, fast: a Gaussian dot as an outer product on its small window, walls from a table."""

from __future__ import annotations

import numpy as np


def cover(low: np.ndarray, high: np.ndarray, size: int) -> np.ndarray:
    """How much of each of `size` pixels lies in [low, high]; pixel p reaches from p - 1/2 to p + 1/2. (n, size).

    >>> cover(np.array([0.5]), np.array([2.0]), 4).tolist()
    [[0.0, 1.0, 0.5, 0.0]]
    """
    p = np.arange(size)
    return np.clip(np.minimum(high[:, None], p + 0.5) - np.maximum(low[:, None], p - 0.5), 0, 1)


def walls(wall_x: np.ndarray, door_y: np.ndarray, half: float, door: float, border: float, unit: float, size: int) -> (
    np.ndarray
):  # fmt: skip
    """The wall with its door, and the border lines, as shares of each pixel: (n, size, size).

    half, door  half the width of the wall and of the door, between centres of pixels; a line is one `unit` thick, so
                drawn edges are half a unit further out. With whole numbers and unit = 1 every share is 0 or 1.
    """
    column = cover(wall_x - half - unit / 2, wall_x + half + unit / 2, size)
    opening = cover(door_y - door - unit / 2, door_y + door + unit / 2, size)
    picture = column[:, None, :] * (1 - opening[:, :, None])
    ends = np.array([border, size - 1 - border])
    line = cover(ends - unit / 2, ends + unit / 2, size).max(0)
    return np.maximum(picture, np.maximum(line[:, None], line[None, :]))


def add_dots(picture: np.ndarray, xy: np.ndarray, std: float) -> None:
    """255 exp(-r^2 / (2 std^2)), cut to whole numbers, written into (n, size, size); pixel p has its centre at p.

    Only the window in which that is 1 or more is touched.
    """
    n, size = picture.shape[:2]
    side = min(size, 2 * int(np.ceil(std * np.sqrt(2 * np.log(255)))) + 1)
    corner = np.clip(np.rint(xy) - side // 2, 0, size - side).astype(np.intp)  # (n, 2)
    place = corner[:, :, None] + np.arange(side)  # (n, 2, side)
    bell = np.exp(np.square((place - xy[:, :, None]) / std) / -2)
    window = 255 * bell[:, 1, :, None] * bell[:, 0, None, :] + 1e-9  # (n, y, x); the product may fall short by an ulp
    picture[np.arange(n)[:, None, None], place[:, 1, :, None], place[:, 0, None, :]] = window.astype(np.uint8)
