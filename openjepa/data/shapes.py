"""Pictures drawn from known factors: shape, colour, size, position and rotation. No files, any number, any size."""

from __future__ import annotations

import numpy as np

from openjepa.data.arrays import Positions
from openjepa.data.config import DataConfig
from openjepa.data.picture import to_channels
from openjepa.data.source import Found, digest

SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
COUNTS = {"train": 10_000, "test": 2_000}
_DRAWN_NOW = 512 * 2**20  # bytes up to which all pictures are drawn at once and held
_VERSION = 1


class Drawn:
    """Pictures that are drawn when they are asked for."""

    def __init__(self, factors: dict[str, np.ndarray], size: int, channels: int) -> None:
        self.factors, self.size, self.channels = factors, size, channels

    def __len__(self) -> int:
        return len(self.factors["shape"])

    def __getitem__(self, i: int) -> np.ndarray:
        one = {name: value[i : i + 1] for name, value in self.factors.items()}
        return to_channels(draw(one, self.size)[0], self.channels)


def open_shapes(cfg: DataConfig) -> Found:
    """ "shapes": 10,000 train or 2,000 test pictures (train when no split is given); "shapes:N" draws N.

    A picture is a function of its split and its position only, so that a longer set begins with the shorter one. Labels
    are the shape; the other factors are in `source.factors`.
    """
    split = cfg.split or "train"
    if split not in COUNTS:
        raise ValueError(f"split must be train or test for shapes, got {split!r}.")
    _, _, asked = cfg.path.partition(":")
    if asked and not (asked.isdigit() and int(asked) > 0):
        raise ValueError(f'"shapes:N" must name a number of pictures, got {cfg.path!r}.')
    count = int(asked) if asked else COUNTS[split]
    size = cfg.size or 32
    known = factors(np.arange(count), split)
    stamp = digest("shapes", _VERSION, split, count, size)
    found = Found(
        kind="shapes", where=f"shapes ({split})", names=Positions(count), stamp=stamp, fresh=stamp,
        labels=known["shape"], classes=list(SHAPES), factors=known,
    )  # fmt: skip
    if count * size * size * cfg.channels > _DRAWN_NOW:
        found.raw = Drawn(known, size, cfg.channels)
        return found
    found.arrays = np.empty((count, cfg.channels, size, size), dtype=np.uint8)
    block = max(1, 2**20 // size**2)
    for at in range(0, count, block):
        some = {name: value[at : at + block] for name, value in known.items()}
        found.arrays[at : at + block] = to_channels(draw(some, size), cfg.channels).transpose(0, 3, 1, 2)
    return found


def factors(index: np.ndarray, split: str = "train") -> dict[str, np.ndarray]:
    """True factors of the pictures at `index`: each is uniform and independent of the others.

    shape (int64, see SHAPES); hue and ground (circle of colours, 0..1; grey level of the ground, 0..0.35); size
    (radius, 0.15..0.4 of the picture); x, y (centre, 0.3..0.7); rotation (turns, 0..1)

    >>> factors(np.arange(2))["shape"].shape
    (2,)
    """
    u = {
        name: _uniform(index, split, k)
        for k, name in enumerate(("shape", "hue", "ground", "size", "x", "y", "rotation"))
    }
    return {
        "shape": np.minimum((u["shape"] * len(SHAPES)).astype(np.int64), len(SHAPES) - 1),
        "hue": u["hue"],
        "ground": 0.35 * u["ground"],
        "size": 0.15 + 0.25 * u["size"],
        "x": 0.3 + 0.4 * u["x"],
        "y": 0.3 + 0.4 * u["y"],
        "rotation": u["rotation"],
    }


def draw(known: dict[str, np.ndarray], size: int) -> np.ndarray:
    """The pictures of some factors, uint8 (n, size, size, 3), edges antialiased over one pixel."""
    at = (np.arange(size) + 0.5) / size
    x = at[None, None, :] - known["x"][:, None, None]
    y = at[None, :, None] - known["y"][:, None, None]
    angle = 2 * np.pi * known["rotation"][:, None, None]
    radius = known["size"][:, None, None]
    u = (np.cos(angle) * x + np.sin(angle) * y) / radius  # (n, size, size), the shape fills about the unit disc
    v = (-np.sin(angle) * x + np.cos(angle) * y) / radius
    outside = np.empty_like(u)
    for k in range(len(SHAPES)):
        chosen = known["shape"] == k
        outside[chosen] = distance(SHAPES[k], u[chosen], v[chosen])
    cover = np.clip(0.5 - outside * radius * size, 0, 1)[..., None]
    bright = colour(known["hue"])[:, None, None, :]
    mixed = cover * bright + (1 - cover) * known["ground"][:, None, None, None]
    return np.floor(mixed * 255 + 0.5).astype(np.uint8)


def distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance to the outline in radii (approximate away from it): negative inside."""
    r = np.hypot(u, v)
    if shape == "circle":
        return r - 0.85
    if shape == "square":
        return np.maximum(abs(u), abs(v)) - 0.75
    if shape == "triangle":
        return np.maximum(abs(u) * 0.8660254 + v * 0.5, -v) - 0.5
    if shape == "cross":
        return np.maximum(np.minimum(abs(u), abs(v)) - 0.28, np.maximum(abs(u), abs(v)) - 0.9)
    if shape == "ring":
        return abs(r - 0.65) - 0.22
    spoke = (np.arctan2(v, u) / (2 * np.pi) * 5 + 0.5) % 1 - 0.5  # five points: distance to the nearest one, in fifths
    return r - (0.95 - 1.1 * abs(spoke))


def colour(hue: np.ndarray) -> np.ndarray:
    """Bright colours around the hue circle, (n, 3) in 0.3..1."""
    phase = 2 * np.pi * (hue[:, None] - np.array([0.0, 1 / 3, 2 / 3]))
    return 0.65 + 0.35 * np.cos(phase)


def _uniform(index: np.ndarray, split: str, factor: int) -> np.ndarray:
    """U[0, 1) by position: a 64-bit mix of (split, position, factor), so that no picture depends on another."""
    state = index.astype(np.uint64) * np.uint64(16) + np.uint64(factor)
    state += np.uint64(0 if split == "train" else 1 << 60)
    for multiplier, shift in ((0x9E3779B97F4A7C15, 30), (0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31)):
        state = (state + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(multiplier)
        state ^= state >> np.uint64(shift)
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53
