"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545), atto to tiny."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from openjepa.nn.config import EncoderConfig
from openjepa.nn.conv import ConvEncoder, small_stem
from openjepa.nn.layers import MLP, DropPath, init_transformer


class Shape(NamedTuple):
    """Channels of the first stage (each next one doubles them) and blocks per stage."""

    width: int
    depths: tuple[int, int, int, int]


SHAPES: dict[str, Shape] = {
    "convnext_atto": Shape(40, (2, 2, 6, 2)),
    "convnext_femto": Shape(48, (2, 2, 6, 2)),
    "convnext_pico": Shape(64, (2, 2, 6, 2)),
    "convnext_nano": Shape(80, (2, 2, 8, 2)),
    "convnext_tiny": Shape(96, (3, 3, 9, 3)),
}


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map (B, C, h, w), eps 1e-6."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """x + scale * mlp(norm(depthwise 7x7(down(x)))); `down` halves the map in the first block of a stage.

    `scale` is one number per channel and starts at 1e-6.
    """

    def __init__(self, channels: int, down: nn.Module, drop_path: float):
        super().__init__()
        self.down = down
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = MLP(channels, 4 * channels)
        self.scale = nn.Parameter(torch.full((channels,), 1e-6))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)  # (B, h, w, C)
        y = self.mlp(self.norm(y)) * self.scale
        return x + self.drop_path(y.permute(0, 3, 1, 2))  # (B, C, h, w)


def build_convnext(cfg: EncoderConfig, *, size: int, channels: int) -> ConvEncoder:
    """ConvNeXt of the named shape; D is 8 times its width.

    The stem is a patch of 4 pixels, or of 2 with the small stem, or what `patch` says. Halvings that would leave less
    than two cells a side are left out, so that pictures of 8 pixels still give a map. Differs from the paper in that
    the last layer norm acts on every token, not on their mean: the tokens are what this library hands on.
    """
    cfg.refuse("pos", "cls", "registers", "depth", "heads")
    shape, width = SHAPES[cfg.base], cfg.width or SHAPES[cfg.base].width
    given = "/" in cfg.name or cfg.patch is not None
    patch = cfg.patch_for(size) if given else 2 if small_stem(cfg, size) else 4
    if size < patch:
        raise ValueError(f"size must be at least the patch side {patch}, got {size}. Use a smaller patch.")
    side, smallest, blocks = size // patch, patch, list[nn.Module]()
    for i, count in enumerate(shape.depths):
        for j in range(count):
            inside, outside = width * 2 ** max(0, i - 1), width * 2**i
            stride = 2 if i and j == 0 and side >= 4 else 1
            down = nn.Identity() if i == 0 or j else _down(inside, outside, stride)
            blocks.append(ConvNeXtBlock(outside, down, cfg.drop_path * len(blocks) / (sum(shape.depths) - 1)))
            side, smallest = side // stride, smallest * stride
    stem = nn.Sequential(nn.Conv2d(channels, width, patch, patch), ChannelNorm(width))
    dim = 8 * width
    net = ConvEncoder(stem, blocks, nn.LayerNorm(dim, eps=1e-6), dim=dim, side=side, smallest=smallest)
    init_transformer(net)
    return net


def _down(inside: int, outside: int, stride: int) -> nn.Module:
    return nn.Sequential(ChannelNorm(inside), nn.Conv2d(inside, outside, stride, stride))
