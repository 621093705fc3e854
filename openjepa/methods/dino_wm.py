"""DINO-WM: predict the next frame's patch features of a frozen encoder from a few frames and their actions."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from openjepa.config import Config, Window
from openjepa.core.compare import mse
from openjepa.core.rollout import recall
from openjepa.core.types import Clock, Seen, Space, Terms, Windows
from openjepa.methods.frozen import OnFrozen, frozen_encoder
from openjepa.nn import BatchNorm, EncoderConfig
from openjepa.nn.causal import FrameTransformer


class DinoWMConfig(Config):
    """As published, by default: 14 x 14 patches, three frames of history, the next one predicted.

    `encoder` names the frozen network: pretrained ("timm/...", "hf/..." with `pretrained=true`), or one of ours, whose
    weights come from `checkpoint`, a run or checkpoint folder, or from the run's `init_from`. Without either it stays
    as it was drawn: random features are a fair baseline, not a default to keep.

    `proprio` adds the window's `state` (position of the own body, say), standardised, to every token of its frame; it
    is then predicted along with the picture, and is needed to encode.
    """

    name: Literal["dino_wm"] = "dino_wm"
    window: Window = Window(steps=4, skip=5)
    encoder: EncoderConfig = EncoderConfig(name="vit_small/14")
    checkpoint: str | None = None
    history: int = Field(3, ge=1)
    action_dim: int = Field(10, ge=1, description="features of the action, joined to every token")
    proprio: bool = False
    proprio_dim: int = Field(10, ge=1, description="features of the state, joined to every token")
    depth: int = Field(6, ge=1)
    heads: int = Field(16, ge=1)
    head_dim: int = Field(64, ge=1)
    mlp: int = Field(2048, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.window.steps <= self.history:
            raise ValueError(
                f"window must hold more than history = {self.history} observations, got {self.window.steps}. "
                f"Set window.steps={self.history + 1}."
            )
        return self


class DinoWM(OnFrozen):
    """frozen patches -> join action (and state) features -> frame-causal transformer -> MSE to the next frame's.

    z is (B, N, D), or (B, N, D + proprio_dim) with `proprio`. Each token of frame t is [patch, state features, action
    features] of time t; the output's first features at frame t stand for frame t + 1. With `proprio`, the target's
    state features are detached.

    `step` knows one frame; `unroll` remembers `history` of them. Where nobody acts there are no action features.

    Source: Zhou et al., arXiv 2411.04983. The encoder sees pictures as the stream normalises them.
    """

    Config = DinoWMConfig
    cfg: DinoWMConfig

    def __init__(self, cfg: DinoWMConfig, *, space: Space, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.cfg, self.weights = cfg, {"predict": 1.0}
        self.obs = space.obs
        self.encoder = frozen_encoder(cfg.encoder, space, module=encoder, checkpoint=cfg.checkpoint)
        tokens = self.grid[0] * self.grid[1]
        if cfg.proprio and not space.names:
            raise ValueError(
                "proprio must be false where the state is unknown, got a space without names of variables."
            )
        self.action = nn.Linear(space.action, cfg.action_dim) if space.action else None
        self.scale = BatchNorm(len(space.names), affine=False) if cfg.proprio else None
        self.proprio = nn.Linear(len(space.names), cfg.proprio_dim) if cfg.proprio else None
        self.dim = self.encoder.dim + (cfg.proprio_dim if cfg.proprio else 0)
        self.predictor = FrameTransformer(
            self.dim + (cfg.action_dim if self.action else 0), tokens, history=cfg.history,
            depth=cfg.depth, heads=cfg.heads, head_dim=cfg.head_dim, mlp=cfg.mlp, dropout=cfg.dropout,
        )  # fmt: skip

    def losses(self, batch: Windows, clock: Clock) -> tuple[Terms, Seen]:
        b, t = batch.obs.shape[:2]
        state = batch.state.flatten(0, 1) if self.cfg.proprio else None
        z = self.encode(batch.obs.flatten(0, 1), state).unflatten(0, (b, t))  # (B, T, N, D)
        past, target = self.cut(z[:, :-1]), self.cut(z[:, 1:]).detach()  # (B n, h, N, D)
        prediction = self.predict(past, self.cut(batch.action))
        seen = {"z": z[:, :-1].detach(), "prediction": prediction.detach(), "target": target}
        return {"predict": mse(prediction, target)}, seen

    def cut(self, x: Tensor) -> Tensor:
        """All runs of `history` times in a row, (B, T, ...) -> (B n, history, ...)."""
        return x.unfold(1, self.cfg.history, 1).movedim(-1, 2).flatten(0, 1)

    def encode(self, obs: Tensor, state: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and with `proprio` (B, P), -> (B, N, D)."""
        z = self.patches(obs)
        if self.proprio is None or self.scale is None:
            return z
        if state is None:
            raise ValueError("state must be given to a model with proprio=true, got none. Give it, or train without.")
        extra = self.proprio(self.scale(state.to(z.dtype)))
        return torch.cat([z, extra[:, None].expand(-1, z.shape[1], -1)], -1)

    def predict(self, z: Tensor, action: Tensor) -> Tensor:
        """What follows each of the frames (B, t, N, D) under actions (B, t, A); t at most `history`."""
        if self.action is not None:
            tiled = self.action(action)[:, :, None].expand(-1, -1, z.shape[2], -1)
            z = torch.cat([z, tiled], -1)  # (B, t, N, D + E)
        return self.predictor(z)[..., : self.dim]

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        return self.predict(z[:, None], action[:, None])[:, 0]

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        """(B, N, D), (B, K, A) -> (B, K, N, D): the own predictions are fed back, with `history` of them in view."""
        return recall(self.predict, z, actions, self.cfg.history)
