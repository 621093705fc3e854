"""V-JEPA 2.1 (arXiv 2603.14482): seen tokens are predicted too, at four depths; pictures have a path of their own."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from openjepa.config import ClipView
from openjepa.core.compare import l1
from openjepa.core.schedule import warm_up
from openjepa.core.tokens import take
from openjepa.core.tubes import distance
from openjepa.core.types import Clips, Clock, Seen, Terms
from openjepa.methods.clips import LONG, SHORT, ClipsConfig, OnClips, TubeMask, times
from openjepa.methods.vjepa import CROP
from openjepa.nn import EncoderConfig


class VJEPA21Config(ClipsConfig):
    """The published recipe by default, for a student that learns from its own teacher.

    context_clip, context_picture  weight lambda of the context's error, for clips and for pictures
    context_from, context_full     shares of the run at which lambda begins to rise from 0 and has risen: published are
                                   15,000 and 30,000 of 135,000 steps
    """

    name: Literal["vjepa21"] = "vjepa21"
    encoder: EncoderConfig = EncoderConfig(name="vit_large/16", pos="rope", levels=4, picture_patch=True)
    views: tuple[ClipView, ...] = (
        ClipView(frames=16, fps=4, share=0.75, **CROP),
        ClipView(frames=1, share=0.25, **CROP),
    )
    masks: tuple[TubeMask, ...] = Field((SHORT, LONG), min_length=1)
    mask_tokens: int = Field(8, ge=1)
    paper_exact: bool = Field(False, description="the published mask sampler, with its biases")
    predictor_depth: int = Field(24, ge=1)
    predictor_heads: int | None = 12
    ema: tuple[float, float] = (0.99925, 0.99925)
    context_clip: float = Field(0.5, ge=0)
    context_picture: float = Field(0.5, ge=0)
    context_from: float = Field(15 / 135, ge=0, le=1)
    context_full: float = Field(30 / 135, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.mask_tokens < len(self.masks):
            raise ValueError(
                f"mask_tokens must be at least the {len(self.masks)} kinds of masks, got {self.mask_tokens}."
            )
        if self.context_full < self.context_from:
            raise ValueError(
                f"context_full must not be before context_from = {self.context_from:g}, got {self.context_full:g}."
            )
        return self


class VJEPA21(OnClips):
    """clips -> encode what tubes leave -> predict hidden and seen tokens at every level -> L1 to the teacher -> EMA.

        predict = mean |p - y| over hidden tokens
        context = lambda mean |p - y| / sqrt(d) over seen tokens, d to the nearest hidden token in cells of (t, h, w)

    Targets y are the teacher's tokens at `encoder.levels` depths, each level layer-normed, side by side. lambda rises
    from 0 in a straight line and then stays; the term `context` holds it, since it changes with the step. Pictures
    (views of one frame) are projected by their own map, and a learned vector tells the networks which of both they see.

    Differences: unbiased masks (`paper_exact` gives the published ones); pictures alternate with clips from step to
    step instead of sitting on a quarter of the processes; no distillation from a wider teacher.
    """

    Config = VJEPA21Config
    cfg: VJEPA21Config

    def __init__(self, cfg: VJEPA21Config, *, size: int, channels: int = 3, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.cfg, self.weights = cfg, {"predict": 1.0, "context": 1.0}
        self.build(
            size, channels, encoder,
            {
                "mask_tokens": cfg.mask_tokens, "levels": cfg.encoder.levels, "context_out": True,
                "modalities": cfg.encoder.picture_patch,
            },
        )  # fmt: skip
        self.require_context(cfg.masks, size)

    def losses(self, batch: Clips, clock: Clock) -> tuple[Terms, Seen]:
        clips = self.clips(batch)  # (B V, T, C, H, W)
        whole, grid, picture = self.targets(clips), self.encoder.grid_of(clips), clips.shape[1] == 1  # (B V, N, L D)
        every = self.draw(self.cfg.masks, clips, clock, self.cfg.paper_exact)

        contexts, predictions, targets, around = [], [], [], []
        for number, (kind, masks) in enumerate(zip(self.cfg.masks, every, strict=True)):
            hidden, aim = masks.targets[:, 0], times(whole, kind.count)
            z = self.encoder(times(clips, kind.count), keep=masks.context, deep=True)  # (B V count, K, L D)
            there, here = self.predictor(z, masks.context, hidden, number, grid=grid, picture=picture)
            predictions.append(there)  # (B V count, Kt, L D)
            targets.append(take(aim, hidden))
            nearness = distance(hidden, grid).gather(1, masks.context).rsqrt()  # (B V count, K)
            around.append(((here.float() - take(aim, masks.context)).abs().mean(-1) * nearness).mean())
            contexts.append(z[..., -self.encoder.dim :])

        errors = [l1(p, t) for p, t in zip(predictions, targets, strict=True)]
        terms = {
            "predict": torch.stack(errors).mean() + self.idle(),
            "context": self.dense(clock, picture) * torch.stack(around).mean(),
        }
        terms |= self.beyond_the_paper(contexts, len(batch.index), clock)
        seen = {"z": contexts[0].detach(), "prediction": predictions[0].detach(), "target": targets[0]}
        return terms, seen | {"context_index": every[0].context, "target_index": every[0].targets}

    def dense(self, clock: Clock, picture: bool) -> float:
        """lambda at this step."""
        cfg, at = self.cfg, clock.progress
        risen = at >= cfg.context_full or warm_up(at - cfg.context_from, cfg.context_full - cfg.context_from)
        return (cfg.context_picture if picture else cfg.context_clip) * risen
