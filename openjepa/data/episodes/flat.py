"""Episodes laid end to end in flat arrays: where each begins and how long it is, from what the file says about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from openjepa.data.episodes.naming import named


def cuts(arrays: Mapping[str, Any], keys: Mapping[str, str], where: str, frames: int) -> Any:
    """(starts, lengths) of the episodes in flat arrays of `frames` rows; None where nothing tells.

    Told by offsets and lengths, lengths alone, ends (one past the last row, ascending to `frames`), the number of the
    episode of every row, or marks of the last row (terminals or timeouts).

    >>> cuts({"ends": np.array([2, 5])}, {}, "here", 5)
    (array([0, 2]), array([2, 3]))
    """
    found = {}
    for what in ("lengths", "offsets", "ends", "index", "terminals"):
        name = named(arrays.keys(), what, keys, where)
        if name is not None:
            found[what] = (name, np.asarray(arrays[name][...]).reshape(-1))
    if "lengths" in found:
        lengths = found["lengths"][1].astype(np.int64)
        starts = found["offsets"][1].astype(np.int64) if "offsets" in found else np.cumsum(lengths) - lengths
    elif "ends" in found and len(found["ends"][1]) != frames:
        ends = found["ends"][1].astype(np.int64)
        starts = np.concatenate([[0], ends[:-1]])
        lengths = ends - starts
    elif "index" in found and len(found["index"][1]) == frames:
        starts, lengths = runs(np.flatnonzero(np.diff(found["index"][1])) + 1, frames)
    elif marks := marked(arrays, keys, where, frames):
        starts, lengths = runs(marks, frames)
    else:
        return None
    if len(starts) != len(lengths) or (lengths < 0).any() or (len(starts) and (starts + lengths).max() > frames):
        said = ", ".join(name for name, _ in found.values())
        raise ValueError(
            f"{where} must hold the rows its episodes are said to have ({said}), got {frames} rows for "
            f"{len(lengths)} episodes of {int(lengths.sum())} rows. The file may be cut off: fetch it again."
        )
    return starts, lengths


def runs(inner: np.ndarray | list[int], frames: int) -> tuple[np.ndarray, np.ndarray]:
    starts = np.concatenate([[0], np.asarray(inner, dtype=np.int64)])
    return starts, np.diff(np.concatenate([starts, [frames]]))


def marked(arrays: Mapping[str, Any], keys: Mapping[str, str], where: str, frames: int) -> list[int]:
    """Rows after which a new episode begins: where any of the marks is set, but for the very last."""
    last = np.zeros(frames, dtype=bool)
    names = {named(arrays.keys(), "terminals", keys, where), *(n for n in ("timeouts", "truncations") if n in arrays)}
    for name in names - {None}:
        x = np.asarray(arrays[str(name)][...]).reshape(-1)
        if len(x) == frames:
            last |= x.astype(bool)
    return [int(i) + 1 for i in np.flatnonzero(last[:-1])]
