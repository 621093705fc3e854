"""I-JEPA: predict the teacher's tokens of four blocks from one context block (Assran et al., arXiv 2301.08243)."""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from openjepa.config import Config, View
from openjepa.core.compare import centre, mse, smooth_l1, whiten_tokens
from openjepa.core.masks import Masks, multiblock
from openjepa.core.schedule import linear
from openjepa.core.spread import sigreg
from openjepa.core.teach import ema_
from openjepa.core.tokens import take
from openjepa.core.types import Clock, Pictures, Seen, Terms
from openjepa.methods.base import Method
from openjepa.nn import EncoderConfig, MaskedPredictor, Projector, build_encoder, wrap


class IJEPAConfig(Config):
    """The published recipe by default; what differs at small scale is in the presets.

    `ema` is the teacher's momentum at the start and the end, linear in between. `share_context` computes the context
    once in the predictor instead of once per target block. `target_layers` averages that many of the teacher's last
    layers (1 as published).
    """

    name: Literal["ijepa"] = "ijepa"
    encoder: EncoderConfig = EncoderConfig(name="vit_base/16")
    predictor_width: int = Field(384, ge=8)
    predictor_depth: int = Field(6, ge=1)
    predictor_heads: int | None = Field(None, ge=1, description="by default one per 32 features")
    share_context: bool = False
    contexts: int = Field(1, ge=1, description="masks per picture: several share one pass of the teacher")
    num_targets: int = Field(4, ge=1)
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    context_keep: int | None = Field(None, ge=1, description="tokens per picture; by default what the masks leave")
    paper_exact: bool = Field(False, description="the published mask sampler, with its biases")
    ema: tuple[float, float] = (0.996, 1.0)
    target_layers: int = Field(1, ge=1)
    sigreg: float = Field(0.0, ge=0, description="weight of SIGReg on the pooled contexts; 0 as published")
    agree: float = Field(0.0, ge=0, description="with sigreg: weight of agreement between a picture's contexts")
    projector_out: int | None = Field(None, ge=1, description="with sigreg: both act behind a projector this wide")
    projector_hidden: int = Field(512, ge=1)
    crop: View = View(scale=(0.3, 1.0))

    @property
    def views(self) -> tuple[View, ...]:
        return (self.crop,)


class IJEPA(Method):
    """views -> encode the context -> predict the target blocks -> smooth L1 to the teacher -> the teacher follows."""

    Config = IJEPAConfig
    cfg: IJEPAConfig

    def __init__(self, cfg: IJEPAConfig, *, size: int, channels: int = 3, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.cfg, self.weights = (
            cfg,
            {"predict": 1.0} | ({"agree": cfg.agree, "sigreg": cfg.sigreg} if cfg.sigreg else {}),
        )
        self.encoder = (
            build_encoder(cfg.encoder, size=size, channels=channels)
            if encoder is None
            else wrap(encoder, size=size, channels=channels)
        )
        if self.encoder.patch is None:
            raise ValueError(
                f"encoder must be able to run on the kept patches only (a ViT), got {cfg.encoder.name!r}: "
                "a convolution slides over the hidden patches and would see them. Use vit_NAME/PATCH, or method lejepa."
            )
        self.patch = self.encoder.patch
        heads = cfg.predictor_heads or max(1, cfg.predictor_width // 32)
        self.predictor = MaskedPredictor(
            self.encoder.dim, self.encoder.grid, cfg.predictor_width, cfg.predictor_depth, heads, cfg.share_context
        )
        self.teacher = deepcopy(self.encoder).requires_grad_(False)
        if cfg.sigreg and cfg.projector_out:
            self.projector = Projector(self.encoder.dim, cfg.projector_hidden, cfg.projector_out)

    def losses(self, batch: Pictures, clock: Clock) -> tuple[Terms, Seen]:
        pictures = batch.views[0].transpose(0, 1).flatten(0, 1)  # (B V, C, H, W), the views of a picture side by side
        images, target = (x.repeat_interleave(self.cfg.contexts, 0) for x in (pictures, self.targets(pictures)))
        masks = self.masks(images, clock)

        target = take(target, masks.targets)  # (B, M, Kt, D)
        z = self.encoder(images, keep=masks.context)[:, self.encoder.prefix :]  # (B, K, D)
        prediction = self.predictor(z, masks.context, masks.targets)  # (B, M, Kt, D)
        terms = {"predict": smooth_l1(prediction, target)} | self.beyond_the_paper(z, len(batch.index), clock)

        seen = {"z": z, "prediction": prediction, "target": target}
        seen = {name: x.detach() for name, x in seen.items()}
        seen |= {"context_index": masks.context, "target_index": masks.targets}
        return terms, seen

    def beyond_the_paper(self, z: Tensor, batch: int, clock: Clock) -> Terms:
        """Nothing as published. With `sigreg`: a picture's pooled contexts agree, and are Gaussian over pictures."""
        if not self.cfg.sigreg:
            return {}
        pooled = z.mean(1).unflatten(0, (batch, -1)).transpose(0, 1)  # (V contexts, B, D)
        if self.cfg.projector_out:
            pooled = self.projector(pooled)  # (V, B, P)
        spread = sigreg(pooled, directions=512, generator=clock.generator("sigreg"))
        return {"agree": mse(pooled, centre(pooled).expand_as(pooled)), "sigreg": spread}

    def masks(self, images: Tensor, clock: Clock) -> Masks:
        c, side = self.cfg, self.patch
        return multiblock(
            (images.shape[-2] // side, images.shape[-1] // side), len(images), clock=clock, num_targets=c.num_targets,
            target_scale=c.target_scale, target_aspect=c.target_aspect, context_scale=c.context_scale,
            context_keep=c.context_keep, paper_exact=c.paper_exact,
        ).to(images.device)  # fmt: skip

    def targets(self, images: Tensor) -> Tensor:
        """What is to be predicted, (B, N, D): the teacher's tokens of the whole picture, each layer-normed."""
        with torch.no_grad():
            self.teacher.eval()
            layers = self.teacher.layers(images, range(-self.cfg.target_layers, 0))
            return torch.stack([whiten_tokens(z[:, self.teacher.prefix :]) for z in layers]).mean(0)

    def encode(self, obs: Tensor) -> Tensor:
        return self.teacher(obs)[:, self.teacher.prefix :]

    def after_step(self, clock: Clock) -> None:
        start, end = self.cfg.ema
        ema_(self.teacher.parameters(), self.encoder.parameters(), linear(start, end, clock.progress))
