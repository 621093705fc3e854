"""Colour, blur and normalisation on a whole batch of crops, on its device, from uniforms that the caller has drawn.

Brightness, contrast, saturation, hue and grey are one 3x3 matrix and one offset per sample, so however many of them are
asked for, a pixel is touched once; the normalisation is folded into the same product. A step whose probability or
strength is zero costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from openjepa.config import View

COLOUR_DRAWS = (
    10  # jitter or not, brightness, contrast, saturation, hue, grey or not, blur or not, sigma, solarize, turn
)
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as in Pillow
BLUR_SIGMA = (0.1, 2.0)  # at 224 pixels; scaled with the size of the crop


def augment(crops: Tensor, view: View, u: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised float32 crops after the colour steps of `view`; `crops` (n, C, H, W) in 0..255, uint8 or float.

    u     uniforms (n, COLOUR_DRAWS): each sample's own choices
    mean, std  per channel, of pictures in 0..1; the result is (x - mean) / std

    Order: brightness, contrast, saturation, hue, grey, clamp to 0..1, blur, solarize, normalise, rotate. Differences
    from the usual chain of separate steps: the order of the four jitter steps is fixed instead of drawn; values are
    clamped once, after them, instead of after each; the hue turns about the grey axis of RGB (see `hue_matrix`).

    >>> x = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    >>> augment(x, View(), torch.zeros(2, COLOUR_DRAWS), (0.5,) * 3, (0.25,) * 3).unique().round()
    tensor([2.])
    """
    return filtered(coloured(crops, view, u, mean, std), view, u, mean, std)


