"""What a set of pictures holds and whether it is fit to train on, said before an hour is spent on it."""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from openjepa.data.cache import SHORT_SIDE
from openjepa.data.config import DataConfig
from openjepa.data.opening import MOST, even_choice, find, held_bytes, is_small
from openjepa.data.picture import BadPicture, Header, read_header, read_picture
from openjepa.data.plan import cores
from openjepa.data.source import Bad, Found, digest

TINY = 32  # a shorter side than this is counted as tiny
FEW = 500  # fewer pictures than this learn little by themselves
_PAIRS_LISTED = 20


@dataclass
class Report:
    """What `check` found; `as_dict` for JSON.

    sizes          "min", "median", "max" of the short side, and the share that has the most common width x height
    duplicates     groups of names whose files (or pixels) are equal byte for byte; extra copies in `duplicate_count`
    cache_bytes    size of the memory map of all pictures, and whether training would make one (`cached`)
    decode_minutes to decode every picture once on this machine's cores (0 for arrays)
    ok             False when training would stop: unreadable files above `max_bad`, or nothing readable
    advice         in plain words, most urgent first
    """

    path: str
    kind: str
    pictures: int
    readable: int
    bad: Bad
    formats: dict[str, int]
    modes: dict[str, int]
    sizes: dict[str, Any]
    tiny: int
    duplicates: list[list[str]]
    duplicate_count: int
    classes: dict[str, int]
    recommended_size: int
    cached: bool
    cache_bytes: int
    decode_minutes: float
    ok: bool
    advice: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Tally:
    headers: list[Header | None] = field(default_factory=list)
    bad: Bad = field(default_factory=list)
    same: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    seconds: float = 0.0
    decoded: int = 0


def check(cfg: DataConfig, *, decode: bool = True, seed: int = 0) -> Report:
    """Look at every picture that `cfg` names and say what is there, what is wrong, and what to do about it.

    decode  also decode every file, which is the only way to find truncated ones; False reads heads only

    >>> report = check(DataConfig(path="shapes:600"))
    >>> report.ok, report.pictures, report.recommended_size
    (True, 600, 32)
    """
    found = find(cfg)
    if cfg.limit is not None and cfg.limit < len(found.names):
        found = found.keep(even_choice(found.labels, len(found.names), cfg.limit, seed))
    tally = _scan(found, cfg.channels, decode)
    bad = found.bad + tally.bad
    known = [h for h in tally.headers if h is not None]
    groups = [names for names in tally.same.values() if len(names) > 1]
    shorts = [min(h.width, h.height) for h in known]
    count = len(found.names)
    raw = found.raw is not None
    report = Report(
        path=cfg.path,
        kind=found.kind,
        pictures=count,
        readable=len(known),
        bad=bad,
        formats=dict(Counter(h.format for h in known).most_common()),
        modes=dict(Counter(h.mode for h in known).most_common()),
        sizes=_sizes(known),
        tiny=sum(s < TINY for s in shorts),
        duplicates=groups[:_PAIRS_LISTED],
        duplicate_count=sum(len(g) - 1 for g in groups),
        classes=class_counts(found.labels, found.classes),
        recommended_size=recommended(shorts),
        cached=raw and cfg.cache and is_small(tally.headers, count, cfg.channels),
        cache_bytes=held_bytes(tally.headers, count, cfg.channels),
        decode_minutes=round(tally.seconds / max(1, tally.decoded) * count / cores() / 60, 3) if raw else 0.0,
        ok=bool(known) and len(bad) <= cfg.max_bad * (count + len(found.bad)),
    )
    report.advice = _advice(report, cfg, decode)
    return report


