"""Random boxes, and crop + antialiased resize equal to Pillow's within one level: per picture, and for a whole batch.

Two ways to the same pixels. `crop` works on one uint8 picture and is the fastest on a CPU for pictures of any size.
`crop_batch` works on equally large pictures at once, as two batched matrix products with one filter matrix per sample:
the fastest for small pictures, and the one for a GPU.

Pillow resizes horizontally and then vertically, and so do we. Its version 13 begins vertically when the height shrinks
much more than the width; on photographs this changes single pixels by a few levels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

TRIES = 10  # as in the usual random-resized-crop: ten draws of area and aspect, then the largest central box
BOX_DRAWS = 2 * TRIES + 2
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_TABLE_BYTES = 32 * 2**20  # filter matrices of all boxes are kept when they are fewer bytes than this


def sample_boxes(
    u: Tensor, height: int | Tensor, width: int | Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Random boxes (top, left, height, width), int64 (n, 4), from uniforms `u` (n, BOX_DRAWS).

    The area is uniform in `scale` (a share of the picture), the aspect width / height log-uniform in `ratio`; sides are
    rounded to whole pixels. Of ten such draws the first that fits inside the picture is taken, and its corner is
    uniform; when none fits, the largest central box whose aspect is in `ratio`. Same distribution as the ten-try
    rejection loop, without a loop.

    >>> sample_boxes(torch.full((1, BOX_DRAWS), 0.5), 32, 32, (1.0, 1.0), (1.0, 1.0))
    tensor([[ 0,  0, 32, 32]])
    """
    high = torch.as_tensor(height, device=u.device).expand(u.shape[0])[:, None]
    wide = torch.as_tensor(width, device=u.device).expand(u.shape[0])[:, None]
    area = (scale[0] + (scale[1] - scale[0]) * u[:, :TRIES]) * (high * wide)
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(log_low + (log_high - log_low) * u[:, TRIES : 2 * TRIES])
    w = torch.round(torch.sqrt(area * aspect)).long()  # (n, TRIES)
    h = torch.round(torch.sqrt(area / aspect)).long()
    fits = (w > 0) & (h > 0) & (w <= wide) & (h <= high)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)  # (n, 1)
    found = fits.gather(1, first)
    w_central = torch.minimum(wide, torch.round(high * ratio[1]).long().clamp_min(1))
    h_central = torch.minimum(high, torch.round(wide / ratio[0]).long().clamp_min(1))
    w = torch.where(found, w.gather(1, first), w_central)
    h = torch.where(found, h.gather(1, first), h_central)
    room_y, room_x = high - h, wide - w
    top = torch.minimum((u[:, -2:-1] * (room_y + 1)).long(), room_y)
    left = torch.minimum((u[:, -1:] * (room_x + 1)).long(), room_x)
    top, left = torch.where(found, top, room_y // 2), torch.where(found, left, room_x // 2)
    return torch.cat([top, left, h, w], 1)


def crop(
    picture: Tensor, box: tuple[int, int, int, int], size: int | tuple[int, int], filter: str = "bicubic"
) -> Tensor:
    """The box of one uint8 picture (C, H, W), or of every frame of (T, C, H, W), resized to `size`, uint8.

    Equal to Pillow's crop and then resize (both use antialiased filters with bicubic a = -0.5) to one level in all but
    about one value in 100,000 of a photograph, which differs by two: the kernel's weights have 16 bits, Pillow's 22.

    >>> crop(torch.full((3, 9, 9), 7, dtype=torch.uint8), (1, 1, 6, 6), 4).unique()
    tensor([7], dtype=torch.uint8)
    """
    top, left, h, w = box
    out = (size, size) if isinstance(size, int) else size
    part = picture[..., top : top + h, left : left + w]
    if (h, w) == out:
        return part
    # Three-channel uint8 in channels-last memory is the fast kernel: about ten times a float resize.
    frames = (part if part.dim() == 4 else part[None]).contiguous(memory_format=torch.channels_last)
    frames = F.interpolate(frames, size=out, mode=filter, antialias=True, align_corners=False)
    return frames if part.dim() == 4 else frames[0]


def crop_batch(
    pictures: Tensor, boxes: Tensor, size: int, filter: str = "bicubic", flip: Tensor | None = None
) -> Tensor:
    """A box of each picture (B, C, H, W), resized: float32 (B, C, size, size) in 0..255, on the pictures' device.

    boxes  int64 (B, 4): top, left, height, width; flip  bool (B,): mirrored left to right, at no cost

    Two batched matrix products, horizontal and then vertical as in Pillow, with its rounding in between: equal to it
    to one level. The result is clamped but not rounded: round it to compare, train on it as it is.

    >>> crop_batch(torch.full((2, 1, 8, 8), 9.0), torch.tensor([[0, 0, 8, 8], [2, 2, 3, 4]]), 4).shape
    torch.Size([2, 1, 4, 4])
    """
    batch, channels, height, width = pictures.shape
    across = filter_matrix(boxes[:, 1], boxes[:, 3], size, width, filter, flip)  # (B, size, W)
    down = filter_matrix(boxes[:, 0], boxes[:, 2], size, height, filter)  # (B, size, H)
    rows = pictures.to(torch.float32).reshape(batch, channels * height, width)
    rows = torch.bmm(rows, across.transpose(1, 2))  # (B, C*H, size)
    rows = rows.add_(0.5).floor_().clamp_(0, 255).view(batch, channels, height, size)
    return torch.matmul(down[:, None], rows).clamp_(0, 255)  # (B, C, size, size)


def filter_matrix(
    start: Tensor, length: Tensor, size: int, extent: int, filter: str = "bicubic", flip: Tensor | None = None
) -> Tensor:
    """Matrices (n, size, extent) that resample `length` pixels from `start` on, out of `extent`, to `size` pixels.

    Row o holds the weights of output pixel o: the triangle or the cubic (a = -0.5) around its centre, stretched by the
    reduction length / size when that is above one (the antialiasing), cut at the box and scaled to sum to one.

    >>> filter_matrix(torch.tensor([0]), torch.tensor([4]), 2, 4, "bilinear")[0, 0]
    tensor([0.4286, 0.4286, 0.1429, 0.0000])
    """
    if 2 * size * extent * extent * (extent + 1) // 2 * 4 <= _TABLE_BYTES:
        # Boxes are whole pixels, so a small picture has few of them: look the matrices up instead of computing them.
        at = (length - 1) * (2 * extent - length + 2) // 2 + start
        if flip is not None:
            at = at + flip * (extent * (extent + 1) // 2)
        return _table(size, extent, filter, start.device).index_select(0, at)
    return _matrices(start, length, size, extent, filter, flip)


@lru_cache(maxsize=16)
def _table(size: int, extent: int, filter: str, device: torch.device) -> Tensor:
    """Matrices of every (start, length), by length and then start; then all of them once more, flipped."""
    pairs = [(s, n) for n in range(1, extent + 1) for s in range(extent - n + 1)]
    start, length = torch.tensor(pairs).T.repeat(1, 2)
    flip = torch.arange(2 * len(pairs)) >= len(pairs)
    return _matrices(start, length, size, extent, filter, flip).to(device)


def _matrices(start: Tensor, length: Tensor, size: int, extent: int, filter: str, flip: Tensor | None) -> Tensor:
    # In doubles, and rounded to Pillow's 22 fractional bits, so that exact halves round the same way as there.
    exact = torch.float32 if start.device.type == "mps" else torch.float64
    support = _SUPPORT[filter]
    step = (length.to(exact) / size)[:, None, None]  # (n, 1, 1)
    stretch = step.clamp_min(1.0)
    centre = (torch.arange(size, device=start.device, dtype=exact) + 0.5)[None, :, None] * step  # (n, size, 1)
    if flip is not None:
        centre = torch.where(flip[:, None, None], length[:, None, None] - centre, centre)
    taps = int(2 * support * max(1.0, extent / size)) + 2
    at = torch.floor(centre - support * stretch) + torch.arange(taps, device=start.device)  # (n, size, taps)
    weight = _kernel((at + 0.5 - centre) / stretch, filter)
    weight = torch.where((at >= 0) & (at < length[:, None, None]), weight, 0.0)
    weight = (weight / weight.sum(-1, keepdim=True) * 2**22).round_().to(torch.float32) / 2**22
    # Positions outside the box carry weight zero, so that adding them at the edge changes nothing.
    column = (at.long() + start[:, None, None]).clamp_(0, extent - 1)
    dense = weight.new_zeros(start.shape[0], size, extent)
    return dense.scatter_add_(2, column, weight)


def _kernel(x: Tensor, filter: str) -> Tensor:
    """Triangle, or Keys' cubic convolution with a = -0.5."""
    x = x.abs()
    if filter == "bilinear":
        return (1 - x).clamp_min(0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
