"""From the settings to a source of clips: which format it is, which videos of it, at what size and normalisation."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.source import BadClip, ClipsFound, ClipSource
from openjepa.data.opening import IMAGENET, MOST, even_choice
from openjepa.data.picture import SUFFIXES as PICTURES
from openjepa.data.source import Names, check_bad, digest, pixel_moments

log = logging.getLogger("openjepa.data")

VIDEOS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".ts", ".m2ts", ".mts", ".wmv", ".flv",
    ".ogv", ".3gp", ".gif", ".h264", ".hevc", ".mjpeg", ".y4m",
)  # fmt: skip
DRAWN = ("moving-mnist", "bouncing-shapes")
_STATISTICS = 256  # videos that mean and std are taken over with normalise="data", four frames of each
_LOOKED_AT = 20_000  # files of a folder looked at to learn what it holds


def open_clips(cfg: ClipConfig, *, seed: int = 0) -> ClipSource:
    """The videos that `cfg` names, ready to be read.

    seed  of the choice of `limit` videos; nothing else here is random

    The size is `cfg.size`, or the (middle) short side, at most 224. With `cfg.mix` the labels of the other paths count
    only where their classes are those of `cfg.path`.

    >>> source = open_clips(ClipConfig(path="bouncing-shapes:50"))
    >>> len(source), source.size, source.lengths[0], source.read(3, np.array([0, 5])).shape
    (50, 32, np.int64(20), (2, 3, 32, 32))
    """
    parts = [find(cfg.model_copy(update={"path": path, "mix": {}}), seed) for path in (cfg.path, *cfg.mix)]
    for part in parts:
        total = len(part.names)
        check_bad(part.bad, total + len(part.bad), total, cfg.max_bad, "unusable videos")
        if total == 0:
            raise ValueError(f"{part.where} must hold a readable video, got none.")
    found, of = (parts[0], None) if len(parts) == 1 else joined(parts)
    mean, std = IMAGENET if cfg.normalise == "imagenet" else ([0.5] * 3, [0.5] * 3)
    if cfg.channels == 1:
        mean, std = [sum(mean) / 3], [sum(std) / 3]
    source = ClipSource(
        found, size=cfg.size or min(MOST, int(np.median(parts[0].sizes.min(1)))), channels=cfg.channels, mean=mean,
        std=std, max_bad=cfg.max_bad, workers=cfg.workers, parts=of, weights=[1.0, *cfg.mix.values()],
    )  # fmt: skip
    if cfg.normalise == "data":
        source.mean, source.std = measure(source)
    return source


def find(cfg: ClipConfig, seed: int = 0) -> ClipsFound:
    """What the opener for this path's format returns, cut to `cfg.limit`."""
    from openjepa.data.clips import FORMATS

    module, _, name = FORMATS[kind_of(cfg.path)].partition(":")
    found = getattr(importlib.import_module(module), name)(cfg)
    if cfg.limit is not None and cfg.limit < len(found.names):
        return found.keep(even_choice(found.labels, len(found.names), cfg.limit, seed))
    return found


