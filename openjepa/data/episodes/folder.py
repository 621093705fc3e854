"""Our own folder of episodes: three arrays, mapped, and `episodes.json`. See `writer` for how it comes to be."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.data.episodes.episodes import About, Episodes
from openjepa.data.episodes.writer import FORMAT
from openjepa.data.source import Bad

BLOCK = 1 << 24  # numbers looked at together


def open_folder(path: Path) -> tuple[Episodes, Bad]:
    """The episodes of a folder, mapped, all of them; and those that hold numbers which are none, as (name, reason).

    Raises `ValueError` when the folder itself does not fit together: then no episode of it can be trusted.
    """
    facts = read_facts(path)
    lengths = np.array(facts["lengths"], dtype=np.int64)
    names = facts.get("names") or [str(i) for i in range(len(lengths))]
    groups = facts.get("groups")
    for what, some in (("names", names), ("groups", groups)):
        if some is not None and len(some) != len(lengths):
            raise broken(path, f"{len(some)} {what} for {len(lengths)} episodes")
    if len(lengths) == 0 or lengths.min() < 2:
        raise broken(path, f"{'no episodes' if len(lengths) == 0 else 'an episode of fewer than 2 frames'}")
    frames = int(lengths.sum())
    obs = read_array(path, "obs", frames, (np.dtype("f4"), np.dtype("u1")))
    if obs.ndim not in (2, 4) or (obs.ndim == 4) != (obs.dtype == np.uint8):
        raise broken(path, f"obs.npy is {obs.dtype} {obs.shape}, neither float32 (F, S) nor uint8 (F, H, W, C)")
    action, state = np.zeros((frames, 0), np.float32), np.zeros((frames, 0))
    if (path / "action.npy").exists() or "action" in facts.get("shapes", {}):
        action = read_array(path, "action", frames, (np.dtype("f4"),))
    if (path / "state.npy").exists() or "state" in facts.get("shapes", {}):
        state = read_array(path, "state", frames, (np.dtype("f8"),))
    about = read_about(path, facts, action.shape[1])
    content = str(facts.get("hash", ""))
    offsets = np.cumsum(lengths) - lengths
    found = Episodes("folder", str(path), obs, action, state, offsets, lengths, names, about, groups, [], content)
    return found, not_finite(found)


def read_facts(path: Path) -> dict[str, Any]:
    """`episodes.json`, of a version that is known here."""
    try:
        facts = json.loads((path / "episodes.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise broken(path, "no episodes.json") from None
    except (ValueError, OSError) as e:
        raise broken(path, f"an episodes.json that cannot be read ({e})") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("lengths"), list):
        raise broken(path, "an episodes.json without lengths")
    if facts.get("format") != FORMAT:
        raise ValueError(f"{path} must be of format {FORMAT}, got {facts.get('format')!r}. Update openjepa.")
    return facts


def read_about(path: Path, facts: dict[str, Any], actions: int) -> About:
    known: dict[str, Any] = {k: facts[k] for k in About.__dataclass_fields__ if facts.get(k) is not None}
    known = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
    about = About(**known)
    for what in ("low", "high"):
        if getattr(about, what) and len(getattr(about, what)) != actions:
            raise broken(path, f"{len(getattr(about, what))} bounds ({what}) for actions of {actions} numbers")
    return about


def read_array(path: Path, name: str, frames: int, types: tuple[np.dtype[Any], ...]) -> np.ndarray:
    try:
        found = np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise broken(path, f"no {name}.npy") from None
    except (ValueError, OSError, EOFError) as e:
        raise broken(path, f"a {name}.npy that cannot be read ({str(e).splitlines()[0]})") from None
    if found.dtype not in types:
        raise broken(path, f"{name}.npy of type {found.dtype} instead of {' or '.join(map(str, types))}")
    if len(found) != frames or found.ndim < 2:
        raise broken(path, f"{name}.npy of shape {found.shape} for {frames} frames (the lengths in episodes.json)")
    return found


def broken(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} must be a whole folder of episodes, got {what}. Collect or copy it again.")


def not_finite(e: Episodes) -> Bad:
    """Episodes with numbers that are nan or infinite, and where. The action at the last observation does not count."""
    bad: dict[int, str] = {}
    last = np.zeros(int((e.offsets + e.lengths).max()), dtype=bool)
    last[e.offsets + e.lengths - 1] = True
    for what, array in (("states", e.state), ("actions", e.action), ("observations", e.obs)):
        if array.dtype == np.uint8 or array.shape[1] == 0:
            continue
        step = max(1, BLOCK // array.shape[1])
        parts = [np.isfinite(array[at : at + step]).all(1) for at in range(0, len(array), step)]
        rows = np.flatnonzero(~np.concatenate(parts))
        if what == "actions":
            rows = rows[~last[rows]]
        for row in rows[::-1]:
            i = int(np.searchsorted(e.offsets, row, side="right")) - 1
            bad[i] = f"{what} are not finite (nan or infinite), first at step {row - e.offsets[i]}"
    return [(e.names[i], bad[i]) for i in sorted(bad)]


def damaged(path: Path) -> Bad:
    """Episodes whose content is not what was written, as (name, reason): every byte is read."""
    sums = read_facts(path).get("sums") or []
    e, _ = open_folder(path)
    found = []
    for i, (name, want) in enumerate(zip(e.names, sums, strict=False)):
        got = 0
        for array in e[i]:
            got = zlib.crc32(np.ascontiguousarray(array).data.cast("B") if array.size else b"", got)
        if f"{got:08x}" != want:
            found.append((name, f"content has checksum {got:08x}, {want} was written"))
    return found
