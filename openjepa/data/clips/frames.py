"""Folders of numbered pictures, each a video; and pictures of any source, each a clip of one frame."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.source import BadClip, ClipsFound
from openjepa.data.config import DataConfig
from openjepa.data.folder import split_folder
from openjepa.data.opening import open_source
from openjepa.data.picture import SUFFIXES, BadPicture, Header, read_header, read_picture
from openjepa.data.source import Bad, Names, Source, digest


class Frames:
    """Videos whose frames are picture files."""

    def __init__(self, files: Names, ends: np.ndarray, root: str, sizes: np.ndarray, channels: int, rate: float | None):
        self.files, self.ends, self.root = files, ends, root
        self.sizes, self.channels, self.rate = sizes, channels, rate

    def __len__(self) -> int:
        return len(self.ends)

    def seconds(self, i: int, /) -> np.ndarray | None:
        length = self.ends[i] - (self.ends[i - 1] if i else 0)
        return None if self.rate is None else np.arange(length) / self.rate

    def read(self, i: int, numbers: np.ndarray, /) -> np.ndarray:
        first, (height, width) = int(self.ends[i - 1]) if i else 0, self.sizes[i]
        out = np.empty((len(numbers), height, width, self.channels), dtype=np.uint8)
        for k, number in enumerate(numbers):
            name = self.files[first + int(number)]
            try:
                pixels = read_picture(os.path.join(self.root, name), self.channels)
            except BadPicture as e:
                raise BadClip(f"{os.path.basename(name)}: {e}") from None
            if pixels.shape[:2] != (height, width):
                raise BadClip(
                    f"{os.path.basename(name)} is {pixels.shape[1]}x{pixels.shape[0]}, the first frame {width}x{height}"
                )
            out[k] = pixels
        return out.transpose(0, 3, 1, 2)


class Stills:
    """Pictures of a source, each a video of one frame."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def seconds(self, i: int, /) -> np.ndarray | None:
        return np.zeros(1)

    def read(self, i: int, numbers: np.ndarray, /) -> np.ndarray:
        try:
            picture = self.source.read(i).numpy()
        except BadPicture as e:
            raise BadClip(str(e)) from None
        return picture[None].repeat(len(numbers), axis=0)


def open_frames(cfg: ClipConfig) -> ClipsFound:
    """Every folder below a folder (or the folder itself) that holds numbered pictures is a video.

    Frames are in the order of their numbers: 2.png comes before 10.png, and gaps do not matter. Labels: the first-level
    folders, when every video lies one deeper and there are at least two of them. The rate is `cfg.rate`, else unknown.
    """
    root = split_folder(Path(cfg.path).expanduser(), cfg.split)
    videos: list[tuple[str, list[str]]] = []
    for folder, below, files in os.walk(root, followlinks=False):
        below.sort()
        names = sequence([f for f in files if not f.startswith(".") and f.lower().endswith(SUFFIXES)])
        if names is not None:
            inside = os.path.relpath(folder, root).replace(os.sep, "/")
            videos.append((inside, [f if inside == "." else f"{inside}/{f}" for f in names]))
    if not videos:
        raise ValueError(f"{root} must hold folders of numbered pictures (0001.png, 0002.png ...), got none.")
    bad: Bad = []
    heads: list[Header] = []
    kept = []
    for name, files in videos:
        try:
            heads.append(read_header(os.path.join(root, files[0])))
            kept.append((name, files))
        except BadPicture as e:
            bad.append((name, f"{os.path.basename(files[0])}: {e}"))
    lengths = np.array([len(files) for _, files in kept], dtype=np.int64)
    packed = Names(f for _, some in kept for f in some)
    labels, classes = _classes([name for name, _ in kept])
    sizes = np.array([(h.height, h.width) for h in heads], dtype=np.int64).reshape(-1, 2)
    weights = [os.path.getsize(os.path.join(root, f)) for f in packed]
    return ClipsFound(
        kind="frames", where=str(root), names=Names(name for name, _ in kept),
        stamp=digest(*packed, np.array(weights)), lengths=lengths, rates=np.full(len(kept), cfg.rate or np.nan),
        reel=Frames(packed, np.cumsum(lengths), str(root), sizes, cfg.channels, cfg.rate), sizes=sizes, labels=labels,
        codecs=np.array([h.format for h in heads], dtype=str), classes=classes, bad=bad,
    )  # fmt: skip


def open_pictures(cfg: ClipConfig) -> ClipsFound:
    """ "pictures:PATH": whatever `openjepa train` of a picture method would read there, each a clip of one frame."""
    path = cfg.path.partition(":")[2]
    source = open_source(
        DataConfig(
            path=path, split=cfg.split, size=cfg.size, channels=cfg.channels, cache=cfg.cache, cache_dir=cfg.cache_dir,
            max_bad=cfg.max_bad,
        )
    )  # fmt: skip
    count = len(source)
    return ClipsFound(
        kind="pictures", where=f"pictures:{source.where}", names=source.names, stamp=source.fingerprint(),
        reel=Stills(source), lengths=np.ones(count, dtype=np.int64), rates=np.full(count, np.nan),
        sizes=np.full((count, 2), source.size, dtype=np.int64), codecs=np.full(count, "picture"), labels=source.labels,
        classes=source.classes, bad=source.bad,
    )  # fmt: skip


def sequence(names: Sequence[str]) -> list[str] | None:
    """The names in the order of their numbers when they are numbered frames: two at least, one stem, no number twice.

    >>> sequence(["f10.png", "f2.png", "f1.png"]), sequence(["cat.png", "dog.png"])
    (['f1.png', 'f2.png', 'f10.png'], None)
    """
    numbered = {}
    stems = set()
    for name in names:
        match = re.fullmatch(r"(.*?)(\d+)(\.[^.]+)", name)
        if match is None:
            return None
        stems.add((match.group(1), match.group(3).lower()))
        numbered[int(match.group(2))] = name
    if len(names) < 2 or len(stems) != 1 or len(numbered) != len(names):
        return None
    return [numbered[k] for k in sorted(numbered)]


def _classes(names: list[str]) -> tuple[np.ndarray | None, list[str] | None]:
    tops = [name.split("/", 1)[0] if "/" in name else "" for name in names]
    classes = sorted(set(tops))
    if "" in classes or len(classes) < 2:
        return None, None
    number = {name: k for k, name in enumerate(classes)}
    return np.array([number[t] for t in tops], dtype=np.int64), classes
