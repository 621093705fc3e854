"""Several networks for one job, and how far they disagree: what a model does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """`members` networks of one kind, each drawn anew; called as one, it gives the mean of their outputs.

    Their starts differ and nothing else: trained on the same batches they agree where there were data, and differ
    elsewhere (deep ensembles, Lakshminarayanan et al., arXiv 1612.01474).

    >>> Ensemble(lambda: nn.Linear(3, 2), members=4)(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, make: Callable[[], nn.Module], members: int):
        super().__init__()
        if members < 1:
            raise ValueError(f"members must be at least 1, got {members}. One is a single network.")
        self.members = nn.ModuleList(make() for _ in range(members))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.each(*inputs).mean(0)

    def each(self, *inputs: Tensor) -> Tensor:
        """(E, ...), one output per member."""
        return torch.stack([net(*inputs) for net in self.members])


class Member(NamedTuple):
    """One of several models that share an encoder, as `Dynamics`."""

    encode: Callable[[Tensor], Tensor]
    step: Callable[[Tensor, Tensor], Tensor]
    unroll: Callable[[Tensor, Tensor], Tensor]
