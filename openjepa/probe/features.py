"""From an encoder and labelled pictures to the table that every probe reads: one row of features per picture."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from openjepa.nn.encoder import Encoder, pool

Encodes = Encoder | Callable[[Tensor], Tensor]  # pictures (B, C, H, W) -> (B, prefix + N, D), (B, N, D) or (B, D)
Batch = tuple[Tensor, Tensor, Tensor]  # pictures (B, C, H, W) normalised, labels (B,), index (B,)
Combine = Literal["concat", "mean"]
WORDS = ("mean", "cls", "max", "flatten", "tokens")


@dataclass(frozen=True, eq=False)
class Features:
    """What an encoder says of N pictures. `z` is (N, D) float32, or (N, T, D) when the tokens were kept apart."""

    z: Tensor
    labels: Tensor  # (N,) int64, -1 where unknown
    index: Tensor  # (N,) position in the source

    def rows(self, which: Tensor) -> Features:
        """The pictures that `which` (indices or booleans) picks."""
        which = which.to(self.z.device)
        return Features(self.z[which], self.labels[which], self.index[which])


def features(
    encoder: Encodes,
    batches: Iterable[Batch],
    *,
    layers: Sequence[int] | None = None,
    pooling: str = "mean",
    combine: Combine = "concat",
    device: torch.device | str = "cpu",
) -> Features:
    """The features of every picture in `batches`, in their order.

    encoder   an `Encoder`, or any callable from pictures to (B, N, D) or (B, D), such as a method's `encode`
    batches   (pictures, labels, index), once through
    layers    blocks to read (negative counts from the end); by default the last. Only an `Encoder` has others
    pooling   "mean", "max" over the patch tokens, "cls", several side by side joined by "+"; "flatten" puts the patch
              tokens behind one another; "tokens" keeps them apart, (N, T, D), for probes that attend
    combine   several layers: "concat" side by side, or their "mean". The two readings of the I-JEPA evaluation are
              layers=None, and layers=(-4, -3, -2, -1), each averaged over the patches and put side by side
    device    where pictures are sent and features stay; the encoder must be there already
    returns   float32, without gradient. The encoder runs in evaluation mode and is then put back as it was

    >>> pictures = torch.arange(24.0).view(2, 3, 2, 2)
    >>> found = features(lambda x: x.flatten(2).transpose(1, 2), [(pictures, torch.tensor([0, 1]), torch.arange(2))])
    >>> found.z
    tensor([[ 1.5000,  5.5000,  9.5000],
            [13.5000, 17.5000, 21.5000]])
    """
    _check(encoder, layers, pooling, combine)
    z, labels, index = [], [], []
    with evaluating(encoder), torch.inference_mode():
        for pictures, label, at in batches:
            tokens, prefix = _tokens(encoder, pictures.to(device), layers)
            parts = [_pooled(t, prefix, pooling) for t in tokens]
            if combine == "mean" and len({p.shape for p in parts}) > 1:
                raise ValueError(
                    f"layers must be equally wide for combine='mean', got {[p.shape[-1] for p in parts]}. "
                    "Use combine='concat'."
                )
            z.append(torch.stack(parts).mean(0) if combine == "mean" else torch.cat(parts, dim=-1))
            labels.append(label.to(device))
            index.append(at.to(device))
    if not z:
        raise ValueError("batches must hold at least one batch, got none. Check the source and its split.")
    return Features(torch.cat(z), torch.cat(labels).long(), torch.cat(index).long())  # outside of inference mode


@dataclass(frozen=True)
class Labelled:
    """Labelled pictures as one encoder sees them; the features are computed when a probe first asks, and kept.

    encoder, layers, pooling, combine, device   as in `features`
    batches   called for each pass: () -> iterable of (pictures, labels, index), the same every time

    >>> source = lambda: [(torch.ones(2, 1, 4, 4), torch.tensor([0, 1]), torch.arange(2))]
    >>> labelled = Labelled(lambda x: x.flatten(1), source)
    >>> labelled.pooled().z.shape, labelled.tokens().z.shape
    (torch.Size([2, 16]), torch.Size([2, 1, 16]))
    """

    encoder: Encodes
    batches: Callable[[], Iterable[Batch]]
    layers: Sequence[int] | None = None
    pooling: str = "mean"
    combine: Combine = "concat"
    device: torch.device | str = "cpu"
    _kept: dict[str, Features] = field(default_factory=dict, repr=False, compare=False)

    def pooled(self) -> Features:
        """(N, D)"""
        return self._features(self.pooling)

    def tokens(self) -> Features:
        """(N, T, D), the patch tokens kept apart."""
        return self._features("tokens")

    def _features(self, pooling: str) -> Features:
        if pooling not in self._kept:
            self._kept[pooling] = features(
                self.encoder,
                self.batches(),
                layers=self.layers,
                pooling=pooling,
                combine=self.combine,
                device=self.device,
            )
        return self._kept[pooling]


def pooled(data: Features | Labelled) -> Features:
    """One vector per picture, labels known: what most probes begin with."""
    found = data.pooled() if isinstance(data, Labelled) else data
    if found.z.dim() == 3:
        found = replace(found, z=found.z.mean(dim=1))
    return known(found)


def with_tokens(data: Features | Labelled) -> Features:
    """Tokens (N, T, D) of every picture, labels known; pooled features count as one token."""
    found = data.tokens() if isinstance(data, Labelled) else data
    return known(replace(found, z=found.z[:, None]) if found.z.dim() == 2 else found)


def known(found: Features) -> Features:
    """Only the pictures with a label; features that are not finite are refused."""
    if not bool(found.z.isfinite().all()):
        raise ValueError("features must be finite, got nan or inf. The run has diverged: probe an earlier checkpoint.")
    if found.z.device.type == "mps":  # which has neither double precision nor eigenvalues
        found = Features(found.z.cpu(), found.labels.cpu(), found.index.cpu())
    found = found if bool((found.labels >= 0).all()) else found.rows(found.labels >= 0)
    if len(found.z) == 0:
        raise ValueError("labels must be known for some pictures, got none. Probe on a labelled source.")
    return found


@contextmanager
def evaluating(encoder: Encodes) -> Iterator[None]:
    """Evaluation mode inside, every module back in its own mode afterwards. A bound method means its module."""
    owner = encoder.__self__ if inspect.ismethod(encoder) else encoder
    modes = [(m, m.training) for m in owner.modules()] if isinstance(owner, nn.Module) else []
    try:
        if isinstance(owner, nn.Module):
            owner.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def _check(encoder: Encodes, layers: Sequence[int] | None, pooling: str, combine: str) -> None:
    if layers is not None and len(layers) == 0:
        raise ValueError("layers must name at least one block, got none. Leave it out for the last.")
    if layers is not None and not isinstance(encoder, Encoder):
        raise ValueError(
            f"layers must be left out for a plain callable, got {list(layers)}. Only an Encoder has layers."
        )
    if combine not in ("concat", "mean"):
        raise ValueError(f"combine must be 'concat' or 'mean', got {combine!r}.")
    parts = pooling.split("+")
    if any(p not in WORDS for p in parts) or (len(parts) > 1 and {"flatten", "tokens"} & set(parts)):
        raise ValueError(
            f"pooling must be one of {', '.join(WORDS)}, or some of mean, cls, max joined by '+', got {pooling!r}."
        )


def _tokens(encoder: Encodes, pictures: Tensor, layers: Sequence[int] | None) -> tuple[list[Tensor], int]:
    """Tokens (B, prefix + N, D) per layer, and the prefix."""
    if isinstance(encoder, Encoder):
        found = [encoder(pictures)] if layers is None else encoder.layers(pictures, layers)
        return found, encoder.prefix
    out = encoder(pictures)
    if not isinstance(out, Tensor) or out.dim() not in (2, 3):
        what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"encoder must return (B, N, D) or (B, D), got {what}. Wrap it with openjepa.nn.wrap.")
    return [out[:, None] if out.dim() == 2 else out], 0


def _pooled(tokens: Tensor, prefix: int, pooling: str) -> Tensor:
    tokens = tokens.float()
    if pooling == "tokens":
        return tokens[:, prefix:]  # (B, N, D)
    if pooling == "flatten":
        return tokens[:, prefix:].flatten(1)  # (B, N * D)
    return pool(tokens, prefix, pooling)  # (B, D)
