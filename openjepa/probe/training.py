"""The small training that attentive probing and fine-tuning share: AdamW, warm-up, cosine, on rows held in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPOCHS, FEWEST = 20, 400


def order(n: int, batch_size: int, epochs: int, seed: int) -> Iterator[Tensor]:
    """Row indices of every batch: a new permutation per epoch, the last short batch left out when there are others."""
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, n)
    for _ in range(epochs):
        rows = torch.randperm(n, generator=generator)
        yield from (rows[i : i + size] for i in range(0, n - size + 1, size))


def enough_epochs(n: int, batch_size: int) -> int:
    """`EPOCHS`, or as many as make `FEWEST` steps where pictures are few.

    >>> enough_epochs(50_000, 128), enough_epochs(1000, 128)
    (20, 58)
    """
    return max(EPOCHS, math.ceil(FEWEST / steps_of(n, batch_size, 1)))


def steps_of(n: int, batch_size: int, epochs: int) -> int:
    return epochs * max(1, n // min(batch_size, n))


def minimise(
    forward: Callable[[Tensor], Tensor],
    groups: Sequence[dict[str, Any]],
    rows: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    clip: float = 1.0,
) -> None:
    """Lower the cross-entropy of `forward(rows[batch])` over the parameters in `groups` (as AdamW takes them).

    The rate of every group rises linearly over the first tenth of the steps and then falls by a cosine to zero.
    """
    device = next(p.device for group in groups for p in group["params"])
    solver = torch.optim.AdamW(list(groups))
    peak = [group["lr"] for group in solver.param_groups]
    total = steps_of(len(rows), batch_size, epochs)
    for step, batch in enumerate(order(len(rows), batch_size, epochs, seed)):
        for group, lr in zip(solver.param_groups, peak, strict=True):
            group["lr"] = lr * rate(step, total)
        batch = batch.to(rows.device)
        loss = F.cross_entropy(forward(rows[batch].to(device)), labels[batch].to(device))
        solver.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in solver.param_groups for p in group["params"]], clip)
        solver.step()


def rate(step: int, total: int) -> float:
    """Share of the peak rate at `step` of `total`.

    >>> [round(rate(s, 20), 2) for s in (0, 1, 2, 11, 20)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warm = max(1, total // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def named(forward: Callable[[Tensor], Tensor], rows: Tensor, device: torch.device | str, *, batch_size: int) -> Tensor:
    """The class of every row, without gradient, on the device of the rows."""
    with torch.inference_mode():
        found = [forward(part.to(device)).argmax(1).to(rows.device) for part in rows.split(batch_size)]
    return torch.cat(found)
