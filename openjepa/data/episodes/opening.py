"""From the settings to episodes: which format it is, which episodes of it are sound, and what is seen of them."""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.data.episodes.config import EpisodeConfig
from openjepa.data.episodes.episodes import Episodes
from openjepa.data.episodes.folder import open_folder
from openjepa.data.episodes.gather import MEMORY, gather
from openjepa.data.episodes.hdf5 import SUFFIXES
from openjepa.data.episodes.lerobot import is_lerobot
from openjepa.data.episodes.npz import holds_episodes
from openjepa.data.episodes.splitting import place
from openjepa.data.episodes.tracks import are_tracks
from openjepa.data.source import Bad

log = logging.getLogger("openjepa.data")


def open_episodes(cfg: EpisodeConfig) -> Episodes:
    """The episodes that `cfg` names, sound ones only.

    A name of a world draws them (see `openjepa.data.collect.drawn`). With `on_bad="refuse"` a single bad episode raises
    and all of them are named; with "skip" they are left out, and listed in `bad`. Nothing on disk is changed.
    """
    found, bad = find_episodes(cfg)
    if bad and cfg.on_bad == "refuse":
        raise ValueError(
            f"{found.where} must hold sound episodes only, got {len(bad)} bad of {len(found)}: {listed(bad)}. "
            "Repair or remove them, or set data.on_bad=skip to leave them out."
        )
    if bad:
        log.warning("%d episodes of %s are left out: %s", len(bad), found.where, listed(bad))
        gone = {name for name, _ in bad}
        found = found.keep(np.array([i for i, name in enumerate(found.names) if name not in gone], dtype=np.int64))
        found.bad.extend(bad)
    if cfg.limit is not None and cfg.limit < len(found):
        order = sorted(range(len(found)), key=lambda i: place(cfg.split_seed, f"limit {found.names[i]}"))
        found = found.keep(np.sort(np.array(order[: cfg.limit], dtype=np.int64)))
    if len(found) == 0:
        raise ValueError(f"{cfg.path} must hold a sound episode, got none: {listed(bad)}.")
    return in_memory(as_seen(found, cfg))


def find_episodes(cfg: EpisodeConfig) -> tuple[Episodes, Bad]:
    """What is there, before bad episodes are left out; and (name, reason) of the bad ones. `Episodes.where` and `names`
    may still count bad ones of our own folders."""
    from openjepa.data.episodes import FORMATS

    kind = kind_of(cfg.path)
    if kind is None:
        raise ValueError(unknown(cfg.path))
    if kind == "world":
        from openjepa.data.collect import drawn

        return drawn(cfg), []
    if kind == "folder":
        return open_folder(Path(cfg.path).expanduser())
    module, _, name = FORMATS[kind].partition(":")
    return gather(getattr(importlib.import_module(module), name)(cfg), cache_dir=cfg.cache_dir)


def kind_of(path: str) -> str | None:
    """The key of `FORMATS` for a path, "folder" for one of ours, "world" for the name of a world; None for anything
    else, such as pictures.

    >>> kind_of("digits") is None
    True
    """
    file = Path(path).expanduser()
    if not file.exists():
        from openjepa.data.collect import is_world

        return "world" if is_world(path) else None
    if file.is_dir():
        return _kind_of_folder(file)
    if file.suffix.lower() in SUFFIXES:
        return "hdf5"
    if file.suffix.lower() == ".npz":
        return "npz" if holds_episodes(file) else None
    return "tracks" if are_tracks(file) else None


def _kind_of_folder(folder: Path) -> str | None:
    if (folder / "episodes.json").exists():
        return "folder"
    if (folder / "main_data.hdf5").exists() or (folder / "data" / "main_data.hdf5").exists():
        return "minari"
    if is_lerobot(folder):
        return "lerobot"
    if any(folder.rglob("*.npz")):
        return "npz"
    return "tracks" if are_tracks(folder) else None


def unknown(path: str) -> str:
    """Why a path is not episodes."""
    file = Path(path).expanduser()
    if file.with_name(file.name + ".part").is_dir():
        return f"data must be whole episodes, got {path}, whose collection was interrupted. Run `collect` again."
    if not file.exists():
        from openjepa.data.collect import worlds

        return f"data must be episodes or a world, got {path!r}, which is not there. Worlds: {', '.join(worlds())}."
    return (
        f"data must be episodes, got {path}. Give a folder that `openjepa collect` wrote, .npz files, HDF5, "
        "a Minari or LeRobot data set, pedestrian tracks, or the name of a world."
    )


def as_seen(found: Episodes, cfg: EpisodeConfig) -> Episodes:
    """The observation that `cfg.obs` asks for."""
    if cfg.obs == "state" and found.pictures:
        return found.of_states()
    if cfg.obs == "pictures" and not found.pictures:
        raise ValueError(
            f"obs must be 'state' for {found.where}, got 'pictures': its observations are {found.obs.shape[1]} numbers."
        )
    return found


def in_memory(found: Episodes) -> Episodes:
    """Mapped arrays that are small are read once and for all: a training touches every frame many times."""
    arrays = {name: x for name in ("obs", "action", "state") if isinstance(x := getattr(found, name), np.memmap)}
    small: dict[str, Any] = {name: np.array(x) for name, x in arrays.items() if x.nbytes <= MEMORY}
    return replace(found, **small) if small else found


def listed(bad: Bad, most: int = 5) -> str:
    """
    >>> listed([("3", "too short"), ("7", "no actions")])
    '3 (too short); 7 (no actions)'
    """
    more = f" and {len(bad) - most} more" if len(bad) > most else ""
    return "; ".join(f"{name} ({reason})" for name, reason in bad[:most]) + more


def surely_episodes(path: str) -> bool:
    """Whether a path is episodes and cannot be meant as pictures; told without looking through large folders."""
    file = Path(path).expanduser()
    if not file.exists():
        return kind_of(path) == "world"
    if file.is_dir():
        return (file / "episodes.json").exists() or is_lerobot(file) or (file / "data" / "main_data.hdf5").exists()
    return file.suffix.lower() in SUFFIXES
