"""Beside the loss: nearest neighbours and a linear readout of the encoder, at every look of a running training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, cast

import torch
from torch import Tensor

from openjepa.core.types import Moment
from openjepa.probe.features import Batch, features, known
from openjepa.probe.knn import neighbours, unit, vote
from openjepa.probe.result import num_classes
from openjepa.probe.ridge import ridge_classes


class Encodes(Protocol):
    """What the observer needs of a method: pictures (B, C, H, W) to patch tokens (B, N, D)."""

    def encode(self, obs: Tensor) -> Tensor: ...


class OnlineProbe:
    """An observer: {"probe/knn": ..., "probe/linear": ...}, accuracies on labelled pictures that training does not use.

    train, test   () -> iterable of (pictures, labels, index); called at every look, the same pictures every time
    k             neighbours (cosine after centring, weighted with temperature 0.07, as in the kNN probe)

    The linear readout is a ridge regression on the one-hot labels, solved anew at every look: some points below the
    logistic regression of the linear probe, but without a step, a seed or anything to remember. So a look changes
    nothing in the run, and a resumed run logs what the uninterrupted one would have logged.

    >>> class Method(torch.nn.Module):
    ...     def encode(self, obs): return obs.flatten(2).transpose(1, 2)
    >>> x = torch.cat([torch.full((6, 1, 2, 2), -1.0), torch.full((6, 1, 2, 2), 1.0)])
    >>> source = lambda: [(x, torch.arange(12) // 6, torch.arange(12))]
    >>> OnlineProbe(source, source)(Moment(0, 1, Method(), {}, {}))
    {'probe/knn': 1.0, 'probe/linear': 1.0}
    """

    def __init__(
        self, train: Callable[[], Iterable[Batch]], test: Callable[[], Iterable[Batch]], *, k: int = 20
    ) -> None:
        self.train, self.test, self.k = train, test, k

    def __call__(self, moment: Moment) -> dict[str, float]:
        encode = cast(Encodes, moment.method).encode
        device = next((p.device for p in moment.method.parameters()), torch.device("cpu"))
        a = features(encode, self.train(), device=device)
        b = features(encode, self.test(), device=device)
        if not bool(a.z.isfinite().all() and b.z.isfinite().all()):
            return {}  # a diverged run is the loop's business: a look must not end it
        return readout(known(a).z, known(a).labels, known(b).z, known(b).labels, k=self.k)


def readout(train_z: Tensor, train_labels: Tensor, z: Tensor, labels: Tensor, *, k: int = 20) -> dict[str, float]:
    """Accuracy of both readouts on `z` (M, D)."""
    classes = num_classes(train_labels, labels)
    similarity, found = neighbours(*unit(train_z, z, centred=True), min(k, len(train_z)))
    near = vote(train_labels[found], (similarity / 0.07).exp(), classes)
    linear = ridge_classes(train_z, train_labels, z, classes=classes)
    return {"probe/knn": share(near, labels), "probe/linear": share(linear, labels)}


def share(named: Tensor, labels: Tensor) -> float:
    return float((named == labels).double().mean())
