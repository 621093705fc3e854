"""State-space JEPA: predict a state's embedding k steps ahead, with some of its variables hidden from the context."""

from __future__ import annotations

from copy import deepcopy
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from openjepa.config import Config, Window
from openjepa.core.compare import mse
from openjepa.core.groups import MaskTable, feature_mask, mask_table, parse_groups
from openjepa.core.motion import by_time, compose, draw_horizon, stretches
from openjepa.core.spread import sigreg, variance
from openjepa.core.teach import ema_
from openjepa.core.types import Clock, Seen, Space, Terms, Windows
from openjepa.methods.base import Method
from openjepa.nn.state import HorizonEmbedding, StateEncoder, StretchEmbedding, mlp

GROUP_KINDS = ("positions", "velocities")  # kinds that need variables of that sort; one, two and all never do


class StateConfig(Config):
    """Latent forward dynamics of a state, with or without actions.

    Every step draws one of `horizons`; the window must reach the longest. `masking` names the kinds of masks:
    positions, velocities, two, one, all, and names of `groups`; by default all five that the variables allow. A share
    `mask_share` of the observations gets one; the others are seen whole, as a planner sees them. `groups` maps a name
    to variables; positions and velocities are otherwise read off the names of the variables.

    Switches for ablations: `residual=false` predicts z itself instead of its change, `prior=false` drops the default
    change, `mask_share=0` hides nothing, `teacher=none` takes the encoder's own output as target without stopping the
    gradient (then `sigreg` or `variance` must keep it from collapsing), `horizons` with one entry.
    """

    name: Literal["state"] = "state"
    window: Window = Window(steps=11)
    horizons: tuple[int, ...] = (1, 2, 4, 8, 10)
    horizon_embedding: Literal["linear", "sinusoidal", "table"] = "linear"
    horizon_dim: int = Field(4, ge=1)
    dim: int = Field(64, ge=1, description="features of z")
    width: int = Field(128, ge=1, description="of the hidden layers of encoder and predictor")
    depth: int = Field(2, ge=1, description="hidden layers of encoder and predictor")
    prior_width: int = Field(16, ge=1, description="of the one hidden layer of the prior")
    residual: bool = True
    prior: bool = True
    masking: tuple[str, ...] | None = None
    mask_share: float = Field(0.5, ge=0, le=1)
    groups: dict[str, tuple[str, ...]] | None = None
    fill: Literal["token", "zero"] = "token"
    indicator: bool = Field(True, description="tell the encoder which variables are hidden")
    teacher: Literal["ema", "none"] = "ema"
    ema: float = Field(0.995, ge=0, le=1)
    variance: float = Field(1.0, ge=0, description="weight; hinge at std 1")
    sigreg: float = Field(0.0, ge=0, description="weight at the published scale (x B), per time step")
    slices: int = Field(256, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.horizons or min(self.horizons) < 1:
            raise ValueError(f"horizons must be steps of at least 1, got {self.horizons}. Write for example [1, 2, 4].")
        if self.window.steps <= max(self.horizons):
            raise ValueError(
                f"window must reach the longest horizon, {max(self.horizons)} steps, got {self.window.steps} "
                f"observations. Set window.steps={max(self.horizons) + 1} or more."
            )
        return self


class StateJEPA(Method):
    """hide variables -> encode -> z + prior + residual for k steps -> MSE to the teacher's z -> EMA.

        z_hat = z_t + dz_prior(z_t) + dz_residual(z_t, e(k), a_t .. a_{t+k-1})
        loss  = mean over windows, starts t and features of (z_hat - teacher(o_{t+k}))^2

    Each step uses every start t of the windows that has k steps after it. `variance` and `sigreg` are computed per time
    step on the encoder's z of whole observations. With `variance=0` the teacher is the only guard, and not enough: a
    residual prediction is perfect when z stands still, so z shrinks (a test keeps the proof) while linear probes, which
    do not see scale, still read it. Hence the weight of 1.

    `predict` is in units of z, and may rise through a whole run that goes well: the teacher begins at the small z of
    the random start and follows for hundreds of steps, and the hinge lets z grow beyond a standard deviation of 1. What
    the verdict calls unexplained, the share of the target's variance, is what falls. Hidden variables leave a part of
    it for good.
    """

    Config = StateConfig
    cfg: StateConfig
    eats = "windows"

    def __init__(self, cfg: StateConfig, *, space: Space) -> None:
        super().__init__()
        if space.pictures:
            raise ValueError(
                f"observations must be vectors for method state, got pictures {space.obs}. Use pldm, lewm."
            )
        regularisers = {"variance": cfg.variance, "sigreg": cfg.sigreg}
        self.cfg, self.weights = cfg, {"predict": 1.0} | {name: w for name, w in regularisers.items() if w}
        size, longest, layers = space.obs[0], max(cfg.horizons), cfg.depth + 1
        self.masks = masks_of(cfg, space) if cfg.mask_share else None
        fill = cfg.fill if self.masks else "zero"  # a token that is never used would get no gradient
        self.encoder = StateEncoder(
            size, cfg.dim, width=cfg.width, layers=layers, fill=fill, indicator=cfg.indicator and self.masks is not None
        )
        self.horizon = HorizonEmbedding(cfg.horizons, cfg.horizon_embedding, cfg.horizon_dim)
        self.actions = StretchEmbedding(space.action, longest, cfg.width // 4 or 1) if space.action else None
        wide = cfg.dim + cfg.horizon_dim + (self.actions.net.out_features if self.actions else 0)
        self.predictor = mlp(wide, cfg.width, cfg.dim, layers)
        self.prior = mlp(cfg.dim, cfg.prior_width, cfg.dim) if cfg.prior else None
        self.teacher = deepcopy(self.encoder).requires_grad_(False) if cfg.teacher == "ema" else None

    def losses(self, batch: Windows, clock: Clock) -> tuple[Terms, Seen]:
        k = draw_horizon(self.cfg.horizons, clock)
        now, later = batch.obs[:, :-k], batch.obs[:, k:]  # (B, t, S), t starts with k steps after them
        hidden = self.hide(now, clock)

        z = self.encoder(now, hidden)  # (B, t, D)
        prediction = self.predict(z, k, stretches(batch.action, k))
        needed = self.teacher is None or len(self.weights) > 1
        whole = self.encoder(later) if needed else None
        target = self.targets(later) if self.teacher is not None else whole
        assert target is not None

        terms = {"predict": mse(prediction, target)}
        if "variance" in self.weights and whole is not None:
            terms["variance"] = variance(by_time(whole))
        if "sigreg" in self.weights and whole is not None:
            g = clock.generator("sigreg")
            terms["sigreg"] = sigreg(by_time(whole), directions=self.cfg.slices, generator=g)
        seen = {"z": z.detach(), "prediction": prediction.detach(), "target": target.detach()}
        return terms, seen | ({"hidden": hidden} if hidden is not None else {})

    def hide(self, obs: Tensor, clock: Clock) -> Tensor | None:
        """Which variables the context may not see, (B, t, S) bool; None when nothing is ever hidden."""
        if self.masks is None:
            return None
        return feature_mask(self.masks, obs.shape[:-1], clock=clock, share=self.cfg.mask_share).to(obs.device)

    @torch.no_grad()
    def targets(self, obs: Tensor) -> Tensor:
        assert self.teacher is not None
        return self.teacher(obs)

    def predict(self, z: Tensor, k: int, actions: Tensor) -> Tensor:
        """z (..., D) after k steps under actions (..., k, A), in one application of the predictor."""
        parts = [z, self.horizon(k).to(z.dtype).expand(*z.shape[:-1], -1)]
        if self.actions is not None:
            parts.append(self.actions(actions))
        change = self.predictor(torch.cat(parts, -1))
        if self.prior is not None:
            change = change + self.prior(z)
        return z + change if self.cfg.residual else change

    def encode(self, obs: Tensor) -> Tensor:
        """(..., S) -> (..., D), nothing hidden. By the context encoder, whose z the predictor was trained on."""
        return self.encoder(obs)

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        return self.jump(z, 1, action[:, None])

    def jump(self, z: Tensor, k: int, actions: Tensor | None = None) -> Tensor:
        """z (B, D) after k steps: one application where k is a trained horizon, else a chain of them, longest first.

        actions  (B, k, A); None where nobody acts
        """
        if actions is None:
            actions = z.new_zeros(*z.shape[:-1], k, 0)
        if self.actions is not None and actions.shape[-2:] != (k, self.actions.net.in_features // self.actions.longest):
            raise ValueError(f"actions must be ({len(z)}, {k}, A) of a world that acts, got {tuple(actions.shape)}.")
        for part in compose(k, self.cfg.horizons):
            z, actions = self.predict(z, part, actions[..., :part, :]), actions[..., part:, :]
        return z

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        """z (B, D) under actions (B, K, A) -> z 1 .. K steps later, (B, K, D): for each the fewest applications.

        The k-th equals `jump(z, k)`. The chains share their beginnings, so this costs as much as K single steps, while
        an error is fed back k / (longest horizon) times instead of k times.
        """
        seen = [z]
        for k in range(1, actions.shape[1] + 1):
            last = compose(k, self.cfg.horizons)[-1]
            seen.append(self.predict(seen[k - last], last, actions[:, k - last : k]))
        return torch.stack(seen[1:], 1)

    def after_step(self, clock: Clock) -> None:
        if self.teacher is not None:
            ema_(self.teacher.parameters(), self.encoder.parameters(), self.cfg.ema)


def masks_of(cfg: StateConfig, space: Space) -> MaskTable:
    """The masks that may be drawn for the variables of `space`."""
    size = space.obs[0]
    names = space.names if len(space.names) == size else tuple(str(i) for i in range(size))
    groups = parse_groups(names)
    for group, members in (cfg.groups or {}).items():
        unknown = [m for m in members if m not in names]
        if unknown or not members:
            raise ValueError(f"groups.{group} must name variables among {', '.join(names)}, got {list(members)}.")
        groups[group] = tuple(names.index(m) for m in members)
    kinds = cfg.masking
    if kinds is None:
        kinds = (*(g for g in GROUP_KINDS if g in groups), *(["two"] if size > 1 else []), "one", "all")
    return mask_table(kinds, size, groups)
