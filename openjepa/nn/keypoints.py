"""An encoder whose tokens are places: each is where one learned feature of the picture lies."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor, nn

from openjepa.nn.config import EncoderConfig
from openjepa.nn.conv import ConvEncoder, conv
from openjepa.nn.impala import group_norm, initialised, lean_stem

REACH = 2.0  # coordinates run from -2 to 2, so that places all over the picture have a spread near 1


class SoftArgmax(nn.Module):
    """Maps as tokens, (B, h w, K) -> (B, K, 2): the mean place (x, y) of each map under its own softmax.

    p_k = softmax over places of scale_k map_k, place_k = sum over places of p_k (x, y). x runs to the right and y down,
    both from -2 to 2. `scale` is learned: the larger, the nearer to the place of the maximum.

    >>> maps = torch.full((1, 9, 1), -50.0); maps[0, 5] = 50.0  # the middle row, at its right end
    >>> SoftArgmax(1)(maps).tolist()
    [[[2.0, 0.0]]]
    """

    def __init__(self, maps: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(maps))

    def forward(self, maps: Tensor) -> Tensor:
        side = isqrt(maps.shape[1])
        if side * side != maps.shape[1]:
            raise ValueError(f"pictures must be square for places, got {maps.shape[1]} cells. Crop or resize them.")
        line = torch.linspace(-REACH, REACH, side, device=maps.device) if side > 1 else maps.new_zeros(1)
        places = torch.stack([line.repeat(side), line.repeat_interleave(side)], -1)  # (h w, 2)
        share = (self.scale * maps).softmax(1)
        return share.transpose(1, 2) @ places.to(share.dtype)


def build_keypoints(cfg: EncoderConfig, *, size: int, channels: int) -> ConvEncoder:
    """`heads` (16) learned places as tokens (B, heads, 2): where things are, in a code that moves as they move.

    The first layer of `convnet_lean`, `depth` (1) 3x3 convolutions of `width` (32) with group norms, one that gives a
    map per place, and `SoftArgmax`. What is learned of a thing in one place holds in all others, and numbers that
    tell the place of a wall or a door run on where none was seen; a flattened map has neither. Join the places with
    pooling=flatten. It says nothing of how things look, and of two alike it gives the middle.

    Source: the spatial softmax of Levine et al., arXiv 1504.00702, and Finn et al., arXiv 1509.06113. Differences: a
    few strided layers in place of theirs, group norms, a learned scale per map.
    """
    cfg.refuse("patch", "pos", "cls", "registers", "stem", "drop_path")
    width, maps = cfg.width or 32, cfg.heads or 16
    stem, side = lean_stem(channels, width, size)
    blocks: list[nn.Module] = [
        nn.Sequential(conv(width, width, 3), group_norm(width), nn.ReLU(True)) for _ in range(cfg.depth or 1)
    ]
    blocks.append(nn.Conv2d(width, maps, 3, padding=1))
    net = ConvEncoder(stem, blocks, SoftArgmax(maps), dim=2, side=side, smallest=1)
    net.grid = (1, maps)
    return initialised(net)
