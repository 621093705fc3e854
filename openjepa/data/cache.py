"""Small pictures held as one uint8 memory map: decoded once, and read from then on at the speed of memory."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from openjepa.data.crop import crop
from openjepa.data.picture import BadPicture, Header, read_header, read_picture
from openjepa.data.source import Bad, Found, Raw, check_bad, digest

log = logging.getLogger("openjepa.data")

SHORT_SIDE = 256  # pictures are small when the middle one's short side is at most this; larger ones are reduced to it
MAX_BYTES = 8 * 2**30  # a larger cache is not made by itself
_VERSION = 1
_BLOCK = 512


class Held:
    """Pictures of several sizes in one flat memory map; reopened by path after pickling."""

    def __init__(self, path: str, shapes: np.ndarray) -> None:
        self.path, self.shapes = path, shapes  # (N, 3) channels, height, width
        self.ends = np.cumsum(shapes.prod(1))
        self._flat: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.shapes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_flat": None}

    def __getitem__(self, i: int) -> np.ndarray:
        if self._flat is None:
            self._flat = np.load(self.path, mmap_mode="c", allow_pickle=False)
        shape = self.shapes[i]
        flat = self._flat[self.ends[i] - shape.prod() : self.ends[i]]
        return flat.reshape(shape).transpose(1, 2, 0)  # (H, W, C)


def cache_folder(asked: str | None) -> Path:
    """The folder asked for, else $OPENJEPA_CACHE, else openjepa/ in the user's cache folder."""
    if asked is not None:
        return Path(asked).expanduser()
    base = os.environ.get("OPENJEPA_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openjepa"


def hold(found: Found, *, channels: int, folder: Path, max_bad: float) -> Found:
    """`found` with its pictures decoded into a memory map below `folder`, or out of one made earlier.

    Pictures of one size become `arrays`. When all have one shape (height to width) and only some are larger, those are
    reduced to the most common size; otherwise pictures keep their sizes, with short sides over 256 reduced to 256.
    Unreadable files are left out and listed. The map is written beside its place and renamed, carries a checksum that
    is verified on opening, and is made again when it does not match.
    """
    key = digest(found.fresh, channels, SHORT_SIDE, _VERSION)[:24]
    place = folder / "pictures" / key
    if place.exists():
        try:
            return _open(found, place)
        except (ValueError, KeyError, TypeError, EOFError, OSError) as e:
            log.warning("the cache %s is damaged (%s) and is made again", place, e)
            shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=place.parent))
    try:
        _write(found, work, channels, max_bad)
        try:
            work.rename(place)
        except OSError:
            if not place.exists():  # otherwise another process was faster: its map is as good
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _open(found, place)


def survey(raw: Raw, index: np.ndarray) -> tuple[list[Header | None], dict[int, str]]:
    """Headers of the pictures at `index` (None where unreadable), and the reasons by position."""
    headers: list[Header | None] = []
    reasons: dict[int, str] = {}
    for i in index:
        try:
            item = raw[int(i)]
            if isinstance(item, np.ndarray):
                headers.append(Header(item.shape[1], item.shape[0], "RGB" if item.shape[2] == 3 else "L", "array"))
            else:
                headers.append(read_header(item))
        except BadPicture as e:
            headers.append(None)
            reasons[int(i)] = str(e)
    return headers, reasons


def _write(found: Found, work: Path, channels: int, max_bad: float) -> None:
    raw = found.raw
    assert raw is not None
    everything = np.arange(len(raw))
    headers, reasons = survey(raw, everything)
    _stop_early(found, reasons, max_bad)
    sizes = plan_sizes(headers)
    shapes: list[tuple[int, ...]] = []
    crc = 0
    with open(work / "pixels.npy", "wb") as file:
        _npy_header(file, 0)
        for i, pixels, reason in _decode(raw, sizes, channels, [int(i) for i in everything if int(i) not in reasons]):
            if pixels is None:
                reasons[i] = reason
                _stop_early(found, reasons, max_bad)
                continue
            data = np.ascontiguousarray(pixels).data
            crc = zlib.crc32(data, crc)
            file.write(data)
            shapes.append(pixels.shape)
        file.seek(0)
        _npy_header(file, sum(int(np.prod(s)) for s in shapes))
        file.flush()
        os.fsync(file.fileno())
    if not shapes:
        raise ValueError(f"{found.where} must hold at least one readable picture, got {len(reasons)} unreadable ones.")
    np.save(work / "shapes.npy", np.array(shapes, dtype=np.int64))
    info = {"version": _VERSION, "crc": crc, "count": len(raw), "bad": sorted(reasons.items())}
    (work / "info.json").write_text(json.dumps(info))


