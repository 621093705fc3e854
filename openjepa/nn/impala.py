"""Convolutional encoders for world models: Impala's residual net, and a lean one for training on a CPU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.nn.config import EncoderConfig
from openjepa.nn.conv import ConvEncoder, conv


def group_norm(width: int) -> nn.GroupNorm:
    """Groups of eight channels, or one group where that does not divide. Needs no batch, so one frame is like many."""
    return nn.GroupNorm(width // 8 if width % 8 == 0 else 1, width)


class ResidualUnit(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), 3x3, the width kept."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.conv1 = group_norm(width), conv(width, width, 3)
        self.norm2, self.conv2 = group_norm(width), conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x), inplace=True))
        return x + self.conv2(F.relu(self.norm2(y), inplace=True))


class ImpalaStage(nn.Module):
    """3x3 convolution, max pooling that halves the side (rounded up), residual units."""

    def __init__(self, inside: int, width: int, units: int):
        super().__init__()
        self.conv = nn.Conv2d(inside, width, 3, padding=1)
        self.units = nn.Sequential(*(ResidualUnit(width) for _ in range(units)))

    def forward(self, x: Tensor) -> Tensor:
        return self.units(F.max_pool2d(self.conv(x), 3, 2, padding=1))


class Finish(nn.Module):
    """Group norm and ReLU behind the last stage, on tokens (B, N, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = group_norm(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(x.transpose(1, 2))).transpose(1, 2)


def build_impala(cfg: EncoderConfig, *, size: int, channels: int) -> ConvEncoder:
    """Impala's residual net (Espeholt et al. 2018, arXiv 1802.01561): stages of `width` (16), twice and twice that.

    Each stage is a 3x3 convolution, max pooling that halves the side, and `depth` (2) residual units with group norms,
    as in PLDM and eb_jepa. 65 x 65 pictures give 9 x 9 tokens of 32; join them with pooling=flatten.
    """
    cfg.refuse("patch", "pos", "cls", "registers", "heads", "stem", "drop_path")
    width, units = cfg.width or 16, cfg.depth or 2
    widths = (width, 2 * width, 2 * width)
    stages = [ImpalaStage(a, b, units) for a, b in zip((channels, *widths), widths, strict=False)]
    side = -(-size // 8)
    net = ConvEncoder(nn.Identity(), stages, Finish(widths[-1]), dim=widths[-1], side=side, smallest=1)
    return initialised(net)


class LeanStage(nn.Module):
    """3x3 convolution that halves the side, group norm, ReLU, residual units."""

    def __init__(self, inside: int, width: int, units: int):
        super().__init__()
        self.conv, self.norm = conv(inside, width, 3, 2), group_norm(width)
        self.units = nn.Sequential(*(ResidualUnit(width) for _ in range(units)))

    def forward(self, x: Tensor) -> Tensor:
        return self.units(F.relu(self.norm(self.conv(x)), inplace=True))


def build_convnet_lean(cfg: EncoderConfig, *, size: int, channels: int) -> ConvEncoder:
    """A small net that sees many frames per second on a CPU: most of the resolution goes in the first layer.

    A 7x7 convolution of stride 4 (5x5 of stride 2 below 48 pixels, 3x3 below 16) to `width` (32) channels, then stages
    that halve the side and double the channels (at most 64), until the map is at most 9 cells a side, at least one;
    each with `depth` - 1 (none by default) residual units. Group norms. 65 x 65 pictures give 9 x 9 tokens of 64.
    """
    cfg.refuse("patch", "pos", "cls", "registers", "heads", "stem", "drop_path")
    width, units = cfg.width or 32, (cfg.depth or 1) - 1
    stem, side = lean_stem(channels, width, size)
    stages = list[nn.Module]()
    while not stages or side > 9:
        wider = min(2 * width, max(64, width))
        stages.append(LeanStage(width, wider, units))
        width, side = wider, -(-side // 2)
    return initialised(ConvEncoder(stem, stages, nn.Identity(), dim=width, side=side, smallest=1))


def lean_stem(channels: int, width: int, size: int) -> tuple[nn.Sequential, int]:
    """A convolution of stride 4 (2 below 48 pixels, 1 below 16), group norm and ReLU; and the side of its map."""
    stride = 4 if size >= 48 else 2 if size >= 16 else 1
    first = conv(channels, width, {4: 7, 2: 5, 1: 3}[stride], stride)
    return nn.Sequential(first, group_norm(width), nn.ReLU(True)), -(-size // stride)


def initialised(net: ConvEncoder) -> ConvEncoder:
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_in", nonlinearity="relu")
    return net
