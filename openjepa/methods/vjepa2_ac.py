"""V-JEPA 2-AC: frame-causal prediction over action, state and patch tokens of a frozen encoder, forced and rolled."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from openjepa.config import Config, Window
from openjepa.core.compare import l1, whiten_tokens
from openjepa.core.types import Clock, Seen, Space, Terms, Windows
from openjepa.methods.frozen import OnFrozen, frozen_encoder
from openjepa.nn import BatchNorm, EncoderConfig
from openjepa.nn.ac_predictor import ACPredictor


class VJEPA2ACConfig(Config):
    """As published, by default: a predictor of 24 layers of 1024 with 16 heads, 8 frames, rolled out two steps.

    `encoder` and `checkpoint` as in DINO-WM: the frozen network, and where its weights lie; with `clips` it is one of
    clips, as published (V-JEPA 2's own, or a run of method `vjepa`): each frame is repeated to fill a tubelet.

    `state` gives the window's state (end effector pose, say) to the predictor as a token; the published recipe always
    does. `state_drop` hides it in that share of the windows, so that the model can also plan where nobody tells it the
    state.
    """

    name: Literal["vjepa2_ac"] = "vjepa2_ac"
    window: Window = Window(steps=8)
    encoder: EncoderConfig = EncoderConfig(name="vit_giant/16", pos="rope-tiled", heads=22)
    clips: bool = Field(True, description="the encoder is one of clips; false: of pictures")
    checkpoint: str | None = None
    width: int = Field(1024, ge=6)
    depth: int = Field(24, ge=1)
    heads: int = Field(16, ge=1)
    state: bool = True
    state_drop: float = Field(0.0, ge=0, le=1)
    rollout: int = Field(2, ge=2, description="steps of the rolled-out term")
    rollout_weight: float = Field(1.0, ge=0, description="0: teacher forcing alone")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.window.steps <= self.rollout:
            raise ValueError(
                f"window must hold more than rollout = {self.rollout} observations, got {self.window.steps}. "
                f"Set window.steps={self.rollout + 1} or more."
            )
        return self


class VJEPA2AC(OnFrozen):
    """frozen patches, normed -> frame-causal predictor under actions and states -> L1, teacher-forced and rolled out.

        forced = mean |pred(z_0..t, a_0..t, s_0..t) - z_{t+1}|  over t = 0 .. T - 2
        rolled = mean |z_hat_k - z_k|  over k = 1 .. rollout, each from z_0, the predictions before it and true states

    z is the patch tokens of one frame, each layer-normed without weights, (B, N, D); predictions are normed alike.

    The observed `state` is an input of this method, with the time's frame; it is standardised by running statistics
    (the published one is given in metres and radians as it is) and a missing one is its mean. `step` and `unroll` take
    it where it is known: the state of each frame, for a planner that knows how actions move it.

    Source: arXiv 2506.09985. Differences: actions are standardised by the stream and states by running statistics; the
    rotary pairs of the predictor are whole angles, without the published slip, so its published weights do not fit
    (`openjepa.load` opens those).
    """

    Config = VJEPA2ACConfig
    cfg: VJEPA2ACConfig

    def __init__(self, cfg: VJEPA2ACConfig, *, space: Space, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.cfg = cfg
        self.weights = {"forced": 1.0} | ({"rolled": cfg.rollout_weight} if cfg.rollout_weight else {})
        if cfg.state and not space.names:
            raise ValueError("state must be false where the state is unknown, got a space without names of variables.")
        self.states = len(space.names) if cfg.state else 0
        self.obs = space.obs
        self.encoder = frozen_encoder(cfg.encoder, space, module=encoder, checkpoint=cfg.checkpoint, clips=cfg.clips)
        self.scale = BatchNorm(self.states, affine=False) if self.states else None
        self.predictor = ACPredictor(
            self.encoder.dim, self.grid, action=space.action, state=self.states,
            width=cfg.width, depth=cfg.depth, heads=cfg.heads,
        )  # fmt: skip

    def losses(self, batch: Windows, clock: Clock) -> tuple[Terms, Seen]:
        z = self.encode(batch.obs.flatten(0, 1)).unflatten(0, batch.obs.shape[:2])  # (B, T, N, D)
        state = self.standardise(batch.state[:, :-1], clock)
        forced = self.predict(z[:, :-1], batch.action, state)  # (B, T - 1, N, D)

        terms = {"forced": l1(forced, z[:, 1:])}
        if "rolled" in self.weights:
            k = self.cfg.rollout
            future = self.fed_back(z[:, :1], forced[:, :1], batch.action[:, :k], state[:, :k])
            terms["rolled"] = l1(future, z[:, 1 : k + 1])
        return terms, {"z": z[:, :-1].detach(), "prediction": forced.detach(), "target": z[:, 1:].detach()}

    def standardise(self, state: Tensor, clock: Clock | None = None) -> Tensor:
        """States (B, t, P) as the predictor sees them; with a clock, those of a share of the windows are their mean."""
        if self.scale is None:
            return state[..., :0]
        scaled = self.scale(state.flatten(0, 1).float()).unflatten(0, state.shape[:2])
        if clock is not None and self.cfg.state_drop:
            drop = clock.uniform("state_drop", len(state), 1, 1) < self.cfg.state_drop
            scaled = scaled.masked_fill(drop.to(scaled.device), 0.0)
        return scaled

    def encode(self, obs: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), each token layer-normed without weights."""
        return whiten_tokens(self.patches(obs))

    def predict(self, z: Tensor, action: Tensor, state: Tensor) -> Tensor:
        """What follows each of the frames (B, t, N, D), under actions (B, t, A) and standardised states (B, t, P)."""
        return whiten_tokens(self.predictor(z, action, state))

    def fed_back(self, start: Tensor, first: Tensor | None, action: Tensor, state: Tensor) -> Tensor:
        """K predictions from the frames `start` (B, 1, N, D) on; `first` is the first of them where it is known."""
        seen = start if first is None else torch.cat([start, first], 1)
        while seen.shape[1] <= action.shape[1]:
            t = seen.shape[1]
            seen = torch.cat([seen, self.predict(seen, action[:, :t], state[:, :t])[:, -1:]], 1)
        return seen[:, 1:]

    def step(self, z: Tensor, action: Tensor, state: Tensor | None = None) -> Tensor:
        return self.unroll(z, action[:, None], None if state is None else state[:, None])[:, 0]

    def unroll(self, z: Tensor, actions: Tensor, states: Tensor | None = None) -> Tensor:
        """(B, N, D), (B, K, A) -> (B, K, N, D), with all frames since the start in view.

        states  (B, K, P) of the frames that the actions are taken at, in their own units; None: their mean
        """
        known = states is not None and self.scale is not None
        state = self.standardise(states) if known else z.new_zeros(*actions.shape[:2], self.states)  # type: ignore[arg-type]
        return self.fed_back(z[:, None], None, actions, state)