def plan_sizes(headers: list[Header | None]) -> list[tuple[int, int] | None]:
    """(height, width) at which each picture is held: see `hold`."""
    known = [(h.height, h.width) for h in headers if h is not None]
    if not known:
        return [None] * len(headers)
    (high, wide), _ = Counter(known).most_common(1)[0]
    same_shape = all(h * wide == w * high and h >= high for h, w in known)

    def size(h: Header | None) -> tuple[int, int] | None:
        if h is None:
            return None
        if same_shape and min(high, wide) <= SHORT_SIDE:
            return high, wide
        ratio = min(1.0, SHORT_SIDE / min(h.height, h.width))
        return max(1, round(h.height * ratio)), max(1, round(h.width * ratio))

    return [size(h) for h in headers]


def _decode(
    raw: Raw, sizes: list[tuple[int, int] | None], channels: int, index: list[int]
) -> Iterator[tuple[int, np.ndarray | None, str]]:
    """(position, pixels (C, H, W) or None, reason) in order; Pillow decodes in threads, as it lets go of the lock."""

    def one(i: int) -> tuple[int, np.ndarray | None, str]:
        try:
            item = raw[i]
            size = sizes[i]
            assert size is not None
            pixels = item if isinstance(item, np.ndarray) else read_picture(item, channels, short=2 * min(size))
        except BadPicture as e:
            return i, None, str(e)
        chw = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        if (chw.shape[1] > chw.shape[2]) != (size[0] > size[1]):
            return i, None, "its head and its pixels disagree about its size"
        if chw.shape[1:] != size:
            chw = crop(torch.from_numpy(chw), (0, 0, *chw.shape[1:]), size).numpy()
        return i, chw, ""

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for at in range(0, len(index), _BLOCK):
            yield from pool.map(one, index[at : at + _BLOCK])


def _open(found: Found, place: Path) -> Found:
    info = json.loads((place / "info.json").read_text())
    shapes = np.load(place / "shapes.npy", allow_pickle=False)
    flat = np.load(place / "pixels.npy", mmap_mode="c", allow_pickle=False)
    if info["version"] != _VERSION or info["count"] != len(found.names) or flat.size != shapes.prod(1).sum():
        raise ValueError("its parts do not fit together")
    if len(shapes) + len(info["bad"]) != info["count"] or _crc(flat) != info["crc"]:
        raise ValueError("its checksum does not match")
    reasons = {int(i): str(reason) for i, reason in info["bad"]}
    bad: Bad = found.bad + [(found.names[i], reason) for i, reason in reasons.items()]
    if reasons:
        found = found.keep(np.array([i for i in range(len(found.names)) if i not in reasons], dtype=np.int64))
    if (shapes == shapes[0]).all():
        return replace(found, raw=None, arrays=flat.reshape(len(shapes), *shapes[0]), bad=bad, shards=None)
    return replace(found, raw=Held(str(place / "pixels.npy"), shapes), bad=bad, shards=None)


def _stop_early(found: Found, reasons: dict[int, str], max_bad: float) -> None:
    if reasons:
        bad = found.bad + [(found.names[i], reason) for i, reason in sorted(reasons.items())]
        check_bad(bad, len(found.names), len(found.names), max_bad)


def _crc(flat: np.ndarray) -> int:
    crc = 0
    for at in range(0, flat.size, 2**24):
        crc = zlib.crc32(flat[at : at + 2**24].data, crc)
    return crc


def _npy_header(file: BinaryIO, count: int) -> None:
    """The head of a flat uint8 .npy of `count` bytes, always 128 bytes long so that it can be filled in at the end."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count},), }}".ljust(117) + "\n"
    file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    assert len(text) == 118
