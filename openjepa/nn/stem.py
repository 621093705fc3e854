"""Early convolutions for a transformer that may only see some patches."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.tokens import take


class ConvStem(nn.Module):
    """Strided convolutions in place of the one linear map of `PatchEmbed`, blind to the patches that are dropped.

    log2(patch) times: 3 x 3 convolution of stride 2, GELU, layer norm over channels; widths double up to `dim`; then a
    linear map. (B, C, H, W) -> (B, N, D); with `keep` (B, K), every pixel of the other patches is set to zero *before*
    the first convolution, so a kept token depends on kept patches only, and (B, K, D) comes back. A test takes the
    gradient to prove it.

    Why: on small pictures with little time, overlapping filters tell more at the start and learn faster than a linear
    map of disjoint patches (Xiao et al. 2021, arXiv 2106.14881, who have batch norm and ReLU, and no masks).

    >>> ConvStem(3, 32, patch=4)(torch.zeros(2, 3, 16, 16), torch.tensor([[0, 5], [1, 2]])).shape
    torch.Size([2, 2, 32])
    """

    def __init__(self, channels: int, dim: int, patch: int):
        super().__init__()
        steps = patch.bit_length() - 1
        if steps < 1 or patch != 1 << steps or dim % (1 << (steps - 1)):
            raise ValueError(
                f"patch must be a power of two (2, 4, 8 ...) that divides 2 x width for stem='conv', got {patch} at "
                f"width {dim}. Change one of them, or leave stem at 'auto'."
            )
        self.patch = patch
        widths = [channels] + [dim >> (steps - 1 - i) for i in range(steps)]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(b, eps=1e-6) for b in widths[1:])
        self.proj = nn.Linear(dim, dim)

    def start(self) -> None:
        """Weights that keep unit variance from layer to layer; zero biases."""
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.trunc_normal_(self.proj.weight, std=self.proj.in_features**-0.5)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        if keep is not None:
            x = torch.where(self.visible(x, keep), x, 0.0)  # whatever is hidden, NaN included, is gone
        x = x.contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(F.gelu(conv(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, w, H / 2, W / 2)
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, D)
        return self.proj(tokens if keep is None else take(tokens, keep))

    def visible(self, x: Tensor, keep: Tensor) -> Tensor:
        """Whether a pixel lies in a kept patch, (B, 1, H, W)."""
        rows, columns = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        cells = torch.zeros(len(x), rows * columns, dtype=torch.bool, device=x.device).scatter_(1, keep, True)
        cells = cells.view(-1, 1, rows, columns)
        return cells.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
