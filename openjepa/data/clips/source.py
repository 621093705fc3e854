"""What every source of clips looks like, whatever format it came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from openjepa.data.clips.fit import Cut, fitting_cut, long_enough, shorter_advice
from openjepa.data.clips.pace import Pace, words
from openjepa.data.source import Bad, Names, Unusable, digest, forward_order


class BadClip(ValueError):
    """A video that cannot be used; the message is the reason, in one line, without the file's name."""


class Reel(Protocol):
    """Videos by position, read a few frames at a time. Must pickle without their pixels."""

    def __len__(self) -> int: ...

    def read(self, i: int, numbers: np.ndarray, /) -> np.ndarray:
        """Frames `numbers` (n,), in that order, uint8 (n, C, H, W); `BadClip` when they cannot be read."""
        ...

    def seconds(self, i: int, /) -> np.ndarray | None:
        """When each frame of video i is shown, counted from the first; None where nobody knows."""
        ...


class Together(Reel, Protocol):
    """A reel in memory, or drawn: many clips at once."""

    def take(self, rows: np.ndarray, numbers: np.ndarray, /) -> np.ndarray:
        """Frames `numbers` (n, T) of videos `rows` (n,), uint8 (n, T, C, H, W), all of one size."""
        ...


class Factors(Protocol):
    """The truth about drawn clips."""

    def __call__(self, rows: np.ndarray, numbers: np.ndarray, /) -> dict[str, np.ndarray]:
        """name -> (n, T, ...) of the frames `numbers` (n, T) of videos `rows` (n,)."""
        ...


@dataclass
class ClipsFound:
    """What the opener of one format returns.

    lengths   int64 (N,) frames of each video
    rates     (N,) mean frames per second, (length - 1) / (time of the last - time of the first); NaN where unknown
    sizes     int64 (N, 2) height and width as shown
    codecs    (N,) name of the codec, or of the format
    stamp     identifies the content on any machine
    shards    (N,) number of the file each video lies in, when they should be read in file order
    bad       what was already found unusable, as (name, reason): not among the videos
    factors   truth about drawn clips
    """

    kind: str
    where: str
    names: Sequence[str]
    stamp: str
    reel: Reel
    lengths: np.ndarray
    rates: np.ndarray
    sizes: np.ndarray
    codecs: np.ndarray
    together: Together | None = None
    labels: np.ndarray | None = None
    classes: list[str] | None = None
    shards: np.ndarray | None = None
    factors: Factors | None = None
    bad: Bad = field(default_factory=list)
    bytes: np.ndarray | None = None  # (N,) of the files, where they are files

    def keep(self, index: np.ndarray) -> ClipsFound:
        """Only the videos at `index`, in that order."""

        def some(x: np.ndarray | None) -> np.ndarray | None:
            return None if x is None else x[index]

        together = None if self.together is None else SomeTogether(self.together, index)
        return replace(
            self,
            names=Names(self.names[int(i)] for i in index),
            stamp=digest(self.stamp, index),
            reel=together or Some(self.reel, index),
            together=together,
            lengths=self.lengths[index],
            rates=self.rates[index],
            sizes=self.sizes[index],
            codecs=self.codecs[index],
            labels=some(self.labels),
            shards=some(self.shards),
            bytes=some(self.bytes),
            factors=None if self.factors is None else SomeFactors(self.factors, index),
        )


class Some:
    """Some videos of a `Reel`."""

    def __init__(self, reel: Reel, index: np.ndarray) -> None:
        self.reel, self.index = reel, index

    def __len__(self) -> int:
        return len(self.index)

    def read(self, i: int, numbers: np.ndarray, /) -> np.ndarray:
        return self.reel.read(int(self.index[i]), numbers)

    def seconds(self, i: int, /) -> np.ndarray | None:
        return self.reel.seconds(int(self.index[i]))


