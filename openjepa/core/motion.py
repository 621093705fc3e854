"""Terms and draws that live on time: slowness, inverse dynamics, spread along time, horizons, stretches of actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from openjepa.core.compare import mse
from openjepa.core.types import Clock


def by_time(z: Tensor) -> Tensor:
    """Time in front, (B, T, ...) -> (T, B, ...): each time step then counts as a sample of its own.

    What the regularisers of `core.spread` take to be computed per time step and averaged, over the windows of a batch.

    >>> by_time(torch.zeros(8, 3, 2)).shape
    torch.Size([3, 8, 2])
    """
    return z.transpose(0, 1)


def slowness(z: Tensor) -> Tensor:
    """How far the latent moves in one step: temporal similarity, a penalty on change.

        mean over b, t, d of (z_{t+1} - z_t)^2

    z        (B, T, D), T at least 2
    returns  ()

    Scale    mean over every element, so a weight does not depend on B, T or D.
    Source   PLDM, arXiv 2502.14819; eb_jepa, arXiv 2602.03604 (its "time-sim").

    >>> slowness(torch.tensor([[[0.0], [1.0], [3.0]]]))
    tensor(2.5000)
    """
    if z.dim() < 3 or z.shape[1] < 2:
        raise ValueError(f"z must be (B, T, D) with at least two time steps, got {tuple(z.shape)}.")
    return mse(z[:, 1:], z[:, :-1])


def inverse_dynamics(read: Callable[[Tensor, Tensor], Tensor], z: Tensor, action: Tensor) -> Tensor:
    """Whether the action can be read off two neighbouring latents: it keeps in z what the agent controls.

        mean over b, t, a of (read(z_t, z_{t+1}) - a_t)^2

    read     (B, T - 1, D), (B, T - 1, D) -> (B, T - 1, A), a network that is trained along
    z        (B, T, D);  action (B, T - 1, A)
    returns  ()

    Scale    mean over every element. Actions that are indices come as one-hot numbers and are regressed like the rest.
    Source   PLDM, arXiv 2502.14819; eb_jepa, arXiv 2602.03604.

    >>> z = torch.tensor([[[0.0], [1.0], [3.0]]])
    >>> inverse_dynamics(lambda a, b: b - a, z, torch.tensor([[[1.0], [2.0]]]))
    tensor(0.)
    """
    if action.shape[:2] != (z.shape[0], z.shape[1] - 1):
        raise ValueError(f"action must be ({z.shape[0]}, {z.shape[1] - 1}, A) for such z, got {tuple(action.shape)}.")
    return mse(read(z[:, :-1], z[:, 1:]), action)


def variance_in_time(z: Tensor, *, floor: float = 1.0) -> Tensor:
    """How much the spread of each feature along the time of a window falls short of `floor`.

        mean over b, d of max(0, floor - std_t(z[b, :, d])),   std = sqrt(unbiased variance + 1e-4)

    z        (B, T, D), T at least 2
    returns  ()

    Scale    as `core.spread.variance`, with time in the place of the batch; nothing is shared between processes.
    Source   PLDM's std_t, arXiv 2502.14819.

    >>> variance_in_time(torch.zeros(2, 3, 4))
    tensor(0.9900)
    """
    if z.dim() != 3 or z.shape[1] < 2:
        raise ValueError(f"z must be (B, T, D) with at least two time steps, got {tuple(z.shape)}.")
    return (floor - (z.float().var(1) + 1e-4).sqrt()).clamp_min(0).mean()


def draw_horizon(horizons: Sequence[int], clock: Clock) -> int:
    """One of `horizons`, each equally likely; the same on every process, and a function of (seed, step) alone.

    >>> sorted({draw_horizon((1, 2, 4), Clock(step=i)) for i in range(20)})
    [1, 2, 4]
    """
    if not horizons or min(horizons) < 1:
        raise ValueError(f"horizons must be steps of at least 1, got {tuple(horizons)}. Write for example (1, 2, 4).")
    return horizons[int(torch.randint(len(horizons), (), generator=clock.generator("horizon")))]


def stretches(action: Tensor, k: int) -> Tensor:
    """The k actions that follow each observation which has that many: (B, T - 1, A) -> (B, T - k, k, A).

    >>> stretches(torch.arange(4.0).view(1, 4, 1), 3)[0, :, :, 0].tolist()
    [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    """
    if not 1 <= k <= action.shape[1]:
        raise ValueError(f"k must be between 1 and the {action.shape[1]} actions of the window, got {k}.")
    return action.unfold(1, k, 1).transpose(2, 3)  # (B, T - k, k, A)


def compose(k: int, horizons: Sequence[int]) -> list[int]:
    """`k` steps as a sum of known horizons, the longest first.

    >>> compose(27, (1, 4, 10))
    [10, 10, 4, 1, 1, 1]
    """
    parts, left = list[int](), k
    for h in sorted(set(horizons), reverse=True):
        parts += [h] * (left // h)
        left %= h
    if k < 1 or left:
        raise ValueError(
            f"k must be a sum of the trained horizons {tuple(horizons)}, longest first, got {k}. "
            "Train with horizon 1 among them."
        )
    return parts
