"""An encoder among data with other statistics than those it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from openjepa.nn.encoder import Encoder


class Rescaled(Encoder):
    """`encoder` behind y = (x * std + mean - own_mean) / own_std, per channel.

    Pictures come normalised with `mean` and `std` of the data at hand and leave normalised as the encoder knows them.
    Everything else is the encoder's own.

    >>> from openjepa.nn import build_encoder
    >>> inside = build_encoder("vit_micro/4", size=8)
    >>> seen = Rescaled(inside, mean=[0.5] * 3, std=[0.5] * 3, own_mean=[0.0] * 3, own_std=[1.0] * 3)
    >>> x = torch.rand(2, 3, 8, 8)
    >>> torch.allclose(seen((x - 0.5) / 0.5), inside(x), atol=1e-5)
    True
    """

    factor: Tensor
    shift: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        own_mean: Sequence[float],
        own_std: Sequence[float],
    ) -> None:
        super().__init__()
        if len(mean) != len(own_mean):
            raise ValueError(
                f"pictures must have the {len(own_mean)} channels that the encoder was trained on, got {len(mean)}. "
                "Take another encoder, or train one on such pictures."
            )
        self.inside, self.dim, self.grid = encoder, encoder.dim, encoder.grid
        self.prefix, self.patch, self.blocks = encoder.prefix, encoder.patch, encoder.blocks
        m, s, own_m, own_s = (torch.tensor(v).view(-1, 1, 1) for v in (mean, std, own_mean, own_std))
        self.register_buffer("factor", s / own_s)
        self.register_buffer("shift", (m - own_m) / own_s)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        return self.inside(torch.addcmul(self.shift, x, self.factor), keep)

    def layers(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        return self.inside.layers(torch.addcmul(self.shift, x, self.factor), indices)
