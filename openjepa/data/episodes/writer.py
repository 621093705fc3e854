"""Episodes to disk, one after the other: a folder that is whole, or is not there."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from openjepa.data.episodes.episodes import About, Episode
from openjepa.data.episodes.sound import Raw, Unsound, shape_of, sound, unlike
from openjepa.data.source import digest

FORMAT = "openjepa-episodes/1"
HEAD = 128  # bytes of an .npy head: written empty at first, filled in when the number of frames is known
TYPES = {"obs": None, "action": np.dtype("<f4"), "state": np.dtype("<f8")}


class Writer:
    """Appends episodes to `OUT.part`, which becomes `out` when all are there.

    out     a folder that is not there yet, or empty
    about   what is known of the episodes
    made    settings that the content follows from. An unfinished `OUT.part` made with the same is gone on with: `done`
            tells how many episodes it holds, `commit` says from where on. With others, or without, it is refused

    A killed process leaves `OUT.part` behind and never a folder that looks whole. Only one process writes at a time.

    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp()) / "eps"
    >>> with Writer(out) as w:
    ...     w.add(np.zeros((3, 2)), np.ones((2, 1)))
    >>> sorted(p.name for p in out.iterdir())
    ['action.npy', 'episodes.json', 'obs.npy', 'state.npy']
    """

    def __init__(self, out: str | Path, about: About | None = None, *, made: Mapping[str, Any] | None = None) -> None:
        self.out, self.about, self.made = Path(out), about or About(), json.loads(json.dumps(made or {}))
        self.part = self.out.with_name(self.out.name + ".part")
        require_free(self.out)
        self.lengths: list[int] = []
        self.sums: list[str] = []
        self.names: list[str] = []
        self.groups: list[str] = []
        self.shape: tuple[Any, ...] | None = None
        self.files: dict[str, BinaryIO] = {}
        self._committed = 0
        self._lock = self._begin()

    @property
    def done(self) -> int:
        """Episodes so far."""
        return len(self.lengths)

    def add(
        self, obs: Any, action: Any = None, state: Any = None, *, name: str | None = None, group: str | None = None
    ) -> None:
        """One episode; a `ValueError` when it is not sound or not shaped like the others."""
        name = str(self.done) if name is None else name
        try:
            episode = sound(Raw(name, obs, action, state))
        except Unsound as e:
            raise ValueError(f"episode {name!r} must be sound, got: {e}. Repair it, or leave it out.") from None
        self.put(episode, name, group)

    def put(self, episode: Episode, name: str, group: str | None = None) -> None:
        """One episode that is known to be sound."""
        shape = shape_of(episode)
        if self.shape is None:
            self._open(episode)
        elif trouble := unlike(shape, self.shape):
            raise ValueError(f"episode {name!r} must be like the others, got {trouble}. Leave it out.")
        check = 0
        for file, array in zip(self.files.values(), episode, strict=True):
            data = np.ascontiguousarray(array).data.cast("B") if array.size else b""
            file.write(data)
            check = zlib.crc32(data, check)
        self.lengths.append(len(episode.obs))
        self.sums.append(f"{check:08x}")
        self.names.append(name)
        self.groups.append(group or "")

    def commit(self) -> None:
        """Make sure that what was added so far is on disk: an interrupted writer goes on from here."""
        if self._committed == self.done:
            return
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        new = slice(self._committed, self.done)
        line = {"lengths": self.lengths[new], "sums": self.sums[new], "names": self.names[new],
                "groups": self.groups[new], "shape": self.shape, "type": str(self._obs_type)}  # fmt: skip
        self._note(line)
        self._committed = self.done

    def close(self) -> Path:
        """Finish: fill in the heads, write `episodes.json`, and give the folder its name."""
        if not self.done:
            self.abandon()
            raise ValueError(f"{self.out} must hold at least one episode, got none.")
        self.commit()
        frames, shapes = sum(self.lengths), {}
        assert self.shape is not None
        for (name, file), rest in zip(self.files.items(), self._rests(), strict=True):
            file.seek(0)
            file.write(npy_head((frames, *rest), self._type(name)))
            file.flush()
            os.fsync(file.fileno())
            shapes[name] = [frames, *rest]
        facts = {
            "format": FORMAT, **asdict(self.about), "made": self.made, "frames": frames, "shapes": shapes,
            "hash": digest(self.lengths, self.sums, self.names), "lengths": self.lengths, "sums": self.sums,
            "names": None if self.names == [str(i) for i in range(self.done)] else self.names,
            "groups": self.groups if any(self.groups) else None,
        }  # fmt: skip
        with open(self.part / "episodes.json", "wb") as file:
            file.write(json.dumps(facts).encode())
            file.flush()
            os.fsync(file.fileno())
        self._release()
        (self.part / "journal.jsonl").unlink()
        os.rename(self.part, self.out)
        return self.out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Stop here. What was committed can be gone on with when the settings are known, else nothing is left."""
        self._release()
        if not self.made or not self.done:
            for file in self.part.iterdir():
                file.unlink()
            self.part.rmdir()

    def _begin(self) -> BinaryIO:
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.part.mkdir(exist_ok=True)
        journal = self.part / "journal.jsonl"
        lock = open(journal, "a+b")  # noqa: SIM115  held while writing
        if not _alone(lock):
            lock.close()
            raise ValueError(f"{self.part} must be free, got a process that writes it. Wait, or write elsewhere.")
        lock.seek(0)
        lines = [line for line in map(_parsed, lock.read().split(b"\n")) if line is not None]
        if not lines:
            self._reset(lock)
        elif not self.made or lines[0].get("made") != self.made:
            lock.close()
            raise ValueError(
                f"{self.out} must be a new folder, got an unfinished collection of other settings in {self.part}. "
                "Give the same settings to go on with it, or remove it."
            )
        else:
            self._resume(lines[1:])
        return lock

    def _reset(self, lock: BinaryIO) -> None:
        for file in self.part.iterdir():
            if file.name != "journal.jsonl":
                file.unlink()
        lock.truncate(0)
        self._write_line(lock, {"format": FORMAT, "made": self.made})

    def _resume(self, lines: list[dict[str, Any]]) -> None:
        if not lines:
            return
        for line in lines:
            self.lengths += line["lengths"]
            self.sums += line["sums"]
            self.names += line["names"]
            self.groups += line["groups"]
        obs, action, state = lines[0]["shape"]
        self.shape, self._obs_type = (tuple(obs), action, state), np.dtype(lines[0]["type"])
        self._committed = self.done
        frames = sum(self.lengths)
        for name, rest in zip(TYPES, self._rests(), strict=True):
            size = HEAD + frames * self._type(name).itemsize * int(np.prod(rest, dtype=np.int64))
            file = open(self.part / f"{name}.npy", "r+b")  # noqa: SIM115
            file.truncate(size)  # what was written after the last commit
            file.seek(size)
            self.files[name] = file

    def _open(self, episode: Episode) -> None:
        self.shape, self._obs_type = shape_of(episode), episode.obs.dtype
        for name in TYPES:
            self.files[name] = open(self.part / f"{name}.npy", "wb", buffering=1 << 20)  # noqa: SIM115
            self.files[name].write(b"\0" * HEAD)

    def _rests(self) -> tuple[tuple[int, ...], ...]:
        assert self.shape is not None
        obs, action, state = self.shape
        return tuple(obs), (action,), (state,)

    def _type(self, name: str) -> np.dtype[Any]:
        return TYPES[name] or self._obs_type

    def _note(self, line: Mapping[str, Any]) -> None:
        self._write_line(self._lock, line)

    @staticmethod
    def _write_line(file: BinaryIO, line: Mapping[str, Any]) -> None:
        file.seek(0, os.SEEK_END)
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())

    def _release(self) -> None:
        for file in self.files.values():
            file.close()
        self._lock.close()


def require_free(out: Path) -> None:
    """A `ValueError` when something is where the episodes should go."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise ValueError(f"out must be a new or empty folder, got {out}. Give another name, or remove it.")


def npy_head(shape: tuple[int, ...], kind: np.dtype[Any]) -> bytes:
    """The head of an .npy file (format 1.0), always HEAD bytes long."""
    text = str({"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape})
    return b"\x93NUMPY\x01\x00" + (HEAD - 10).to_bytes(2, "little") + text.ljust(HEAD - 11).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:  # empty, or cut off by the end of its process
        return None


def _alone(file: BinaryIO) -> bool:
    """Whether this process now holds the file for itself; the hold ends with the process."""
    try:
        import fcntl
    except ImportError:  # not on this system: trust the user
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
