"""From the settings to a source: which format it is, which pictures of it, held how, at what size and normalisation."""

from __future__ import annotations

import importlib
import logging
import statistics
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

import numpy as np
from torch import Tensor

from openjepa.data.cache import MAX_BYTES, SHORT_SIDE, cache_folder, hold, plan_sizes, survey
from openjepa.data.config import DataConfig
from openjepa.data.picture import SUFFIXES, BadPicture, Header
from openjepa.data.source import Found, Source, check_bad, pixel_moments

log = logging.getLogger("openjepa.data")

MOST = 224  # side of the pictures by default, at most
SAMPLE = 256  # headers looked at to learn how large the pictures are
_STATISTICS = 2048  # pictures that mean and std are taken over with normalise="data"
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def open_source(cfg: DataConfig, *, seed: int = 0) -> Source:
    """The pictures that `cfg` names, ready to be read.

    seed  of the choice of `limit` pictures; nothing else here is random

    Small pictures (see `openjepa.data.cache`) are decoded into a memory map the first time, if `cfg.cache`. The size is
    `cfg.size`, or the short side of the (middle) picture, at most 224. `normalise`: "imagenet" (for one channel, its
    average 0.449 and 0.226), "half" (0.5 and 0.5: -1..1) or "data" (measured on up to 2,048 pictures).

    >>> source = open_source(DataConfig(path="shapes:100", size=16))
    >>> len(source), source.size, tuple(source.read(0).shape)
    (100, 16, (3, 16, 16))
    """
    found = find(cfg)
    if cfg.limit is not None and cfg.limit < len(found.names):
        found = found.keep(even_choice(found.labels, len(found.names), cfg.limit, seed))
    check_bad(found.bad, len(found.names) + len(found.bad), len(found.names), cfg.max_bad)
    headers: list[Header | None] = []
    if found.raw is not None and found.kind != "shapes":
        headers, reasons = survey(found.raw, _spread(len(found.raw), SAMPLE))
        if len(reasons) == len(headers):
            bad = [(found.names[i], reason) for i, reason in reasons.items()]
            check_bad(bad, len(headers), len(found.names), min(cfg.max_bad, 0.999))
        if cfg.cache and is_small(headers, len(found.raw), cfg.channels):
            total = len(found.names)
            found = _held(found, cfg)
            check_bad(found.bad, total, total, cfg.max_bad)  # a map made with another max_bad
    size = cfg.size or min(MOST, _native(found, headers))
    mean, std = IMAGENET if cfg.normalise == "imagenet" else ([0.5] * 3, [0.5] * 3)
    if cfg.channels == 1:
        mean, std = [sum(mean) / 3], [sum(std) / 3]
    source = Source(
        found, size=size, channels=cfg.channels, frames=cfg.frames, mean=mean, std=std, max_bad=cfg.max_bad,
        workers=cfg.workers,
    )  # fmt: skip
    if cfg.normalise == "data":
        source.mean, source.std = measure(source)
    return source


def find(cfg: DataConfig) -> Found:
    """What the opener for this path's format returns."""
    from openjepa.data import SOURCES

    kind = kind_of(cfg.path)
    if cfg.frames > 1 and kind != "npy":
        raise ValueError(f"data must be a .npy or .npz file of clips when frames is {cfg.frames}, got {cfg.path!r}.")
    module, _, name = SOURCES[kind].partition(":")
    return getattr(importlib.import_module(module), name)(cfg)


