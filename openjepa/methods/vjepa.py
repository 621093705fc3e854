"""V-JEPA (arXiv 2404.08471) and V-JEPA 2 (arXiv 2506.09985): predict the teacher's tokens of hidden tubes."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from openjepa.config import ClipView
from openjepa.core.compare import l1
from openjepa.core.tokens import take
from openjepa.core.types import Clips, Clock, Seen, Terms
from openjepa.methods.clips import LONG, SHORT, ClipsConfig, OnClips, TubeMask, times
from openjepa.nn import EncoderConfig

CROP = {"scale": (0.3, 1.0), "ratio": (0.75, 1.35), "flip": 0.5}


class VJEPAConfig(ClipsConfig):
    """V-JEPA as published, by default; 2 has `encoder.pos="rope-tiled"`, 12 predictor heads and a constant `ema`.

    masks       kinds of masks, each with a mask token of its own; every clip gets all of them
    mask_tokens how many there are, where it is not one per kind: 10 in V-JEPA 2's checkpoints
    token_of    which one stands for what is hidden: that of the kind of mask, or of the kind of view, which is what
                V-JEPA 2's training did: with one length of clips it trained the first token only
    variance    weight of the published regulariser, the spread of the predictions over the tokens of a clip; 0 as
                published, and then it is not computed
    """

    name: Literal["vjepa"] = "vjepa"
    encoder: EncoderConfig = EncoderConfig(name="vit_large/16")
    views: tuple[ClipView, ...] = (ClipView(frames=16, stride=4, **CROP),)
    masks: tuple[TubeMask, ...] = Field((SHORT, LONG), min_length=1)
    mask_tokens: int | None = Field(None, ge=1)
    token_of: Literal["mask", "view"] = "mask"
    paper_exact: bool = Field(False, description="the published mask sampler, with its biases")
    ema: tuple[float, float] = (0.998, 1.0)
    variance: float = Field(0.0, ge=0)

    @property
    def tokens(self) -> int:
        """Mask tokens that are needed, or asked for."""
        return max(self.mask_tokens or 0, len(self.masks if self.token_of == "mask" else self.views))


class VJEPA(OnClips):
    """clips -> encode what the tubes leave -> predict what they hide -> L1 to the teacher -> the teacher follows.

    All hidden tokens of a clip are predicted in one sequence. The teacher sees each clip once, whatever the number of
    masks. Masks of one kind (`count`) share one pass of the encoder; kinds keep different numbers of tokens, so each
    has a pass of its own: filling up the shorter one would cost more than the call saves.

    Differences from the published code: unbiased masks (`paper_exact` gives the published ones), and a step is made of
    one kind of view instead of several.
    """

    Config = VJEPAConfig
    cfg: VJEPAConfig

    def __init__(self, cfg: VJEPAConfig, *, size: int, channels: int = 3, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.cfg, self.weights = cfg, {"predict": 1.0} | ({"variance": cfg.variance} if cfg.variance else {})
        self.build(size, channels, encoder, {"mask_tokens": cfg.tokens})
        self.require_context(cfg.masks, size)

    def losses(self, batch: Clips, clock: Clock) -> tuple[Terms, Seen]:
        clips = self.clips(batch)  # (B V, T, C, H, W)
        whole, grid = self.targets(clips), self.encoder.grid_of(clips)  # (B V, N, D)
        every = self.draw(self.cfg.masks, clips, clock, self.cfg.paper_exact)

        contexts, predictions, targets = [], [], []
        for number, (kind, masks) in enumerate(zip(self.cfg.masks, every, strict=True)):
            hidden = masks.targets[:, 0]  # (B V count, Kt)
            token = number if self.cfg.token_of == "mask" else batch.kind
            z = self.encoder(times(clips, kind.count), keep=masks.context)  # (B V count, K, D)
            predictions.append(self.predictor(z, masks.context, hidden, token, grid=grid))  # (B V count, Kt, D)
            targets.append(take(times(whole, kind.count), hidden))
            contexts.append(z)

        errors = [l1(p, t) for p, t in zip(predictions, targets, strict=True)]
        terms = {"predict": torch.stack(errors).mean() + self.idle()}
        if self.cfg.variance:
            terms["variance"] = torch.stack([shortfall(p) for p in predictions]).mean()
        terms |= self.beyond_the_paper(contexts, len(batch.index), clock)

        seen = {"z": contexts[0].detach(), "prediction": predictions[0].detach(), "target": targets[0]}
        return terms, seen | {"context_index": every[0].context, "target_index": every[0].targets}


def shortfall(prediction: Tensor) -> Tensor:
    """How much the spread of predictions (B, Kt, D) over the tokens of a clip falls short of 1, mean over features."""
    return (1.0 - (prediction.float().var(1) + 1e-4).sqrt()).clamp_min(0).mean()
