"""Words, axes and the few types that every floor shares.

Axes, in this order: V views, B batch, T time, N tokens, D features; A action, K horizons, S samples, C H W a picture.
Features last, time after batch. Action t leads from observation t to observation t + 1.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

Terms = dict[str, Tensor]  # loss term -> unweighted scalar
Seen = dict[str, Tensor]  # what a step looked at, detached: z, prediction, target, mask ...


class Pictures(NamedTuple):
    """A batch of views. `views[g]` holds one kind of view, (V, B, C, H, W), normalised floats."""

    views: tuple[Tensor, ...]
    index: Tensor  # type: ignore[assignment]  # (B,) position in the source
    label: Tensor  # (B,) class, or -1: never used by a self-supervised loss


class Clips(NamedTuple):
    """A batch of clips, all of one kind of view: T frames in a row, normalised floats; a picture has one frame."""

    view: Tensor  # (V, B, T, C, H, W): V clips of each of B videos
    kind: int  # which of the method's kinds of view this step is made of
    index: Tensor  # type: ignore[assignment]  # (B,) position in the source
    label: Tensor  # (B,) class, or -1: never used by a self-supervised loss


class Windows(NamedTuple):
    """A batch of windows cut from episodes: T observations in a row and the T - 1 actions between them."""

    obs: Tensor  # (B, T, S) or (B, T, C, H, W), normalised floats
    action: Tensor  # (B, T - 1, A), normalised; action t leads from obs t to obs t + 1; A = 0 where nobody acts
    state: Tensor  # (B, T, P) physical variables in their own units, P = 0 where unknown: reported, not learned from
    index: Tensor  # type: ignore[assignment]  # (B,) number of the window in its source


@dataclass(frozen=True)
class Space:
    """What episodes look like, without any of their data: what a world model must know to be built.

    obs       shape of one observation: (S,) or (C, H, W)
    action    A, the numbers of one action (of all the world steps between two observations); 0 where nobody acts
    names     of the state variables, P of them; of the observation's own variables where it is a state
    discrete  number of choices when actions are indices, sent to the model one-hot (then A = choices x skip)
    """

    obs: tuple[int, ...]
    action: int = 0
    names: tuple[str, ...] = ()
    discrete: int | None = None

    @property
    def pictures(self) -> bool:
        return len(self.obs) == 3


@runtime_checkable
class Dynamics(Protocol):
    """A model that can dream: all that planners, rollouts and probes of world models ask of one.

    z is (B, D) or (B, N, D). A model that wants more of the past than z may also define
    `unroll(z, actions) -> (B, K, ...)`, see `openjepa.core.rollout`.
    """

    def encode(self, obs: Tensor) -> Tensor: ...  # (B, S) or (B, C, H, W) -> z
    def step(self, z: Tensor, action: Tensor) -> Tensor: ...  # z, (B, A) -> z one step later


@dataclass(frozen=True)
class Clock:
    """Where training stands, and the only source of randomness inside a step.

    Every draw is a function of (seed, step, name), so there is no hidden counter: a resumed run draws what the
    uninterrupted one would have drawn, and two processes draw what one would have drawn for the joined batch.

    `progress` is in [0, 1]; `micro` counts the micro-batches of an accumulated step.
    """

    step: int = 0
    total: int = 1
    seed: int = 0
    rank: int = 0
    world: int = 1
    micro: int = 0

    @property
    def progress(self) -> float:
        return min(1.0, self.step / max(1, self.total))

    def generator(self, name: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator that is the same on every process at this step: for what all ranks must share."""
        words = (self.seed, self.step, self.micro, zlib.crc32(name.encode()))
        state = 0x9E3779B97F4A7C15
        for w in words:  # splitmix-style mixing: neighbouring steps get unrelated streams
            state = ((state ^ (w & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
            state ^= state >> 31
        g = torch.Generator(device=device)
        g.manual_seed(state & 0x7FFFFFFFFFFFFFFF)
        return g

    def uniform(self, name: str, batch: int, *shape: int) -> Tensor:
        """U[0, 1) of shape (batch, *shape) on the CPU: this rank's rows of one draw for the joined batch."""
        whole = torch.rand((self.world * batch, *shape), generator=self.generator(name))
        return whole[self.rank * batch : (self.rank + 1) * batch]


def check_shape(name: str, x: Tensor, shape: Sequence[int | str]) -> None:
    """Raise a readable `ValueError` when `x` is not of `shape`; letters match anything.

    >>> check_shape("z", torch.zeros(4, 8), ("N", "D"))
    """
    fits = x.dim() == len(shape) and all(isinstance(s, str) or s == n for s, n in zip(shape, x.shape, strict=True))
    if not fits:
        want = ", ".join(str(s) for s in shape)
        raise ValueError(f"{name} must have shape ({want}), got {tuple(x.shape)}.")


class Moment(NamedTuple):
    """What an observer is shown at a look: numbers are already floats, tensors detached. It returns name -> float."""

    step: int
    total: int
    method: torch.nn.Module
    terms: dict[str, float]
    seen: Seen
