"""What any encoder must beat: the pixels themselves, and the same network before it has learned anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.nn import BatchNorm, Encoder, EncoderConfig, build_encoder
from openjepa.probe.features import Batch, evaluating


def pixels(*, size: int | None = None) -> Callable[[Tensor], Tensor]:
    """The pictures as their own features: (B, C, H, W) -> (B, C * size * size); resized first if asked (antialiased).

    >>> pixels(size=4)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 48])
    """

    def flat(pictures: Tensor) -> Tensor:
        if size is not None and pictures.shape[-2:] != (size, size):
            pictures = F.interpolate(pictures, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return pictures.flatten(1)

    return flat


def clip_pixels(*, most: int = 2**15) -> Callable[[Tensor], Tensor]:
    """Clips as their own features, frame by frame: (B, T, C, H, W) -> (B, T, C h w).

    Frames are averaged down until a clip has at most `most` numbers, since a linear map on more has nothing to hold it.

    >>> clip_pixels(most=1000)(torch.ones(2, 10, 1, 16, 16)).shape
    torch.Size([2, 10, 64])
    """

    def flat(clips: Tensor) -> Tensor:
        frames, side = clips.flatten(0, 1), clips.shape[-1]
        while clips.shape[1] * clips.shape[2] * side * side > most and side > 1:
            side //= 2
        if side != clips.shape[-1]:
            frames = F.adaptive_avg_pool2d(frames, side)
        return frames.flatten(1).unflatten(0, clips.shape[:2])  # (B, T, C h w)

    return flat


def untrained(
    cfg: EncoderConfig | str,
    *,
    size: int,
    channels: int = 3,
    seed: int = 0,
    batches: Iterable[Batch] | None = None,
    device: torch.device | str = "cpu",
) -> Encoder:
    """The encoder that `cfg` names, with weights drawn from `seed` and never trained.

    batches  when given, batch norms take their statistics from these pictures (no label is read). Fresh statistics
             (mean 0, variance 1) fit no layer, and would make the untrained network look worse than it is

    Published weights are not loaded, even where `cfg` asks for them. The global random state is left as it was.

    >>> a, b = untrained("vit_micro/4", size=8), untrained("vit_micro/4", size=8)
    >>> torch.equal(a(torch.ones(1, 3, 8, 8)), b(torch.ones(1, 3, 8, 8)))
    True
    """
    cfg = EncoderConfig.model_validate(cfg).override({"pretrained": False})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(cfg, size=size, channels=channels)
    encoder = encoder.to(device)
    if batches is not None:
        settle(encoder, batches, device=device)
    return encoder.eval()


def settle(encoder: Encoder, batches: Iterable[Batch], *, device: torch.device | str = "cpu") -> None:
    """Give every batch norm of `encoder` the mean statistics over `batches`; nothing else changes."""
    norms = [m for m in encoder.modules() if isinstance(m, BatchNorm | nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momentum = [m.momentum for m in norms]
    with evaluating(encoder), torch.no_grad():
        for i, (pictures, _, _) in enumerate(batches):
            for m in norms:
                m.train()
                m.momentum = 1 / (i + 1)  # the running mean of what was seen so far
            encoder(pictures.to(device))
    for m, was in zip(norms, momentum, strict=True):
        m.momentum = was
