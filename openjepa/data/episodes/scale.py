"""The door between a world's units and what models see: observations and actions shifted and divided, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from openjepa.data.episodes.episodes import Episodes, spans

BLOCK = 1 << 22  # numbers summed at once
PICTURES = 2048  # that the mean and standard deviation of pixels are taken over
CACHED = 1 << 18  # numbers
FLAT = 1e-7  # a standard deviation below this share of the mean is rounding: such a number is only shifted


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation over training episodes: of every number of a vector observation, or of every channel
    of pictures in 0..1; and of every number of one world step's action. With `discrete` choices an action is an index,
    sent to the model one-hot and not scaled (its mean is 0 and its standard deviation 1).

    >>> s = Scale((1.0,), (2.0,), (0.0,), (0.5,))
    >>> s.observation(torch.tensor([[5.0]])).item(), s.action(torch.tensor([[1.0]])).item()
    (2.0, 2.0)
    >>> s.world_action(s.action(torch.tensor([[0.25, -1.0]]))).tolist()  # two world steps in one window step
    [[[0.25], [-1.0]]]
    """

    obs_mean: tuple[float, ...]
    obs_std: tuple[float, ...]
    action_mean: tuple[float, ...]
    action_std: tuple[float, ...]
    discrete: int | None = None

    def observation(self, x: Tensor) -> Tensor:
        """(..., S) numbers, or (..., C, H, W) uint8 pixels, as the model sees them: float32."""
        mean, std = torch.tensor(self.obs_mean, device=x.device), torch.tensor(self.obs_std, device=x.device)
        if x.dtype != torch.uint8:
            return (x.to(torch.float32) - mean) / std
        factor, shift = (1 / (255 * std)).view(-1, 1, 1), (-mean / std).view(-1, 1, 1)
        out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        pictures, floats = x.reshape(-1, *x.shape[-3:]), out.view(-1, *x.shape[-3:])
        step = max(1, CACHED // max(1, pictures[:1].numel())) if x.device.type == "cpu" else max(1, len(pictures))
        for at in range(0, len(pictures), step):  # in pieces that stay in a processor's cache: half the time
            floats[at : at + step].copy_(pictures[at : at + step]).mul_(factor).add_(shift)
        return out

    def action(self, x: Tensor) -> Tensor:
        """Actions (..., skip * A) in the world's units, or (..., skip) indices, as the model sees them."""
        if self.discrete is not None:
            return torch.nn.functional.one_hot(x.long(), self.discrete).flatten(-2).to(torch.float32)
        mean, std = torch.tensor(self.action_mean, device=x.device), torch.tensor(self.action_std, device=x.device)
        steps = x.shape[-1] // max(1, len(self.action_mean))
        return (x.to(torch.float32) - mean.repeat(steps)) / std.repeat(steps)

    def world_action(self, x: Tensor) -> Tensor:
        """The other way: (..., skip * A) of the model as (..., skip, A) for the world; one-hot as (..., skip, 1)."""
        if self.discrete is not None:
            return x.unflatten(-1, (-1, self.discrete)).argmax(-1, keepdim=True)
        mean, std = torch.tensor(self.action_mean, device=x.device), torch.tensor(self.action_std, device=x.device)
        return x.unflatten(-1, (-1, len(self.action_mean))) * std + mean

    def as_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From the "preprocess" group of a checkpoint; other keys of it are not looked at."""
        known: dict[str, Any] = {k: values[k] for k in cls.__dataclass_fields__}
        known = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
        return cls(**known)


def measure(episodes: Episodes, train: np.ndarray) -> Scale:
    """The scale of the episodes at `train`. Pixels are taken from up to 2,048 of their frames, evenly; all else from
    all of them. The unused action at the end of an episode is left out."""
    offsets, lengths = episodes.offsets[train], episodes.lengths[train]
    rows = spans(offsets, lengths)
    if episodes.pictures:
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), PICTURES)).astype(np.int64))]
        obs = moments(episodes.obs, rows)
        obs = obs[0] / 255, obs[1] / 255
    else:
        obs = moments(episodes.obs, rows)
    discrete = episodes.about.discrete
    action = np.zeros(episodes.action.shape[1]), np.ones(episodes.action.shape[1])
    if discrete is None and episodes.action.shape[1]:
        action = moments(episodes.action, spans(offsets, lengths - 1))
    a, b, c, d = (tuple(float(v) for v in x) for x in (*obs, *action))
    return Scale(a, b, c, d, discrete)


def moments(array: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over rows (and pixels) of the last axis, in float64; 1 where nothing varies.

    The sums are taken about the first row, so that large numbers that vary little keep their digits.
    """
    last = array.shape[-1]
    first = np.asarray(array[rows[0]], np.float64).reshape(-1, last).mean(0)
    step = max(1, BLOCK // max(1, int(np.prod(array.shape[1:]))))
    count, total, square = 0, np.zeros(last), np.zeros(last)
    for at in range(0, len(rows), step):
        x = np.asarray(array[rows[at : at + step]], np.float64).reshape(-1, last) - first
        count, total, square = count + len(x), total + x.sum(0), square + np.square(x).sum(0)
    shift = total / count
    std = np.sqrt(np.maximum(square / count - shift * shift, 0))
    flat = std <= FLAT * np.abs(first + shift)
    return first + shift, np.where(flat, 1.0, std)
