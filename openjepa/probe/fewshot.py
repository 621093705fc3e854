"""Few labels: what the features are worth when only a handful of pictures are labelled, over many such handfuls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from openjepa.probe.features import Features, Labelled, pooled
from openjepa.probe.logistic import axes_of, fit, predict
from openjepa.probe.result import ProbeResult, num_classes, several, shuffled_ranks

# Times total variance / labels. Picked by test accuracy of pixels and random features on digits and CIFAR-10: flat
# from 1 to 10 labels per class on both. Not free of tuning there; the same for every contestant.
PENALTY = 0.1


def fewshot(
    train: Features | Labelled,
    test: Features | Labelled,
    *,
    seed: int = 0,
    per_class: Sequence[int] = (1, 5, 10),
    fractions: Sequence[float] = (0.01, 0.1),
    resamples: int = 20,
) -> ProbeResult:
    """Accuracy with a few labels per class, and with a few per cent of them; the mean over `resamples` draws of labels.

    Two readouts of the same draws, both in `parts`:

        logistic      argmin mean cross-entropy + l2 / 2 |W|^2 with l2 = 0.1 * total variance / labels: the headline
        nearest mean  the class whose mean over its labelled pictures is nearest (Euclidean)

    Features are centred, and scaled by one number, on all of `train`: the labels are few, the pictures are not. The
    penalty is fixed, because one label per class leaves nothing to choose it on.

    per_class   labels of each class. A number that some class does not have is left out and named in settings
    fractions   shares of the labels of each class, rounded, at least one
    seed        draw r takes its labels with seed + r, the same for both readouts and for every encoder
    returns     the headline is the logistic readout at the most labels per class. Intervals: t, over draws of labels
                with the test pictures fixed

    >>> z = torch.cat([torch.randn(40, 4) - 3, torch.randn(40, 4) + 3]); labels = torch.arange(80) // 40
    >>> data = Features(z, labels, torch.arange(80))
    >>> found = fewshot(data, data, per_class=(1, 100), fractions=(0.1,), resamples=3)
    >>> [part.name for part in found.parts][:3], found.settings["left_out"]
    (['1 per class (logistic)', '1 per class (nearest mean)', '10 % (logistic)'], [100])
    """
    a, b = pooled(train), pooled(test)
    classes = num_classes(a.labels, b.labels)
    axes = axes_of(a.z, "raw")
    a, b = (replace(part, z=(part.z - axes.mean) * axes.scale) for part in (a, b))
    smallest = int(torch.bincount(a.labels)[a.labels.unique()].min())
    counts = [(f"{n} per class", n) for n in sorted(per_class) if n <= smallest]
    shares = [(f"{100 * share:g} %", share) for share in sorted(fractions)]
    if not counts and not shares:
        raise ValueError(f"per_class must have a number up to {smallest}, the smallest class, got {list(per_class)}.")
    parts = [
        part
        for name, amount in (*counts, *shares)
        for part in _amount(name, [draw(a.labels, amount, seed + r) for r in range(resamples)], a, b, classes, seed)
    ]
    head = parts[2 * (len(counts or shares) - 1)]
    settings = {**head.settings, "headline": head.name, "left_out": [n for n in per_class if n > smallest]}
    return ProbeResult("fewshot", head.accuracy, head.interval, head.n, settings, tuple(parts))


def _amount(
    name: str, draws: Sequence[Tensor], train: Features, test: Features, classes: int, seed: int
) -> list[ProbeResult]:
    found = []
    for readout, named in (("logistic", logistic), ("nearest mean", nearest_mean)):
        correct = [named(train.rows(rows), test.z, classes) == test.labels for rows in draws]
        settings = {"readout": readout, "labels": len(draws[0]), "resamples": len(draws), "seed": seed}
        found.append(several(f"{name} ({readout})", correct, settings, "draws of labels"))
    return found


def draw(labels: Tensor, amount: int | float, seed: int) -> Tensor:
    """Rows of `amount` pictures per class, or of that share of each class when it is a float; at least one per class.

    >>> labels = torch.tensor([0] * 10 + [1] * 30)
    >>> len(draw(labels, 2, seed=0)), labels[draw(labels, 0.1, seed=0)].tolist()
    (4, [0, 1, 1, 1])
    """
    order, rank, count = shuffled_ranks(labels, seed)
    wanted = (count * amount).round().clamp(min=1) if isinstance(amount, float) else torch.full_like(count, amount)
    return order[rank < wanted].sort().values


def logistic(labelled: Features, z: Tensor, classes: int) -> Tensor:
    """Classes of `z` (M, D) by regression on the labelled pictures."""
    axes = axes_of(labelled.z, "raw")
    x = axes.apply(labelled.z)
    l2 = PENALTY * float(axes.variance.sum()) / len(x)
    return predict(axes.apply(z), fit(x, labelled.labels, axes.variance, classes=classes, l2=max(l2, 1e-8)))


def nearest_mean(labelled: Features, z: Tensor, classes: int) -> Tensor:
    """Classes of `z` (M, D) by the nearest mean of the labelled pictures."""
    total = labelled.z.new_zeros(classes, z.shape[1]).index_add_(0, labelled.labels, labelled.z)
    count = torch.bincount(labelled.labels, minlength=classes)
    mean = total / count[:, None]  # a class without pictures gives nan: infinitely far
    return torch.cdist(z, mean).nan_to_num(nan=torch.inf).argmin(1)
