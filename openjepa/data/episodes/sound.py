"""Is one episode whole? Its arrays in our layout, or in one line what is wrong with it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from openjepa.data.episodes.episodes import Episode


class Unsound(Exception):
    """An episode that cannot be used, and why."""


class Raw(NamedTuple):
    """An episode as a file gives it: anything array-like, None where there is nothing; or the `trouble` reading it."""

    name: str
    obs: Any = None
    action: Any = None
    state: Any = None
    group: str | None = None
    trouble: str | None = None


def sound(raw: Raw) -> Episode:
    """The episode in our layout and types; `Unsound` names the first thing that is wrong.

    Actions may have one row fewer than observations: nothing is done at the last one. Pictures may have their channels
    first, be grey, or be floats in 0..1.
    """
    if raw.trouble:
        raise Unsound(raw.trouble)
    if raw.obs is None:
        raise Unsound("observations are missing")
    given = numbers("observations", raw.obs)
    frames = len(given)
    if frames < 2:
        raise Unsound(f"{frames} observations, at least 2 are needed")
    return Episode(as_observations(given), as_actions(raw.action, frames), as_states(raw.state, frames))


def as_observations(x: np.ndarray) -> np.ndarray:
    """(T, S) float32 or (T, H, W, C) uint8."""
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim == 2:
        return finite("observations", x).astype(np.float32)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4:
        raise Unsound(f"observations have shape {x.shape}, neither (T, S) nor (T, H, W, C)")
    if x.shape[-1] not in (1, 2, 3, 4):
        if x.shape[1] not in (1, 2, 3, 4):
            raise Unsound(f"pictures have shape {x.shape[1:]}, without 1 to 4 channels")
        x = x.transpose(0, 2, 3, 1)
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind != "f" or not (finite("pictures", x).min() >= 0 and x.max() <= 1):
        raise Unsound(f"pictures are {x.dtype}, neither uint8 nor floats in 0..1")
    return np.floor(x * 255 + 0.5).astype(np.uint8)


def as_actions(given: Any, frames: int) -> np.ndarray:
    """(T, A) float32, the last row zero."""
    if given is None:
        return np.zeros((frames, 0), np.float32)
    x = numbers("actions", given)
    x = x.reshape(len(x), -1) if len(x) else x.reshape(0, 1)
    if len(x) not in (frames, frames - 1):
        raise Unsound(f"{len(x)} actions for {frames} observations")
    out = np.zeros((frames, x.shape[1]), np.float32)
    out[:-1] = finite("actions", x[: frames - 1])
    return out


def as_states(given: Any, frames: int) -> np.ndarray:
    """(T, P) float64."""
    if given is None:
        return np.zeros((frames, 0))
    x = numbers("states", given)
    if len(x) != frames:
        raise Unsound(f"{len(x)} states for {frames} observations")
    return finite("states", x.reshape(frames, -1)).astype(np.float64)


def numbers(what: str, given: Any) -> np.ndarray:
    try:
        x = np.asarray(given)
    except ValueError:
        raise Unsound(f"{what} are ragged: their steps have different shapes") from None
    if x.dtype.kind not in "iufb":
        raise Unsound(f"{what} are of type {x.dtype}, not numbers")
    if x.ndim == 0:
        raise Unsound(f"{what} are a single number, not one row per step")
    return x


def finite(what: str, x: np.ndarray) -> np.ndarray:
    good = np.isfinite(x)
    if not good.all():
        step = int(np.flatnonzero(~good.reshape(len(x), -1).all(1))[0])
        raise Unsound(f"{what} are not finite (nan or infinite), first at step {step}")
    return x


def shape_of(e: Episode) -> tuple[Any, ...]:
    """What must be alike in all episodes of a set."""
    return (e.obs.shape[1:], e.action.shape[1], e.state.shape[1])


def unlike(shape: tuple[Any, ...], others: tuple[Any, ...]) -> str | None:
    """How an episode's shapes differ from those of the others; None when they do not."""
    for what, got, want in zip(("observations", "actions", "states"), shape, others, strict=True):
        if got != want:
            return f"{what} of shape {got}, {want} in the others"
    return None
