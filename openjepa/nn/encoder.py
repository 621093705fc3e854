"""What every encoder is: pictures in, tokens out, and the few facts that methods and probes need to know about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Encoder(nn.Module, ABC):
    """Pictures (B, C, H, W) to tokens (B, prefix + N, D).

    dim         D, the width of a token
    grid        (h, w) of the N = h * w patch tokens at the native size, in raster order
    prefix      class and register tokens; they come first
    patch       side of a patch in pixels, or None when the encoder cannot run on kept tokens only
    blocks      the residual blocks in order: units for sharding, for activation checkpointing and for `layers`
    checkpoint  recompute the insides of every block in backward instead of keeping them (less memory, more time)
    """

    dim: int
    grid: tuple[int, int]
    prefix: int = 0
    patch: int | None = None
    blocks: nn.ModuleList
    checkpoint: bool = False

    @abstractmethod
    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens of x (B, C, H, W); with `keep` (B, K) int64, of those patches only, (B, prefix + K, D)."""

    @abstractmethod
    def layers(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Tokens after the blocks `indices`, in that order; -1 is the last block and equals `forward(x)`."""

    def run(self, block: nn.Module, *args: Any) -> Any:
        """`block(*args)`, with its insides recomputed in backward when `checkpoint` is set."""
        if self.checkpoint and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)


def block_indices(indices: Sequence[int], depth: int) -> list[int]:
    """`indices` into `depth` blocks with negative ones counted from the end.

    >>> block_indices([0, -1], 12)
    [0, 11]
    """
    for i in indices:
        if not -depth <= i < depth:
            raise ValueError(
                f"layers must be between {-depth} and {depth - 1}, got {i}. The encoder has {depth} blocks."
            )
    return [i % depth for i in indices]


def pool(tokens: Tensor, prefix: int, how: str = "mean") -> Tensor:
    """One vector per picture from tokens (B, prefix + N, D).

    "mean" of the patch tokens, (B, D); "cls": the first token, (B, D); "max" over the patch tokens, (B, D);
    "mean+cls" and any other names joined by "+": side by side, (B, 2 D).

    >>> pool(torch.tensor([[[9.0], [1.0], [3.0]]]), prefix=1, how="mean+cls")
    tensor([[2., 9.]])
    """
    return torch.cat([_pool_one(tokens, prefix, name) for name in how.split("+")], dim=-1)


def _pool_one(tokens: Tensor, prefix: int, how: str) -> Tensor:
    if how == "mean":
        return tokens[:, prefix:].mean(dim=1)
    if how == "max":
        return tokens[:, prefix:].amax(dim=1)
    if how == "cls":
        if prefix == 0:
            raise ValueError("pooling must be 'mean' or 'max' for an encoder without a class token, got 'cls'.")
        return tokens[:, 0]
    raise ValueError(f"pooling must be 'mean', 'max', 'cls', or several joined by '+', got {how!r}.")
