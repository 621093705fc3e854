"""Clips of two shapes that bounce in a box: built in, any number, any size, every factor known."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np

from openjepa.data.arrays import Positions
from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.drawn import count_and_split, uniform
from openjepa.data.clips.source import ClipsFound
from openjepa.data.picture import to_channels
from openjepa.data.shapes import SHAPES, colour, distance
from openjepa.data.source import digest

COUNTS = {"train": 10_000, "test": 2_000}
OBJECTS = 2
_VERSION = 1
_WORDS = {"train": 0xB0B1, "test": 0xB0B2}
_DRAWS = 8  # shape, hue, radius, turn, x, y, direction, speed
_PIXELS = 2**21  # drawn at a time


def open_bouncing(cfg: ClipConfig) -> ClipsFound:
    """ "bouncing-shapes[:N]": 10,000 train or 2,000 test clips, or N.

    Two of six shapes, each of its own hue, radius (0.1 to 0.2 of the side) and turn, move straight at 0.01 to 0.06 of
    the side per frame and are mirrored by the walls; the second is in front. The label is the unordered pair of shapes.
    """
    split, count = count_and_split(cfg.path, cfg.split, COUNTS)
    size = cfg.size or 32
    reel = Bouncing(count, split, size, cfg.frames, cfg.channels, cfg.rate)
    pairs = list(combinations_with_replacement(range(len(SHAPES)), 2))
    number = np.zeros((len(SHAPES), len(SHAPES)), dtype=np.int64)
    for k, (a, b) in enumerate(pairs):
        number[a, b] = number[b, a] = k
    shapes = reel.known(np.arange(count))["shape"]
    return ClipsFound(
        kind="bouncing-shapes", where=f"bouncing-shapes ({split})", names=Positions(count),
        stamp=digest("bouncing", _VERSION, split, count, size, cfg.frames), reel=reel, together=reel,
        lengths=np.full(count, cfg.frames, dtype=np.int64), rates=np.full(count, cfg.rate or np.nan),
        sizes=np.full((count, 2), size, dtype=np.int64), codecs=np.full(count, "drawn"),
        labels=number[shapes[:, 0], shapes[:, 1]], classes=[f"{SHAPES[a]}+{SHAPES[b]}" for a, b in pairs],
        factors=reel.factors,
    )  # fmt: skip


class Bouncing:
    """Clips drawn when they are asked for.

    >>> Bouncing(10, "train", 32, 20, 3).take(np.array([0, 7]), np.array([[0, 1, 2], [3, 4, 5]])).shape
    (2, 3, 3, 32, 32)
    """

    def __init__(
        self, count: int, split: str, size: int, frames: int, channels: int, rate: float | None = None
    ) -> None:
        self.count, self.split, self.size, self.frames = count, split, size, frames
        self.channels, self.rate = channels, rate

    def __len__(self) -> int:
        return self.count

    def seconds(self, i: int, /) -> np.ndarray | None:
        return None if self.rate is None else np.arange(self.frames) / self.rate

    def read(self, i: int, numbers: np.ndarray, /) -> np.ndarray:
        return self.take(np.array([i]), numbers[None])[0]

    def take(self, rows: np.ndarray, numbers: np.ndarray, /) -> np.ndarray:
        n, frames = numbers.shape
        truth, known = self.factors(rows, numbers), self.known(rows)
        place = truth["position"].reshape(n * frames, OBJECTS, 2) / self.size
        flat = {name: value.repeat(frames, axis=0) for name, value in known.items()}  # (n T, objects)
        out = np.empty((n * frames, self.size, self.size, self.channels), dtype=np.uint8)
        block = max(1, _PIXELS // self.size**2)
        for at in range(0, len(out), block):
            some = {name: value[at : at + block] for name, value in flat.items()}
            out[at : at + block] = to_channels(_draw(some, place[at : at + block], self.size), self.channels)
        return np.ascontiguousarray(out.transpose(0, 3, 1, 2)).reshape(n, frames, self.channels, self.size, self.size)

    def known(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What does not change in a clip, (n, objects): shape (int64), hue, radius (of the side), turn."""
        u = self._draws(rows)
        return {
            "shape": np.minimum((u[..., 0] * len(SHAPES)).astype(np.int64), len(SHAPES) - 1),
            "hue": u[..., 1],
            "radius": 0.1 + 0.1 * u[..., 2],
            "turn": u[..., 3],
        }

    def factors(self, rows: np.ndarray, numbers: np.ndarray, /) -> dict[str, np.ndarray]:
        """shape, hue, radius, turn (n, T, objects); position (n, T, objects, 2) of the middles in pixels, (x, y);
        velocity (n, T, objects, 2) in pixels per frame."""
        u, known = self._draws(rows), self.known(rows)
        angle, speed = 2 * np.pi * u[..., 6], 0.01 + 0.05 * u[..., 7]
        velocity = (speed[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1))[:, None]  # (n, 1, objects, 2)
        margin = known["radius"][:, None, :, None]
        room = 1 - 2 * margin
        # Mirrored at both walls: a straight walk, folded to and fro.
        straight = u[:, None, :, 4:6] * room + velocity * numbers[:, :, None, None]
        folded = np.mod(straight, 2 * room)
        back = folded > room
        place = margin + np.where(back, 2 * room - folded, folded)
        size = (*numbers.shape, OBJECTS)
        return {
            **{name: np.broadcast_to(value[:, None], size) for name, value in known.items()},
            "position": place * self.size,
            "velocity": np.where(back, -velocity, velocity) * self.size,
        }

    def _draws(self, rows: np.ndarray) -> np.ndarray:
        return uniform(rows, OBJECTS * _DRAWS, _WORDS[self.split]).reshape(-1, OBJECTS, _DRAWS)


def _draw(known: dict[str, np.ndarray], place: np.ndarray, size: int) -> np.ndarray:
    """uint8 (n, size, size, 3) on a dark ground, edges antialiased over one pixel."""
    at = ((np.arange(size) + 0.5) / size).astype(np.float32)
    out = np.full((len(place), size, size, 3), 0.1, dtype=np.float32)
    for k in range(OBJECTS):
        x = at[None, None, :] - place[:, k, 0, None, None].astype(np.float32)
        y = at[None, :, None] - place[:, k, 1, None, None].astype(np.float32)
        angle = (2 * np.pi * known["turn"][:, k, None, None]).astype(np.float32)
        radius = known["radius"][:, k, None, None].astype(np.float32)
        u = (np.cos(angle) * x + np.sin(angle) * y) / radius
        v = (-np.sin(angle) * x + np.cos(angle) * y) / radius
        outside = np.empty_like(u)
        for number, name in enumerate(SHAPES):
            chosen = known["shape"][:, k] == number
            outside[chosen] = distance(name, u[chosen], v[chosen])
        cover = np.clip(0.5 - outside * radius * size, 0, 1)[..., None]
        out += cover * (colour(known["hue"][:, k])[:, None, None].astype(np.float32) - out)
    return np.floor(out * 255 + 0.5).astype(np.uint8)
