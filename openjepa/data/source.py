"""What every source of pictures looks like, whatever format it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from openjepa.data.picture import read_picture

SHUFFLE_WINDOW = 4096  # pictures of a sharded source that are shuffled among each other
SHARDS_TOGETHER = 8  # shards read side by side, so that a window mixes them

Bad = list[tuple[str, str]]


class Raw(Protocol):
    """Encoded pictures by position: a path, the file's bytes, or (H, W, C) uint8 pixels. Must pickle without them."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> str | bytes | np.ndarray: ...


@dataclass
class Found:
    """What the opener of one format returns: either encoded pictures (`raw`) or pixels (`arrays`), and their names.

    stamp    identifies the content on any machine (names and sizes, or the pixels)
    fresh    also changes when files are touched here: the key of the cache
    arrays   uint8 (N, C, H, W)
    shards   (N,) number of the file each picture lies in, when pictures should be read in file order
    factors  name -> (N,) true factors of drawn pictures
    bad      what was already found unreadable, as (name, reason)
    """

    kind: str
    where: str
    names: Sequence[str]
    stamp: str
    fresh: str = ""
    raw: Raw | None = None
    arrays: np.ndarray | None = None
    labels: np.ndarray | None = None
    classes: list[str] | None = None
    shards: np.ndarray | None = None
    factors: dict[str, np.ndarray] | None = None
    bad: Bad = field(default_factory=list)

    def keep(self, index: np.ndarray) -> Found:
        """Only the pictures at `index`, in that order."""

        def some(x: np.ndarray | None) -> np.ndarray | None:
            return None if x is None else x[index]

        return replace(
            self,
            names=Names(self.names[int(i)] for i in index),
            stamp=digest(self.stamp, index),
            fresh=digest(self.fresh, index),
            raw=None if self.raw is None else Chosen(self.raw, index),
            arrays=some(self.arrays),
            labels=some(self.labels),
            shards=some(self.shards),
            factors=None if self.factors is None else {k: v[index] for k, v in self.factors.items()},
        )


