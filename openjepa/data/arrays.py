"""Arrays on disk: .npy, .npz and IDX (the MNIST files), and the rules that turn any array into pictures."""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from openjepa.data.config import DataConfig
from openjepa.data.picture import to_channels
from openjepa.data.source import Found, digest

_IMAGE_KEYS = ("images", "image", "x", "X", "data", "pixels", "arr_0")
_LABEL_KEYS = ("labels", "label", "y", "Y", "targets", "target")
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class Positions(Sequence[str]):
    """ "0", "1", "2" ... as names, without holding them."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: Any) -> Any:
        at = range(self.length)[i]
        return [str(k) for k in at] if isinstance(at, range) else str(at)


def as_pictures(array: np.ndarray, channels: int, where: str) -> np.ndarray:
    """Any picture array as uint8 (N, C, H, W), without a copy where possible.

    Layout: (N, H, W) is grey; of (N, H, W, C) and (N, C, H, W) the one with 1 to 4 channels in its place is taken, and
    if both fit, the one with square pictures, else channels last. Values: uint8 as it is; uint16 divided by 257; bool
    0 or 255; float must lie in 0..1 and is multiplied by 255; other whole numbers must lie in 0..255.
    """
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim != 4:
        raise ValueError(
            f"{where} must hold pictures as (N, H, W), (N, H, W, C) or (N, C, H, W), got shape {array.shape}. "
            "For clips, (N, T, H, W) or (N, T, H, W, C), set frames=T."
        )
    elif not _channels_last(array.shape):
        if array.shape[1] not in (1, 2, 3, 4):
            raise ValueError(
                f"{where} must have 1 to 4 channels, got shape {array.shape}. Move the channels to the end."
            )
        array = array.transpose(0, 2, 3, 1)
    if array.shape[0] == 0:
        raise ValueError(f"{where} must hold at least one picture, got shape {array.shape}.")
    return to_channels(_bytes(array, where), channels).transpose(0, 3, 1, 2)


def as_clips(array: np.ndarray, frames: int, channels: int, where: str) -> np.ndarray:
    """Clips (N, T, H, W), (N, T, H, W, C) or (N, T, C, H, W) as uint8 (N, T * C, H, W): frames along the channels.

    So a clip goes through cropping, flipping and normalising as one picture, and all its frames are treated alike.

    >>> as_clips(np.zeros((5, 4, 8, 8), np.uint8), 4, 1, "clips").shape
    (5, 4, 8, 8)
    """
    if array.ndim not in (4, 5) or array.shape[1] != frames:
        raise ValueError(
            f"{where} must hold clips of {frames} frames, (N, {frames}, H, W) or (N, {frames}, H, W, C), got shape "
            f"{array.shape}. Cut them to that length, or set frames."
        )
    flat = as_pictures(array.reshape(-1, *array.shape[2:]), channels, where)  # (N T, C, H, W)
    return flat.reshape(len(array), -1, *flat.shape[2:])


def open_npy(cfg: DataConfig) -> Found:
    """A .npy array of pictures (memory-mapped), or a .npz with pictures and, when it has them, labels.

    In a .npz the pictures are under `image_column`, `images`, `x`, `data` ..., or with `split` under `train_images`,
    `x_train` and the like; labels likewise.
    """
    path = Path(cfg.path).expanduser()
    where = str(path)
    array, labels = load_arrays(path, (cfg.image_column,), cfg.label_column, cfg.split)
    if cfg.frames > 1:
        return found_arrays("npy", where, as_clips(array, cfg.frames, cfg.channels, where), labels)
    return found_arrays("npy", where, as_pictures(array, cfg.channels, where), labels)


def load_arrays(
    path: Path, columns: tuple[str, ...], label_column: str, split: str | None, mode: Literal["r", "c"] = "c"
) -> tuple[np.ndarray, np.ndarray | None]:
    """The array of a .npy (memory-mapped), or those of a .npz: what lies under one of `columns` or the usual names, and
    the labels when there are some."""
    where = str(path)
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode=mode, allow_pickle=False), None
        with np.load(path, allow_pickle=False) as file:
            names = (*columns, *_IMAGE_KEYS)
            key = _key(file.files, names, split)
            if key is None:
                raise ValueError(
                    f"{where} must hold pictures under one of {', '.join(_IMAGE_KEYS)}"
                    f"{'' if split is None else f' for split {split!r}'}, got {', '.join(file.files)}. "
                    "Name the array with image_column."
                )
            label_key = _key(file.files, (label_column, *_LABEL_KEYS), split)
            return file[key], None if label_key is None else file[label_key]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as e:
        raise ValueError(f"{where} must be a readable array file, got: {str(e).splitlines()[0]}.") from None
    except ValueError as e:
        if "pickle" in str(e) or "Python objects" in str(e):
            raise ValueError(f"{where} must hold plain numbers, got Python objects, which are never loaded.") from None
        raise


def open_idx(cfg: DataConfig) -> Found:
    """IDX files as MNIST has them, plain or .gz: one images file, or a folder with train-* and t10k-* pairs.

    Labels come from the file whose name has `labels` in place of `images` (and idx1 in place of idx3).
    """
    path = Path(cfg.path).expanduser()
    if path.is_dir():
        path = _idx_in_folder(path, cfg.split)
    array = read_idx(path)
    labels = None
    for name in (path.name.replace("images", "labels").replace("idx3", "idx1"),):
        for twin in (path.with_name(name), path.with_name(name + ".gz"), path.with_name(name.removesuffix(".gz"))):
            if labels is None and name != path.name and twin.exists():
                labels = read_idx(twin)
    return found_arrays("idx", str(path), as_pictures(array, cfg.channels, str(path)), labels)


def read_idx(path: Path) -> np.ndarray:
    """One IDX array: two zero bytes, a type, the number of axes, their lengths (big-endian), the values."""
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as e:
        raise ValueError(f"{path} must be a readable IDX file, got: {e}.") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES or data[3] == 0:
        raise ValueError(f"{path} must be an IDX file, got a file that starts with {data[:4].hex(' ')!r}.")
    axes = data[3]
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", axes, 4))
    kind = np.dtype(_IDX_TYPES[data[2]])
    need = 4 + 4 * axes + int(np.prod(shape)) * kind.itemsize
    if len(data) != need:
        raise ValueError(f"{path} must hold {need} bytes for shape {shape}, got {len(data)}. Fetch the file again.")
    values = np.frombuffer(bytearray(data), kind, offset=4 + 4 * axes).reshape(shape)
    return values.astype(kind.newbyteorder("="), copy=False)


def found_arrays(kind: str, where: str, arrays: np.ndarray, labels: np.ndarray | None) -> Found:
    """A `Found` of pixels in memory; its stamp is their content."""
    if labels is not None:
        labels = np.asarray(labels)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != (len(arrays),):
            raise ValueError(f"{where} must hold one label per picture ({len(arrays)}), got shape {labels.shape}.")
    numbers, classes = _numbered(labels)
    stamp = digest(arrays.shape, *(_crc(arrays[at : at + 4096]) for at in range(0, len(arrays), 4096)))
    return Found(
        kind=kind, where=where, names=Positions(len(arrays)), stamp=stamp, fresh=stamp, arrays=arrays,
        labels=numbers, classes=classes,
    )  # fmt: skip


def _numbered(labels: np.ndarray | None) -> tuple[np.ndarray | None, list[str] | None]:
    if labels is None:
        return None, None
    if labels.dtype.kind in "iub" or (labels.dtype.kind == "f" and (labels == np.floor(labels)).all()):
        numbers = labels.astype(np.int64)
        return numbers, [str(k) for k in range(int(numbers.max()) + 1)]
    names, numbers = np.unique(labels.astype(str), return_inverse=True)
    return numbers.astype(np.int64), [str(n) for n in names]


def _crc(block: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(block).data)


def _channels_last(shape: tuple[int, ...]) -> bool:
    last, first = shape[-1] in (1, 2, 3, 4), shape[1] in (1, 2, 3, 4)
    if last and first:
        return shape[1] == shape[2] or shape[2] != shape[3]
    return last


def _bytes(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{where} must hold numbers, got {array.dtype}.")
    low, high = float(array.min()), float(array.max())
    top = 1.0 if array.dtype.kind == "f" else 255.0
    if not (low >= 0 and high <= top):  # also catches NaN
        raise ValueError(
            f"{where} must hold uint8, uint16 or float pictures in 0..1, got {array.dtype} in {low:g}..{high:g}. "
            "Scale them first."
        )
    return np.floor(array * (255.0 / top) + 0.5).astype(np.uint8)


def _key(keys: list[str], names: tuple[str, ...], split: str | None) -> str | None:
    if split is None:
        plain = [n for n in names if n in keys]
        return plain[0] if plain else _key(keys, names, "train")
    tries = [f for n in names for f in (f"{split}_{n}", f"{n}_{split}")]
    return next((t for t in tries if t in keys), None)


def _idx_in_folder(folder: Path, split: str | None) -> Path:
    prefix = {None: "train", "train": "train", "test": "t10k"}.get(split, split)
    found = sorted(p for p in folder.iterdir() if "images" in p.name and p.name.startswith(str(prefix)))
    if not found:
        there = ", ".join(sorted(p.name for p in folder.iterdir()))
        raise ValueError(f"{folder} must hold an IDX file {prefix}-images* for split {split!r}, got {there}.")
    return Path(os.fspath(found[0]))
