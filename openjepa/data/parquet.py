"""Parquet files in the Hugging Face layout: a column of encoded pictures, and maybe one of labels."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.data.config import DataConfig
from openjepa.data.folder import number_labels
from openjepa.data.picture import BadPicture
from openjepa.data.source import Found, Names, digest

_IN_MEMORY = 2 * 2**30  # bytes of files below which every row group stays in memory once read
_GROUPS_KEPT = 16  # row groups kept otherwise
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")


def pyarrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet), or what to install."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError('Parquet needs pyarrow, got none. Do `pip install "openjepa[eval]"`.') from None
    return pyarrow, pyarrow.parquet


class RowGroups:
    """Encoded pictures of Parquet files, row group by row group; opens its files anew after pickling."""

    def __init__(
        self, paths: list[str], column: str, groups: list[tuple[int, int]], sizes: list[int], keep: int
    ) -> None:
        self.paths, self.column, self.groups, self.keep = paths, column, groups, keep
        self.ends = np.cumsum(sizes, dtype=np.int64)
        self._held: OrderedDict[int, list] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_held", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _held=OrderedDict(), _lock=threading.Lock())

    def __getitem__(self, i: int) -> str | bytes:
        group = int(np.searchsorted(self.ends, i, side="right"))
        start = int(self.ends[group - 1]) if group else 0
        with self._lock:
            rows = self._rows(group)
        return _cell(rows[i - start])

    def _rows(self, group: int) -> list:
        if group in self._held:
            self._held.move_to_end(group)
            return self._held[group]
        _, parquet = pyarrow()
        path, number = self.groups[group]
        try:
            with parquet.ParquetFile(self.paths[path]) as file:
                rows = file.read_row_group(number, columns=[self.column], use_threads=False).column(0).to_pylist()
        except OSError as e:
            raise BadPicture(f"row group {number} cannot be read: {str(e).splitlines()[0][:100]}") from None
        self._held[group] = rows
        while len(self._held) > self.keep:
            self._held.popitem(last=False)
        return rows


def open_parquet(cfg: DataConfig, setting: str = "image_column") -> Found:
    """One .parquet file, or a folder of them (also below `data/`), where `split` is the start of their names.

    The column of pictures (of videos, with another `setting` that names it) holds {bytes, path} or plain bytes; class
    names come from the Hugging Face metadata when there.
    """
    paths = parquet_files(Path(cfg.path).expanduser(), cfg.split)
    _, parquet = pyarrow()
    groups: list[tuple[int, int]] = []
    sizes: list[int] = []
    labels: list[Any] = []
    names: list[str] = []
    classes: list[str] | None = None
    image = None
    for number, path in enumerate(paths):
        try:
            file = parquet.ParquetFile(path)
        except Exception as e:  # pyarrow's own errors derive from several built-in ones
            raise ValueError(f"{path} must be a Parquet file, got: {str(e).splitlines()[0]}.") from None
        with file:
            schema = file.schema_arrow
            image = _image_column(schema, cfg.image_column, path, setting)
            label = next((c for c in (cfg.label_column, *_LABEL_COLUMNS) if c in schema.names), None)
            if label is not None:
                labels += file.read(columns=[label]).column(0).to_pylist()
                classes = _class_names(schema.metadata, label)
            rows = file.metadata.num_rows
            names += _names(file, schema, image, path, rows)
            for k in range(file.metadata.num_row_groups):
                groups.append((number, k))
                sizes.append(file.metadata.row_group(k).num_rows)
    small = sum(p.stat().st_size for p in paths) <= _IN_MEMORY
    if not names:
        raise ValueError(f"{cfg.path} must hold at least one row, got none.")
    numbers, words = number_labels(labels)
    stamp = digest(*(f"{p.name}:{p.stat().st_size}" for p in paths), *(_ends(p) for p in paths), image)
    return Found(
        kind="parquet",
        where=str(cfg.path) if cfg.split is None else f"{cfg.path} ({cfg.split})",
        names=Names(names),
        stamp=stamp,
        fresh=digest(stamp, *(f"{p.resolve()}:{p.stat().st_mtime_ns}" for p in paths)),
        raw=RowGroups([str(p) for p in paths], str(image), groups, sizes, len(groups) if small else _GROUPS_KEPT),
        labels=numbers,
        classes=classes if classes is not None and numbers is not None and numbers.max() < len(classes) else words,
        shards=None if small else np.repeat(np.arange(len(sizes)), sizes),
    )  # fmt: skip


def parquet_files(path: Path, split: str | None) -> list[Path]:
    """The Parquet files meant by a path and a split; `train` when there are several splits and none is asked for."""
    if path.is_file():
        return [path]
    found = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet")) or sorted(path.glob("*/*.parquet"))
    by_split: dict[str, list[Path]] = {}
    for p in found:
        by_split.setdefault(p.stem.split("-")[0].split(".")[0], []).append(p)
    if split is None:
        return by_split.get("train", found)
    if split not in by_split:
        raise ValueError(f"split must be one of {', '.join(by_split) or 'none'} in {path}, got {split!r}.")
    return by_split[split]


def _cell(value: Any) -> str | bytes:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None:
        raise BadPicture("empty cell")
    return value


def _image_column(schema: Any, asked: str, path: Path, setting: str) -> str:
    arrow, _ = pyarrow()

    def holds_pictures(kind: Any) -> bool:
        if arrow.types.is_struct(kind):
            return "bytes" in [kind.field(k).name for k in range(kind.num_fields)]
        return arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind)

    usable = [f.name for f in schema if holds_pictures(f.type)]
    if asked in usable:
        return asked
    if asked in ("image", "video") and len(usable) == 1:
        return usable[0]
    raise ValueError(
        f"{setting} must name a column of encoded files in {path}, got {asked!r}. "
        f"Such columns there: {', '.join(usable) or 'none'}; all: {', '.join(schema.names)}."
    )


def _names(file: Any, schema: Any, image: str, path: Path, rows: int) -> list[str]:
    """The stored file names when there is one for each row and no two are equal, else file and row number."""
    kind = schema.field(image).type
    arrow, _ = pyarrow()
    if arrow.types.is_struct(kind) and "path" in [kind.field(k).name for k in range(kind.num_fields)]:
        stored = [row["path"] for row in file.read(columns=[f"{image}.path"]).column(0).to_pylist()]
        if all(stored) and len(set(stored)) == len(stored):
            return stored
    return [f"{path.stem}/{k}" for k in range(rows)]


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> list[str] | None:
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return [str(n) for n in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return None


def _ends(path: Path, count: int = 65536) -> bytes:
    with open(path, "rb") as file:
        head = file.read(count)
        file.seek(max(0, path.stat().st_size - count))
        return head + file.read(count)
