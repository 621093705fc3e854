"""The linear probe: logistic regression on frozen features, its penalty chosen without the test pictures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from openjepa.probe.features import Features, Labelled, pooled
from openjepa.probe.logistic import Axes, Readout, Scaling, axes_of, fit, predict
from openjepa.probe.result import ProbeResult, hold_out, num_classes, once

GRID = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # strong to weak: each fit starts from the one before
PATIENCE = 2  # penalties without a gain on the held-out part, after which weaker ones are not tried


def linear(
    train: Features | Labelled,
    test: Features | Labelled,
    *,
    seed: int = 0,
    grid: Sequence[float] = GRID,
    held_out: float = 0.2,
) -> ProbeResult:
    """Accuracy of a linear classifier on frozen features, fitted twice: on standardised and on raw features.

        W, b = argmin mean cross-entropy(z W + b, label) + l2 / 2 |W|^2

    The headline is the standardised fit, as in most published protocols (a batch norm before the linear map). Dividing
    every feature by its own spread also lets the readout live on directions that hardly vary, which hides a dimensional
    collapse; so the raw fit (centred, all features divided by one number) stands beside it in `parts`, and
    settings["spread"], the mean standard deviation of the features as they came, beside both: no accuracy of a linear
    classifier shows that all features shrank together.

    grid      penalties, tried from strong to weak. The one with the best accuracy on `held_out` of the training
              pictures (drawn with `seed`, per class) is kept, the stronger on a tie, and fitted again on all of them
    returns   interval: Wilson, over test pictures

    Accuracy is in [0, 1]. Raises `ValueError` when a test label does not occur in training.

    >>> import torch
    >>> z = torch.cat([torch.randn(40, 4) - 3, torch.randn(40, 4) + 3]); labels = torch.arange(80) // 40
    >>> data = Features(z, labels, torch.arange(80))
    >>> linear(data, data).accuracy
    1.0
    """
    a, b = pooled(train), pooled(test)
    classes = num_classes(a.labels, b.labels)
    parts = tuple(_one(a, b, scaling, classes, seed, grid, held_out) for scaling in ("standardised", "raw"))
    head = parts[0]
    return ProbeResult("linear", head.accuracy, head.interval, head.n, head.settings, parts, head.correct)


def _one(
    train: Features, test: Features, scaling: Scaling, classes: int, seed: int, grid: Sequence[float], held_out: float
) -> ProbeResult:
    axes = axes_of(train.z, scaling)
    x = axes.apply(train.z)
    l2, start, tried = choose(x, train.labels, axes, classes, seed, grid, held_out)
    found = fit(x, train.labels, axes.variance, classes=classes, l2=l2, start=start)
    settings = {
        "scaling": scaling, "l2": l2, "held_out": tried, "trained_on": len(x), "features": train.z.shape[1],
        "spread": axes.spread, "seed": seed,
    }  # fmt: skip
    return once(f"linear ({scaling})", predict(axes.apply(test.z), found) == test.labels, settings)


def choose(
    x: Tensor, labels: Tensor, axes: Axes, classes: int, seed: int, grid: Sequence[float], held_out: float
) -> tuple[float, Readout | None, dict[str, float]]:
    """The penalty that is best on a held-out part of the training pictures, its fit, and all the accuracies there."""
    kept, held = hold_out(labels, held_out, seed)
    if len(grid) == 1 or len(held) == 0:
        return max(grid), None, {}
    seen, seen_labels, asked, asked_labels = x[kept], labels[kept], x[held], labels[held]
    best: tuple[float, float, Readout | None] = (-1.0, max(grid), None)
    tried: dict[str, float] = {}
    start: Readout | None = None
    since = 0
    for l2 in sorted(grid, reverse=True):
        start = fit(seen, seen_labels, axes.variance, classes=classes, l2=l2, start=start)
        share = float((predict(asked, start) == asked_labels).double().mean())
        tried[f"{l2:g}"] = share
        since = 0 if share > best[0] else since + 1
        best = max(best, (share, l2, start), key=lambda found: found[0])
        if since >= PATIENCE:
            break
    return best[1], best[2], tried
