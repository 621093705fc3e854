"""LeJEPA: every view predicts the centre of the global views, and SIGReg keeps the features Gaussian.

Balestriero and LeCun, arXiv 2511.08544. No teacher, no stop-gradient, no schedule to get right, one weight.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from openjepa.config import Config, View
from openjepa.core.compare import centre, mse
from openjepa.core.spread import sigreg
from openjepa.core.types import Clock, Pictures, Seen, Terms
from openjepa.methods.base import Method
from openjepa.nn import EncoderConfig, Projector, build_encoder, pool, wrap

COLOUR = {"flip": 0.5, "jitter": (0.4, 0.4, 0.2, 0.1), "jitter_p": 0.8, "grey": 0.2, "blur": 0.5, "solarize": 0.2}


class LeJEPAConfig(Config):
    """`lam` is the one weight: (1 - lam) * prediction + lam * SIGReg, with SIGReg at its published scale (x N).

    `global_views` and `local_views` say how many views of each kind, how large and how they are drawn; any number of
    either, `local_views=null` for none. `test` is the univariate test that SIGReg averages over `slices` directions.
    """

    name: Literal["lejepa"] = "lejepa"
    encoder: EncoderConfig = EncoderConfig(name="resnet18")
    lam: float = Field(0.02, ge=0, le=1)
    slices: int = Field(1024, ge=1)
    test: Literal["epps_pulley", "cramer_von_mises", "anderson_darling", "moments"] = "epps_pulley"
    projector_hidden: int = Field(2048, ge=1)
    projector_out: int = Field(128, ge=1)
    projector_layers: int = Field(3, ge=1)
    pooling: Literal["mean", "cls", "mean+cls"] = "mean"
    global_views: View = View(count=2, scale=(0.3, 1.0), **COLOUR)
    local_views: View | None = View(count=6, scale=(0.05, 0.3), **COLOUR)

    @property
    def views(self) -> tuple[View, ...]:
        return (self.global_views,) if self.local_views is None else (self.global_views, self.local_views)


class LeJEPA(Method):
    """views -> encode and project all -> the centre of the global views predicts each -> MSE -> SIGReg per view."""

    Config = LeJEPAConfig
    cfg: LeJEPAConfig

    def __init__(self, cfg: LeJEPAConfig, *, size: int, channels: int = 3, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.cfg, self.weights = cfg, {"predict": 1.0 - cfg.lam, "sigreg": cfg.lam}
        self.encoder = (
            build_encoder(cfg.encoder, size=size, channels=channels)
            if encoder is None
            else wrap(encoder, size=size, channels=channels)
        )
        dim = self.encoder.dim * (2 if cfg.pooling == "mean+cls" else 1)
        self.projector = Projector(dim, cfg.projector_hidden, cfg.projector_out, cfg.projector_layers)

    def losses(self, batch: Pictures, clock: Clock) -> tuple[Terms, Seen]:
        h = torch.cat([self.pooled(views) for views in batch.views])  # (V, B, D)
        z = self.projector(h.flatten(0, 1)).unflatten(0, h.shape[:2])  # (V, B, P)

        prediction = centre(z[: batch.views[0].shape[0]])  # (1, B, P): global views only
        spread = sigreg(
            z, directions=self.cfg.slices, generator=clock.generator("sigreg"), test=self.cfg.test
        )  # per view, averaged

        terms = {"predict": mse(prediction.expand_as(z), z), "sigreg": spread}
        return terms, {"z": z.detach(), "prediction": prediction.detach(), "target": z.detach()}

    def pooled(self, views: Tensor) -> Tensor:
        """One pass over all views of one size, (V, B, C, H, W) -> (V, B, D)."""
        tokens = self.encoder(views.flatten(0, 1))  # (V * B, prefix + N, D)
        return pool(tokens, self.encoder.prefix, self.cfg.pooling).unflatten(0, views.shape[:2])

    def encode(self, obs: Tensor) -> Tensor:
        return self.encoder(obs)[:, self.encoder.prefix :]
