"""What a probe hands back: a number, how sure it is, and how it was got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from openjepa.probe.intervals import Interval, t_interval, wilson


@dataclass(frozen=True)
class ProbeResult:
    """One accuracy with its 95 % interval.

    name      of the probe, with its variant
    accuracy  share of the test pictures that were named rightly; the mean when there were several draws
    interval  what it spans is in settings["interval"]: other test pictures, other labelled draws, or other seeds
    n         test pictures
    settings  plain values: everything that was chosen, by whom or by what
    parts     the variants that were measured in the same go, the headline among them
    correct   (n,) bool per test picture where there was one fit: for paired comparisons (`intervals.paired`)
    """

    name: str
    accuracy: float
    interval: Interval
    n: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[ProbeResult, ...] = ()
    correct: Tensor | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, parts inside.

        >>> once("knn", torch.tensor([True, True, False, True]), {"k": 20}).as_dict()["accuracy"]
        0.75
        """
        low, high = self.interval
        out = {"name": self.name, "accuracy": self.accuracy, "low": low, "high": high, "n": self.n}
        out["settings"] = dict(self.settings)
        return out | ({"parts": [part.as_dict() for part in self.parts]} if self.parts else {})

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict per number, for a table: the parts where there are any, else the result itself."""
        return [part.as_dict() for part in self.parts] or [self.as_dict()]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.name}: {100 * self.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def once(name: str, correct: Tensor, settings: Mapping[str, Any]) -> ProbeResult:
    """The result of one fit; the interval (Wilson) is over test pictures."""
    right, n = int(correct.sum()), len(correct)
    return ProbeResult(
        name, right / n, wilson(right, n), n, {**settings, "interval": "test pictures"}, correct=correct.detach().cpu()
    )


def several(name: str, correct: list[Tensor], settings: Mapping[str, Any], over: str) -> ProbeResult:
    """The result of several fits, each tested on the same pictures; the interval of the mean (t) is `over` the fits.

    One fit alone gets the interval over test pictures instead.

    >>> print(several("tune", [torch.tensor([True, True]), torch.tensor([True, False])], {}, "seeds"))
    tune: 75.0 % [0.0, 100.0]
    """
    if len(correct) == 1:
        return once(name, correct[0], settings)
    shares = [float(c.double().mean()) for c in correct]
    low, high = t_interval(shares)
    ends = Interval(max(0.0, low), min(1.0, high))
    return ProbeResult(name, fmean(shares), ends, len(correct[0]), {**settings, "interval": over, "each": shares})


def num_classes(train: Tensor, test: Tensor) -> int:
    """Classes among the training labels; a test label that was never trained on is an error, not a miss."""
    unseen = sorted(set(test.unique().tolist()) - set(train.unique().tolist()))
    if unseen:
        raise ValueError(
            f"test labels must occur in training, got unseen {unseen[:5]}. Check that both use one class list."
        )
    if len(train.unique()) < 2:
        raise ValueError("labels must have at least two classes, got one. Probe on a source with several classes.")
    return int(train.max()) + 1


def hold_out(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Row indices (kept, held out): `share` of every class, at least one of each class that has two or more.

    >>> kept, held = hold_out(torch.tensor([0, 0, 0, 0, 1, 1]), 0.25, seed=0)
    >>> len(kept), len(held)
    (4, 2)
    """
    order, rank, count = shuffled_ranks(labels, seed)
    held = rank < (count * share).round().clamp(min=1).minimum(count - 1)
    return order[~held].sort().values, order[held].sort().values


def shuffled_ranks(labels: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A random order of the rows, and for each row in it: its rank within its class, and the size of its class.

    Drawn on the CPU, so that every device sees the same.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels.cpu()[order]
    sort = shuffled.argsort(stable=True)
    counts = torch.bincount(shuffled)
    start = counts.cumsum(0) - counts
    rank = torch.empty_like(order)
    rank[sort] = torch.arange(len(order)) - start[shuffled[sort]]
    device = labels.device
    return order.to(device), rank.to(device), counts[shuffled].to(device)
