"""What the masked methods on clips share: views and masks as settings, a student on tubelets and its teacher."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from itertools import chain
from math import prod
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from openjepa.config import ClipView, Config
from openjepa.core.compare import centre, mse, whiten_tokens
from openjepa.core.masks import Masks
from openjepa.core.schedule import linear
from openjepa.core.spread import sigreg
from openjepa.core.teach import ema_
from openjepa.core.tubes import tube_sizes, tubes
from openjepa.core.types import Clips, Clock, Terms
from openjepa.methods.base import Method
from openjepa.nn import ClipPredictor, ClipViT, EncoderConfig, Projector, build_clip_encoder

Sizes = tuple[float, float]


class TubeMask(Config):
    """One kind of mask: `blocks` rectangles through time are hidden, see `openjepa.core.tubes.tubes`.

    count  masks of this kind per clip: they share one pass of the teacher and one of the encoder
    """

    blocks: int = Field(8, ge=1)
    scale: Sizes = (0.15, 0.15)
    aspect: Sizes = (0.75, 1.5)
    time_scale: Sizes = (1.0, 1.0)
    context_keep: int | float | None = Field(None, gt=0, description="tokens seen: a count or a share")
    target_keep: int | float | None = Field(None, gt=0, description="tokens predicted: a count or a share")
    count: int = Field(1, ge=1)


SHORT, LONG = TubeMask(), TubeMask(blocks=2, scale=(0.7, 0.7))


class ClipsConfig(Config):
    """Settings that the masked methods on clips share.

    views     kinds of clips; each step is made of one of them, drawn by `share`: other lengths and sizes, and pictures
              (`frames=1`), alternate from step to step
    ema       momentum of the teacher at the start and the end of the run, linear in between
    sigreg, agree  nothing as published. With `sigreg`, the pooled contexts of a clip (of all its views and masks) are
              drawn together with weight `agree` and kept Gaussian over clips, behind a projector where `projector_out`
              is given: on small data masked prediction alone learns slowly
    """

    encoder: EncoderConfig
    views: tuple[ClipView, ...]
    predictor_width: int = Field(384, ge=8)
    predictor_depth: int = Field(12, ge=1)
    predictor_heads: int | None = Field(None, ge=1, description="by default as many as the encoder has")
    ema: tuple[float, float]
    sigreg: float = Field(0.0, ge=0, description="weight of SIGReg on the pooled contexts; 0 as published")
    agree: float = Field(0.0, ge=0, description="with sigreg: weight of agreement between a clip's contexts")
    projector_out: int | None = Field(None, ge=1, description="with sigreg: both act behind a projector this wide")
    projector_hidden: int = Field(512, ge=1)

    @model_validator(mode="after")
    def _whole_tubelets(self) -> Self:
        if not self.views:
            raise ValueError("views must name at least one kind of clip, got none. Leave it out for the usual one.")
        for view in self.views:
            if view.frames != 1 and view.frames % self.encoder.tubelet:
                raise ValueError(
                    f"frames of a view must be 1 or a multiple of encoder.tubelet = {self.encoder.tubelet}, "
                    f"got {view.frames}. Change one of them."
                )
        if self.agree and not self.sigreg:
            raise ValueError(
                f"agree must be 0 without sigreg, got {self.agree}: agreement alone makes all features the same. "
                "Set sigreg as well."
            )
        return self

    @property
    def frames(self) -> int:
        """Frames of the longest view: what positions are built for."""
        return max(view.frames for view in self.views)


class OnClips(Method):
    """A method with a student on the seen tubelets, a teacher on all of them, and a predictor in between."""

    eats = "clips"
    encoder: ClipViT
    teacher: ClipViT
    cfg: ClipsConfig

    def build(self, size: int, channels: int, encoder: nn.Module | None, predictor: dict[str, Any]) -> None:
        """Student, teacher, predictor and the projector of `beyond_the_paper`; `predictor`: its further settings."""
        cfg = self.cfg
        if encoder is not None and not isinstance(encoder, ClipViT):
            raise ValueError(
                f"encoder must be a ClipViT for clips, got {type(encoder).__name__}. Use build_clip_encoder."
            )
        self.encoder = encoder or build_clip_encoder(cfg.encoder, size=size, channels=channels, frames=cfg.frames)
        heads = cfg.predictor_heads or self.encoder.dim // self.encoder.head_dim
        if cfg.predictor_width % heads:
            width = max(1, round(cfg.predictor_width / heads)) * heads
            raise ValueError(
                f"method.predictor_width must be a multiple of its {heads} heads, got {cfg.predictor_width}. "
                f"Set method.predictor_width={width}, or method.predictor_heads."
            )
        self.predictor = ClipPredictor(
            self.encoder.dim, self.encoder.grid, width=cfg.predictor_width, depth=cfg.predictor_depth, heads=heads,
            pos=self.encoder.pos, **predictor,
        )  # fmt: skip
        self.teacher = deepcopy(self.encoder).requires_grad_(False)
        if cfg.sigreg and cfg.projector_out:
            self.projector = Projector(self.encoder.dim, cfg.projector_hidden, cfg.projector_out)
        if cfg.sigreg:
            self.weights |= {"agree": cfg.agree, "sigreg": cfg.sigreg}

    def require_context(self, kinds: tuple[TubeMask, ...], size: int) -> None:
        """A `ValueError` that names the setting when some kind of mask does not go with some kind of clip."""
        encoder = self.encoder
        for view in self.cfg.views:
            side = (view.size or size) // encoder.patch
            grid = (max(1, view.frames // encoder.tubelet), side, side)
            for number, m in enumerate(kinds):
                try:
                    tubes(grid, 1, clock=Clock(step=0), **m.model_dump(exclude={"count"}))
                except ValueError as e:
                    smaller = [found for k in kinds if (found := fitting_mask(grid, k))]
                    ways = "finer patches (method.encoder) or larger frames (data.size)"
                    if len(smaller) == len(kinds):
                        ways = f"method.masks=[{', '.join(smaller)}], {ways}"
                    raise ValueError(
                        f"method.masks must suit frames of {side} x {side} patches, got masks[{number}]: {e} "
                        f"Set {ways}."
                    ) from None

    def clips(self, batch: Clips) -> Tensor:
        """(V, B, T, C, H, W) -> (B V, T, C, H, W), the clips of a video side by side."""
        return batch.view.transpose(0, 1).flatten(0, 1)

    def targets(self, clips: Tensor) -> Tensor:
        """What is to be predicted, (B V, N, D levels): the teacher's tokens of the whole clip, each layer-normed."""
        with torch.no_grad():
            self.teacher.eval()
            whole = self.teacher(clips, deep=True).unflatten(-1, (-1, self.encoder.dim))
            return whiten_tokens(whole).flatten(-2)

    def draw(self, kinds: tuple[TubeMask, ...], clips: Tensor, clock: Clock, paper_exact: bool) -> list[Masks]:
        """One draw of each kind of mask, over B V count rows, the masks of a clip side by side."""
        grid, found = self.encoder.grid_of(clips), []
        for number, m in enumerate(kinds):
            masks = tubes(
                grid, len(clips) * m.count, clock=clock, blocks=m.blocks, scale=m.scale, aspect=m.aspect,
                time_scale=m.time_scale, context_keep=m.context_keep, target_keep=m.target_keep, kind=number,
                paper_exact=paper_exact,
            )  # fmt: skip
            found.append(masks.to(clips.device))
        return found

    def beyond_the_paper(self, contexts: list[Tensor], batch: int, clock: Clock) -> Terms:
        """Nothing as published. With `sigreg`: a clip's pooled contexts agree, and are Gaussian over clips.

        contexts  (B V count, K, D) of each kind of mask
        """
        if not self.cfg.sigreg:
            return {}
        pooled = torch.cat([z.mean(1).unflatten(0, (batch, -1)) for z in contexts], 1).transpose(0, 1)  # (views, B, D)
        if self.cfg.projector_out:
            pooled = self.projector(pooled)  # (views, B, P)
        spread = sigreg(pooled, directions=512, generator=clock.generator("sigreg"))
        return {"agree": mse(pooled, centre(pooled).expand_as(pooled)), "sigreg": spread}

    def idle(self) -> Tensor:
        """0, with a gradient of 0 for every trained parameter: a step of one kind of clip does not use all of them.

        Processes that train together wait for a gradient of every parameter; and alone the optimiser must see the same.
        """
        encoder, predictor = self.encoder, self.predictor
        pictures = () if encoder.patch_embed_img is None else encoder.patch_embed_img.parameters()
        parts = (encoder.parameters(recurse=False), predictor.parameters(recurse=False), predictor.mask_tokens)
        return 0.0 * torch.stack([p.sum() for p in chain(*parts, encoder.patch_embed.parameters(), pictures)]).sum()

    def encode(self, obs: Tensor) -> Tensor:
        """(B, T, C, H, W), or (B, C, H, W) as clips of one frame -> (B, N, D)."""
        return self.teacher(obs)

    def after_step(self, clock: Clock) -> None:
        start, end = self.cfg.ema
        ema_(self.teacher.parameters(), self.encoder.parameters(), linear(start, end, clock.progress))


