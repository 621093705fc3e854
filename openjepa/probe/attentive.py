"""The attentive probe: one learned query looks at the frozen tokens of a picture, a linear map names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openjepa.nn import AttentiveHead
from openjepa.probe.features import Features, Labelled, with_tokens
from openjepa.probe.logistic import DEAD
from openjepa.probe.result import ProbeResult, hold_out, num_classes, several
from openjepa.probe.training import enough_epochs, minimise, named


@dataclass(frozen=True)
class _Recipe:
    """How one head is trained."""

    classes: int
    heads: int
    blocks: int
    epochs: int
    batch_size: int
    weight_decay: float


def attentive(
    train: Features | Labelled,
    test: Features | Labelled,
    *,
    seed: int = 0,
    lrs: Sequence[float] = (3e-4, 1e-3, 3e-3),
    repeats: int = 1,
    heads: int | None = None,
    blocks: int = 0,
    epochs: int | None = None,
    batch_size: int = 128,
    weight_decay: float = 0.05,
    held_out: float = 0.2,
) -> ProbeResult:
    """Accuracy of cross-attention pooling and a linear map on frozen patch tokens, of pictures or of clips.

    The head is `openjepa.nn.AttentiveHead` (one query, one cross-attention block), trained with AdamW, a tenth of the
    steps warm-up, then a cosine to zero. Every feature is first standardised on the training pictures, so that one grid
    of rates fits every encoder, and features shared by all pictures do not drown the others in the head's layer norm;
    as in the linear probe, this hides a collapse. All tokens are held in memory: N * T * D * 4 bytes.

    train, test  `Labelled`, or `Features` with z (N, T, D); (N, D) counts as one token
    lrs          the rate with the best accuracy on `held_out` of the training pictures is taken for all of them
    repeats      heads trained with seeds seed, seed + 1 ...
    epochs       by default 20, and more where these would be fewer than 400 steps
    heads        of the attention; by default one per 64 features where that divides
    blocks       of self-attention over the tokens before the query looks at them; 3 for the probe of V-JEPA 2
    returns      interval: t over seeds, or Wilson over test pictures when there is one

    Source: the frozen evaluation of V-JEPA (arXiv 2404.08471), which uses 16 heads, 20 epochs and augmentation; here
    no augmentation, since the tokens are computed once, and standardised tokens.

    >>> labels = torch.arange(80) // 40
    >>> z = torch.randn(80, 3, 4) + 4 * torch.eye(4)[labels][:, None]
    >>> data = Features(z, labels, torch.arange(80))
    >>> attentive(data, data, lrs=(1e-2,), batch_size=20).accuracy > 0.9
    True
    """
    a, b = with_tokens(train), with_tokens(test)
    classes = num_classes(a.labels, b.labels)
    dim = a.z.shape[-1]
    if heads is None:
        heads = max(1, dim // 64) if dim % max(1, dim // 64) == 0 else 1
    std, mean = torch.std_mean(a.z, dim=(0, 1), unbiased=False)
    scale = torch.where(std > DEAD * mean.abs(), 1 / std.clamp_min(1e-30), 0.0)
    a, b = (replace(part, z=(part.z - mean) * scale) for part in (a, b))
    epochs = epochs or enough_epochs(len(a.z), batch_size)
    recipe = _Recipe(classes, heads, blocks, epochs, batch_size, weight_decay)
    lr, tried = _choose(a, lrs, recipe, held_out, seed)
    correct = [_fit(a, b.z, lr, recipe, seed + r) == b.labels for r in range(repeats)]
    settings = {
        "lr": lr, "held_out": tried, "heads": heads, "blocks": blocks, "epochs": epochs, "batch_size": batch_size,
        "seed": seed, "weight_decay": weight_decay, "repeats": repeats, "trained_on": len(a.z), "tokens": a.z.shape[1],
    }  # fmt: skip
    return several("attentive_deep" if blocks else "attentive", correct, settings, "seeds")


def _choose(
    data: Features, lrs: Sequence[float], recipe: _Recipe, held_out: float, seed: int
) -> tuple[float, dict[str, float]]:
    """The best rate on a held-out part, the smaller on a tie, and the accuracies there."""
    kept, held = hold_out(data.labels, held_out, seed)
    if len(lrs) == 1 or len(held) == 0:
        return min(lrs), {}
    a, b = data.rows(kept), data.rows(held)
    tried = {lr: float((_fit(a, b.z, lr, recipe, seed) == b.labels).double().mean()) for lr in sorted(lrs)}
    return max(tried, key=lambda lr: tried[lr]), {f"{lr:g}": share for lr, share in tried.items()}


def _fit(data: Features, z: Tensor, lr: float, recipe: _Recipe, seed: int) -> Tensor:
    """Classes of the tokens `z` (M, T, D) by a head trained on `data`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = AttentiveHead(data.z.shape[-1], recipe.classes, recipe.heads, recipe.blocks)
    head = head.to(z.device)
    decayed = [p for p in head.parameters() if p.dim() == 2]
    plain = [p for p in head.parameters() if p.dim() != 2]
    groups = [
        {"params": decayed, "lr": lr, "weight_decay": recipe.weight_decay},
        {"params": plain, "lr": lr, "weight_decay": 0.0},
    ]
    minimise(head, groups, data.z, data.labels, epochs=recipe.epochs, batch_size=recipe.batch_size, seed=seed)
    return named(head.eval(), z, z.device, batch_size=4 * recipe.batch_size)


def attentive_deep(
    train: Features | Labelled,
    test: Features | Labelled,
    *,
    seed: int = 0,
    lrs: Sequence[float] = (3e-4, 1e-3, 3e-3),
    repeats: int = 1,
    epochs: int | None = None,
    batch_size: int = 128,
) -> ProbeResult:
    """`attentive` with three blocks of self-attention before the query: the probe of V-JEPA 2.

    >>> labels = torch.arange(80) // 40
    >>> z = torch.randn(80, 3, 4) + 4 * torch.eye(4)[labels][:, None]
    >>> data = Features(z, labels, torch.arange(80))
    >>> attentive_deep(data, data, lrs=(3e-3,), batch_size=20, epochs=20).name
    'attentive_deep'
    """
    return attentive(train, test, seed=seed, lrs=lrs, repeats=repeats, blocks=3, epochs=epochs, batch_size=batch_size)
