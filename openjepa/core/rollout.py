"""Imagined futures: a model's own predictions, fed back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from openjepa.core.types import Dynamics


def rollout(model: Dynamics, z: Tensor, actions: Tensor) -> Tensor:
    """z_{k+1} = step(z_k, a_k) for k = 0 .. K - 1, starting from `z`.

    z        (B, ...) latent now
    actions  (B, K, A); K actions give K futures
    returns  (B, K, ...) latents 1 .. K steps ahead (the start is not among them)

    A model with a memory of its own defines `unroll(z, actions)`, which is then used.

    >>> class Walk:
    ...     def encode(self, obs): return obs
    ...     def step(self, z, action): return z + action
    >>> rollout(Walk(), torch.zeros(1, 2), torch.ones(1, 3, 2))[0, :, 0].tolist()
    [1.0, 2.0, 3.0]
    """
    if actions.dim() != 3 or actions.shape[0] != z.shape[0]:
        raise ValueError(f"actions must have shape ({z.shape[0]}, K, A), got {tuple(actions.shape)}. Do one row per z.")
    unroll = getattr(model, "unroll", None)
    if unroll is not None:
        return unroll(z, actions)
    futures = []
    for k in range(actions.shape[1]):
        z = model.step(z, actions[:, k])
        futures.append(z)
    return torch.stack(futures, 1)  # (B, K, ...)


def recall(predict: Callable[[Tensor, Tensor], Tensor], z: Tensor, actions: Tensor, history: int) -> Tensor:
    """`rollout` for models that look back: their own predictions are fed back, with the last `history` of them in view.

        z_{k+1} = predict(z_j .. z_k, a_j .. a_k)[last],   j = max(0, k + 1 - history)

    predict  latents (B, t, ...) and actions (B, t, A) of t <= history times in a row -> (B, t, ...) one step later
    z        (B, ...) latent now: what came before it is not known
    actions  (B, K, A);  returns  (B, K, ...)

    >>> total = lambda z, a: z.cumsum(1) + a
    >>> recall(total, torch.ones(1, 1), torch.zeros(1, 4, 1), history=2).flatten().tolist()
    [1.0, 2.0, 3.0, 5.0]
    """
    seen = [z]
    for k in range(actions.shape[1]):
        first = max(0, k + 1 - history)
        seen.append(predict(torch.stack(seen[first:], 1), actions[:, first : k + 1])[:, -1])
    return torch.stack(seen[1:], 1)
