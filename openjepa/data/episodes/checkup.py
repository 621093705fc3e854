"""What a set of episodes holds and whether it is fit to train on, said before an hour is spent on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.data.episodes.config import EpisodeConfig
from openjepa.data.episodes.episodes import Episodes, spans
from openjepa.data.episodes.folder import damaged
from openjepa.data.episodes.opening import as_seen, find_episodes
from openjepa.data.episodes.splitting import split
from openjepa.data.source import Bad, digest

FEW = 20  # fewer episodes than this hold too few out to measure anything on
_LISTED = 20


@dataclass
class Report:
    """What `check_episodes` found; `as_dict` for JSON.

    lengths     frames per episode: min, median, max, and how many episodes there are of the three most common lengths
    obs         what is seen: pictures or state, shape, range of the values, and numbers that never change
    action      numbers per action, their range beside the bounds that are said, the share of actions outside these
    split       how many episodes would be held out, and the hash of the choice
    duplicates  groups of names of episodes that are equal byte for byte
    ok          False when training would refuse them as they are
    advice      in plain words, most urgent first
    """

    path: str
    kind: str
    episodes: int
    sound: int
    bad: Bad
    frames: int
    lengths: dict[str, Any]
    obs: dict[str, Any]
    action: dict[str, Any]
    state: dict[str, Any]
    groups: dict[str, int]
    world: dict[str, Any]
    split: dict[str, Any]
    duplicates: list[list[str]]
    bytes: int
    ok: bool
    advice: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_episodes(cfg: EpisodeConfig) -> Report:
    """Look at every episode that `cfg` names and say what is there, what is wrong, and what to do about it. Folders of
    ours are read byte by byte and compared with what was written."""
    found, bad = find_episodes(cfg)
    count = len(found) if found.kind in ("folder", "world") else len(found) + len(bad)
    if found.kind == "folder":
        known = {name for name, _ in bad}
        bad = bad + [(name, why) for name, why in damaged(Path(cfg.path).expanduser()) if name not in known]
    gone = {name for name, _ in bad}
    whole = found.keep(np.array([i for i, n in enumerate(found.names) if n not in gone], dtype=np.int64))
    if not len(whole):
        raise ValueError(f"{cfg.path} must hold a sound episode, got none: {bad[0][0]} ({bad[0][1]}).")
    whole = as_seen(whole, cfg)
    lengths, parts = whole.lengths, split(whole, cfg)
    report = Report(
        path=cfg.path,
        kind=found.kind,
        episodes=count,
        sound=len(whole),
        bad=bad,
        frames=whole.frames,
        lengths={
            "min": int(lengths.min()), "median": int(np.median(lengths)), "max": int(lengths.max()),
            "common": {str(k): n for k, n in Counter(lengths.tolist()).most_common(3)},
        },
        obs=about_observations(whole),
        action=about_actions(whole),
        state={"numbers": whole.state.shape[1], "names": list(whole.variables)},
        groups=dict(Counter(whole.groups or ())),
        world=dict(whole.about.world or {}),
        split={"train": len(parts.train), "held_out": len(parts.held), "seed": parts.seed, "hash": parts.hash},
        duplicates=duplicates(whole)[:_LISTED],
        bytes=sum(x.nbytes for x in (whole.obs, whole.action, whole.state)),
        ok=not bad or cfg.on_bad == "skip",
    )  # fmt: skip
    report.advice = advice(report)
    return report


def about_observations(e: Episodes) -> dict[str, Any]:
    rows = e.rows()
    if e.pictures:
        some = e.obs[rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 1000)).astype(np.int64))]]
        same = bool((some == some[0]).all())
        return {"kind": "pictures", "shape": list(e.obs.shape[1:]), "low": int(some.min()), "high": int(some.max()),
                "constant": ["all pixels"] if same else []}  # fmt: skip
    x = e.obs[rows]
    return {"kind": "state", "shape": list(x.shape[1:]), **ranges(x, e.features)}


def about_actions(e: Episodes) -> dict[str, Any]:
    used = e.action[spans(e.offsets, e.lengths - 1)]
    if used.shape[1] == 0:
        return {"numbers": 0}
    found = {"numbers": used.shape[1], **ranges(used, [f"a{i}" for i in range(used.shape[1])])}
    if e.about.discrete is not None:
        return {**found, "discrete": e.about.discrete}
    if e.about.low:
        slack = 1e-6 * np.maximum(1.0, np.abs(e.about.high))
        outside = ((used < np.array(e.about.low) - slack) | (used > np.array(e.about.high) + slack)).any(1)
        found |= {"bounds": [list(e.about.low), list(e.about.high)], "outside": round(float(outside.mean()), 4)}
    return found


def ranges(x: np.ndarray, names: Any) -> dict[str, Any]:
    low, high = x.min(0), x.max(0)
    constant = [str(n) for n, a, b in zip(names, low, high, strict=True) if a == b]
    return {"names": list(names), "low": rounded(low), "high": rounded(high), "constant": constant}


def rounded(x: np.ndarray) -> list[float]:
    return [float(f"{v:.6g}") for v in x]


def duplicates(e: Episodes) -> list[list[str]]:
    same: dict[str, list[str]] = defaultdict(list)
    for i, name in enumerate(e.names):
        same[digest(*e[i])].append(name)
    return [names for names in same.values() if len(names) > 1]


def advice(report: Report) -> list[str]:
    said = []
    if report.bad and not report.ok:
        said.append(
            f"{len(report.bad)} of {report.episodes} episodes are not sound: training would stop. Repair or remove "
            "them, or set data.on_bad=skip."
        )
    elif report.bad:
        said.append(f"{len(report.bad)} of {report.episodes} episodes are not sound and will be left out.")
    if report.duplicates:
        said.append(
            "Some episodes are exact copies of others: a copy on both sides of the split makes its result too good. "
            "Remove them."
        )
    if report.sound < FEW:
        said.append(f"{report.sound} episodes are few: a held-out share of them says little.")
    if report.split["held_out"] == 0:
        said.append("No episode is held out: raise data.held_out, or nothing can be measured on unseen ones.")
    for what, group in (("observation", report.obs), ("action", report.action)):
        if group.get("constant"):
            said.append(f"These numbers of the {what} never change: {', '.join(group['constant'])}.")
    if report.action.get("outside"):
        said.append(f"{report.action['outside']:.1%} of the actions lie outside the bounds that are said.")
    return said