def fitting_mask(grid: tuple[int, int, int], mask: TubeMask) -> str | None:
    """The mask as a setting, with smaller or fewer blocks where it would leave less than a twentieth of the grid.

    >>> fitting_mask((8, 4, 4), SHORT), fitting_mask((8, 4, 4), LONG)
    ('{blocks: 8, scale: [0.15, 0.15]}', '{blocks: 2, scale: [0.52, 0.52]}')
    """
    blocks = mask.blocks
    while blocks:
        for share in (1.0, 0.75, 0.5):
            scale = tuple(round(share * s, 2) for s in mask.scale)
            changed = mask.model_copy(update={"blocks": blocks, "scale": scale})
            with suppress(ValueError):
                tubes(grid, 1, clock=Clock(step=0), **changed.model_dump(exclude={"count"}))
                if tube_sizes(grid, blocks, changed.scale, mask.aspect, mask.time_scale)[0] * 20 >= prod(grid):
                    told = mask.model_dump(exclude_defaults=True) | {"blocks": blocks, "scale": list(scale)}
                    return f"{{{', '.join(f'{name}: {value}' for name, value in told.items())}}}"
        blocks //= 2
    return None


def times(x: Tensor, count: int) -> Tensor:
    """Every row `count` times, side by side."""
    return x if count == 1 else x.repeat_interleave(count, 0)
