"""Clips through the probes of pictures: an image encoder frame by frame, and tokens taken apart along time."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.nn.encoder import Encoder
from openjepa.probe.features import Encodes


class PerFrame(nn.Module):
    """An encoder of pictures applied to every frame: clips (B, T, C, H, W) -> (B, T N, D), time first.

    What it knows of a clip is what its frames show one by one: the baseline that any encoder of clips must beat on
    motion. Prefix tokens are left out. `grid` is (T, h, w) of the last clip.

    >>> frames = PerFrame(lambda x: x.flatten(2).transpose(1, 2))
    >>> frames(torch.zeros(2, 3, 1, 4, 4)).shape
    torch.Size([2, 48, 1])
    """

    def __init__(self, encoder: Encodes) -> None:
        super().__init__()
        self.encoder = encoder
        self.prefix = encoder.prefix if isinstance(encoder, Encoder) else 0

    def forward(self, clips: Tensor) -> Tensor:
        if clips.dim() != 5:
            raise ValueError(f"clips must be (B, T, C, H, W), got {tuple(clips.shape)}.")
        out = self.encoder(clips.flatten(0, 1))
        out = out[:, None] if out.dim() == 2 else out[:, self.prefix :]  # (B T, N, D)
        return out.unflatten(0, clips.shape[:2]).flatten(1, 2)  # (B, T N, D)


def by_time(tokens: Tensor, times: int) -> Tensor:
    """(B, t N, D) tokens of clips, time first -> (B, t, N, D); one vector per clip, (B, D), counts as (B, 1, 1, D).

    >>> by_time(torch.zeros(2, 12, 8), 4).shape
    torch.Size([2, 4, 3, 8])
    """
    if tokens.dim() == 2:
        tokens = tokens[:, None]
    if tokens.shape[1] % times:
        raise ValueError(f"tokens must be a multiple of {times} times, got {tokens.shape[1]}. Drop prefix tokens.")
    return tokens.unflatten(1, (times, -1))


Reduce = Callable[[Tensor], Tensor]

REDUCE: dict[str, Reduce] = {  # (B, t, N, D) -> (B, t, F)
    "mean": lambda x: x.mean(2),
    "flatten": lambda x: x.flatten(2),
}


def pooled_frames(tokens: Tensor, times: int, *, how: str = "mean") -> Tensor:
    """One vector per time step, (B, t, F): tokens of a step averaged, or put behind one another ("flatten").

    >>> pooled_frames(torch.ones(2, 12, 8), 4).shape, pooled_frames(torch.ones(2, 12, 8), 4, how="flatten").shape
    (torch.Size([2, 4, 8]), torch.Size([2, 4, 24]))
    """
    if how not in REDUCE:
        raise ValueError(f"pooling over a time step must be one of {', '.join(REDUCE)}, got {how!r}.")
    return REDUCE[how](by_time(tokens, times))


def in_place(tokens: Tensor, grid: tuple[int, int, int], *, most: int = 4096) -> Tensor:
    """One vector per time step that still says where things are, (B, t, P D): tokens averaged over P places of a frame.

    A mean over the whole frame loses the places of things unless the tokens carry them, and under rotary positions they
    need not. P is s x s with the largest s of 4, 3, 2, 1 that keeps P D within `most` numbers and s within the grid.

    tokens  (B, t h w, D), time first
    grid    (t, h, w) of the tokens

    >>> tokens = torch.arange(16.0).view(1, 16, 1)
    >>> in_place(tokens, (1, 4, 4)).shape, in_place(tokens, (1, 4, 4), most=4).tolist()
    (torch.Size([1, 1, 16]), [[[2.5, 4.5, 10.5, 12.5]]])
    """
    t, h, w = grid
    dim = tokens.shape[-1]
    side = max((s for s in (4, 3, 2) if s * s * dim <= most and s <= min(h, w)), default=1)
    maps = by_time(tokens, t).flatten(0, 1).transpose(1, 2).unflatten(2, (h, w))  # (B t, D, h, w)
    return F.adaptive_avg_pool2d(maps, side).flatten(1).unflatten(0, (len(tokens), t))


def steps_of(frames: int, times: int) -> Tensor:
    """Which time step of the tokens each frame belongs to, (T,): a tubelet of two frames is one step.

    >>> steps_of(6, 3).tolist()
    [0, 0, 1, 1, 2, 2]
    """
    if frames % times:
        raise ValueError(f"frames must be a multiple of the {times} time steps of the tokens, got {frames}.")
    return torch.arange(frames) * times // frames
