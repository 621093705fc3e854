"""Convolutional encoders: ResNet, and a small residual net for tiny pictures. Their last map is read as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.nn.config import EncoderConfig
from openjepa.nn.encoder import Encoder, block_indices
from openjepa.nn.layers import BatchNorm, DropPath


class ConvEncoder(Encoder):
    """stem -> blocks -> tokens: the last map (B, D, h, w) as (B, h * w, D), through `norm`.

    A convolution sees the neighbours of every patch, so it cannot run on kept tokens only: `patch` is None and `keep`
    is refused. `smallest` is the least picture side that leaves one cell.
    """

    def __init__(
        self, stem: nn.Module, blocks: Sequence[nn.Module], norm: nn.Module, *, dim: int, side: int, smallest: int
    ):
        super().__init__()
        self.stem, self.blocks, self.norm = stem, nn.ModuleList(blocks), norm
        self.dim, self.grid, self.smallest = dim, (side, side), smallest

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        if keep is not None:
            raise ValueError("keep must be None for a convolutional encoder, which needs whole pictures. Use a ViT.")
        x = self._stem(x)
        for block in self.blocks:
            x = self.run(block, x)
        return self.norm(as_tokens(x))  # (B, h * w, D)

    def layers(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Maps after the blocks `indices` as tokens (B, h * w, D of that stage); only the last is normed."""
        wanted, last = block_indices(indices, len(self.blocks)), len(self.blocks) - 1
        x = self._stem(x)
        found: dict[int, Tensor] = {}
        for i, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            x = self.run(block, x)
            if i in wanted:
                found[i] = self.norm(as_tokens(x)) if i == last else as_tokens(x)
        return [found[i] for i in wanted]

    def _stem(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or min(x.shape[2:]) < self.smallest:
            raise ValueError(
                f"pictures must be (B, C, H, W) of at least {self.smallest} pixels a side, got {tuple(x.shape)}. "
                "Enlarge them, or use the small stem."
            )
        # channels last: the order in which GPUs convolve fastest, and in which tokens are already laid out
        return self.stem(x.contiguous(memory_format=torch.channels_last))


def as_tokens(x: Tensor) -> Tensor:
    """A map (B, D, h, w) as tokens (B, h * w, D), raster order."""
    return x.flatten(2).transpose(1, 2)


def small_stem(cfg: EncoderConfig, size: int) -> bool:
    """Whether the stem keeps the resolution: asked for, or "auto" and pictures of at most 64 pixels."""
    if cfg.stem == "conv":
        raise ValueError(f"stem must be 'auto', 'small' or 'large' for encoder {cfg.name!r}, got 'conv'. Change it.")
    return cfg.stem == "small" or (cfg.stem == "auto" and size <= 64)


def conv(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Convolution without bias that keeps ceil(side / stride)."""
    return nn.Conv2d(inside, outside, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: relu(x + bn(conv(relu(bn(conv(x)))))). He et al. 2016, figure 5 left."""

    expansion = 1

    def __init__(self, inside: int, width: int, stride: int, drop_path: float = 0.0):
        super().__init__()
        self.conv1, self.bn1 = conv(inside, width, 3, stride), BatchNorm(width)
        self.conv2, self.bn2 = conv(width, width, 3), BatchNorm(width)
        self.shortcut = shortcut(inside, width, stride)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.drop_path(self.bn2(self.conv2(y)))
        return F.relu(self.shortcut(x) + y, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions to four times the width, and a shortcut. He et al. 2016, figure 5.

    The stride sits on the 3x3 convolution (the variant known as v1.5), not on the first 1x1 of the paper.
    """

    expansion = 4

    def __init__(self, inside: int, width: int, stride: int, drop_path: float = 0.0):
        super().__init__()
        self.conv1, self.bn1 = conv(inside, width, 1), BatchNorm(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), BatchNorm(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), BatchNorm(4 * width)
        self.shortcut = shortcut(inside, 4 * width, stride)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.drop_path(self.bn3(self.conv3(y)))
        return F.relu(self.shortcut(x) + y, inplace=True)


def shortcut(inside: int, outside: int, stride: int) -> nn.Module:
    """The identity, or a 1x1 convolution with batch norm where the shape changes."""
    if stride == 1 and inside == outside:
        return nn.Identity()
    return nn.Sequential(conv(inside, outside, 1, stride), BatchNorm(outside))


class Stage(NamedTuple):
    """`blocks` blocks of `width`, the first with `stride`."""

    width: int
    blocks: int
    stride: int


def residual_net(
    block: type[BasicBlock] | type[Bottleneck],
    stem: nn.Module,
    stages: Sequence[Stage],
    *,
    width: int,
    side: int,
    smallest: int,
    drop_path: float,
) -> ConvEncoder:
    """Residual blocks behind `stem`, which gives `width` channels and maps of `side`."""
    total, blocks = sum(stage.blocks for stage in stages), list[nn.Module]()
    for stage in stages:
        for i in range(stage.blocks):
            rate = drop_path * len(blocks) / max(1, total - 1)
            blocks.append(block(width, stage.width, stage.stride if i == 0 else 1, rate))
            width = stage.width * block.expansion
        side = -(-side // stage.stride)
    net = ConvEncoder(stem, blocks, nn.Identity(), dim=width, side=side, smallest=smallest)
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
    return net


RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}


def build_resnet(cfg: EncoderConfig, *, size: int, channels: int) -> ConvEncoder:
    """ResNet-18 or ResNet-50 (He et al. 2016), D = 8 or 32 times `width` (64).

    The small stem, usual for pictures of up to 64 pixels, is one 3x3 convolution of stride 1 without max pooling; the
    large one a 7x7 of stride 2 and max pooling.
    """
    cfg.refuse("patch", "pos", "cls", "registers", "depth", "heads")
    _no_patch_side(cfg)
    width = cfg.width or 64
    block, counts = RESNETS[cfg.base]
    if small_stem(cfg, size):
        stem, side = nn.Sequential(conv(channels, width, 3), BatchNorm(width), nn.ReLU(inplace=True)), size
    else:
        stem = nn.Sequential(
            conv(channels, width, 7, 2), BatchNorm(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)
        )
        side = -(-size // 4)
    stages = [Stage(width * 2**i, n, 1 if i == 0 else 2) for i, n in enumerate(counts)]
    return residual_net(block, stem, stages, width=width, side=side, smallest=1, drop_path=cfg.drop_path)


def build_convnet_tiny(cfg: EncoderConfig, *, size: int, channels: int) -> ConvEncoder:
    """A small residual net for pictures of 8 to 32 pixels, cheap on a CPU; its depth follows the picture size.

    A 3x3 stem of `width` (32), then stages of `depth` (1) basic blocks, each halving the side and doubling the channels
    (at most 8 times `width`), until the map is at most 4 cells a side; at least two halvings. 8 x 8 pictures give 2 x 2
    tokens of 128; 32 x 32 pictures 4 x 4 tokens of 256.
    """
    cfg.refuse("patch", "pos", "cls", "registers", "heads", "stem")
    _no_patch_side(cfg)
    width, halvings = cfg.width or 32, 2
    while -(-size // 2**halvings) > 4:
        halvings += 1
    stem = nn.Sequential(conv(channels, width, 3), BatchNorm(width), nn.ReLU(inplace=True))
    stages = [Stage(width * min(8, 2 ** (i + 1)), cfg.depth or 1, 2) for i in range(halvings)]
    return residual_net(BasicBlock, stem, stages, width=width, side=size, smallest=1, drop_path=cfg.drop_path)


def _no_patch_side(cfg: EncoderConfig) -> None:
    if "/" in cfg.name:
        raise ValueError(f"name must have no patch side for {cfg.base!r}, got {cfg.name!r}. Write {cfg.base}.")
