"""Video files: in a folder, a list, Parquet or tar shards; what was learned of them is kept for the next run."""

from __future__ import annotations

import json
import logging
import os
import time
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.data.cache import cache_folder
from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.opening import VIDEOS
from openjepa.data.clips.source import BadClip, ClipsFound
from openjepa.data.clips.video import Outline, outline, pyav, read_frames, verify
from openjepa.data.config import DataConfig
from openjepa.data.folder import Paths
from openjepa.data.folder import open_folder as folder_of
from openjepa.data.folder import open_list as list_of
from openjepa.data.parquet import open_parquet as parquet_of
from openjepa.data.picture import BadPicture
from openjepa.data.plan import cores
from openjepa.data.shards import open_shards as shards_of
from openjepa.data.source import Bad, Found, Names, Raw, digest

log = logging.getLogger("openjepa.data")

_VERSION = 1
# What numpy and zipfile raise on bytes that are not what was written
_DAMAGE = (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, zlib.error)
_PATIENCE = 20.0  # seconds after which the log says how far the reading of outlines is


class Videos:
    """Encoded videos and their outlines, which lie in a few flat arrays: cheap to copy to a worker."""

    def __init__(self, raw: Raw, outlines: Outlines, channels: int) -> None:
        self.raw, self.outlines, self.channels = raw, outlines, channels

    def __len__(self) -> int:
        return len(self.raw)

    def seconds(self, i: int, /) -> np.ndarray | None:
        about = self.outlines[i]
        return (about.times - about.times[0]) * about.unit

    def verify(self, i: int) -> None:
        """`BadClip` when video i does not decode to its end."""
        verify(_item(self.raw, i), self.outlines[i])

    def read(self, i: int, numbers: np.ndarray, /) -> np.ndarray:
        return read_frames(_item(self.raw, i), self.outlines[i], numbers, self.channels)


class Outlines(Sequence[Outline]):
    """Outlines of many videos, packed."""

    def __init__(
        self, times: np.ndarray, ends: np.ndarray, keys: np.ndarray, key_ends: np.ndarray, units: np.ndarray,
        sizes: np.ndarray, codecs: np.ndarray,
    ) -> None:  # fmt: skip
        self.times, self.ends, self.keys, self.key_ends = times, ends, keys, key_ends
        self.units, self.sizes, self.codecs = units, sizes, codecs

    @classmethod
    def pack(cls, outlines: Sequence[Outline]) -> Outlines:
        empty = [np.empty(0, dtype=np.int64)]
        return cls(
            np.concatenate([o.times for o in outlines] or empty),
            np.cumsum([len(o.times) for o in outlines], dtype=np.int64),
            np.concatenate([o.keys for o in outlines] or empty),
            np.cumsum([len(o.keys) for o in outlines], dtype=np.int64),
            np.array([o.unit for o in outlines], dtype=np.float64),
            np.array([(o.height, o.width) for o in outlines], dtype=np.int64).reshape(-1, 2),
            np.array([o.codec for o in outlines], dtype=str),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        return dict(self.__dict__)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: Any) -> Any:
        i = range(len(self))[i]
        times = self.times[self.ends[i - 1] if i else 0 : self.ends[i]]
        keys = self.keys[self.key_ends[i - 1] if i else 0 : self.key_ends[i]]
        height, width = self.sizes[i]
        return Outline(times, keys, float(self.units[i]), int(height), int(width), str(self.codecs[i]))


def open_folder(cfg: ClipConfig) -> ClipsFound:
    """Every video file below a folder, or one video file. Labels: the first-level folders, as for pictures."""
    path = Path(cfg.path).expanduser()
    if path.is_file():
        touched = path.stat()
        found = Found(
            kind="folder", where=str(path), names=Names([path.name]), raw=Paths(str(path.parent), [path.name]),
            stamp=digest(path.name, touched.st_size),
            fresh=digest(path.resolve(), touched.st_size, touched.st_mtime_ns),
        )  # fmt: skip
        return videos(found, cfg)
    return videos(folder_of(_plain(cfg), VIDEOS, "videos"), cfg)


def open_list(cfg: ClipConfig) -> ClipsFound:
    """A .txt, .csv or .tsv file that names video files, each with or without a label."""
    return videos(list_of(_plain(cfg), VIDEOS, "video"), cfg)


def open_parquet(cfg: ClipConfig) -> ClipsFound:
    """Parquet files with a column of encoded videos, and maybe one of labels."""
    return videos(parquet_of(_plain(cfg), "video_column"), cfg)


def open_shards(cfg: ClipConfig) -> ClipsFound:
    """WebDataset tar shards of video files, with labels in .cls or .json."""
    return videos(shards_of(_plain(cfg), VIDEOS, "videos"), cfg)


