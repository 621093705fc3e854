"""Clips in .npy and .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from openjepa.data.arrays import as_pictures, found_arrays, load_arrays
from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.source import ClipsFound


class Held:
    """Clips in memory, or memory-mapped: uint8 (N, T, C, H, W)."""

    def __init__(self, clips: np.ndarray, rate: float | None) -> None:
        self.clips, self.rate = clips, rate

    def __len__(self) -> int:
        return len(self.clips)

    def seconds(self, i: int, /) -> np.ndarray | None:
        return None if self.rate is None else np.arange(self.clips.shape[1]) / self.rate

    def read(self, i: int, numbers: np.ndarray, /) -> np.ndarray:
        return np.array(self.clips[i, numbers])

    def take(self, rows: np.ndarray, numbers: np.ndarray, /) -> np.ndarray:
        return self.clips[rows[:, None], numbers]


def open_arrays(cfg: ClipConfig) -> ClipsFound:
    """A .npy of clips (memory-mapped), or a .npz with clips and maybe labels.

    (N, T, H, W) is grey, (N, T, H, W, C) and (N, T, C, H, W) have 1 to 4 channels; the values are as for pictures. A
    .npz holds them under `video_column`, `clips`, `videos`, `images`, `x` ..., labels under `label_column`, `labels`,
    `y` ..., both with the split's name before or behind when there are splits. The published Moving-MNIST test file,
    which alone has time first, (20, N, 64, 64), is turned.
    """
    path = Path(cfg.path).expanduser()
    names = (cfg.video_column, "clips", "videos")
    array, labels = load_arrays(path, names, cfg.label_column, cfg.split, mode="r")
    where = str(path)
    if array.ndim == 4 and len(array) == 20 < array.shape[1] and array.shape[2:] == (64, 64):
        array = array.transpose(1, 0, 2, 3)
    if array.ndim not in (4, 5):
        raise ValueError(
            f"{where} must hold clips, (N, T, H, W), (N, T, H, W, C) or (N, T, C, H, W), got shape {array.shape}."
        )
    clips = as_clips(array, cfg.channels, where)
    found = found_arrays("arrays", where, clips, labels)
    reel, count = Held(clips, cfg.rate), len(clips)
    return ClipsFound(
        kind="arrays", where=where, names=found.names, stamp=found.stamp, reel=reel, together=reel,
        lengths=np.full(count, clips.shape[1], dtype=np.int64), rates=np.full(count, cfg.rate or np.nan),
        sizes=np.tile(np.array(clips.shape[3:], dtype=np.int64), (count, 1)), codecs=np.full(count, "array"),
        labels=found.labels, classes=found.classes,
    )  # fmt: skip


def as_clips(array: np.ndarray, channels: int, where: str) -> np.ndarray:
    """Any array of clips as uint8 (N, T, C, H, W), without a copy where possible.

    >>> as_clips(np.zeros((5, 4, 8, 8), np.uint8), 3, "clips").shape
    (5, 4, 3, 8, 8)
    """
    n, frames = array.shape[:2]
    flat = as_pictures(array.reshape(n * frames, *array.shape[2:]), channels, where)  # (N T, C, H, W)
    return flat.reshape(n, frames, *flat.shape[1:])