class Names(Sequence[str]):
    """Many strings in two arrays: a list of a million Python strings is copied into every worker, this is not.

    >>> list(Names(["a.png", "b.png"]))
    ['a.png', 'b.png']
    """

    def __init__(self, names: Iterable[str]) -> None:
        # surrogateescape: file names that are not UTF-8 survive the round trip
        coded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._ends = np.cumsum([len(c) for c in coded], dtype=np.int64)
        self._text = np.frombuffer(b"".join(coded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        start = self._ends[i - 1] if i else 0
        return self._text[start : self._ends[i]].tobytes().decode("utf-8", "surrogateescape")


class Chosen:
    """Some items of a `Raw`."""

    def __init__(self, raw: Raw, index: np.ndarray) -> None:
        self.raw, self.index = raw, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> str | bytes | np.ndarray:
        return self.raw[int(self.index[i])]


class Source:
    """Pictures by position, read as uint8, with what is known about them.

    names      one per picture: the file's path relative to the source, or its position
    labels     int64 (N,), -1 where a picture has none; None when the source has no labels
    size       side of the square pictures that views and evaluation make by default
    channels   C of one picture; clips of T `frames` are read as (T * C, H, W), frame after frame
    mean, std  per channel, of pictures in 0..1: what normalised pictures are shifted and divided by
    arrays     uint8 (N, C, H, W), or (N, T * C, H, W), when all pictures are held at one size, else None
    bad        (name, reason) of every file found unreadable so far
    factors    true factors of drawn pictures, or None
    """

    def __init__(
        self, found: Found, *, size: int, channels: int, mean: Sequence[float], std: Sequence[float], max_bad: float,
        workers: int | None = None, frames: int = 1,
    ) -> None:  # fmt: skip
        self.kind, self.where = found.kind, found.where
        self.names, self.labels, self.classes, self.factors = found.names, found.labels, found.classes, found.factors
        self.arrays, self.raw, self._shards = found.arrays, found.raw, found.shards
        self.size, self.channels, self.frames = size, channels, frames
        self.max_bad, self.workers = max_bad, workers
        self.mean, self.std = tuple(mean), tuple(std)
        self._stamp = found.stamp
        self._unusable = Unusable(found.names, found.bad, max_bad, "unreadable pictures")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        classes = "" if self.classes is None else f", {len(self.classes)} classes"
        return f"Source({self.kind} {self.where!r}, {len(self)} pictures{classes}, size {self.size})"

    @property
    def bad(self) -> Bad:
        return self._unusable.listed()

    def read(self, i: int, short: int | None = None) -> Tensor:
        """Picture i as uint8 (C, H, W) at its own size; `BadPicture` when it cannot be read.

        short  lets a large JPEG be decoded reduced, to a short side of at least this (see `read_picture`)
        """
        if self.arrays is not None:
            return torch.from_numpy(np.array(self.arrays[i]))
        assert self.raw is not None
        item = self.raw[i]
        pixels = item if isinstance(item, np.ndarray) else read_picture(item, self.channels, short=short)
        return torch.from_numpy(np.array(pixels) if not pixels.flags.writeable else pixels).permute(2, 0, 1)

    def label(self, index: np.ndarray) -> np.ndarray:
        """Labels at `index`, int64; -1 where there are none."""
        return np.full(len(index), -1, dtype=np.int64) if self.labels is None else self.labels[index]

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The order of one epoch, int64 (N,): a function of (seed, epoch) and nothing else.

        A plain permutation; for a sharded source one that reads forwards: the shards are permuted, eight are read side
        by side, and pictures are shuffled in windows of 4096.
        """
        draw = np.random.default_rng([seed & 0xFFFFFFFF, epoch, 0x0DE12])
        n = len(self)
        if self._shards is None:
            return draw.permutation(n)
        return forward_order(self._shards, draw)

    def fingerprint(self) -> str:
        """Identifies the pictures and their order, the same on every machine: names and file sizes, or the pixels."""
        return digest(self._stamp, len(self))[:16]

    def note(self, seen: np.ndarray, bad: Iterable[tuple[int, str]]) -> None:
        """Count what was read; a `ValueError` when more than `max_bad` of what was seen is unreadable."""
        self._unusable.note(seen, bad)


class Unusable:
    """Which items of a source turned out to be of no use, and whether they are too many.

    names    of the items
    before   (name, reason) of what was found unusable before reading: these are not among the items
    max_bad  the share of unusable ones among those seen that is borne
    what     they are, in the words of the error

    >>> kept = Unusable(["a.png", "b.png"], [("c.png", "empty")], 1.0, "unreadable pictures")
    >>> kept.note(np.array([0]), [(1, "torn")]); kept.listed(), kept.seen
    ([('c.png', 'empty'), ('b.png', 'torn')], 3)
    """

    def __init__(self, names: Sequence[str], before: Bad, max_bad: float, what: str) -> None:
        self.names, self.before, self.max_bad, self.what = names, list(before), max_bad, what
        self.reasons: dict[int, str] = {}
        self._seen = np.zeros(len(names), dtype=bool)

    def listed(self) -> Bad:
        return self.before + [(self.names[i], self.reasons[i]) for i in sorted(self.reasons)]

    @property
    def seen(self) -> int:
        """How many were read so far, with those that were unusable before."""
        return int(self._seen.sum()) + len(self.before)

    def note(self, seen: np.ndarray, bad: Iterable[tuple[int, str]]) -> None:
        """Count what was read; a `ValueError` when more than `max_bad` of it is unusable.

        The share is taken of at least 100 (or of all, if fewer), so that one early bad file stops nothing, unless
        `max_bad` is 0.
        """
        self._seen[seen] = True
        for i, reason in bad:
            self._seen[i] = True
            self.reasons[i] = reason
        check_bad(self.listed(), self.seen, len(self.names), self.max_bad, self.what)

    def leave_out(self, bad: Iterable[tuple[int, str]], advice: str) -> None:
        """Count what is of no use although it was not read; a `ValueError`, with advice, when it is too much of all."""
        left = dict(bad)
        listed = self.listed() + [(self.names[i], reason) for i, reason in left.items()]
        check_bad(listed, len(self.names) + len(self.before), len(self.names), self.max_bad, self.what, advice)
        self.reasons |= left


def check_bad(
    bad: Bad, seen: int, total: int, max_bad: float, what: str = "unreadable pictures", advice: str = ""
) -> None:
    """Raise when more than the allowed share of what was seen is unreadable; `advice` comes before the usual one."""
    if bad and len(bad) > max_bad * max(seen, min(total, 100)):
        some = "; ".join(f"{name} ({reason})" for name, reason in bad[:3])
        raise ValueError(
            f"{what} must be at most {max_bad:.1%} of those read (max_bad), got {len(bad)} of {seen}: "
            f"{some}{' ...' if len(bad) > 3 else ''}. {advice}Repair or remove them (`openjepa data check` lists all), "
            "or raise data.max_bad."
        )


def pixel_moments(parts: Iterable[Tensor], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels (n, C, H, W) in 0..255, as shares of 255; empty for none."""
    total, pixels = torch.zeros(2, channels, dtype=torch.float64), 0
    for part in parts:
        x = part.to(torch.float64).transpose(0, 1).flatten(1) / 255  # (C, pixels)
        total += torch.stack([x.sum(1), (x * x).sum(1)])
        pixels += x.shape[1]
    if pixels == 0:
        return (), ()
    mean = total[0] / pixels
    std = (total[1] / pixels - mean * mean).clamp_min(0).sqrt().clamp_min(1e-3)
    return tuple(mean.tolist()), tuple(std.tolist())


def digest(*parts: object) -> str:
    """Hex digest of strings, numbers, bytes and arrays."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            h.update(f"{part.dtype}{part.shape}".encode())
            part = np.ascontiguousarray(part).data
        elif not isinstance(part, bytes):
            part = str(part).encode("utf-8", "surrogateescape")
        h.update(part)
        h.update(b"\0")
    return h.hexdigest()


def forward_order(shards: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Positions (N,) shuffled, yet so that files are read forwards: see `Source.order`."""
    numbers = np.unique(shards)
    by_shard = np.argsort(shards, kind="stable")
    starts = np.searchsorted(shards[by_shard], numbers)
    runs = np.split(by_shard, starts[1:])
    shuffled = [runs[k] for k in draw.permutation(len(runs))]
    order = []
    for at in range(0, len(shuffled), SHARDS_TOGETHER):
        group = shuffled[at : at + SHARDS_TOGETHER]
        # Position within its own shard, as a share of it: sorting by that reads the group side by side.
        depth = np.concatenate([(np.arange(len(run)) + 0.5) / len(run) for run in group])
        order.append(np.concatenate(group)[np.argsort(depth, kind="stable")])
    whole = np.concatenate(order)
    for at in range(0, len(whole), SHUFFLE_WINDOW):
        whole[at : at + SHUFFLE_WINDOW] = draw.permutation(whole[at : at + SHUFFLE_WINDOW])
    return whole