def _scan(found: Found, channels: int, decode: bool) -> _Tally:
    tally = _Tally()
    if found.arrays is not None:
        _, c, height, width = found.arrays.shape
        tally.headers = [Header(width, height, "RGB" if c == 3 else "L", "array")] * len(found.names)
        for name, pixels in zip(found.names, found.arrays, strict=True):
            tally.same[digest(pixels)].append(name)
        return tally
    raw = found.raw
    assert raw is not None
    for i, name in enumerate(found.names):
        try:
            item = raw[i]
            if isinstance(item, np.ndarray):
                tally.headers.append(Header(item.shape[1], item.shape[0], "RGB", "array"))
                continue
            if isinstance(item, str):
                item = _file_bytes(item)
            header = read_header(item)
            if decode:
                start = time.perf_counter()
                read_picture(item, channels)
                tally.seconds += time.perf_counter() - start
                tally.decoded += 1
        except BadPicture as e:
            tally.headers.append(None)
            tally.bad.append((name, str(e)))
            continue
        tally.headers.append(header)
        tally.same[digest(item)].append(name)
    return tally


def _file_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise BadPicture("file not found") from None
    except OSError as e:
        raise BadPicture(e.strerror or str(e)) from None


def _sizes(known: list[Header]) -> dict[str, Any]:
    if not known:
        return {}
    shorts = [min(h.width, h.height) for h in known]
    (common, times), *_ = Counter((h.width, h.height) for h in known).most_common(1)
    return {
        "min": min(shorts),
        "median": int(statistics.median(shorts)),
        "max": max(shorts),
        "common": f"{common[0]}x{common[1]}",
        "common_share": round(times / len(known), 4),
    }


def recommended(shorts: Sequence[int]) -> int:
    """The middle short side, at most 224, cut to whole patches: of 16 from 96 pixels on, of 4 below."""
    if len(shorts) == 0:
        return MOST
    side = min(MOST, int(statistics.median(shorts)))
    step = 16 if side >= 96 else 4
    return max(4, side // step * step)


def class_counts(labels: np.ndarray | None, classes: Sequence[str] | None) -> dict[str, int]:
    """Name of a class -> how many are of it; "(none)" for what has no label."""
    if labels is None:
        return {}
    numbers, counts = np.unique(labels, return_counts=True)
    names = classes or []
    return {
        "(none)" if k < 0 else names[k] if k < len(names) else str(k): int(c)
        for k, c in zip(numbers, counts, strict=True)
    }


def _advice(report: Report, cfg: DataConfig, decode: bool) -> list[str]:
    said = []
    share = len(report.bad) / max(1, report.pictures)
    if not report.ok:
        said.append(
            f"{len(report.bad)} of {report.pictures} files are unreadable, more than max_bad={cfg.max_bad:g} allows: "
            "training would stop. Remove or repair them, or raise max_bad."
        )
    elif report.bad:
        said.append(f"{len(report.bad)} unreadable files ({share:.1%}) will be skipped.")
    if report.duplicate_count:
        said.append(
            f"{report.duplicate_count} pictures are exact copies of others: they count twice in training, and a copy "
            "on both sides of a test split makes its result too good. Remove them."
        )
    if report.readable < FEW:
        said.append(f"{report.readable} pictures are few to learn from without labels: expect little below {FEW}.")
    if report.tiny:
        said.append(f"{report.tiny} pictures have a side below {TINY} pixels and would be enlarged.")
    counts = [c for name, c in report.classes.items() if name != "(none)"]
    if counts and max(counts) > 20 * min(counts):
        said.append(f"Classes are uneven ({min(counts)} to {max(counts)} pictures): read probe accuracy per class.")
    if cfg.size is None and report.sizes and report.recommended_size != min(MOST, report.sizes["median"]):
        said.append(f"Set size={report.recommended_size}: it divides into patches, {report.sizes['median']} does not.")
    if report.sizes and report.kind != "shapes" and not report.cached and report.sizes["median"] > SHORT_SIDE:
        said.append(
            f"Decoding is {report.decode_minutes:.1f} minutes an epoch on this machine: a copy of the pictures reduced "
            "to a short side of 256 pixels trains several times faster."
        )
    if not decode:
        said.append("Only heads were read: truncated files show when everything is decoded.")
    return said
