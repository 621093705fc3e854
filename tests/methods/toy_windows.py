"""Windows with exact physics for tests: forced oscillators as states, and a dot that actions move as pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from openjepa.core.types import Space, Windows

OSCILLATOR = Space(obs=(4,), action=1, names=("x", "y", "vx", "vy"))
FREE = Space(obs=(2,), names=("x", "v"))


def dots(size: int = 16) -> Space:
    return Space(obs=(1, size, size), action=2, names=("x", "y"))


def oscillator(batch: int, steps: int, seed: int = 0, dt: float = 0.2, push: float = 0.3) -> Windows:
    """Two springs of angular frequency 1, the first pushed by the action; exact between pushes."""
    g = torch.Generator().manual_seed(seed)
    state = torch.randn(batch, 4, generator=g)  # x, y, vx, vy
    action = torch.randn(batch, steps - 1, 1, generator=g)
    turn = torch.tensor([[math.cos(dt), math.sin(dt)], [-math.sin(dt), math.cos(dt)]])
    seen = [state]
    for t in range(steps - 1):
        state = state + push * action[:, t] * torch.tensor([0.0, 0.0, 1.0, 0.0])
        xy, v = state[:, :2], state[:, 2:]
        state = torch.cat([turn[0, 0] * xy + turn[0, 1] * v, turn[1, 0] * xy + turn[1, 1] * v], 1)
        seen.append(state)
    obs = torch.stack(seen, 1)
    return Windows(obs, action, obs, torch.arange(batch))


def free(batch: int, steps: int, seed: int = 0, dt: float = 0.2) -> Windows:
    """One spring that nobody pushes, amplitudes up to 2: the flow is a rotation of (x, v)."""
    g = torch.Generator().manual_seed(seed)
    a, phase = 2 * torch.rand(batch, 1, generator=g).sqrt(), 2 * math.pi * torch.rand(batch, 1, generator=g)
    t = dt * torch.arange(steps) + phase
    obs = torch.stack([a * t.cos(), -a * t.sin()], -1)
    return Windows(obs, obs.new_zeros(batch, steps - 1, 0), obs, torch.arange(batch))


def dot(batch: int, steps: int, seed: int = 0, size: int = 16, reach: float = 0.25) -> Windows:
    """A soft dot in a box of side 2: each step moves it by reach * action, held at the walls; normalised pictures."""
    g = torch.Generator().manual_seed(seed)
    place = torch.rand(batch, 2, generator=g) * 1.6 - 0.8
    action = torch.randn(batch, steps - 1, 2, generator=g)
    places = [place]
    for t in range(steps - 1):
        place = (place + reach * action[:, t]).clamp(-0.8, 0.8)
        places.append(place)
    state = torch.stack(places, 1)  # (B, T, 2)
    return Windows(draw(state, size), action, state, torch.arange(batch))


def draw(state: Tensor, size: int = 16) -> Tensor:
    """(..., 2) places as pictures (..., 1, size, size)."""
    axis = torch.linspace(-1, 1, size)
    x, y = state[..., 0, None, None], state[..., 1, None, None]
    bump = torch.exp(-((axis - x).square() + (axis[:, None] - y).square()) / (2 * 0.15**2))
    return ((bump - 0.04) / 0.15)[..., None, :, :]
