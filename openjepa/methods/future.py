"""The future from the past: a clip's next tubelets, as its teacher sees them, predicted from those before."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import nn

from openjepa.config import ClipView
from openjepa.core.compare import l1
from openjepa.core.tokens import take
from openjepa.core.tubes import future
from openjepa.core.types import Clips, Clock, Seen, Terms
from openjepa.methods.clips import ClipsConfig, OnClips
from openjepa.nn import EncoderConfig


class FutureConfig(ClipsConfig):
    """`horizon` tubelets are predicted from the `past` ones before them; by default from all that the clip has.

    A tubelet is `encoder.tubelet` frames. In the words of `JEPAConfig`: masking="temporal" with `predict_horizon`
    frames is horizon = predict_horizon / tubelet here, and its temporal encoder on top of single frames is the encoder
    itself, whose blocks see space and time at once. (`JEPAAgent` itself stands on method `masked`, frame by frame.)

    As published V-JEPA found, hiding the future alone teaches less about pictures than tubes do: this is for what comes
    next, not for the best features. Small runs want `sigreg`, as in the presets.
    """

    name: Literal["future"] = "future"
    encoder: EncoderConfig = EncoderConfig(name="vit_small/16", pos="rope")
    views: tuple[ClipView, ...] = (ClipView(frames=16, stride=4),)
    horizon: int = Field(1, ge=1, description="tubelets to predict")
    past: int | None = Field(None, ge=1, description="tubelets seen; by default all before the horizon")
    predictor_depth: int = Field(6, ge=1)
    ema: tuple[float, float] = (0.996, 1.0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for view in self.views:
            tubelets = max(1, view.frames // self.encoder.tubelet)
            if tubelets < self.horizon + (self.past or 1):
                raise ValueError(
                    f"views must have at least {self.horizon + (self.past or 1)} tubelets for past and horizon, got "
                    f"{tubelets} of {view.frames} frames. Take longer clips, or lower horizon or past."
                )
        return self


class Future(OnClips):
    """clips -> encode the first tubelets alone -> predict the next ones -> L1 to the teacher -> the teacher follows.

    The student is given the past only; the teacher sees the whole clip. `seen` holds the prediction by time,
    (B V, horizon, h w, D).
    """

    Config = FutureConfig
    cfg: FutureConfig

    def __init__(self, cfg: FutureConfig, *, size: int, channels: int = 3, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.cfg, self.weights = cfg, {"predict": 1.0}
        self.build(size, channels, encoder, {})

    def losses(self, batch: Clips, clock: Clock) -> tuple[Terms, Seen]:
        clips = self.clips(batch)  # (B V, T, C, H, W)
        grid = self.encoder.grid_of(clips)
        masks = future(grid[0], grid[1:], len(clips), horizon=self.cfg.horizon, past=self.cfg.past).to(clips.device)

        target = take(self.targets(clips), masks.targets)  # (B V, horizon, h w, D)
        z = self.encoder(clips, keep=masks.context)  # (B V, K, D)
        prediction = self.predictor(z, masks.context, masks.targets.flatten(1), grid=grid).view(target.shape)

        terms = {"predict": l1(prediction, target) + self.idle()}
        terms |= self.beyond_the_paper([z], len(batch.index), clock)
        seen = {"z": z.detach(), "prediction": prediction.detach(), "target": target}
        return terms, seen | {"context_index": masks.context, "target_index": masks.targets}
