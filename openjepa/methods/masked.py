"""Masked latent prediction, for pictures and clips: hide a share of the tokens, predict the teacher's in their place.

The plain ancestor of I-JEPA and V-JEPA behind the older `JEPAAgent`: block, random or temporal masks, MSE, and three
optional regularisers.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from openjepa.config import Config, View
from openjepa.core.compare import mse, whiten_tokens
from openjepa.core.masks import Masks, block_mask, random_mask
from openjepa.core.schedule import linear
from openjepa.core.spread import variance
from openjepa.core.teach import ema_
from openjepa.core.tokens import take
from openjepa.core.tubes import future, repeat
from openjepa.core.types import Clock, Pictures, Seen, Terms
from openjepa.methods.base import Method
from openjepa.nn import EncoderConfig, MaskedPredictor, build_encoder, wrap
from openjepa.nn.temporal import TemporalEncoder, clip_positions


class MaskedConfig(Config):
    """Pictures by default; clips when `frames` is above 1, their frames stacked along the channels, (frames * C, H, W).

    `masking`: "block" hides `blocks` rectangles, "random" single patches, together `mask_ratio` of the grid (in clips
    the same places in every frame); "temporal" hides the last `predict_horizon` frames of a clip.

    A regulariser with weight 0 is not computed. `variance` keeps the spread of the features between pictures: without
    it the masked objective alone slides towards features that know where a token is and not what it shows (a test
    keeps the proof), so it is on by default. `invariance` draws `crops` crops of a picture together, `consistency`
    neighbouring frames of a clip.
    """

    name: Literal["masked"] = "masked"
    encoder: EncoderConfig = EncoderConfig(name="vit_base/16")
    frames: int = Field(1, ge=1)
    temporal_depth: int = Field(2, ge=1, description="blocks that mix the frames of a clip")
    predictor_width: int | None = Field(None, ge=8, description="by default half the encoder's")
    predictor_depth: int = Field(6, ge=1)
    masking: Literal["block", "random", "temporal"] = "block"
    mask_ratio: float = Field(0.75, gt=0, lt=1)
    blocks: int = Field(1, ge=1)
    predict_horizon: int = Field(1, ge=1)
    variance: float = Field(1.0, ge=0, description="weight")
    invariance: float = Field(0.0, ge=0, description="weight; needs two crops or more")
    consistency: float = Field(0.0, ge=0, description="weight; clips only")
    ema: tuple[float, float] = (0.996, 1.0)
    crops: int = Field(1, ge=1)
    crop: View = View(scale=(0.3, 1.0))

    @property
    def views(self) -> tuple[View, ...]:
        return (self.crop.model_copy(update={"count": self.crops}),)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.masking == "temporal" and self.frames <= self.predict_horizon:
            raise ValueError(
                f"frames must be more than predict_horizon ({self.predict_horizon}) for temporal masking, "
                f"got {self.frames}. Give clips, or mask by block or random."
            )
        if self.frames > 1 and (any(self.crop.jitter) or self.crop.grey or self.crop.solarize):
            raise ValueError("crop must leave colours alone for clips, got jitter, grey or solarize. Set them to 0.")
        if self.consistency and self.seen_frames < 2:
            raise ValueError(f"consistency must be 0 when one frame is seen, got {self.consistency}. Give clips.")
        if self.invariance and self.crops < 2:
            raise ValueError(f"crops must be 2 or more for invariance, got {self.crops}. Set crops=2.")
        return self

    @property
    def seen_frames(self) -> int:
        """Frames of which the context holds tokens."""
        return self.frames - self.predict_horizon if self.masking == "temporal" else self.frames


class MaskedJEPA(Method):
    """views -> encode the kept tokens -> predict the hidden ones -> MSE to the teacher -> spread, agreement -> EMA."""

    Config = MaskedConfig
    cfg: MaskedConfig

    def __init__(self, cfg: MaskedConfig, *, size: int, channels: int = 3, encoder: nn.Module | None = None) -> None:
        super().__init__()
        regularisers = {"variance": cfg.variance, "invariance": cfg.invariance, "consistency": cfg.consistency}
        self.cfg, self.weights = cfg, {"predict": 1.0} | {name: w for name, w in regularisers.items() if w}
        self.channels = channels  # of one frame
        self.encoder = (
            build_encoder(cfg.encoder, size=size, channels=channels)
            if encoder is None
            else wrap(encoder, size=size, channels=channels)
        )
        side = self.encoder.patch
        if side is None:
            raise ValueError(
                f"encoder must be able to run on the kept patches only (a ViT), got {cfg.encoder.name!r}: "
                "a convolution slides over the hidden patches and would see them. Use vit_NAME/PATCH, or method lejepa."
            )
        self.side, dim, grid = side, self.encoder.dim, self.encoder.grid
        width = cfg.predictor_width or max(8, dim // 16 * 8)
        self.predictor = MaskedPredictor(dim, grid, width, cfg.predictor_depth, max(1, width // 32))
        self.teacher = deepcopy(self.encoder).requires_grad_(False)
        if cfg.frames > 1:
            self.predictor.pos_embed = clip_positions(width, cfg.frames, grid)[None]
            self.temporal = TemporalEncoder(dim, cfg.frames, cfg.temporal_depth, max(1, dim // 64))
            self.temporal_teacher = deepcopy(self.temporal).requires_grad_(False)

    def losses(self, batch: Pictures, clock: Clock) -> tuple[Terms, Seen]:
        obs = batch.views[0].transpose(0, 1).flatten(0, 1)  # (B V, T C, H, W), the views of a picture side by side
        masks = self.masks(obs, clock)

        target = take(self.targets(obs), masks.targets)  # (B V, M, Kt, D)
        z = self.context(obs, masks.context)  # (B V, t, K, D)
        prediction = self.predictor(z.flatten(1, 2), masks.context, masks.targets)  # (B V, M, Kt, D)

        terms = {"predict": mse(prediction, target)}
        pooled = z.mean((1, 2)).unflatten(0, (len(batch.index), -1))  # (B, V, D)
        if "variance" in self.weights:
            terms["variance"] = variance(pooled.transpose(0, 1))
        if "invariance" in self.weights:
            terms["invariance"] = mse(pooled, pooled.mean(1, keepdim=True).expand_as(pooled))
        if "consistency" in self.weights:
            frames = z.mean(2)  # (B V, t, D)
            terms["consistency"] = mse(frames[:, 1:], frames[:, :-1])

        seen = {"z": z.flatten(1, 2).detach(), "prediction": prediction.detach(), "target": target}
        return terms, seen | {"context_index": masks.context, "target_index": masks.targets}

    def masks(self, obs: Tensor, clock: Clock) -> Masks:
        grid = (obs.shape[-2] // self.side, obs.shape[-1] // self.side)
        return MASKING[self.cfg.masking](self.cfg, grid, len(obs), clock).to(obs.device)

    def context(self, obs: Tensor, index: Tensor) -> Tensor:
        """The kept tokens of the frames that are seen, (B, t, K, D); index (B, t * K), time first."""
        frames = self.frames(obs)[:, : self.cfg.seen_frames]  # (B, t, C, H, W)
        t, places = frames.shape[1], (obs.shape[-2] // self.side) * (obs.shape[-1] // self.side)
        start = torch.arange(t, device=index.device) * places
        place = index.unflatten(1, (t, -1)) - start[:, None]  # (B, t, K): where in its frame
        z = self.encoder(frames.flatten(0, 1), keep=place.flatten(0, 1))[:, self.encoder.prefix :]
        z = z.unflatten(0, (-1, t))  # (B, t, K, D)
        return self.temporal(z) if self.cfg.frames > 1 else z

    def targets(self, obs: Tensor) -> Tensor:
        """What is to be predicted, (B, T * N, D): the teacher's tokens of everything, each layer-normed."""
        with torch.no_grad():
            self.teacher.eval()
            if self.cfg.frames > 1:
                self.temporal_teacher.eval()
            return whiten_tokens(self.encode(obs))

    def encode(self, obs: Tensor) -> Tensor:
        """The teacher's tokens of clips, (B, T * N, D), or of single pictures (B, C, H, W), (B, N, D)."""
        frames = self.frames(obs)  # (B, T, C, H, W)
        z = self.teacher(frames.flatten(0, 1))[:, self.teacher.prefix :].unflatten(0, frames.shape[:2])
        if frames.shape[1] > 1:
            z = self.temporal_teacher(z)  # (B, T, N, D)
        return z.flatten(1, 2)

    def frames(self, obs: Tensor) -> Tensor:
        """Frames that are stacked along the channels, taken apart: (B, T * C, H, W) -> (B, T, C, H, W)."""
        if obs.shape[1] not in (self.channels, self.cfg.frames * self.channels):
            raise ValueError(
                f"clips must have {self.cfg.frames} frames of {self.channels} channels, got {obs.shape[1]} in all. "
                "Give data of that many frames (data.frames)."
            )
        return obs.unflatten(1, (-1, self.channels))

    def after_step(self, clock: Clock) -> None:
        momentum = linear(*self.cfg.ema, clock.progress)
        ema_(self.teacher.parameters(), self.encoder.parameters(), momentum)
        if self.cfg.frames > 1:
            ema_(self.temporal_teacher.parameters(), self.temporal.parameters(), momentum)


def _block(cfg: MaskedConfig, grid: tuple[int, int], batch: int, clock: Clock) -> Masks:
    masks = block_mask(grid, batch, clock=clock, ratio=cfg.mask_ratio, blocks=cfg.blocks)
    return repeat(masks, cfg.frames, grid[0] * grid[1])


def _random(cfg: MaskedConfig, grid: tuple[int, int], batch: int, clock: Clock) -> Masks:
    return repeat(random_mask(grid, batch, clock=clock, ratio=cfg.mask_ratio), cfg.frames, grid[0] * grid[1])


def _temporal(cfg: MaskedConfig, grid: tuple[int, int], batch: int, clock: Clock) -> Masks:
    return future(cfg.frames, grid, batch, horizon=cfg.predict_horizon)


MASKING: dict[str, Callable[[MaskedConfig, tuple[int, int], int, Clock], Masks]] = {
    "block": _block,
    "random": _random,
    "temporal": _temporal,
}
