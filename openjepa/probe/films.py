"""What features of a clip look like over time: tensors in, uint8 frames out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from openjepa.probe.clips import steps_of
from openjepa.probe.pictures import pca_maps, show, to_uint8

GAP = 2  # pixels between the clip and its features


def pca_films(tokens: Tensor, grid: tuple[int, int, int], *, size: int | None = None) -> Tensor:
    """The three leading principal components of the tokens of clips as red, green and blue, one map per time step.

    One basis and one scale serve all clips and all times, so that a colour means the same thing throughout and what
    keeps its colour while it moves is told apart from its ground.

    tokens   (B, t h w, D), time first;  grid  (t, h, w)
    returns  (B, t, 3, H, W) uint8, see `pictures.pca_maps`

    >>> pca_films(torch.randn(2, 12, 8), (3, 2, 2), size=8).shape
    torch.Size([2, 3, 3, 8, 8])
    """
    t, h, w = grid
    maps = pca_maps(tokens, (t * h, w))  # (B, 3, t h, w): times one below the other share basis and scale
    films = maps.unflatten(2, (t, h)).transpose(1, 2)  # (B, t, 3, h, w)
    if size is None:
        return films
    return F.interpolate(films.flatten(0, 1), (size, size), mode="nearest").unflatten(0, films.shape[:2])


def shown_clips(clips: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalised clips (B, T, C, H, W) as uint8 RGB (B, T, 3, H, W)."""
    return show(clips.flatten(0, 1), mean, std).unflatten(0, clips.shape[:2])


def side_by_side(frames: Tensor, maps: Tensor) -> Tensor:
    """Frames (B, T, 3, H, W) with the map of their time step to the right, (B, T, 3, H, 2 W + gap), uint8.

    >>> side_by_side(torch.zeros(1, 4, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8)).shape
    torch.Size([1, 4, 3, 8, 18])
    """
    which = steps_of(frames.shape[1], maps.shape[1])
    gap = torch.full((*frames.shape[:-1], GAP), 255, dtype=torch.uint8, device=frames.device)
    return torch.cat([frames, gap, maps[:, which.to(maps.device)]], -1)


def tube_overlay(frames: Tensor, context: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """What the encoder of a masked method is shown of clips: hidden tubelets fade to grey, (B, T, 3, H, W) uint8.

    frames   (B, T, 3, H, W) uint8;  context (B, K) token numbers of `grid` (t, h, w) that are kept

    >>> seen = tube_overlay(torch.full((1, 2, 3, 4, 4), 200, dtype=torch.uint8), torch.tensor([[0]]), (1, 2, 2))
    >>> seen[0, 1, 0, 0, 0].item(), seen[0, 1, 0, 3, 3].item() < 200
    (200, True)
    """
    t, h, w = grid
    kept = torch.zeros(len(context), t * h * w, device=frames.device).scatter_(1, context.to(frames.device), 1.0)
    cells = kept.view(-1, t, h, w)[:, steps_of(frames.shape[1], t).to(frames.device)]  # (B, T, h, w)
    shown = F.interpolate(cells, frames.shape[-2:], mode="nearest")[:, :, None] > 0.5
    pictures = frames.float() / 255
    return to_uint8(torch.where(shown, pictures, 0.5 + 0.08 * (pictures - 0.5)))
