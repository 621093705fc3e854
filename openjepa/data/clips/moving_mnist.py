"""Moving-MNIST: two handwritten digits that bounce in a box, drawn from the MNIST files, with their exact trajectories.

Srivastava, Mansimov and Salakhutdinov, "Unsupervised learning of video representations using LSTMs" (ICML 2015),
section 3.1 and the conventions of its published data: 64x64 pixels, 20 frames, 28x28 digits, a velocity of uniform
direction and of 0.1 of the room (the 36 pixels that a digit's corner has) per frame; a digit that would leave stops at
the wall for one frame and goes on mirrored; digits lie over each other by the larger pixel. Ours differs in one thing:
every clip is a function of (split, position), where the paper draws from one running generator.
"""

from __future__ import annotations

import numpy as np

from openjepa.data.arrays import Positions
from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.drawn import count_and_split, uniform
from openjepa.data.clips.source import ClipsFound
from openjepa.data.config import DataConfig
from openjepa.data.opening import open_source
from openjepa.data.source import digest

SIDE, DIGIT, STEP, DIGITS = 64, 28, 0.1, 2
ROOM = SIDE - DIGIT
COUNTS = {"train": 1_000_000, "test": 10_000}  # train: as good as endless
_VERSION = 1
_WORDS = {"train": 0x3A01, "test": 0x3A02}


def open_moving_mnist(cfg: ClipConfig) -> ClipsFound:
    """ "moving-mnist:PATH[:N]": a million train or 10,000 test clips (or N) of the digits at PATH.

    PATH is anything that opens as 28x28 pictures with labels: a folder with MNIST as Parquet or IDX files, a .npz ...
    Test clips are made of test digits. The label of a clip is its unordered pair of digits, one of 55.
    """
    where = cfg.path.removeprefix("moving-mnist").removeprefix(":")
    split, count = count_and_split(cfg.path, cfg.split, COUNTS)
    head, _, last = where.rpartition(":")
    path = head if last.isdigit() else where
    if not path:
        raise ValueError(f"moving-mnist must name the MNIST files, got {cfg.path!r}. Do moving-mnist:PATH[:N].")
    source = open_source(DataConfig(path=path, split=split, channels=1, cache=cfg.cache, cache_dir=cfg.cache_dir))
    if source.arrays is None or source.arrays.shape[1:] != (1, DIGIT, DIGIT) or source.labels is None:
        raise ValueError(
            f"moving-mnist must be drawn from {DIGIT}x{DIGIT} digits with labels, got {source!r}. Give the MNIST files."
        )
    reel = MovingMnist(
        np.ascontiguousarray(source.arrays[:, 0]), source.labels, count, split, cfg.frames, cfg.channels, cfg.rate
    )
    pairs, classes = _pairs(reel.digits(np.arange(count)))
    return ClipsFound(
        kind="moving-mnist", where=f"moving-mnist:{path} ({split})", names=Positions(count),
        stamp=digest("moving-mnist", _VERSION, source.fingerprint(), split, count, cfg.frames), reel=reel,
        together=reel, lengths=np.full(count, cfg.frames, dtype=np.int64), rates=np.full(count, cfg.rate or np.nan),
        sizes=np.full((count, 2), SIDE, dtype=np.int64), codecs=np.full(count, "drawn"), labels=pairs, classes=classes,
        factors=reel.factors,
    )  # fmt: skip


