"""An encoder whose tokens are places: each is where one learned feature of the picture lies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openjepa.nn.config import EncoderConfig
from openjepa.nn.conv import ConvEncoder, conv
from openjepa.nn.impala import group_norm, initialised, lean_stem

REACH = 2.0  # coordinates run from -2 to 2, so that places all over the picture have a spread near 1


class SoftArgmax(nn.Module):
    """The mean place of each map under its own softmax, (B, K, h, w) -> (B, 2, K, 1): x, y as channels, a cell each.

    p_k = softmax over places of scale_k map_k, place_k = sum over places of p_k (x, y). x runs to the right and y down,
    both from -2 to 2. `scale` is learned: the larger, the nearer to the place of the maximum.

    >>> maps = torch.full((1, 1, 3, 3), -50.0); maps[..., 1, 2] = 50.0  # the middle row, at its right end
    >>> SoftArgmax(1)(maps).flatten().tolist()
    [2.0, 0.0]
    """

    def __init__(self, maps: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(maps, 1))

    def forward(self, maps: Tensor) -> Tensor:
        share = (self.scale * maps.flatten(2)).softmax(-1).view_as(maps)
        x = (share.sum(-2) * line(share.shape[-1], share)).sum(-1)
        y = (share.sum(-1) * line(share.shape[-2], share)).sum(-1)
        return torch.stack([x, y], 1)[..., None]


class Tame(nn.Module):
    """asinh(x): x where it is small, its logarithm where it is large.

    A channel that shows one small thing on nothing has, standardised, a peak of tens there, and where walls cover a
    tenth one of three. Untamed, nearly all maps take the small thing, and what the rest is like is left to chance.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.asinh()


def line(cells: int, like: Tensor) -> Tensor:
    """Coordinates of the cells of one side; a single one is in the middle."""
    reach = REACH if cells > 1 else 0.0
    return torch.linspace(-reach, reach, cells, device=like.device, dtype=like.dtype)


def build_keypoints(cfg: EncoderConfig, *, size: int, channels: int) -> ConvEncoder:
    """`heads` (16) learned places as tokens (B, heads, 2): where things are, in a code that moves as they move.

    asinh of the pixels (`Tame`), the first layer of `convnet_lean`, `depth` (1) 3x3 convolutions of `width` (32) with
    group norms, one that gives a map per place, and `SoftArgmax`. What is learned of a thing in one place holds in all
    others, and numbers that tell the place of a wall or a door run on where none was seen; a flattened map has neither.
    Join the places with pooling=flatten. It says nothing of how things look, of two alike it gives the middle, and
    nothing makes two maps follow different things: give more places than there are things.

    Source: the spatial softmax of Levine et al., arXiv 1504.00702, and Finn et al., arXiv 1509.06113. Differences: a
    few strided layers in place of theirs, asinh, group norms, a learned scale per map.
    """
    cfg.refuse("patch", "pos", "cls", "registers", "stem", "drop_path")
    width, maps = cfg.width or 32, cfg.heads or 16
    stem, side = lean_stem(channels, width, size)
    stem.insert(0, Tame())
    blocks: list[nn.Module] = [
        nn.Sequential(conv(width, width, 3), group_norm(width), nn.ReLU(True)) for _ in range(cfg.depth or 1)
    ]
    blocks.append(nn.Sequential(nn.Conv2d(width, maps, 3, padding=1), SoftArgmax(maps)))
    net = ConvEncoder(stem, blocks, nn.Identity(), dim=2, side=side, smallest=1)
    net.grid = (1, maps)
    return initialised(net)
