"""Which episodes training never sees: decided for each by its own name, and so for good."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from openjepa.data.episodes.config import EpisodeConfig
from openjepa.data.episodes.episodes import Episodes
from openjepa.data.source import digest


@dataclass(frozen=True)
class Split:
    """Positions of the episodes to learn from and of those held out, and the hash of the choice."""

    train: np.ndarray
    held: np.ndarray
    names: tuple[str, ...]  # of the held-out episodes, sorted
    hash: str
    seed: int
    share: float
    group: str | None

    def as_dict(self) -> dict[str, Any]:
        """What `split.json` of a run folder holds."""
        return {
            "seed": self.seed, "held_out": self.share, "group": self.group, "hash": self.hash,
            "train_episodes": len(self.train), "held_out_episodes": list(self.names),
        }  # fmt: skip


def split(episodes: Episodes, cfg: EpisodeConfig) -> Split:
    """Held out are the episodes whose place, a hash of (seed, name), is below the share; or those of one group.

    So adding episodes moves none across. Episodes, never windows: neighbouring frames look alike, and would let a model
    be measured on what it was trained on. Raises `ValueError` when nothing is left to learn from.
    """
    if cfg.held_group is not None:
        groups = list(episodes.groups or [])
        if cfg.held_group not in groups:
            known = ", ".join(sorted(set(groups))) or "none"
            raise ValueError(
                f"held_group must be a group of {episodes.where}, got {cfg.held_group!r}. Groups: {known}."
            )
        held = np.array([g == cfg.held_group for g in groups])
    else:
        held = np.array([place(cfg.split_seed, name) < cfg.held_out for name in episodes.names])
    if held.all():
        raise ValueError(
            f"held_out must leave episodes to learn from, got {cfg.held_group or cfg.held_out} of {len(episodes)}. "
            "Lower it, or try another split_seed."
        )
    names = tuple(sorted(episodes.names[int(i)] for i in np.flatnonzero(held)))
    return Split(
        np.flatnonzero(~held), np.flatnonzero(held), names, digest(cfg.split_seed, *names)[:16], cfg.split_seed,
        cfg.held_out, cfg.held_group,
    )  # fmt: skip


def place(seed: int, name: str) -> float:
    """A number in [0, 1) that depends on seed and name alone.

    >>> place(0, "a") == place(0, "a") != place(1, "a")
    True
    """
    word = hashlib.blake2b(f"{seed}\0{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(word, "big") / 2**64
