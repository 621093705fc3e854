"""Nearest neighbours: what the features are worth with nothing trained on top."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from openjepa.probe.features import Features, Labelled, pooled
from openjepa.probe.result import ProbeResult, num_classes, once

CHUNK = 2**25  # similarities held at once: 128 MiB


def knn(
    train: Features | Labelled,
    test: Features | Labelled,
    *,
    seed: int = 0,
    k: int = 20,
    temperature: float = 0.07,
    centred: bool = True,
) -> ProbeResult:
    """Accuracy of a vote among the k training pictures with the most similar features.

        class = argmax over c of  sum over the k nearest i with label c of  exp(cos(z, z_i) / temperature)

    The headline is this weighted vote; the plain majority, where each neighbour has one vote and ties go to the nearer
    ones, stands beside it in `parts`.

    centred   take the mean of the training features off first. Without it every pair looks alike where the features
              share a large constant part; published protocols leave it in, so set it to False to compare with them
    seed      unused: there is nothing random here
    returns   interval: Wilson, over test pictures

    Source: Wu et al. 2018 (arXiv 1805.01978), temperature 0.07; k = 20 as in later work on self-supervised ViTs.

    >>> z = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> data = Features(z, torch.tensor([0, 0, 1, 1]), torch.arange(4))
    >>> print(knn(data, data, k=2))
    knn: 100.0 % [51.0, 100.0]
    """
    a, b = pooled(train), pooled(test)
    classes = num_classes(a.labels, b.labels)
    bank, queries = unit(a.z, b.z, centred=centred)
    similarity, found = neighbours(bank, queries, min(k, len(bank)))
    labels = a.labels[found]  # (M, k)
    settings = {"k": k, "centred": centred, "trained_on": len(bank), "features": bank.shape[1]}
    votes = {
        "weighted": ((similarity - similarity[:, :1]) / temperature).exp(),
        "majority": 1 + torch.linspace(1e-3, 0, labels.shape[1], device=bank.device).expand_as(similarity) / k,
    }
    parts = tuple(
        once(
            f"knn ({name})",
            vote(labels, weight, classes) == b.labels,
            {**settings, "temperature": temperature} if name == "weighted" else settings,
        )
        for name, weight in votes.items()
    )
    head = parts[0]
    return ProbeResult("knn", head.accuracy, head.interval, head.n, head.settings, parts, head.correct)


def unit(bank: Tensor, queries: Tensor, *, centred: bool) -> tuple[Tensor, Tensor]:
    """Both at length one, after the mean of `bank` was taken off both."""
    mean = bank.mean(0) if centred else 0.0
    return F.normalize(bank - mean, dim=1), F.normalize(queries - mean, dim=1)


def neighbours(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine and row in `bank` (N, D) of the k nearest to each query (M, D), best first; both (M, k).

    Both must have length one. Queries are taken in chunks, so that memory does not grow with M * N.
    """
    step = max(1, CHUNK // len(bank))
    found = [(chunk @ bank.T).topk(k, dim=1) for chunk in queries.split(step)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def vote(labels: Tensor, weight: Tensor, classes: int) -> Tensor:
    """The class (M,) with most weight among labelled neighbours (M, k)."""
    votes = torch.zeros(len(labels), classes, dtype=weight.dtype, device=weight.device)
    return votes.scatter_add_(1, labels, weight).argmax(1)
