"""Episodes: what happened, step by step, whatever format it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from openjepa.config import Window
from openjepa.core.types import Space
from openjepa.data.source import Bad, digest


@dataclass(frozen=True)
class About:
    """What is known of episodes beside their numbers.

    variables  names of the state variables; features: of the numbers of an observation that is no picture
    low, high  bounds of an action, A numbers each; empty where nobody knows them
    discrete   number of choices when an action is an index (A is then 1)
    world      settings of the world they were collected in, as `make_world` takes them
    policy     who acted; seed: of the collection; dt: seconds per step
    """

    variables: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    discrete: int | None = None
    world: dict[str, Any] | None = None
    policy: str | None = None
    seed: int | None = None
    dt: float | None = None


class Episode(NamedTuple):
    """One of them: views into the arrays, T frames long."""

    obs: np.ndarray  # (T, S) float32 or (T, H, W, C) uint8
    action: np.ndarray  # (T, A) float32; row t is taken at observation t, the last row is never used
    state: np.ndarray  # (T, P) float64, P = 0 where unknown


@dataclass(frozen=True)
class Episodes:
    """Many episodes in three long arrays, in memory or mapped from disk; episode i is `lengths[i]` rows from
    `offsets[i]` on. Rows that belong to no episode are those of bad or unwanted ones: nothing on disk is changed.

    obs     (F, S) float32 or (F, H, W, C) uint8
    action  (F, A) float32, in the world's own units; A = 0 where nobody acts
    state   (F, P) float64, P = 0 where unknown
    names   one per episode; groups: the scene or collection each belongs to, where there are several
    bad     (name, reason) of every episode that was left out
    hash    of the content of all episodes on disk

    >>> two = Episodes("npz", "here", np.zeros((5, 2), np.float32), np.zeros((5, 1), np.float32), np.zeros((5, 0)),
    ...                np.array([0, 3]), np.array([3, 2]), ["a", "b"])
    >>> len(two), two.frames, two[1].obs.shape, two.space(Window(steps=2)).obs
    (2, 5, (2, 2), (2,))
    """

    kind: str
    where: str
    obs: np.ndarray
    action: np.ndarray
    state: np.ndarray
    offsets: np.ndarray  # (E,) int64
    lengths: np.ndarray  # (E,) int64
    names: Sequence[str]
    about: About = field(default_factory=About)
    groups: Sequence[str] | None = None
    bad: Bad = field(default_factory=list)
    hash: str = ""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> Episode:
        rows = slice(int(self.offsets[i]), int(self.offsets[i] + self.lengths[i]))
        return Episode(self.obs[rows], self.action[rows], self.state[rows])

    def __repr__(self) -> str:
        seen = "pictures" if self.pictures else "states"
        shape = " x ".join(map(str, self.obs.shape[1:]))
        return f"Episodes({self.kind} {self.where!r}, {len(self)} of {self.frames} frames, {seen} {shape})"

    @property
    def frames(self) -> int:
        return int(self.lengths.sum())

    @property
    def pictures(self) -> bool:
        return self.obs.ndim == 4

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the numbers of an observation; empty for pictures."""
        if self.pictures:
            return ()
        size = self.obs.shape[1]
        if len(self.about.features) == size:
            return self.about.features
        return self.about.variables if len(self.about.variables) == size else tuple(f"x{i}" for i in range(size))

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the state variables, P of them."""
        size = self.state.shape[1]
        return self.about.variables if len(self.about.variables) == size else tuple(f"s{i}" for i in range(size))

    def space(self, window: Window) -> Space:
        """What a method must know to be built for windows cut like that."""
        height_width_channels = self.obs.shape[1:]
        shape = (height_width_channels[2], *height_width_channels[:2]) if self.pictures else height_width_channels
        each = self.about.discrete or self.action.shape[1]
        names = self.variables if self.pictures else self.features
        return Space(obs=tuple(shape), action=each * window.skip, names=names, discrete=self.about.discrete)

    def keep(self, index: np.ndarray) -> Episodes:
        """Only the episodes at `index`, in that order; the arrays stay as they are."""
        groups = None if self.groups is None else [self.groups[int(i)] for i in index]
        names = [self.names[int(i)] for i in index]
        return replace(self, offsets=self.offsets[index], lengths=self.lengths[index], names=names, groups=groups)

    def of_states(self) -> Episodes:
        """The same episodes seen as their states."""
        if self.state.shape[1] == 0:
            raise ValueError(f"obs must be pictures for {self.where}, got 'state': it holds no states.")
        return replace(
            self, obs=self.state.astype(np.float32), about=replace(self.about, features=self.variables)
        )  # fmt: skip

    def fingerprint(self) -> str:
        """Identifies content and choice of episodes, the same on every machine."""
        return digest(self.hash, *self.names, self.lengths, self.obs.shape[1:])[:16]

    def rows(self) -> np.ndarray:
        """Where the frames of all episodes lie in the arrays, int64 (frames,)."""
        return spans(self.offsets, self.lengths)


def spans(offsets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers offset .. offset + length - 1 of each span, end to end.

    >>> spans(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    before = np.cumsum(lengths) - lengths
    return np.repeat(offsets - before, lengths) + np.arange(int(lengths.sum()))