def _plain(cfg: ClipConfig) -> DataConfig:
    return DataConfig(
        path=cfg.path, split=cfg.split, image_column=cfg.video_column, label_column=cfg.label_column, cache=cfg.cache,
        cache_dir=cfg.cache_dir,
    )  # fmt: skip


def videos(found: Found, cfg: ClipConfig) -> ClipsFound:
    """What was found, with the outline of every file; what has none is left out and listed."""
    pyav()
    if found.raw is None:
        raise ValueError(f"{found.where} must hold encoded videos, got arrays. Give a .npy or .npz file.")
    key = digest(found.fresh, len(found.names), _VERSION)[:24]
    kept = cache_folder(cfg.cache_dir) / "clips" / f"{key}.npz" if cfg.cache else None
    outlines, sizes, bad = outlines_of(found.raw, kept)
    names = found.names
    if bad:
        gone = {i for i, _ in bad}
        found = found.keep(np.array([i for i in range(len(names)) if i not in gone], dtype=np.int64))
    listed: Bad = [*found.bad, *((names[i], reason) for i, reason in bad)]
    lengths = np.diff(outlines.ends, prepend=0)
    assert found.raw is not None
    return ClipsFound(
        kind=found.kind, where=found.where, names=found.names, stamp=found.stamp,
        reel=Videos(found.raw, outlines, cfg.channels), lengths=lengths,
        rates=np.array([o.rate for o in outlines]), sizes=outlines.sizes, codecs=outlines.codecs, labels=found.labels,
        classes=found.classes, shards=found.shards, bad=listed, bytes=sizes,
    )  # fmt: skip


def outlines_of(raw: Raw, kept: Path | None) -> tuple[Outlines, np.ndarray, list[tuple[int, str]]]:
    """Outlines and file sizes of the usable videos, and (position, reason) of the others; read in threads, or out of
    the file `kept` if it is sound."""
    if kept is not None and kept.exists():
        try:
            return _load(kept, len(raw))
        except _DAMAGE as e:
            log.warning("what is kept of the videos in %s is damaged (%s) and is made again", kept, e)

    def one(i: int) -> tuple[Outline | str, int]:
        try:
            item = _item(raw, i)
            return outline(item), os.path.getsize(item) if isinstance(item, str) else len(item)
        except BadClip as e:
            return str(e), 0

    done, said = [], time.monotonic()
    with ThreadPoolExecutor(max_workers=cores()) as pool:
        for result in pool.map(one, range(len(raw))):
            done.append(result)
            if time.monotonic() - said > _PATIENCE:
                said = time.monotonic()
                log.info("looked at %d of %d videos", len(done), len(raw))
    bad = [(i, about) for i, (about, _) in enumerate(done) if isinstance(about, str)]
    outlines = Outlines.pack([about for about, _ in done if isinstance(about, Outline)])
    sizes = np.array([size for about, size in done if isinstance(about, Outline)], dtype=np.int64)
    if kept is not None:
        _save(kept, outlines, sizes, bad, len(raw))
    return outlines, sizes, bad


def _load(kept: Path, count: int) -> tuple[Outlines, np.ndarray, list[tuple[int, str]]]:
    with np.load(kept, allow_pickle=False) as file:  # a zip: every member carries a checksum
        about = json.loads(str(file["about"]))
        outlines = Outlines(**{name: file[name] for name in _PARTS})
        sizes = file["bytes"]
    bad = [(int(i), str(reason)) for i, reason in about["bad"]]
    if about["version"] != _VERSION or len(outlines) + len(bad) != count or len(sizes) != len(outlines):
        raise ValueError("its parts do not fit together")
    return outlines, sizes, bad


_PARTS = ("times", "ends", "keys", "key_ends", "units", "sizes", "codecs")


def _save(kept: Path, outlines: Outlines, sizes: np.ndarray, bad: list[tuple[int, str]], count: int) -> None:
    part = kept.with_suffix(f".{os.getpid()}.part")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            about = json.dumps({"version": _VERSION, "bad": bad})
            everything: dict[str, Any] = {"about": np.array(about), "bytes": sizes, **outlines.arrays()}
            np.savez(file, **everything)
        part.replace(kept)
    except OSError as e:
        log.warning("what was learned of the videos is not kept in %s (%s)", kept.parent, e)


def _item(raw: Raw, i: int) -> str | bytes:
    try:
        item = raw[i]
    except BadPicture as e:
        raise BadClip(str(e)) from None
    if isinstance(item, np.ndarray):
        raise BadClip("pixels in place of an encoded video")
    return item
