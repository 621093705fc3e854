"""Reductions over processes that gradients pass through. In one process each of them is the identity.

The one home of collectives: torch's functional ones return their result, and code that calls them as statements
reduces nothing. These are plain autograd functions over `torch.distributed`, for any backend.

Which gradient: every process computes the same joined loss, so back-propagation through a reduction hands each process
`world_size` times the derivative of that loss by its own rows. DDP and FSDP then average over processes, which gives
exactly the gradient that one process would have found on the joined batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor


def is_distributed() -> bool:
    """Whether more than one process takes part. Asked at every call: a process group may be set up late.

    >>> is_distributed()
    False
    """
    return world_size() > 1


def rank() -> int:
    """The number of this process, 0 when alone."""
    return td.get_rank() if _grouped() else 0


def world_size() -> int:
    """How many processes take part, 1 when alone."""
    return td.get_world_size() if _grouped() else 1


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process counts as the only one, and every reduction is the identity.

    For what one process does while the others go on, such as an observer on rank 0: a reduction there would wait for
    them for ever. Gradients must not be taken through what is computed inside.

    >>> with alone():
    ...     world_size()
    1
    """
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


_alone = False


def _grouped() -> bool:
    return not _alone and td.is_available() and td.is_initialized()


def all_sum(x: Tensor) -> Tensor:
    """The sum of `x` over processes, differentiable.

        y = sum over ranks of x;   dx = sum over ranks of dy

    x        any shape, the same on every process
    returns  the same shape and the same values on every process; `x` itself is not changed

    >>> all_sum(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    return x if not is_distributed() else _AllSum.apply(x)


def all_mean(x: Tensor) -> Tensor:
    """The mean of `x` over processes, differentiable. With equal batches, the mean of means is the joined mean.

    >>> all_mean(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    return x if not is_distributed() else _AllSum.apply(x) / world_size()


def gather(x: Tensor) -> Tensor:
    """The rows of every process in rank order, differentiable.

    x        (N, ...)      the same shape on every process
    returns  (W * N, ...)  the same on every process

    The gradient of this process's rows is summed over processes, as in `all_sum`.

    >>> gather(torch.zeros(4, 2)).shape
    torch.Size([4, 2])
    """
    return x if not is_distributed() else _Gather.apply(x)


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clone(memory_format=torch.contiguous_format)
        td.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _AllSum.apply(grad)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        td.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # A reduce-scatter would move less, but gloo has none.
        mine = slice(rank() * ctx.rows, (rank() + 1) * ctx.rows)
        return _AllSum.apply(grad)[mine]
