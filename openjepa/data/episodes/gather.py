"""Episodes of other formats, read one by one: into memory, or once into a folder of ours when they are large."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.data.cache import cache_folder
from openjepa.data.episodes.episodes import About, Episode, Episodes
from openjepa.data.episodes.folder import open_folder
from openjepa.data.episodes.sound import Raw, Unsound, shape_of, sound, unlike
from openjepa.data.episodes.writer import Writer
from openjepa.data.source import Bad, digest

log = logging.getLogger("openjepa.data")

MEMORY = 2 * 2**30  # bytes of episodes held in memory; more are mapped from disk
SAMPLE = 32  # episodes whose most common shape is the set's


@dataclass
class Found:
    """What the opener of a foreign format returns: episodes still to be read, and what the file says about them.

    raws   read when iterated over, each time anew
    size   bytes of all frames, as far as the files tell without reading them
    slow   decoding takes long (video): do it once
    stamp  changes when the files do
    """

    kind: str
    where: str
    raws: Iterable[Raw]
    about: About = field(default_factory=About)
    size: int = 0
    slow: bool = False
    stamp: str = ""


@dataclass
class Shelf:
    """Sound episodes in memory, in the order they came."""

    episodes: list[Episode] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def put(self, episode: Episode, name: str, group: str | None = None) -> None:
        self.episodes.append(episode)
        self.names.append(name)
        self.groups.append(group or "")


def gather(found: Found, *, cache_dir: str | None = None) -> tuple[Episodes, Bad]:
    """All sound episodes of `found`, and (name, reason) of the others.

    Large or slow sets are written to a folder of ours below the cache the first time, and mapped from there.
    """
    if found.size <= MEMORY and not found.slow:
        shelf = Shelf()
        bad = fill(shelf, found.raws)
        return on_shelf(found, shelf, bad), bad
    place = cache_folder(cache_dir) / "episodes" / digest(found.stamp, found.where)[:24]
    if not (place / "episodes.json").exists():
        log.warning("%s is read once into %s", found.where, place)
        convert(found, place)
    episodes, _ = open_folder(place)
    bad = [two_of(line) for line in (place / "bad.txt").read_text(encoding="utf-8").splitlines()]
    return replace(episodes, kind=found.kind, where=found.where), bad


def two_of(line: str) -> tuple[str, str]:
    name, _, reason = line.partition("\t")
    return name, reason


def convert(found: Found, place: Path) -> None:
    """The episodes as a folder of ours at `place`; what was bad stands in `bad.txt`."""

    def write(out: Path) -> None:
        with Writer(out, found.about) as writer:
            bad = fill(writer, found.raws)
            require_some(found.where, writer.names, bad)
        (out / "bad.txt").write_text("".join(f"{n}\t{r}\n" for n, r in bad), encoding="utf-8")

    into(place, write)


def into(place: Path, make: Callable[[Path], object]) -> None:
    """What `make` writes to the path it is given, at `place`: whole or not at all, and by one of many processes."""
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        make(work / "set")
        try:
            os.rename(work / "set", place)
        except OSError:
            if not place.exists():  # otherwise another process was faster: its folder is as good
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def fill(into: Shelf | Writer, raws: Iterable[Raw]) -> Bad:
    """Put the sound episodes of one shape where they belong; (name, reason) of all others."""
    bad: Bad = []
    shape: Any = None
    for some in batched(sounded(raws, bad), SAMPLE):
        if shape is None:
            shape = Counter(shape_of(episode) for _, episode in some).most_common(1)[0][0]
        for raw, episode in some:
            trouble = unlike(shape_of(episode), shape)
            if trouble:
                bad.append((raw.name, trouble))
            else:
                into.put(episode, raw.name, raw.group)
    return bad


def sounded(raws: Iterable[Raw], bad: Bad) -> Iterator[tuple[Raw, Episode]]:
    for raw in raws:
        try:
            yield raw._replace(obs=None, action=None, state=None), sound(raw)
        except Unsound as e:
            bad.append((raw.name, str(e)))


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    some: list[Any] = []
    for item in items:
        some.append(item)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def require_some(where: str, names: list[str], bad: Bad) -> None:
    if not names:
        why = "; ".join(f"{n} ({r})" for n, r in bad[:3]) or "none at all"
        raise ValueError(
            f"{where} must hold a sound episode, got {why}. Repair them, or name other keys (keys.obs=...)."
        )


def on_shelf(found: Found, shelf: Shelf, bad: Bad) -> Episodes:
    """The episodes of a shelf end to end."""
    require_some(found.where, shelf.names, bad)
    lengths = np.array([len(e.obs) for e in shelf.episodes], dtype=np.int64)
    obs, action, state = (np.concatenate(parts) for parts in zip(*shelf.episodes, strict=True))
    groups = shelf.groups if any(shelf.groups) else None
    content = digest(obs, action, state, lengths, *shelf.names)
    return Episodes(
        found.kind, found.where, obs, action, state, np.cumsum(lengths) - lengths, lengths, shelf.names, found.about,
        groups, [], content,
    )  # fmt: skip


def stamp_of(files: Iterable[Path], *more: object) -> str:
    """Changes when a file is touched or the settings are others."""
    parts: list[object] = []
    for file in files:
        about = file.stat()
        parts += [file.name, about.st_size, about.st_mtime_ns]
    return digest(*parts, *more)
