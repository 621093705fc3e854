"""Looking into a latent: a decoder to pixels, trained on frozen z afterwards, and how much of a picture it finds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openjepa.core.compare import mse
from openjepa.nn.decoder import PixelDecoder
from openjepa.probe.training import order, rate


@dataclass(frozen=True)
class Decoded:
    """A trained decoder and its R^2 over the pixels of held-out pictures: 1 is perfect, 0 the mean picture."""

    decoder: PixelDecoder
    r2: float


def fit_decoder(
    z: Tensor,
    pictures: Tensor,
    *,
    steps: int = 600,
    batch_size: int = 64,
    lr: float = 4e-3,
    width: int = 32,
    held_out: float = 0.1,
    seed: int = 0,
) -> Decoded:
    """Train a decoder on frozen latents; nothing of it reaches the model that made them.

        loss = mean (decoder(z) - picture)^2,   R^2 = 1 - sum (error)^2 / sum (picture - mean picture)^2

    z         (N, D) or (N, tokens, D);  pictures  (N, C, H, W), both as the model's stream gives them, on one device
    held_out  share of the rows, the last ones, that are kept from training: give windows of an episode in a row

    A decoder shows what z still holds of the picture; what it leaves out z may hold in a form that it did not learn.

    >>> z = torch.randn(200, 4)
    >>> found = fit_decoder(z, z[:, :1, None, None].expand(-1, 1, 8, 8), steps=50)
    >>> found.decoder(z).shape, found.r2 > 0.5
    (torch.Size([200, 1, 8, 8]), True)
    """
    rest = max(1, round(held_out * len(z)))
    n = len(z) - rest
    if len(z) != len(pictures) or pictures.dim() != 4 or n < 1:
        raise ValueError(f"z and pictures must be N rows each, N at least 2, got {tuple(z.shape)}, {pictures.shape}.")
    z, pictures = z.detach(), pictures.detach()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = PixelDecoder(tuple(z.shape[1:]), tuple(pictures.shape[1:]), width).to(z.device)  # type: ignore[arg-type]
    solver = torch.optim.AdamW(decoder.parameters(), lr=lr, weight_decay=1e-4)
    epochs = -(-steps // max(1, n // min(batch_size, n)))
    for step, rows in zip(range(steps), order(n, batch_size, epochs, seed), strict=False):
        solver.param_groups[0]["lr"] = lr * rate(step, steps)
        loss = mse(decoder(z[rows]), pictures[rows])
        solver.zero_grad(set_to_none=True)
        loss.backward()
        solver.step()
    decoder.eval().requires_grad_(False)
    with torch.inference_mode():
        error = torch.cat([decoder(part) for part in z[n:].split(256)]) - pictures[n:]
        spread = pictures[n:] - pictures[:n].mean(0)
    return Decoded(decoder, float(1 - error.square().sum() / spread.square().sum().clamp_min(1e-12)))
