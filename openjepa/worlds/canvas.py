"""Drawing n small pictures at once: anti-aliased discs and lines, numpy only.

Coordinates are in pixels: (0, 0) is the corner of the upper left pixel, whose centre is (0.5, 0.5); y points down.
"""

from __future__ import annotations

import numpy as np

WHITE, INK, GREY = (250, 250, 248), (40, 44, 52), (176, 180, 188)
COLOURS = ((214, 69, 65), (38, 103, 176), (46, 139, 87), (219, 142, 37), (126, 87, 172), (23, 143, 160))


def blank(n: int, size: int, colour: tuple[int, int, int] = WHITE) -> np.ndarray:
    """n pictures of one colour, (n, size, size, 3) uint8."""
    return np.broadcast_to(np.array(colour, np.uint8), (n, size, size, 3)).copy()


def disc(canvas: np.ndarray, xy: np.ndarray, radius: float, colour: tuple[int, int, int]) -> None:
    """One disc per picture, painted over what is there. xy (n, 2) centres in pixels; a pixel is covered by
    clip(radius - distance + 1/2, 0, 1)."""
    size = canvas.shape[1]
    side = min(size, int(np.ceil(2 * radius)) + 3)
    corner = np.clip(np.floor(xy - side / 2 + 0.5), 0, size - side).astype(np.intp)  # (n, 2)
    offset = np.arange(side)
    px, py = corner[:, 0, None] + offset, corner[:, 1, None] + offset  # (n, side)
    dx = (px + 0.5 - xy[:, 0, None]).astype(np.float32)[:, None, :]
    dy = (py + 0.5 - xy[:, 1, None]).astype(np.float32)[:, :, None]
    cover = np.clip(radius + 0.5 - np.sqrt(dx * dx + dy * dy), 0, 1)  # (n, side, side)
    _blend(canvas, np.arange(len(xy))[:, None, None], py[:, :, None], px[:, None, :], cover, colour)


def line(canvas: np.ndarray, a: np.ndarray, b: np.ndarray, width: float, colour: tuple[int, int, int]) -> None:
    """One line with round ends per picture, from a (n, 2) to b (n, 2)."""
    size, d = canvas.shape[1], b - a
    side = min(size, int(np.ceil(np.abs(d).max() + width)) + 4)  # the window that holds the longest of them
    corner = np.clip(np.floor((a + b) / 2 - side / 2 + 0.5), 0, size - side).astype(np.intp)  # (n, 2)
    offset = np.arange(side)
    px, py = corner[:, 0, None] + offset, corner[:, 1, None] + offset  # (n, side)
    gx = (px + 0.5 - a[:, 0, None]).astype(np.float32)[:, None, :]
    gy = (py + 0.5 - a[:, 1, None]).astype(np.float32)[:, :, None]
    dx, dy = (d[:, i, None, None].astype(np.float32) for i in (0, 1))
    along = np.clip((gx * dx + gy * dy) / np.maximum(dx * dx + dy * dy, 1e-12), 0, 1)  # (n, side, side)
    gap = np.sqrt((gx - along * dx) ** 2 + (gy - along * dy) ** 2)
    cover = np.clip(width / 2 + 0.5 - gap, 0, 1)
    n, row, column = np.nonzero(cover)  # most of the window is empty
    _blend(canvas, n, py[n, row], px[n, column], cover[n, row, column], colour)


def box(n: int, size: int, margin: float, width: float) -> np.ndarray:
    """n blank pictures with the outline of a square, `margin` pixels from the edge and drawn outside of it."""
    grid = np.arange(size) + 0.5
    edge = np.minimum(grid - margin, size - margin - grid)
    inner, outer = np.clip(edge + 0.5, 0, 1), np.clip(edge + width + 0.5, 0, 1)
    cover = outer[:, None] * outer - inner[:, None] * inner  # (size, size)
    one = blank(1, size)
    rows, columns = np.indices((size, size))
    _blend(one, np.zeros((1, 1, 1), np.intp), rows[None], columns[None], cover[None], GREY)
    return np.repeat(one, n, 0)


def _blend(
    canvas: np.ndarray, n: np.ndarray, y: np.ndarray, x: np.ndarray, cover: np.ndarray, colour: tuple[int, int, int]
) -> None:
    """canvas = (1 - cover) canvas + cover colour, at the pixels (n, y, x)."""
    under = canvas[n, y, x].astype(np.float32)  # (..., 3)
    over = np.array(colour, np.float32) - under
    canvas[n, y, x] = (under + cover[..., None].astype(np.float32) * over + 0.5).astype(np.uint8)
