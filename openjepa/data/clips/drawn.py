"""Draws that are functions of a position: no clip depends on another, and a longer set begins with the shorter."""

from __future__ import annotations

import numpy as np

_MIX = ((0x9E3779B97F4A7C15, 30), (0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31))


def uniform(index: np.ndarray, draws: int, *words: int) -> np.ndarray:
    """U[0, 1), float64 (n, draws), by 64-bit mixing of (words, position, draw): another word, unrelated draws.

    >>> bool((uniform(np.array([5]), 3, 1) == uniform(np.arange(9), 4, 1)[5:6, :3]).all())
    True
    """
    with np.errstate(over="ignore"):
        state = np.full((len(index), draws), 0x5851F42D4C957F2D, dtype=np.uint64)
        for word in (*words, index.astype(np.uint64)[:, None], np.arange(draws, dtype=np.uint64)):
            state = _mixed(state ^ _mixed(np.asarray(word, dtype=np.uint64)))
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53


def count_and_split(path: str, split: str | None, counts: dict[str, int]) -> tuple[str, int]:
    """(split, number of clips) of a "name:N" or "name"."""
    split = split or "train"
    if split not in counts:
        raise ValueError(f"split must be {' or '.join(counts)} for {path.split(':')[0]}, got {split!r}.")
    last = path.rpartition(":")[2] if ":" in path else ""
    if not last.isdigit():
        return split, counts[split]
    if int(last) < 1:
        raise ValueError(f"{path.split(':')[0]} must draw at least one clip, got {path!r}.")
    return split, int(last)


def _mixed(state: np.ndarray) -> np.ndarray:
    for multiplier, shift in _MIX:
        state = (state + np.uint64(_MIX[0][0])) * np.uint64(multiplier)
        state = state ^ (state >> np.uint64(shift))
    return state
