"""LeWM: a causal predictor steered by actions, end to end from pixels, held up by SIGReg alone."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from openjepa.config import Config, Window
from openjepa.core.compare import mse
from openjepa.core.motion import by_time
from openjepa.core.rollout import recall
from openjepa.core.spread import sigreg
from openjepa.core.types import Clock, Seen, Space, Terms, Windows
from openjepa.methods.base import Method
from openjepa.nn import EncoderConfig, Projector
from openjepa.nn.causal import ActionTransformer
from openjepa.nn.state import ActionEncoder
from openjepa.nn.vector import VectorHead, build_observer


class LeWMConfig(Config):
    """As published, by default: ViT-tiny with patches of 14 on 224 pixels, class token, 18 M parameters in all.

    `pooling` "auto" is the class token where the encoder has one, else all tokens side by side. `sigreg` is the weight
    beside a prediction term of weight 1, at the scale of the paper and of `core.spread.sigreg`: times B, the samples of
    one time step; 0.09 was tuned at B = 128. The window must hold at least one observation more than `history`.
    """

    name: Literal["lewm"] = "lewm"
    window: Window = Window(steps=4, skip=5)
    encoder: EncoderConfig = EncoderConfig(name="vit_tiny/14", cls=True)
    pooling: str = "auto"
    dim: int = Field(192, ge=2, description="features of z")
    projector_hidden: int = Field(2048, ge=1)
    history: int = Field(3, ge=1, description="observations that the predictor looks back on")
    depth: int = Field(6, ge=1)
    heads: int = Field(16, ge=1)
    head_dim: int = Field(64, ge=1)
    mlp: int = Field(2048, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    action_hidden: int = Field(768, ge=1)
    sigreg: float = Field(0.09, ge=0)
    slices: int = Field(1024, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.window.steps <= self.history:
            raise ValueError(
                f"window must hold more than history = {self.history} observations, got {self.window.steps}. "
                f"Set window.steps={self.history + 1}."
            )
        return self


class LeWM(Method):
    """encode and project -> causal predictor under the actions -> MSE to the next z -> SIGReg per time step.

        loss = mean (pred(z_{t-h..t}, a_{t-h..t}) - z_{t+1})^2 + w sigreg(z_t over the batch, averaged over t)

    No teacher and no stop-gradient. A window longer than `history` + 1 is cut into several, which share its z.

    `step` knows one z alone and is a history of one, for which the first position was trained; `unroll` remembers the
    latents and actions since its start, `history` of them. Batch norms make training and evaluation differ: `eval()`
    before dreaming.

    Source: LeWorldModel, github.com/lucas-maes/le-wm. Differences: projectors with ReLU; slices are drawn anew at every
    step from the run's seed.
    """

    Config = LeWMConfig
    cfg: LeWMConfig
    eats = "windows"

    def __init__(self, cfg: LeWMConfig, *, space: Space, encoder: nn.Module | None = None) -> None:
        super().__init__()
        if not space.action:
            raise ValueError("method lewm must have actions to predict under, got a world without. Use pldm or state.")
        self.cfg = cfg
        self.weights = {"predict": 1.0} | ({"sigreg": cfg.sigreg} if cfg.sigreg else {})
        pooling = ("cls" if cfg.encoder.cls and space.pictures else "flatten") if cfg.pooling == "auto" else cfg.pooling
        self.encoder = build_observer(cfg.encoder, space, encoder=encoder)
        self.pool = VectorHead(self.encoder, dim=None, pooling=pooling)
        self.projector = Projector(self.pool.dim, cfg.projector_hidden, cfg.dim, layers=2)
        self.action = ActionEncoder(space.action, cfg.dim, hidden=cfg.action_hidden)
        self.predictor = ActionTransformer(
            cfg.dim, cfg.dim, history=cfg.history, depth=cfg.depth, heads=cfg.heads, head_dim=cfg.head_dim,
            mlp=cfg.mlp, dropout=cfg.dropout,
        )  # fmt: skip
        self.pred_projector = Projector(cfg.dim, cfg.projector_hidden, cfg.dim, layers=2)

    def losses(self, batch: Windows, clock: Clock) -> tuple[Terms, Seen]:
        z = self.encode(batch.obs.flatten(0, 1)).unflatten(0, batch.obs.shape[:2])  # (B, T, D), one pass
        past, target = self.cut(z[:, :-1]), self.cut(z[:, 1:])  # (B n, h, D)
        prediction = self.predict(past, self.cut(self.action(batch.action)))

        terms = {"predict": mse(prediction, target)}
        if "sigreg" in self.weights:
            g = clock.generator("sigreg")
            terms["sigreg"] = sigreg(by_time(z), directions=self.cfg.slices, generator=g)
        return terms, {"z": z.detach(), "prediction": prediction.detach(), "target": target.detach()}

    def cut(self, x: Tensor) -> Tensor:
        """All runs of `history` times in a row, (B, T, ...) -> (B n, history, ...)."""
        return x.unfold(1, self.cfg.history, 1).transpose(2, 3).flatten(0, 1)

    def encode(self, obs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, S) -> (B, D)."""
        return self.projector(self.pool(self.encoder(obs)))

    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        """What follows each of the latents (B, t, D), under action features (B, t, D); t at most `history`."""
        return self.pred_projector(self.predictor(z, action))

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        return self.predict(z[:, None], self.action(action)[:, None])[:, 0]

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        """(B, D), (B, K, A) -> (B, K, D): the own predictions are fed back, with `history` of them in view."""
        return recall(self.predict, z, self.action(actions), self.cfg.history)