def kind_of(path: str) -> str:
    """The key of `SOURCES` for a path, by its name, and for a folder by what lies in it.

    >>> kind_of("digits"), kind_of("hf://user/set"), kind_of("s/{0..3}.tar")
    ('digits', 'hub', 'shards')
    """
    if path == "digits" or path.split(":")[0] == "shapes":
        return path.split(":")[0]
    if path.startswith("hf://"):
        return "hub"
    low = path.lower()
    if low.endswith((".tar", ".tar.gz", ".tgz")) or ("{" in path and ".tar" in low):
        return "shards"
    file = Path(path).expanduser()
    if not file.exists():
        here = [p.name for p in islice(file.parent.iterdir(), 1000)] if file.parent.is_dir() else []
        close = get_close_matches(file.name, [*here, "digits", "shapes"], n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "Check the path, or use a built-in source: digits, shapes."
        raise ValueError(f"data must exist, got {path!r}. {hint}")
    if file.is_dir():
        return _kind_of_folder(file)
    if low.endswith((".txt", ".csv", ".tsv")):
        return "list"
    if low.endswith((".npy", ".npz")):
        return "npy"
    if low.endswith((".parquet", ".pq")):
        return "parquet"
    if "-ubyte" in low or low.endswith((".idx", ".idx.gz")):
        return "idx"
    raise ValueError(
        f"data must be a folder, .txt, .csv, .npy, .npz, .parquet, .tar or IDX file, got {path!r}. "
        f"Give the folder that holds it{' (it is a picture)' if low.endswith(SUFFIXES) else ''}."
    )


def even_choice(labels: np.ndarray | None, count: int, limit: int, seed: int) -> np.ndarray:
    """`limit` of `count` positions, sorted: at random, and with labels in each class's own share.

    >>> even_choice(np.array([0] * 8 + [1] * 4), 12, 3, seed=0) // 8
    array([0, 0, 1])
    """
    draw = np.random.default_rng([seed & 0xFFFFFFFF, 0x11417])
    mixed = draw.permutation(count)
    if labels is not None:
        mixed = mixed[np.argsort(labels[mixed], kind="stable")]
    at = ((np.arange(limit) + 0.5) * count / limit).astype(np.int64)
    return np.sort(mixed[at])


def is_small(headers: list[Header | None], count: int, channels: int) -> bool:
    """Whether a set is worth holding: short sides of 256 at most (the middle one), and 8 GiB in all."""
    known = [h for h in headers if h is not None]
    if not known or statistics.median(min(h.width, h.height) for h in known) > SHORT_SIDE:
        return False
    return held_bytes(headers, count, channels) <= MAX_BYTES


def held_bytes(headers: list[Header | None], count: int, channels: int) -> int:
    """Expected size of the memory map of `count` pictures of which `headers` are a sample."""
    sizes = [s for s in plan_sizes(headers) if s is not None]
    return round(sum(h * w for h, w in sizes) / max(1, len(sizes)) * count * channels)


def measure(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel over the pixels of up to 2,048 pictures, in 0..1."""

    def readable() -> Iterator[Tensor]:
        for i in _spread(len(source), _STATISTICS):
            with suppress(BadPicture):
                yield source.read(int(i)).unflatten(0, (-1, source.channels))  # (T, C, H, W)

    mean, std = pixel_moments(readable(), source.channels)
    if not mean:
        raise ValueError(f"{source.where} must hold a readable picture to measure, got none.")
    return mean, std


def _held(found: Found, cfg: DataConfig) -> Found:
    folder = cache_folder(cfg.cache_dir)
    try:
        return hold(found, channels=cfg.channels, folder=folder, max_bad=cfg.max_bad)
    except OSError as e:
        log.warning("pictures are not cached in %s (%s) and are decoded every time they are needed", folder, e)
        return found


def _native(found: Found, headers: list[Header | None]) -> int:
    if found.arrays is not None:
        return min(found.arrays.shape[2:])
    return int(statistics.median(min(h.width, h.height) for h in headers if h is not None)) if any(headers) else MOST


def _spread(count: int, most: int) -> np.ndarray:
    """At most `most` positions, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _kind_of_folder(folder: Path) -> str:
    names = [p.name for p in folder.iterdir()]
    if "dataset_dict.json" in names or ("state.json" in names and any(n.endswith(".arrow") for n in names)):
        return "hub"
    if any(n.endswith(".parquet") for n in names) or any((folder / "data").glob("*.parquet")):
        return "parquet"
    if any(n.endswith(".tar") for n in names):
        return "shards"
    if any("images-idx3-ubyte" in n or "images.idx3-ubyte" in n for n in names):
        return "idx"
    return "folder"
