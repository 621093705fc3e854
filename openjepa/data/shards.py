"""WebDataset tar shards: read forwards, file by file, yet every picture has a position.

A shard's headers are read once (the pictures are skipped over), which gives every picture a shard, an offset and a
length. From then on a picture is one seek and one read: no worker state, exact resume, any split over ranks. The order
of an epoch follows the shards (see `Source.order`), so that reading stays nearly sequential.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import re
import tarfile
import threading
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from openjepa.data.cache import cache_folder
from openjepa.data.config import DataConfig
from openjepa.data.folder import number_labels
from openjepa.data.picture import SUFFIXES, BadPicture
from openjepa.data.source import Bad, Found, Names, digest

log = logging.getLogger("openjepa.data")

_OPEN_FILES = 32
_VERSION = 1

Row = tuple[str, int, int, int, Any]  # name, shard, offset, length, label


class Members:
    """Members of tar files by (file, offset, length); files are opened per process and at most 32 at a time."""

    def __init__(self, paths: list[str], shard: np.ndarray, offset: np.ndarray, length: np.ndarray) -> None:
        self.paths, self.shard, self.offset, self.length = paths, shard, offset, length
        self._files: dict[int, BinaryIO] = {}
        self._process = os.getpid()
        self._lock = threading.Lock()  # decoding threads share the files' positions

    def __len__(self) -> int:
        return len(self.shard)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_files", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _files={}, _lock=threading.Lock())

    def __getitem__(self, i: int) -> bytes:
        if self._process != os.getpid():  # a forked worker must not share the parent's file positions
            self._files, self._lock, self._process = {}, threading.Lock(), os.getpid()
        length = int(self.length[i])
        with self._lock:
            data = self._read(int(self.shard[i]), int(self.offset[i]), length)
        if len(data) < length:
            raise BadPicture(f"shard ends {length - len(data)} bytes early")
        return data

    def _read(self, shard: int, offset: int, length: int) -> bytes:
        if shard not in self._files:
            while len(self._files) >= _OPEN_FILES:
                self._files.pop(next(iter(self._files))).close()
            self._files[shard] = open(self.paths[shard], "rb")  # noqa: SIM115 - closed when crowded out, or with self
        file = self._files[shard]
        file.seek(offset)
        return file.read(length)

    def __del__(self) -> None:
        for file in self._files.values():
            file.close()


def open_shards(cfg: DataConfig, suffixes: tuple[str, ...] = SUFFIXES, what: str = "pictures") -> Found:
    """Uncompressed tar shards: a file, a pattern ("s/{000..015}.tar", "s/*.tar"), or a folder of them.

    Members that share a name up to the first dot are one sample: a picture (.jpg, .png ...; or another file, by
    `suffixes`), and maybe a label in .cls (a number or a word) or under "label" in .json. A damaged shard gives what
    comes before the damage, and is listed among the bad files.
    """
    paths = shard_files(cfg.path, cfg.split)
    touched = [f"{os.path.realpath(p)}:{os.stat(p).st_mtime_ns}:{os.stat(p).st_size}" for p in paths]
    folder = cache_folder(cfg.cache_dir) / "shards" if cfg.cache else None
    kept = None if folder is None else folder / f"{digest(_VERSION, *touched, *suffixes)}.json"
    rows, bad = _index(paths, kept, suffixes)
    if not rows:
        some = f": {bad[0][1]}" if bad else ""
        raise ValueError(f"{cfg.path} must hold {what} ({', '.join(suffixes)}) in tar files, got none{some}.")
    names = Names(row[0] for row in rows)
    numbers, classes = number_labels([row[4] for row in rows])
    spots = np.array([row[1:4] for row in rows], dtype=np.int64).T.copy()
    stamp = digest(*names, spots)
    return Found(
        kind="shards",
        where=cfg.path,
        names=names,
        stamp=stamp,
        fresh=digest(stamp, *touched),
        raw=Members(paths, *spots),
        labels=numbers,
        classes=classes,
        shards=spots[0],
        bad=bad,
    )


def shard_files(pattern: str, split: str | None) -> list[str]:
    """The files that a pattern stands for, braces first and then wildcards; every brace name must exist."""
    path = os.path.expanduser(pattern)
    if os.path.isdir(path):
        found = sorted(str(p) for p in Path(path).glob("*.tar"))
        if split is not None:
            found = [p for p in found if os.path.basename(p).startswith(split)]
            if not found:
                raise ValueError(f"split must be the start of the shards' names in {path}, got {split!r}.")
        return found
    found = []
    for name in expand(path):
        files = sorted(glob.glob(name)) if any(c in name for c in "*?[") else [name]
        if not files or not all(os.path.isfile(f) for f in files):
            raise ValueError(f"tar shards must exist, got {name}. Check the pattern {pattern!r}.")
        found += files
    zipped = next((f for f in found if f.lower().endswith((".gz", ".tgz", ".bz2", ".xz", ".zst"))), None)
    if zipped:
        raise ValueError(f"tar shards must be uncompressed, got {zipped}. Do `gunzip` first: pictures gain nothing.")
    return found


def expand(pattern: str) -> list[str]:
    """Brace patterns as the shell expands them: {a,b} and {000..015}.

    >>> expand("s/{08..10}.tar")
    ['s/08.tar', 's/09.tar', 's/10.tar']
    """
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    body = match.group(1)
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", body)
    if ends:
        first, last = int(ends.group(1)), int(ends.group(2))
        width = len(ends.group(1)) if ends.group(1).startswith("0") else 0
        choices = [str(k).zfill(width) for k in range(first, last + 1)]
    else:
        choices = body.split(",")
    return [name for c in choices for name in expand(pattern[: match.start()] + c + pattern[match.end() :])]


def _index(paths: list[str], kept: Path | None, suffixes: tuple[str, ...]) -> tuple[list[Row], Bad]:
    """Rows of all shards and what is damaged, out of the file `kept` if it is sound, else read and kept there."""
    if kept is not None and kept.exists():
        try:
            crc, text = kept.read_text(encoding="utf-8").split("\n", 1)
            if int(crc) == zlib.crc32(text.encode()):
                rows, bad = json.loads(text)
                return [tuple(row) for row in rows], [tuple(b) for b in bad]
        except (OSError, ValueError):
            pass  # made again below
    rows, bad = [], []
    for number, path in enumerate(paths):
        samples, damage = _read_index(path, suffixes)
        if damage:
            bad.append((os.path.basename(path), damage))
        rows += [(name, number, offset, length, label) for name, offset, length, label in samples]
    if kept is not None:
        text = json.dumps([rows, bad])
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(f".{os.getpid()}.part")
            part.write_text(f"{zlib.crc32(text.encode())}\n{text}", encoding="utf-8")
            part.replace(kept)
        except OSError as e:
            log.warning("the index of the shards is not kept in %s (%s)", kept.parent, e)
    return rows, bad


def _read_index(path: str, suffixes: tuple[str, ...]) -> tuple[list[tuple[str, int, int, Any]], str]:
    """Samples of one tar file as (name, offset, length, label), and what is wrong with it ("" when nothing is)."""
    pictures: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, Any] = {}
    damage = ""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                key, _, suffix = base.partition(".")
                key, suffix = f"{folder}/{key}", suffix.lower()
                if not member.isfile() or base.startswith("."):
                    continue
                if f".{suffix.rpartition('.')[2]}" in suffixes:
                    pictures.setdefault(key, (member.name, member.offset_data, member.size))
                elif suffix in ("cls", "json"):
                    data = tar.extractfile(member)
                    label = _label(data.read() if data else b"", suffix)
                    if label is not None:
                        labels[key] = label
            damage = _unread(path, tar.offset)
    except (tarfile.TarError, OSError, EOFError) as e:
        damage = f"damaged tar file: {e}"
    name = os.path.basename(path)
    samples = [(f"{name}/{file}", at, size, labels.get(key)) for key, (file, at, size) in pictures.items()]
    return samples, f"{damage}; {len(samples)} pictures before it are used" if damage else ""


def _unread(path: str, offset: int) -> str:
    """tarfile stops in silence at a damaged header: the end is real only if what follows is zeros, or nothing."""
    with open(path, "rb") as file:
        file.seek(offset)
        rest = file.read(512)
    return f"damaged tar header at byte {offset}" if rest.strip(b"\0") else ""


def _label(data: bytes, suffix: str) -> str | int | None:
    text = data.decode("utf-8", "replace").strip()
    if suffix == "cls":
        return text or None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    label = value.get("label") if isinstance(value, dict) else None
    return label if isinstance(label, str | int) else None
