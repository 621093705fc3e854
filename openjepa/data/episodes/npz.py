"""Episodes in .npz files: a folder with one file each, or one file with all of them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.data.episodes.config import EpisodeConfig
from openjepa.data.episodes.flat import cuts
from openjepa.data.episodes.gather import Found, stamp_of
from openjepa.data.episodes.naming import named, three
from openjepa.data.episodes.sound import Raw

BROKEN = (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError)


def open_npz(cfg: EpisodeConfig) -> Found:
    """Every .npz below a folder is an episode; a single file holds (T, ...) arrays of one episode, (E, T, ...) of
    many equally long ones, or flat (F, ...) arrays with the lengths, ends or numbers of the episodes."""
    path = Path(cfg.path).expanduser()
    files = sorted(path.rglob("*.npz")) if path.is_dir() else [path]
    stamp = stamp_of(files, cfg.keys, cfg.obs)
    if path.is_dir():
        return Found("npz", str(path), Folder(path, files, cfg), size=sum(f.stat().st_size for f in files), stamp=stamp)
    try:
        with opened(path) as inside:
            arrays = {name: inside[name] for name in inside.files}
    except BROKEN as e:
        raise ValueError(f"{path} must be an .npz file of episodes, got: {str(e).splitlines()[0]}.") from None
    return Found("npz", str(path), list(inside_one(path, arrays, cfg)), stamp=stamp)


class Folder:
    """One episode per file, named by its path in the folder."""

    def __init__(self, folder: Path, files: list[Path], cfg: EpisodeConfig) -> None:
        self.folder, self.files, self.cfg = folder, files, cfg

    def __iter__(self) -> Iterator[Raw]:
        for file in self.files:
            inner = file.relative_to(self.folder)
            group = inner.parent.as_posix() if inner.parent.name else None
            name = inner.with_suffix("").as_posix()
            try:
                with opened(file) as inside:
                    keys = three(inside.files, self.cfg.keys, self.cfg.obs, str(file))
                    obs, action, state = (None if k is None else inside[k] for k in keys)
            except BROKEN as e:
                yield Raw(name, trouble=f"cannot be read: {str(e).splitlines()[0]}")
                continue
            trouble = None if obs is not None else f"no observations among {', '.join(inside.files) or 'nothing'}"
            yield Raw(name, obs, action, state, group, trouble)


def inside_one(path: Path, arrays: Mapping[str, np.ndarray], cfg: EpisodeConfig) -> Iterator[Raw]:
    where = str(path)
    keys = three(arrays, cfg.keys, cfg.obs, where)
    obs, action, state = (None if k is None else arrays[k] for k in keys)
    if obs is None:
        raise ValueError(f"{where} must hold observations, got only {', '.join(arrays)}. Name them with keys.obs=NAME.")

    def part(i: int, rows: Any) -> Raw:
        o, a, s = (None if x is None else x[rows] for x in (obs, action, state))
        return Raw(str(i), o, a, s)

    many = cuts(arrays, cfg.keys, where, len(obs))
    if many is None and stacked(obs, action):
        for i in range(len(obs)):
            yield part(i, i)
        return
    if many is None:
        yield Raw(path.stem, obs, action, state)
        return
    for i, (start, length) in enumerate(zip(*many, strict=True)):
        yield part(i, slice(start, start + length))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An .npz file, closed again also where it turns out to be none."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as inside:
        yield inside


def stacked(obs: np.ndarray, action: Any) -> bool:
    """Whether the first axis counts episodes: (E, T, H, W, C), or (E, T, S) beside actions (E, T, A)."""
    beside = action is not None and action.ndim == 3 and len(action) == len(obs)
    return obs.ndim == 5 or (obs.ndim == 3 and (action is None or beside) and obs.dtype.kind == "f")


def holds_episodes(path: Path) -> bool:
    """Whether a .npz looks like episodes rather than pictures with labels: it has actions or observations."""
    try:
        with opened(path) as inside:
            names = inside.files
    except BROKEN:
        return False
    return any(named(names, what, {}, str(path)) for what in ("action", "obs", "state"))