class MovingMnist:
    """Clips drawn when they are asked for.

    >>> glyphs = np.zeros((10, 28, 28), np.uint8); glyphs[:, 10:18, 10:18] = 255
    >>> reel = MovingMnist(glyphs, np.arange(10), 5, "train", frames=20, channels=1)
    >>> reel.take(np.array([3]), np.arange(20)[None]).shape
    (1, 20, 1, 64, 64)
    """

    def __init__(
        self, glyphs: np.ndarray, labels: np.ndarray, count: int, split: str, frames: int, channels: int,
        rate: float | None = None,
    ) -> None:  # fmt: skip
        self.glyphs, self.labels, self.count = glyphs, labels, count
        self.split, self.frames, self.channels, self.rate = split, frames, channels, rate

    def __len__(self) -> int:
        return self.count

    def seconds(self, i: int, /) -> np.ndarray | None:
        return None if self.rate is None else np.arange(self.frames) / self.rate

    def read(self, i: int, numbers: np.ndarray, /) -> np.ndarray:
        return self.take(np.array([i]), numbers[None])[0]

    def take(self, rows: np.ndarray, numbers: np.ndarray, /) -> np.ndarray:
        chosen = self._chosen(rows)
        place, _ = self.walk(rows, numbers)
        corner = (ROOM * place).astype(np.int64)  # (n, T, digits, 2): row, column
        n, frames = numbers.shape
        out = np.zeros((n, frames, SIDE, SIDE), dtype=np.uint8)
        # A window for every corner, as a view: digits are written through it, whole rows at a time.
        windows = np.lib.stride_tricks.sliding_window_view(out, (DIGIT, DIGIT), axis=(2, 3), writeable=True)
        at = np.arange(n)[:, None], np.arange(frames)[None]
        for k in range(DIGITS):
            y, x = corner[:, :, k, 0], corner[:, :, k, 1]
            glyph = self.glyphs[chosen[:, k], None]  # (n, 1, 28, 28)
            windows[*at, y, x] = np.maximum(windows[*at, y, x], glyph) if k else glyph
        return np.repeat(out[:, :, None], self.channels, axis=2) if self.channels > 1 else out[:, :, None]

    def digits(self, rows: np.ndarray) -> np.ndarray:
        """Identities of the digits, int64 (n, 2)."""
        return self.labels[self._chosen(rows)]

    def factors(self, rows: np.ndarray, numbers: np.ndarray, /) -> dict[str, np.ndarray]:
        """digit int64 (n, T, 2); position (n, T, 2, 2) of the middles in pixels, (x, y) as drawn; velocity (n, T, 2, 2)
        in pixels per frame towards the next frame, before it meets a wall."""
        place, velocity = self.walk(rows, numbers)
        corner = np.floor(ROOM * place)
        return {
            "digit": np.broadcast_to(self.digits(rows)[:, None], (*numbers.shape, DIGITS)),
            "position": corner[..., ::-1] + DIGIT / 2,
            "velocity": velocity[..., ::-1] * STEP * ROOM,
        }

    def walk(self, rows: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places (n, T, digits, 2) in 0..1 and directions of the same shape, as (row, column), at frames `numbers`."""
        u = uniform(rows, 4 * DIGITS, _WORDS[self.split])  # the first are the digits' identities
        place = u[:, DIGITS : 3 * DIGITS].reshape(-1, DIGITS, 2)
        angle = 2 * np.pi * u[:, 3 * DIGITS : 4 * DIGITS]
        direction = np.stack([np.sin(angle), np.cos(angle)], -1)  # (n, digits, 2)
        last = int(numbers.max()) + 1
        places = np.empty((len(rows), last, DIGITS, 2))
        directions = np.empty_like(places)
        for t in range(last):
            place = place + STEP * direction
            outside = (place <= 0) | (place >= 1)
            direction = np.where(outside, -direction, direction)
            place = np.clip(place, 0, 1)
            places[:, t], directions[:, t] = place, direction
        at = np.arange(len(rows))[:, None]
        return places[at, numbers], directions[at, numbers]

    def _chosen(self, rows: np.ndarray) -> np.ndarray:
        u = uniform(rows, DIGITS, _WORDS[self.split])
        return np.minimum((u * len(self.glyphs)).astype(np.int64), len(self.glyphs) - 1)


def _pairs(digits: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Numbers of the unordered pairs and their names: "0+0", "0+1" ... "9+9"."""
    low, high = digits.min(1), digits.max(1)
    names = [f"{a}+{b}" for a in range(10) for b in range(a, 10)]
    number = np.full((10, 10), -1, dtype=np.int64)
    number[np.triu_indices(10)] = np.arange(len(names))  # row by row, as the names
    return number[low, high], names
