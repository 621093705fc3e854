"""What a layout is: how a family of checkpoints is recognised, and what to build from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from openjepa.interop.files import State
from openjepa.interop.preprocess import Preprocess

MAIN = ("ema_encoder", "target_encoder", "encoder", "")  # entries that may hold an encoder; "" is a bare state


@dataclass(frozen=True)
class Found:
    """What lies in a file or folder: named groups of tensors, with the wrappers' prefixes taken off their keys.

    path        what was opened
    entries     group -> key -> tensor; a state without groups is the group ""
    plain       entries that hold no weights: epoch, optimiser and so on
    config      config.json beside the weights, or empty
    doubled     keys that stand twice under different prefixes, in words
    prepared    preprocessor_config.json beside the weights, or empty
    """

    path: Path
    entries: Mapping[str, State]
    plain: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    doubled: tuple[str, ...] = ()
    prepared: Mapping[str, Any] = field(default_factory=dict)

    def main(self) -> State:
        """The state of the encoder to look at for recognition: the target where there is one."""
        for name in MAIN:
            if self.entries.get(name):
                return self.entries[name]
        return {}

    def group(self, entry: str) -> State:
        """The tensors of an entry; a `ValueError` when there is none."""
        if entry not in self.entries:
            got = ", ".join(e or "a bare state" for e in self.entries) or "no tensors"
            raise ValueError(f"{self.path} must hold {entry or 'a bare state'}, got {got}. Name another family.")
        return self.entries[entry]

    def has(self, entry: str, *keys: str) -> bool:
        """Whether an entry is there and holds all of these keys."""
        return entry in self.entries and all(k in self.entries[entry] for k in keys)


@dataclass(frozen=True)
class Asked:
    """What the user says where a file does not tell, or tells several things.

    weights  "auto" takes the target encoder where there is one, "teacher" insists on it, "encoder" is the online one
    heads    part ("encoder", "predictor", "classifier") -> attention heads, where the width does not tell
    depth    part -> blocks, where a published width has fewer than the published blocks and that is meant
    size     side of the pictures, frames of the clips; None: as published
    look     only to tell what a file is: heads that are not told are left open
    """

    weights: str = "auto"
    heads: Mapping[str, int] = field(default_factory=dict)
    depth: Mapping[str, int] = field(default_factory=dict)
    size: int | None = None
    frames: int | None = None
    look: bool = False


@dataclass(frozen=True)
class Part:
    """A network to be built and the tensors that belong into it, under its own names.

    entry   where they came from, for messages
    make    builds it without weights
    names   from a key of the network to that of the file, for messages
    """

    entry: str
    make: Callable[[], nn.Module]
    state: State
    names: Callable[[str], str] = str


@dataclass(frozen=True)
class Opened:
    """What a layout makes of a file.

    parts    "encoder", "predictor", "classifier", "world" -> how to build and fill it
    weights  "teacher" or "encoder": which of the encoders this is
    size     the published name of the size, or the sizes in words
    ignored  key -> why it is left out on purpose
    also     entries that are whole but were not asked for, such as the other encoder: only accounted for
    notes    sentences that a user should read
    """

    parts: Mapping[str, Part]
    preprocess: Preprocess
    size: str
    weights: str = "encoder"
    pooling: str = "mean"
    ignored: Mapping[str, str] = field(default_factory=dict)
    also: Sequence[str] = ()
    notes: Sequence[str] = ()
    licence: str | None = None


@dataclass(frozen=True)
class Layout:
    """One family of checkpoints.

    licence  of the published weights
    source   paper and repository
    fits     whether a file is of this family, by keys and shapes
    read     what to build from it; raises `ValueError` where the file does not tell enough
    keys     patterns of every key of this family, per entry, to find the nearest family of a file that fits none
    needs    some keys without which there is no such checkpoint
    """

    name: str
    licence: str
    source: str
    fits: Callable[[Found], bool]
    read: Callable[[Found, Asked], Opened]
    keys: tuple[str, ...]
    needs: tuple[str, ...]