class SomeTogether(Some):
    """Some videos of a reel that gives many at once."""

    def __init__(self, reel: Together, index: np.ndarray) -> None:
        super().__init__(reel, index)
        self.together = reel

    def take(self, rows: np.ndarray, numbers: np.ndarray, /) -> np.ndarray:
        return self.together.take(self.index[rows], numbers)


class SomeFactors:
    """The truth about some videos."""

    def __init__(self, factors: Factors, index: np.ndarray) -> None:
        self.factors, self.index = factors, index

    def __call__(self, rows: np.ndarray, numbers: np.ndarray, /) -> dict[str, np.ndarray]:
        return self.factors(self.index[rows], numbers)


class ClipSource:
    """Videos by position, read as uint8 frames, with what is known about them.

    names      one per video: the file's path relative to the source, or its position
    labels     int64 (N,), -1 where a video has none; None when the source has no labels
    lengths    int64 (N,) frames of each; rates (N,) mean frames per second, NaN where unknown
    sizes      int64 (N, 2) height and width as shown
    size       side of the square frames that views and evaluation make by default
    channels   C of one frame
    mean, std  per channel, of pictures in 0..1
    together   gives many clips at once, for clips in memory and drawn ones, else None
    factors    truth about drawn clips: factors(rows (n,), numbers (n, T)) -> name -> (n, T, ...); else None
    bad        (name, reason) of every video found unusable so far
    """

    def __init__(
        self, found: ClipsFound, *, size: int, channels: int, mean: Sequence[float], std: Sequence[float],
        max_bad: float, workers: int | None = None, parts: np.ndarray | None = None, weights: Sequence[float] = (1.0,),
    ) -> None:  # fmt: skip
        self.kind, self.where, self.names = found.kind, found.where, found.names
        self.labels, self.classes, self.factors = found.labels, found.classes, found.factors
        self.reel, self.together = found.reel, found.together
        self.lengths, self.rates, self.sizes = found.lengths, found.rates, found.sizes
        self.size, self.channels, self.mean, self.std = size, channels, tuple(mean), tuple(std)
        self.max_bad, self.workers = max_bad, workers
        self._parts, self._weights, self._shards = parts, tuple(weights), found.shards
        self._stamp, self._unusable = found.stamp, Unusable(found.names, found.bad, max_bad, "unusable videos")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        classes = "" if self.classes is None else f", {len(self.classes)} classes"
        return f"ClipSource({self.kind} {self.where!r}, {len(self)} videos{classes}, size {self.size})"

    @property
    def bad(self) -> Bad:
        return self._unusable.listed()

    def read(self, i: int, numbers: np.ndarray) -> np.ndarray:
        """Frames `numbers` of video i at its own size, uint8 (n, C, H, W); `BadClip` when they cannot be read."""
        return self.reel.read(i, np.asarray(numbers, dtype=np.int64))

    def seconds(self, i: int, pace: Pace) -> np.ndarray | None:
        """When each frame of video i is shown; None when the pace does not ask. `BadClip` when it does in vain."""
        if pace.fps is None:
            return None
        known = self.reel.seconds(i)
        if known is None and self.lengths[i] > 1:
            raise BadClip("its frame rate is unknown: set data.rate, or a stride in place of fps")
        return known

    def fitting(self, pace: Pace) -> np.ndarray:
        """Positions of the videos that are long enough for a clip of this pace, int64, sorted.

        Where there are both pictures and videos, clips of one frame are taken from the pictures.
        """
        still = self.lengths == 1
        if pace.frames == 1 and still.any():
            return np.flatnonzero(still)
        return np.flatnonzero(long_enough(pace, self.lengths, self.rates))

    def fitted(self, pace: Pace, whole: int = 1) -> Cut | None:
        """This pace, or the nearest one for which enough of the videos are long enough: see `fitting_cut`."""
        return fitting_cut(
            pace, self.lengths, self.rates, bad=len(self._unusable.before), max_bad=self.max_bad, whole=whole
        )  # fmt: skip

    def label(self, index: np.ndarray) -> np.ndarray:
        """Labels at `index`, int64; -1 where there are none."""
        return np.full(len(index), -1, dtype=np.int64) if self.labels is None else self.labels[index]

    def order(self, members: np.ndarray, seed: int, epoch: int, salt: int = 0) -> np.ndarray:
        """The order in which one epoch visits the videos `members`: a function of (seed, epoch, salt) alone.

        A plain permutation; for shards one that reads forwards (as for pictures); for a mix, each part in its share by
        weight, in its own endless sequence of permutations, so that a small part is used up evenly too.
        """
        draw = np.random.default_rng([seed & 0xFFFFFFFF, epoch, 0xC11B5, salt])
        if self._parts is None:
            if self._shards is None:
                return members[draw.permutation(len(members))]
            return members[forward_order(self._shards[members], draw)]
        of = self._parts[members]
        groups = [members[of == k] for k in range(len(self._weights))]
        weights = [w if len(g) else 0.0 for w, g in zip(self._weights, groups, strict=True)]
        counts = shares(weights, len(members))
        chosen = [
            endless(group, count, epoch, [seed & 0xFFFFFFFF, 0xC11B6, salt, k])
            for k, (group, count) in enumerate(zip(groups, counts, strict=True))
        ]
        return draw.permutation(np.concatenate(chosen))

    def fingerprint(self) -> str:
        """Identifies the videos and their order, the same on every machine."""
        return digest(self._stamp, len(self))[:16]

    def note(self, seen: np.ndarray, bad: Iterable[tuple[int, str]]) -> None:
        """Count what was read; a `ValueError` when more than `max_bad` of what was seen is unusable."""
        self._unusable.note(seen, bad)

    def too_short(self, paces: Sequence[Pace], advice: str | None = None) -> None:
        """Count the videos that are too short for every one of `paces`; a `ValueError` when they are too many.

        advice  for that case; by default the clip that would fit, as the setting that a run takes it from
        """
        fits = np.zeros(len(self), dtype=bool)
        for pace in paces:
            fits[self.fitting(pace)] = True
        wanted = " or ".join(dict.fromkeys(words(p) for p in paces))
        short = np.flatnonzero(~fits)
        if len(short) == 0:
            return
        said = advice or shorter_advice(self.fitted(paces[0], whole=2), self.lengths, self.rates)
        if len(short) == len(self):
            i = int(np.argmax(self.lengths))
            raise ValueError(
                f"{self.where} must hold videos of at least {wanted}, got {len(self)} that are all shorter or of "
                f"unknown rate: the longest, {self.names[i]}, has {self.lengths[i]} frames"
                f"{'' if np.isnan(self.rates[i]) else f' at {self.rates[i]:.3g} fps'}. {said}"
            )
        self._unusable.leave_out(((int(i), _short(int(self.lengths[i]), wanted)) for i in short), f"{said} ")


def _short(length: int, wanted: str) -> str:
    return f"too short: {length} frame{'' if length == 1 else 's'}, not enough for {wanted}"


def shares(weights: Sequence[float], total: int) -> list[int]:
    """`total` cut in proportion to `weights`, in whole numbers: the largest remainders get what is left.

    >>> shares([1, 0.5], 10)
    [7, 3]
    """
    exact = np.asarray(weights, dtype=np.float64) / sum(weights) * total
    counts = np.floor(exact).astype(np.int64)
    for k in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]:
        counts[k] += 1
    return counts.tolist()


def endless(items: np.ndarray, count: int, epoch: int, seed: Sequence[int]) -> np.ndarray:
    """Items number epoch * count ... of an endless row of permutations of `items`, each drawn from (seed, round).

    >>> sorted(np.concatenate([endless(np.arange(3), 2, e, [7]) for e in range(3)]).tolist())
    [0, 0, 1, 1, 2, 2]
    """
    if count == 0:
        return items[:0]
    first, n = epoch * count, len(items)
    rounds = range(first // n, (first + count - 1) // n + 1)
    row = np.concatenate([np.random.default_rng([*seed, r]).permutation(items) for r in rounds])
    at = first - rounds[0] * n
    return row[at : at + count]