def kind_of(path: str) -> str:
    """The key of `FORMATS` for a path, by its name, and for a folder by what lies in it.

    >>> kind_of("bouncing-shapes:10"), kind_of("pictures:digits"), kind_of("s/{0..3}.tar")
    ('bouncing-shapes', 'pictures', 'shards')
    """
    prefix = path.split(":")[0]
    if prefix in (*DRAWN, "pictures"):
        return prefix
    low = path.lower()
    if low.endswith((".tar", ".tar.gz", ".tgz")) or ("{" in path and ".tar" in low):
        return "shards"
    file = Path(path).expanduser()
    if not file.exists():
        here = [p.name for p in islice(file.parent.iterdir(), 1000)] if file.parent.is_dir() else []
        close = get_close_matches(file.name, [*here, *DRAWN], n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "Check the path, or use the built-in source bouncing-shapes."
        raise ValueError(f"data must exist, got {path!r}. {hint}")
    if file.is_dir():
        kind = kind_of_folder(file)
        if kind is None:
            raise ValueError(
                f"{path} must hold videos ({', '.join(VIDEOS)}) or folders of numbered pictures, got none. "
                "Pictures that are no clips: pictures:PATH."
            )
        return kind
    for kind, suffixes in _SUFFIXES.items():
        if low.endswith(suffixes):
            return kind
    raise ValueError(
        f"data must be a folder, a video, .txt, .csv, .npy, .npz, .parquet or .tar file, got {path!r}."
        f"{' A picture is no clip: give pictures:FOLDER.' if low.endswith(PICTURES) else ''}"
    )


_SUFFIXES = {
    "list": (".txt", ".csv", ".tsv"),
    "arrays": (".npy", ".npz"),
    "parquet": (".parquet", ".pq"),
    "folder": VIDEOS,
}


def kind_of_folder(folder: Path) -> str | None:
    """ "parquet", "shards", "folder" (of videos), "frames" (folders of numbered pictures), or None."""
    names = [p.name for p in folder.iterdir()]
    if any(n.endswith(".parquet") for n in names) or any((folder / "data").glob("*.parquet")):
        return "parquet"
    if any(n.endswith(".tar") for n in names):
        return "shards"
    videos, pictures, numbered = census(folder)
    if videos:
        return "folder"
    return "frames" if numbered and numbered >= 0.5 * pictures else None


def census(folder: Path) -> tuple[int, int, int]:
    """How many files below a folder are videos, how many pictures, and how many of these are numbered ones.

    Pictures are numbered when at least two in a folder are named by one stem and running numbers. GIF counts as video
    here. At most 20,000 files are looked at.
    """
    from openjepa.data.clips.frames import sequence

    videos = pictures = numbered = seen = 0
    for _, _, files in os.walk(folder, followlinks=False):
        films = [f for f in files if not f.startswith(".") and f.lower().endswith(VIDEOS)]
        stills = [f for f in files if not f.startswith(".") and f.lower().endswith(PICTURES) and f not in films]
        videos += len(films)
        pictures += len(stills)
        numbered += len(stills) if sequence(stills) is not None else 0
        seen += len(files)
        if seen > _LOOKED_AT:
            break
    return videos, pictures, numbered


def holds(path: str) -> set[str]:
    """What a path surely holds: "clips", "pictures", both, or nothing that can be told without opening it.

    GIFs, and folders of numbered pictures, are pictures until a method that eats clips asks for them. Lists, tar shards
    and Parquet files are told by the first names, and by the column, that they hold.
    """
    if path.split(":")[0] in DRAWN:
        return {"clips"}
    file = Path(path).expanduser()
    if not file.exists():
        return set()
    if file.is_dir():
        tars, tables = sorted(file.glob("*.tar")), sorted([*file.glob("*.parquet"), *file.glob("data/*.parquet")])
        if tars or tables:
            return holds(str((tables or tars)[0]))
        return _kinds(name for _, _, files in os.walk(file) for name in files)
    low = path.lower()
    if low.endswith((".txt", ".csv", ".tsv")):
        with open(file, encoding="utf-8", errors="replace") as lines:
            return _kinds(word for line in islice(lines, 100) for word in re.split(r"[\s,]+", line))
    if low.endswith(".tar"):
        with contextlib.suppress(tarfile.TarError, OSError), tarfile.open(file, "r:") as tar:
            return _kinds(member.name for member in islice(tar, 50))
    if low.endswith((".parquet", ".pq")):
        return {"clips"} if "video" in _columns(file) else set()
    return _kinds([file.name])


def _kinds(names: Iterable[str]) -> set[str]:
    films = tuple(s for s in VIDEOS if s != ".gif")
    found: set[str] = set()
    for name in islice(names, _LOOKED_AT):
        low = name.lower()
        found |= {"clips"} if low.endswith(films) else {"pictures"} if low.endswith(PICTURES) else set()
    return found


def _columns(file: Path) -> list[str]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        return []
    try:
        return list(parquet.read_schema(file).names)
    except (ArrowException, OSError):
        return []


class Joined:
    """Several reels, one behind the other."""

    def __init__(self, parts: list[ClipsFound]) -> None:
        self.reels = [p.reel for p in parts]
        self.ends = np.cumsum([len(r) for r in self.reels])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def _at(self, i: int) -> tuple[int, int]:
        part = int(np.searchsorted(self.ends, i, side="right"))
        return part, i - (int(self.ends[part - 1]) if part else 0)

    def read(self, i: int, numbers: np.ndarray, /) -> np.ndarray:
        part, at = self._at(i)
        return self.reels[part].read(at, numbers)

    def seconds(self, i: int, /) -> np.ndarray | None:
        part, at = self._at(i)
        return self.reels[part].seconds(at)


def joined(parts: list[ClipsFound]) -> tuple[ClipsFound, np.ndarray]:
    """Several sources as one, and which video is of which."""
    first = parts[0]
    labels = None
    if first.labels is not None:
        labels = np.concatenate([
            p.labels if p.labels is not None and p.classes == first.classes else np.full(len(p.names), -1)
            for p in parts
        ])  # fmt: skip
    found = ClipsFound(
        kind="mix",
        where=" + ".join(p.where for p in parts),
        names=Names(f"{k}:{name}" for k, p in enumerate(parts) for name in p.names),
        stamp=digest(*(p.stamp for p in parts)),
        reel=Joined(parts),
        lengths=np.concatenate([p.lengths for p in parts]),
        rates=np.concatenate([p.rates for p in parts]),
        sizes=np.concatenate([p.sizes for p in parts]),
        codecs=np.concatenate([p.codecs for p in parts]),
        labels=labels,
        classes=first.classes,
        bad=[b for p in parts for b in p.bad],
    )
    return found, np.repeat(np.arange(len(parts)), [len(p.names) for p in parts])


def measure(source: ClipSource) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel over the pixels of four frames of up to 256 videos, in 0..1."""

    def readable() -> Iterator[torch.Tensor]:
        for i in np.unique(np.linspace(0, len(source) - 1, min(len(source), _STATISTICS)).astype(np.int64)):
            numbers = np.unique(np.linspace(0, source.lengths[i] - 1, 4).astype(np.int64))
            with contextlib.suppress(BadClip):
                yield torch.from_numpy(np.ascontiguousarray(source.read(int(i), numbers)))  # (n, C, H, W)

    mean, std = pixel_moments(readable(), source.channels)
    if not mean:
        raise ValueError(f"{source.where} must hold a readable video to measure, got none.")
    return mean, std
