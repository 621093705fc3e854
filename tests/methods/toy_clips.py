"""Tiny clips with content and motion: smooth random textures that drift, each clip with a velocity of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from openjepa.config import ClipView
from openjepa.core.types import Clips


def drifting(views: Sequence[ClipView], batch: int, seed: int, size: int, *, kind: int = 0) -> Clips:
    """`batch` videos of the view `kind`; its clips of one video share the texture and the velocity."""
    view, g = views[kind], torch.Generator().manual_seed(seed)
    base = torch.randn(batch, 3, 4, 4, generator=g)
    sheet = F.interpolate(torch.cat([base, base], 3), size=(size, 2 * size), mode="bicubic")  # (B, 3, H, 2 W)
    speed = torch.randint(-2, 3, (batch,), generator=g)
    clips = []
    for _ in range(view.count):
        start = torch.randint(0, size, (batch, 1), generator=g)
        left = (start + speed[:, None] * torch.arange(view.frames)) % size  # (B, T)
        column = (left[..., None] + torch.arange(size)) % (2 * size)  # (B, T, W)
        frames = torch.stack([sheet[i][..., column[i]].permute(2, 0, 1, 3) for i in range(batch)])  # (B, T, 3, H, W)
        clips.append(frames + 0.1 * torch.randn(frames.shape, generator=g))
    return Clips(torch.stack(clips), kind, torch.arange(batch), torch.full((batch,), -1))
