"""Folders of picture files, and list files that name them."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openjepa.data.config import DataConfig
from openjepa.data.picture import SUFFIXES
from openjepa.data.source import Found, Names, digest

_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}
_PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path", "video", "video_path")
_LABEL_COLUMNS = ("label", "class", "target", "category", "y")


class Paths:
    """Files below a folder."""

    def __init__(self, root: str, names: Sequence[str]) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> str:
        return os.path.join(self.root, self.names[i])


def open_folder(cfg: DataConfig, suffixes: tuple[str, ...] = SUFFIXES, what: str = "pictures") -> Found:
    """Every picture file (or other, by `suffixes`) below a folder, sorted, links followed, hidden files left out.

    Labels: the first-level folders, sorted, when every picture lies in one and there are at least two. With `split`,
    the folder of that name is used; without it, and when the first-level folders are splits (train, test ...), train.
    """
    root = split_folder(Path(cfg.path).expanduser(), cfg.split)
    names = walk(root, suffixes)
    if not names:
        raise ValueError(
            f"{root} must hold {what}, got none. Looked for {', '.join(suffixes)} in it and all folders below; "
            "give another folder, or a list file, an array file, a Parquet file or tar shards."
        )
    tops = [name.split("/", 1)[0] if "/" in name else "" for name in names]
    classes = sorted(set(tops))
    labels = None
    if "" not in classes and len(classes) > 1:
        number = {name: k for k, name in enumerate(classes)}
        labels = np.array([number[t] for t in tops], dtype=np.int64)
    stats = [os.stat(os.path.join(root, name)) for name in names]
    stamp = digest(*names, np.array([s.st_size for s in stats]))
    return Found(
        kind="folder",
        where=str(root),
        names=(packed := Names(names)),
        stamp=stamp,
        fresh=digest(stamp, str(root.resolve()), np.array([s.st_mtime_ns for s in stats])),
        raw=Paths(str(root), packed),
        labels=labels,
        classes=classes if labels is not None else None,
    )


def split_folder(root: Path, split: str | None) -> Path:
    """The folder of a split below `root`, or `root` itself when it has no splits and none is asked for."""
    below = sorted(p.name for p in root.iterdir() if p.is_dir() and not _hidden(p.name))
    if split is not None:
        if split not in below:
            raise ValueError(
                f"split must be a folder of {root}, got {split!r}. Folders there: {', '.join(below) or 'none'}."
            )
        return root / split
    if "train" in below and set(below) <= _SPLITS:
        return root / "train"
    return root


def walk(root: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Relative names of all files with `suffixes` below `root`, sorted, with forward slashes; safe against loops."""
    names: list[str] = []
    visited: set[str] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            below.clear()
            continue
        visited.add(real)
        below[:] = sorted(d for d in below if not _hidden(d))
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        for file in files:
            if not _hidden(file) and file.lower().endswith(suffixes):
                names.append(file if inside == "." else f"{inside}/{file}")
    return sorted(names)


def open_list(cfg: DataConfig, suffixes: tuple[str, ...] = SUFFIXES, what: str = "picture") -> Found:
    """A .txt, .csv or .tsv file of pictures (or others, by `suffixes`), relative to its own folder, maybe with labels.

    .txt: one path per line, then optionally a space and a label; empty lines and lines that start with # are skipped.
    .csv/.tsv: columns named path (or file, filename, image ...) and optionally label (or class, target ...); without
    such a header, the first column is the path and the second the label. Labels are whole numbers from 0 on, or words,
    which are numbered in sorted order. Files that do not exist are bad files like any other. A .csv without commas is
    read like a .txt, as the lists of the published video code are written.
    """
    path = Path(cfg.path).expanduser()
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    columns = path.suffix.lower() in (".csv", ".tsv") and not _spaced(text, suffixes)
    rows = _csv_rows(text, path, cfg, suffixes) if columns else _txt_rows(text, suffixes)
    if not rows:
        raise ValueError(f"{path} must name at least one {what} per line, got none.")
    names = Names(name for name, _ in rows)
    labels, classes = number_labels([label for _, label in rows])
    root = path.resolve().parent
    stamp = digest(text)
    touched = [_touched(os.path.join(root, name)) for name in names]
    return Found(
        kind="list",
        where=str(path),
        names=names,
        stamp=stamp,
        fresh=digest(stamp, str(root), np.array(touched)),
        raw=Paths(str(root), names),
        labels=labels,
        classes=classes,
    )


def number_labels(labels: Sequence[str | int | None]) -> tuple[np.ndarray | None, list[str] | None]:
    """Words or numbers as int64 and the class names; -1 where one is missing, (None, None) when all are.

    >>> number_labels(["cat", "ant", None])
    (array([ 1,  0, -1]), ['ant', 'cat'])
    """
    present = [x for x in labels if x is not None and x != ""]
    if not present:
        return None, None
    if all(_is_count(x) for x in present):
        numbers = np.array([-1 if x is None or x == "" else int(x) for x in labels], dtype=np.int64)
        return numbers, [str(k) for k in range(int(numbers.max()) + 1)]
    classes = sorted({str(x) for x in present})
    number = {name: k for k, name in enumerate(classes)}
    return np.array([-1 if x is None or x == "" else number[str(x)] for x in labels], dtype=np.int64), classes


def _is_count(x: str | int) -> bool:
    text = str(x).strip()
    return text.isascii() and text.isdigit() and int(text) < 10**6


def _spaced(text: str, suffixes: tuple[str, ...]) -> bool:
    """Whether the first line is a path, a space and a label, and there are no columns."""
    parts = (text.strip().splitlines() or [""])[0].rsplit(None, 1)
    return "," not in text and "\t" not in text and len(parts) == 2 and parts[0].lower().endswith(suffixes)


def _txt_rows(text: str, suffixes: tuple[str, ...]) -> list[tuple[str, str | None]]:
    rows: list[tuple[str, str | None]] = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        parts = line.rsplit(None, 1)
        # "my dog.jpg" is one path with a space; "my dog.jpg 3" is a path and a label
        if len(parts) == 2 and parts[0].lower().endswith(suffixes):
            rows.append((parts[0], parts[1]))
        else:
            rows.append((line, None))
    return rows


def _csv_rows(text: str, path: Path, cfg: DataConfig, suffixes: tuple[str, ...]) -> list[tuple[str, str | None]]:
    dialect = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
    rows = [row for row in csv.reader(text.splitlines(), dialect) if any(cell.strip() for cell in row)]
    if not rows:
        return []
    header = [cell.strip().lower() for cell in rows[0]]
    at = _column(header, (cfg.image_column.lower(), *_PATH_COLUMNS))
    label_at = _column(header, (cfg.label_column.lower(), *_LABEL_COLUMNS))
    if at is None:
        if header[0].endswith(suffixes):
            at, label_at = 0, 1
        else:
            raise ValueError(
                f"{path} must have a column of paths ({', '.join(_PATH_COLUMNS)}), got {', '.join(header)}. "
                "Name it with image_column."
            )
    else:
        rows = rows[1:]

    def cell(row: list[str], k: int | None) -> str | None:
        return None if k is None or k >= len(row) else row[k].strip()

    return [(cell(row, at) or "", cell(row, label_at)) for row in rows]


def _column(header: list[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _touched(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
