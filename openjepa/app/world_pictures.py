"""What a world model imagines, made visible: decoded futures beside the true ones, and the latent in two dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from openjepa.app.dreaming import Dreamer
from openjepa.app.world_text import horizons
from openjepa.core.rollout import rollout
from openjepa.probe.decode import fit_decoder
from openjepa.probe.pictures import show
from openjepa.probe.stretches import Stretches
from openjepa.probe.variables import flat

SIDE = 64  # larger pictures are decoded at this size: they are looked at, not measured
FRAMES, POINTS = 2000, 1500  # that the decoder is trained on; that are drawn
SHOWN = 2  # stretches


def strips(
    found: Dreamer,
    z: Tensor,
    learnt_on: Callable[[Tensor], Tensor],
    held: Stretches,
    observed: Callable[[Tensor], Tensor],
    *,
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], float | None]:
    """True frames of some held-out stretches, what the decoder makes of their true z, and what it makes of the imagined
    z: (n, K, 3, h, w) uint8 each, with the steps `ahead` (K,); and the decoder's R^2.

    z                    of training frames, which the decoder is trained on; it reaches nothing of the model
    learnt_on, observed  numbers of training frames, or of held-out ones -> observations
    """
    if len(z) < 2:
        return {}, None
    thin = torch.linspace(0, len(z) - 1, min(len(z), FRAMES)).long()
    decoded = fit_decoder(z[thin].to(found.device), small(learnt_on(thin)).to(found.device), seed=seed)
    which = longest(held)
    ahead = [0, *horizons(int(held.at.valid[which].sum(1).min()))]
    rows = held.at.frames[which][:, [k + 1 for k in ahead]]  # (n, K)
    mean, std = (torch.tensor(found.preprocess[k]) for k in ("obs_mean", "obs_std"))
    with torch.inference_mode():
        start = held.start[which].to(found.device)
        future = rollout(found.model, start, held.action[which].to(found.device))
        dreamt = torch.cat([start[:, None], future], 1)[:, ahead].flatten(0, 1)
        rebuilt, imagined = (decoded.decoder(x) for x in (held.z[rows].flatten(0, 1).to(found.device), dreamt))
    shown = {"true": small(observed(rows.flatten())), "decoded": rebuilt.cpu(), "imagined": imagined.cpu()}
    out = {name: coloured(show(x, mean, std)).unflatten(0, rows.shape).numpy() for name, x in shown.items()}
    return {**out, "ahead": np.array(ahead)}, decoded.r2


def small(pictures: Tensor) -> Tensor:
    """At most SIDE pixels a side."""
    longest_side = max(pictures.shape[-2:])
    if longest_side <= SIDE:
        return pictures
    size = [max(1, round(n * SIDE / longest_side)) for n in pictures.shape[-2:]]
    return F.interpolate(pictures, size, mode="area")


def longest(held: Stretches) -> Tensor:
    """One stretch of each of the first SHOWN episodes: the one that goes on for longest."""
    steps = held.at.valid.sum(1)
    ids = held.at.episode.unique()[:SHOWN]
    return torch.stack([torch.where(held.at.episode == e, steps, -1).argmax() for e in ids])


def coloured(pictures: Tensor) -> Tensor:
    """(B, C, H, W) uint8 with any number of channels as three."""
    return F.pad(pictures[:, :3], (0, 0, 0, 0, 0, max(0, 3 - pictures.shape[1])))


def latent_map(held: Stretches, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The two directions in which z of held-out frames varies most, their share of the variance, and the variables."""
    rows = torch.linspace(0, len(held.z) - 1, min(len(held.z), POINTS)).long()
    x = flat(held.z[rows]).double()
    x = x - x.mean(0)
    _, s, v = torch.linalg.svd(x, full_matrices=False)
    axes = v[:2] * torch.sign(v[:2].gather(1, v[:2].abs().argmax(1, keepdim=True)))  # a sign of its own choice
    share = s.square()[:2] / s.square().sum().clamp_min(1e-300)
    return {
        "pca": F.pad(x @ axes.T, (0, 2 - len(axes))).float().numpy(),
        "share": share.numpy(),
        "values": held.state[rows].float().numpy(),
        "names": np.array(list(names), dtype=np.str_),
    }
