"""An encoder with all that is needed to use it: weights, how pictures are prepared, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from openjepa.interop.preprocess import Picture, Preprocess
from openjepa.nn.encoder import Encoder, pool


class Encoded(NamedTuple):
    """What an encoder says of B pictures."""

    tokens: Tensor  # (B, N, D) patch tokens, class and register tokens left out
    pooled: Tensor  # (B, D)


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded encoder.

    encoder     in evaluation mode
    preprocess  size, mean and std of the pictures it was trained on
    config      the checkpoint's config.json
    weights     which weights these are: "encoder" or "teacher"
    source      the file they were read from
    """

    encoder: Encoder
    preprocess: Preprocess
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "encoder"
    source: Path | None = None

    def encode(
        self, pictures: Picture | Tensor | Sequence[Picture], *, pooling: str = "mean", batch_size: int = 64
    ) -> Encoded:
        """Tokens and one vector for each picture, without gradient, on the encoder's device.

        pictures  a PIL image, a path, a list of these, or a tensor: uint8 is prepared, floats are taken as they are
        pooling   "mean", "max", "cls", or several joined by "+"

        >>> from openjepa.nn import build_encoder
        >>> model = Model(build_encoder("vit_micro/4", size=8), Preprocess(size=8))
        >>> tokens, pooled = model.encode(torch.zeros(3, 20, 30, dtype=torch.uint8))
        >>> tokens.shape, pooled.shape
        (torch.Size([1, 4, 96]), torch.Size([1, 96]))
        """
        single = isinstance(pictures, str | Path) or not isinstance(pictures, Tensor | Sequence)
        many: Any = pictures if isinstance(pictures, Tensor) and pictures.dim() == 4 else [pictures]
        many = pictures if not single and not isinstance(pictures, Tensor) else many
        if len(many) == 0:
            raise ValueError("pictures must hold at least one, got none.")
        device = next((p.device for p in self.encoder.parameters()), torch.device("cpu"))
        found = []
        with torch.no_grad():
            for i in range(0, len(many), batch_size):
                part = many[i : i + batch_size]
                part = part[0] if isinstance(part, list) and isinstance(part[0], Tensor) else part
                tokens = self.encoder(self.preprocess.batch(part, device)).float()
                found.append((tokens[:, self.encoder.prefix :], pool(tokens, self.encoder.prefix, pooling)))
        tokens, pooled = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Encoded(tokens, pooled)

    def to(self, device: torch.device | str) -> Model:
        """Moves the encoder and gives the model back."""
        self.encoder.to(device)
        return self
