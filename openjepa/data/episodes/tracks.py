"""Pedestrian tracks (ETH and UCY): text lines of frame, person, x and y; each person is an episode of its scene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from openjepa.data.episodes.config import EpisodeConfig
from openjepa.data.episodes.episodes import About
from openjepa.data.episodes.gather import Found, stamp_of
from openjepa.data.episodes.sound import Raw

SECONDS = 0.4  # between annotated frames in both sets


def open_tracks(cfg: EpisodeConfig) -> Found:
    """Observations are x and y in metres, 2.5 times a second; nobody acts. Scenes are the groups for leave-one-out.

    A track is cut where a person is missing for a frame, so that every step is the same time long.
    """
    path = Path(cfg.path).expanduser()
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    about = About(variables=("x", "y"), features=("x", "y"), dt=SECONDS)
    return Found("tracks", str(path), Scenes(files), about, stamp=stamp_of(files))


class Scenes:
    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __iter__(self) -> Iterator[Raw]:
        for file in self.files:
            yield from people(file)


def people(file: Path) -> Iterator[Raw]:
    """The tracks of one scene, in the order of their persons' numbers."""
    table = read_table(file)
    if table is None:
        yield Raw(file.stem, trouble="not lines of frame, person, x and y")
        return
    step = np.gcd.reduce(np.diff(np.unique(table[:, 0])).astype(np.int64)) if len(table) > 1 else 1
    table = table[np.lexsort((table[:, 0], table[:, 1]))]
    new = np.diff(table[:, 1]) != 0
    gap = np.diff(table[:, 0]) != usual(table, int(step))
    for part in np.split(np.arange(len(table)), np.flatnonzero(new | gap) + 1):
        if len(part) < 2:
            continue  # seen once: no motion to learn from, and no fault of the file
        frame, person = (int(v) for v in table[part[0], :2])
        xy = table[part, 2:4]
        yield Raw(f"{file.stem}/{person:04d}-{frame:06d}", xy, None, xy, file.stem)


def usual(table: np.ndarray, step: int) -> int:
    """Frames from one annotation to the next: the most common step of a person (the file numbers video frames)."""
    same = np.diff(table[:, 1]) == 0
    steps = np.diff(table[:, 0])[same].astype(np.int64)
    return int(np.bincount(steps[steps > 0]).argmax()) if (steps > 0).any() else step


def read_table(file: Path) -> np.ndarray | None:
    try:
        table = np.loadtxt(file, ndmin=2, dtype=np.float64)
    except (ValueError, OSError):
        return None
    return table if table.size and table.shape[1] == 4 else None


def are_tracks(path: Path) -> bool:
    """Whether a text file, or every text file of a folder, begins with four numbers per line."""
    files = sorted(path.glob("*.txt"))[:20] if path.is_dir() else [path] if path.suffix == ".txt" else []
    for file in files:
        with open(file, encoding="utf-8", errors="replace") as lines:
            first = lines.readline().split()
        try:
            if len([float(x) for x in first]) != 4:
                return False
        except ValueError:
            return False
    return bool(files)