def augment_clips(clips: Tensor, view: View, u: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`augment` for clips (n, T, C, H, W) with one choice each, `u` (n, COLOUR_DRAWS): every frame is treated alike.

    The contrast pulls towards the mean luma of the whole clip, so that no frame is lit differently from the next.

    >>> x = torch.arange(2 * 3 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 3, 4, 4)
    >>> augment_clips(x, View(jitter=(0.4, 0.4, 0.2, 0.1)), torch.rand(2, COLOUR_DRAWS), (0.5,) * 3, (0.25,) * 3).shape
    torch.Size([2, 3, 3, 4, 4])
    """
    n, frames, channels, height, width = clips.shape
    if not _colourful(view, channels):
        flat = normalise(clips, mean, std).flatten(0, 1)  # (n T, C, H, W)
    else:
        tall = clips.transpose(1, 2).reshape(n, channels, frames * height, width)  # frames below each other
        tall = coloured(tall, view, u, mean, std).view(n, channels, frames, height, width)
        flat = tall.transpose(1, 2).reshape(n * frames, channels, height, width)
    return filtered(flat, view, u.repeat_interleave(frames, 0), mean, std).view(clips.shape)


def coloured(crops: Tensor, view: View, u: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The steps of `augment` that look at single pixels and at the mean luma, up to the normalisation."""
    crops = crops.to(torch.float32)
    if _colourful(view, crops.shape[1]):
        return _jittered(crops, view, u, tuple(mean), tuple(std))
    return normalise(crops, mean, std)


def filtered(crops: Tensor, view: View, u: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The steps of `augment` that follow the normalisation: blur, solarize, rotate."""
    if view.blur > 0:
        sigma = (BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * u[:, 7]) * (crops.shape[-1] / 224)
        crops = _on_some(crops, u[:, 6] < view.blur, lambda x, some: blur(x, sigma[some]))
    if view.solarize > 0:
        mirror = _column([(1 - 2 * m) / s for m, s in zip(mean, std, strict=True)], crops.device)
        threshold = _column([(128 / 255 - m) / s for m, s in zip(mean, std, strict=True)], crops.device)
        crops = _on_some(crops, u[:, 8] < view.solarize, lambda x, _: torch.where(x >= threshold - 1e-6, mirror - x, x))
    if view.rotate > 0:
        crops = rotate(crops, view.rotate * (2 * u[:, 9] - 1))
    return crops


def normalise(pictures: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x / 255 - mean) / std per channel, float32; `pictures` (..., C, H, W) in 0..255, uint8 or float.

    Frames that lie along the channels, (..., T * C, H, W), get the same C numbers each.
    """
    frames = pictures.shape[-3] // len(mean)
    mean, std = [*mean] * frames, [*std] * frames
    scale = _column([1 / (255 * s) for s in std], pictures.device)
    shift = _column([-m / s for m, s in zip(mean, std, strict=True)], pictures.device)
    return torch.addcmul(shift, pictures.to(torch.float32), scale)


def brightness_matrix(factor: Tensor) -> Tensor:
    """(n, 3, 3): every channel times `factor`; 0 is black, 1 the picture."""
    return factor[:, None, None] * torch.eye(3, device=factor.device)


def saturation_matrix(factor: Tensor) -> Tensor:
    """(n, 3, 3): factor * x + (1 - factor) * luma(x); 0 is grey, 1 the picture."""
    grey = _luma(factor.device).expand(3, 3)
    f = factor[:, None, None]
    return f * torch.eye(3, device=factor.device) + (1 - f) * grey


def hue_matrix(turn: Tensor) -> Tensor:
    """(n, 3, 3): colours turned about the grey axis of RGB by `turn` (1 is a full circle).

    Moves the hue of the HSV cone by `turn`, to within 0.007 of a circle, and exactly at thirds of a circle. In place of
    HSV value and saturation it keeps R + G + B and the distance from grey, which makes it linear: no branch per pixel.

    >>> red = torch.tensor([1.0, 0.0, 0.0]); (hue_matrix(torch.tensor([1 / 3])) @ red).round().abs()
    tensor([[0., 1., 0.]])
    """
    angle = 2 * math.pi * turn[:, None, None]
    axis = torch.full((3, 3), 1 / 3, device=turn.device)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=turn.device) / math.sqrt(3)
    eye = torch.eye(3, device=turn.device)
    return angle.cos() * eye + angle.sin() * cross + (1 - angle.cos()) * axis


def colour_matrix(view: View, u: Tensor) -> tuple[Tensor, Tensor]:
    """The jitter and grey steps as (matrix (n, 3, 3), share (n,)), from uniforms (n, COLOUR_DRAWS).

    The result is matrix @ x + share * mean over the crop of luma(x): the second part is the contrast, which pulls
    towards the mean luma of the (brightened) crop.
    """
    strengths = _column(view.jitter, u.device)[:, 0, 0]
    on = (u[:, :1] < view.jitter_p).to(u.dtype)
    move = on * strengths * (2 * u[:, 1:5] - 1)  # (n, 4), zero where the jitter is not drawn
    factor = (1 + move[:, :3]).clamp_min(0)
    bright, contrast, saturation = factor.unbind(1)
    matrix = brightness_matrix(bright * contrast)
    if view.jitter[2] > 0:
        matrix = saturation_matrix(saturation) @ matrix
    if view.jitter[3] > 0:
        matrix = hue_matrix(move[:, 3]) @ matrix
    if view.grey > 0:
        matrix = saturation_matrix((u[:, 5] >= view.grey).to(u.dtype)) @ matrix
    return matrix, (1 - contrast) * bright


def blur(pictures: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with one sigma (in pixels) per picture, (n, C, H, W); borders are mirrored.

    Separable, each pass one depthwise convolution with a group per plane. The kernel reaches 3 sigma of the largest
    `BLUR_SIGMA` at this size, cut there and scaled to sum to one.

    >>> blur(torch.ones(1, 1, 8, 8), torch.tensor([0.5])).allclose(torch.ones(1))
    True
    """
    n, channels, height, width = pictures.shape
    reach = max(1, math.ceil(3 * BLUR_SIGMA[1] * width / 224))
    reach = min(reach, height - 1, width - 1)
    x = torch.arange(-reach, reach + 1, device=pictures.device)
    kernel = torch.exp(-0.5 * (x / sigma.clamp_min(1e-3)[:, None]) ** 2)  # (n, taps)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)  # (n*C, taps)
    planes = F.pad(pictures.reshape(1, n * channels, height, width), (reach,) * 4, mode="reflect")
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=n * channels)
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=n * channels)
    return planes.view(n, channels, height, width)


def rotate(pictures: Tensor, degrees: Tensor) -> Tensor:
    """Pictures (n, C, H, W) turned counter-clockwise by `degrees` (n,) about their middle; bilinear, borders repeated.

    >>> up = torch.zeros(1, 1, 3, 3); up[..., 0, 1] = 1
    >>> rotate(up, torch.tensor([90.0]))[0, 0].round().abs()
    tensor([[0., 0., 0.],
            [1., 0., 0.],
            [0., 0., 0.]])
    """
    angle = degrees.to(torch.float32) * (math.pi / 180)
    aspect = pictures.shape[-2] / pictures.shape[-1]
    zero = torch.zeros_like(angle)
    row_x = torch.stack([angle.cos(), -angle.sin() * aspect, zero], dim=1)
    row_y = torch.stack([angle.sin() / aspect, angle.cos(), zero], dim=1)
    grid = F.affine_grid(torch.stack([row_x, row_y], dim=1), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _jittered(crops: Tensor, view: View, u: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    n, channels, height, wide = crops.shape
    if channels not in (1, 3):
        raise ValueError(f"colour steps need pictures of 1 or 3 channels, got {channels}. Set jitter and grey to 0.")
    if channels == 3:
        matrix, share = colour_matrix(view, u)
        luma = _luma(crops.device)
    else:  # one channel has no saturation, hue or grey: what is left is a factor
        plain = view.model_copy(update={"jitter": (*view.jitter[:2], 0.0, 0.0), "grey": 0.0})
        matrix, share = colour_matrix(plain, u)
        matrix, luma = matrix[:, :1, :1], torch.ones(1, device=crops.device)
    scale = _column([1 / (255 * s) for s in std], crops.device)[:, :, 0]  # (C, 1)
    offset = _column([-m / s for m, s in zip(mean, std, strict=True)], crops.device)[:, 0, 0].expand(n, channels)
    if view.jitter[1] > 0:
        level = crops.mean((2, 3)) @ luma  # (n,)
        offset = offset + (share * level)[:, None] * scale[:, 0]
    pixels = crops.reshape(n, channels, height * wide)
    pixels = torch.baddbmm(offset[:, :, None], scale * matrix, pixels).view(crops.shape)
    for c in range(channels):  # clamp to 0..1, where zero and one have become -mean / std and (1 - mean) / std
        pixels[:, c].clamp_(-mean[c] / std[c], (1 - mean[c]) / std[c])
    return pixels


def _colourful(view: View, channels: int) -> bool:
    some = view.jitter if channels == 3 else view.jitter[:2]
    return (view.jitter_p > 0 and any(s > 0 for s in some)) or (channels == 3 and view.grey > 0)


def _luma(device: torch.device) -> Tensor:
    return _column(LUMA, device)[:, 0, 0]


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    """(C, 1, 1) on the device; kept, because a fresh copy to a GPU makes it wait."""
    return _kept_column(tuple(values), device)


@lru_cache(maxsize=256)
def _kept_column(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]


def _on_some(crops: Tensor, chosen: Tensor, change) -> Tensor:  # type: ignore[no-untyped-def]
    """`change` only the chosen samples, and only compute them."""
    some = chosen.nonzero()[:, 0]
    if len(some) == 0:
        return crops
    return crops.index_copy(0, some, change(crops[some], some))
