"""Hugging Face datasets: by name (`hf://NAME`), or a folder written by `save_to_disk`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from openjepa.data.config import DataConfig
from openjepa.data.picture import BadPicture
from openjepa.data.source import Found, Names, digest


class Rows:
    """Encoded pictures of a dataset's column; the dataset itself is memory-mapped and pickles as its file names."""

    def __init__(self, dataset: Any, column: str) -> None:
        self.dataset, self.column = dataset, column

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> str | bytes:
        cell = self.dataset[int(i)][self.column]
        value = cell["bytes"] or cell["path"]
        if value is None:
            raise BadPicture("empty cell")
        return value


def open_hub(cfg: DataConfig) -> Found:
    """`hf://NAME` or `hf://NAME:CONFIG` (fetched by the `datasets` library into its own cache), or a saved folder."""
    try:
        import datasets
    except ImportError:
        raise ValueError('Hugging Face datasets need the datasets library. Do `pip install "openjepa[hf]"`.') from None
    split = cfg.split or "train"
    try:
        if cfg.path.startswith("hf://"):
            name, _, part = cfg.path.removeprefix("hf://").partition(":")
            data = datasets.load_dataset(name, part or None, split=split)
        else:
            data = datasets.load_from_disk(str(Path(cfg.path).expanduser()))
    except Exception as e:  # network, names, formats: the library raises its own kinds
        raise ValueError(f"{cfg.path} must be a dataset that opens, got: {str(e).splitlines()[0]}") from None
    if isinstance(data, dict):
        if split not in data:
            raise ValueError(f"split must be one of {', '.join(data)} in {cfg.path}, got {split!r}.")
        data = data[split]
    column = _picture_column(data, cfg, datasets)
    plain = data.cast_column(column, datasets.Image(decode=False))
    labels, classes = _labels(data, cfg.label_column, datasets)
    return Found(
        kind="hub",
        where=cfg.path,
        names=Names(f"{split}/{k}" for k in range(len(data))),
        stamp=digest(cfg.path, split, len(data), column),
        fresh=digest(cfg.path, split, column, data._fingerprint),
        raw=Rows(plain.select_columns([column]), column),
        labels=labels,
        classes=classes,
    )


def _picture_column(data: Any, cfg: DataConfig, datasets: Any) -> str:
    usable = [name for name, kind in data.features.items() if isinstance(kind, datasets.Image)]
    if cfg.image_column in usable:
        return cfg.image_column
    if len(usable) == 1:
        return usable[0]
    raise ValueError(
        f"image_column must name a picture column of {cfg.path}, got {cfg.image_column!r}. "
        f"Picture columns there: {', '.join(usable) or 'none'}; all: {', '.join(data.features)}."
    )


def _labels(data: Any, asked: str, datasets: Any) -> tuple[np.ndarray | None, list[str] | None]:
    classed = [name for name, kind in data.features.items() if isinstance(kind, datasets.ClassLabel)]
    name = asked if asked in data.features else (classed[0] if classed else None)
    if name is None:
        return None, None
    values = data[name][:]
    if name in classed:
        return np.array([-1 if v is None else v for v in values], dtype=np.int64), list(data.features[name].names)
    from openjepa.data.folder import number_labels

    return number_labels(values)
