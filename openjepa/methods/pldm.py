"""PLDM, or VICReg-JEPA: unroll k steps under the actions; variance, covariance, slowness, inverse dynamics shape z."""

from __future__ import annotations

from functools import partial
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from openjepa.config import Config, Window
from openjepa.core.compare import mse
from openjepa.core.motion import by_time, inverse_dynamics, slowness, variance_in_time
from openjepa.core.rollout import recall
from openjepa.core.schedule import stage
from openjepa.core.spread import covariance, sigreg, variance
from openjepa.core.types import Clock, Seen, Space, Terms, Windows
from openjepa.methods.base import Method
from openjepa.nn import EncoderConfig
from openjepa.nn.causal import CausalStep
from openjepa.nn.ensemble import Ensemble, Member
from openjepa.nn.replay import Replay
from openjepa.nn.state import GRUStep, InverseModel, MLPStep
from openjepa.nn.vector import VectorHead, build_observer


class PLDMConfig(Config):
    """Weights beside a prediction term of weight 1; a term of weight 0 is not computed. Defaults: eb_jepa's Two Rooms.

    variance         hinge at std 1 of each feature over all frames of the batch, mean over features
    covariance       off-diagonal covariances squared, mean over the D (D - 1) of them, as in eb_jepa. It is divided by
                     D - 1 before it meets `core.spread.covariance`, which divides by D alone like VICReg and PLDM:
                     a weight w there is w (D - 1) here
    slowness         temporal similarity, mean squared change per step and element
    inverse          inverse dynamics, mean squared error of the normalised action; left out where nobody acts
    variance_time    hinge at std 1 along the time of each window
    sigreg           in place of variance and covariance: set them to 0 and this to 1 or so (published scale,
                     x B); it must outweigh slowness, which pulls z together

    PLDM's own weights are variance 3.98, covariance 6.92 (its scale), slowness 0.742, inverse 1.07 and variance_time
    0.245.

    With `replay` = r > 0 the predictor alone also learns, at each step, from r windows of lately encoded latents for
    every new one, all windows counting alike: many more windows for little more time. `memory` is how many windows
    are kept. With `settle` = s > 0 the encoder stays as it is for the last share s of the run, in which the predictor
    learns on (and the inverse model, which shapes nothing any more), at a rate that begins anew; `replay` begins then,
    and once `memory` is full nothing more is encoded. What both were worth: docs/design/0006-two-rooms.md.

    A window is cut into stretches of `unroll` steps, each predicted from its first frame. `norm` ends the encoder, and
    each step of GRU and transformer, with one and the same layer norm; these need it, a residual MLP does not.
    """

    name: Literal["pldm"] = "pldm"
    window: Window = Window(steps=17)
    encoder: EncoderConfig = EncoderConfig(name="impala")
    pooling: str = Field("flatten", description="flatten, mean, max, cls, or several joined by +")
    dim: int = Field(512, ge=2, description="features of z")
    norm: bool = True
    predictor: Literal["gru", "residual", "mlp", "transformer"] = "gru"
    predictor_width: int = Field(512, ge=1, description="of the hidden layers of an MLP or transformer")
    predictor_layers: int = Field(3, ge=1, description="Linear maps of an MLP, blocks of a transformer")
    history: int = Field(3, ge=1, description="latents that a transformer looks back on")
    members: int = Field(1, ge=1, description="predictors; their disagreement tells where the model knows little")
    unroll: int = Field(8, ge=1, description="steps predicted from one frame; must divide window.steps - 1")
    variance: float = Field(16.0, ge=0)
    covariance: float = Field(8.0, ge=0)
    slowness: float = Field(12.0, ge=0)
    inverse: float = Field(1.0, ge=0)
    inverse_width: int = Field(256, ge=1)
    variance_time: float = Field(0.0, ge=0)
    sigreg: float = Field(0.0, ge=0)
    slices: int = Field(256, ge=1)
    replay: int = Field(0, ge=0, description="windows of kept latents per new one, for the predictor alone")
    memory: int = Field(6144, ge=1, description="windows whose latents are kept for replay")
    settle: float = Field(0.0, ge=0, lt=1, description="last share of the run, for the predictor alone; needs replay")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.window.steps - 1) % self.unroll:
            raise ValueError(
                f"unroll must divide window.steps - 1 = {self.window.steps - 1}, got {self.unroll}. "
                f"Set window.steps={self.unroll * max(1, round((self.window.steps - 1) / self.unroll)) + 1}."
            )
        if self.settle and not self.replay:
            raise ValueError(
                f"settle must be 0 where no latents are kept, got {self.settle} with replay=0. "
                "Do method.replay=5, or method.settle=0."
            )
        return self


class PLDM(Method):
    """encode every frame -> unroll each stretch from its first -> MSE -> variance, covariance, slowness, inverse model.

    The target is the encoder's own output, through which the gradient flows: no teacher, no stop-gradient. Variance and
    covariance are over all B T frames of the batch.

    Source: Sobal et al., arXiv 2502.14819 (PLDM); eb_jepa, arXiv 2602.03604. Differences: several stretches per window
    instead of one, SiLU in the inverse model, and an ensemble on request, each member unrolled on its own.
    """

    Config = PLDMConfig
    cfg: PLDMConfig
    eats = "windows"

    def __init__(self, cfg: PLDMConfig, *, space: Space, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.cfg = cfg
        asked = {
            "predict": 1.0, "variance": cfg.variance, "covariance": cfg.covariance / (cfg.dim - 1),
            "slowness": cfg.slowness, "inverse": cfg.inverse if space.action else 0.0,
            "variance_time": cfg.variance_time, "sigreg": cfg.sigreg, "replay": float(cfg.replay),
        }  # fmt: skip
        self.weights = {name: w for name, w in asked.items() if w}
        self.encoder = build_observer(cfg.encoder, space, encoder=encoder)
        pooling = cfg.pooling if space.pictures else "flatten"
        self.head = VectorHead(self.encoder, dim=cfg.dim, pooling=pooling, norm=cfg.norm)
        self.predictor = Ensemble(partial(one_step, cfg, space.action), cfg.members)
        self.inverse = InverseModel(cfg.dim, space.action, cfg.inverse_width) if "inverse" in self.weights else None
        kept = {"steps": cfg.window.steps, "dim": cfg.dim, "action": space.action}
        self.memory = Replay(cfg.memory, **kept) if cfg.replay else None
        self.stages = (1 - cfg.settle,) if cfg.settle else ()

    def losses(self, batch: Windows, clock: Clock) -> tuple[Terms, Seen]:
        kept = self.kept(clock, len(batch.obs))
        z, action = self.latents(batch, clock, kept)  # (B, T, D), (B, T - 1, A)
        start, target, actions = self.cut(z, action)
        prediction = self.futures(start, actions)  # (E, B n, K, D)

        terms = {"predict": mse(prediction, target.expand_as(prediction))} | self.regularisers(z, action, clock)
        if self.memory is not None:  # who only looks leaves no trace, and sees the batch in its place
            terms["replay"] = self.replayed(self.memory, z, clock, kept) if self.training else terms["predict"]
        return terms, {"z": z.detach(), "prediction": prediction.detach().mean(0), "target": target.detach()}

    def kept(self, clock: Clock, batch: int) -> int | None:
        """Windows that were kept, before this step, since the encoder stays as it is; None while it learns."""
        begin, _ = stage(clock.step, clock.total, self.stages)
        return (clock.step - begin) * batch * clock.world if self.training and begin else None

    def latents(self, batch: Windows, clock: Clock, kept: int | None) -> tuple[Tensor, Tensor]:
        """The batch, encoded in one pass and kept; once the memory is full of settled ones, kept windows instead."""
        if kept is not None:  # as a planner will see them: no batch statistics
            self.encoder.eval()
            self.head.eval()
        if self.memory is not None and kept is not None and kept >= len(self.memory.z):
            return self.drawn(self.memory, len(batch.obs), clock, "settled")
        with torch.set_grad_enabled(torch.is_grad_enabled() and kept is None):
            z = self.encode(batch.obs.flatten(0, 1)).unflatten(0, batch.obs.shape[:2])
        if self.memory is not None and self.training and (kept is not None or not self.stages):
            self.memory.put(z, batch.action)
        return z, batch.action

    def replayed(self, memory: Replay, z: Tensor, clock: Clock, kept: int | None) -> Tensor:
        """The prediction term on latents as they were when they were kept, these among them; none for the encoder."""
        if self.stages and kept is None:
            return z.new_zeros(())  # it begins when the encoder is settled
        start, target, actions = self.cut(*self.drawn(memory, self.cfg.replay * len(z), clock, "replay"))
        prediction = self.futures(start, actions)
        return mse(prediction, target.expand_as(prediction))

    def drawn(self, memory: Replay, n: int, clock: Clock, name: str) -> tuple[Tensor, Tensor]:
        """This process's n of the kept windows that are drawn for all."""
        z, action = memory.draw(n * clock.world, clock.generator(name))
        return z[clock.rank * n :][:n], action[clock.rank * n :][:n]

    def cut(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stretches of K steps: their first latents (B n, D), what follows (B n, K, D), and the actions (B n, K, A)."""
        k = self.cfg.unroll
        later, actions = (x.unflatten(1, (-1, k)).flatten(0, 1) for x in (z[:, 1:], action))
        return z[:, :-1:k].flatten(0, 1), later, actions

    def regularisers(self, z: Tensor, action: Tensor, clock: Clock) -> Terms:
        frames, terms = z.flatten(0, 1), Terms()
        if "variance" in self.weights:
            terms["variance"] = variance(frames)
        if "covariance" in self.weights:
            terms["covariance"] = covariance(frames)
        if "slowness" in self.weights:
            terms["slowness"] = slowness(z)
        if self.inverse is not None:
            terms["inverse"] = inverse_dynamics(self.inverse, z, action)
        if "variance_time" in self.weights:
            terms["variance_time"] = variance_in_time(z)
        if "sigreg" in self.weights:
            g = clock.generator("sigreg")
            terms["sigreg"] = sigreg(by_time(z), directions=self.cfg.slices, generator=g)
        return terms

    def encode(self, obs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, S) -> (B, D)."""
        return self.head(self.encoder(obs))

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        """One step later; the mean of the predictors where there are several."""
        return self.advance(self.predictor, z, action)

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        """(B, D), (B, K, A) -> (B, K, D); where there are several predictors, the mean of their own futures."""
        return self.futures(z, actions).mean(0)

    def futures(self, z: Tensor, actions: Tensor) -> Tensor:
        """What each predictor imagines when fed with its own predictions, (E, B, K, D)."""
        return torch.stack([self.imagine(net, z, actions) for net in self.predictor.members])

    def imagine(self, net: nn.Module, z: Tensor, actions: Tensor) -> Tensor:
        if isinstance(net, CausalStep):
            return recall(lambda past, a: self.head.norm(net.over(past, a)), z, actions, net.history)
        future = []
        for action in actions.unbind(1):
            z = self.advance(net, z, action)
            future.append(z)
        return torch.stack(future, 1)  # (B, K, D)

    def advance(self, net: nn.Module, z: Tensor, action: Tensor) -> Tensor:
        after = net(z, action)
        return self.head.norm(after) if self.cfg.predictor in ("gru", "transformer") else after

    def members(self) -> list[Member]:
        """Each predictor with the shared encoder as a model of its own: what `plan.cost.Disagreement` compares."""
        nets = self.predictor.members
        return [Member(self.encode, partial(self.advance, net), partial(self.imagine, net)) for net in nets]


def one_step(cfg: PLDMConfig, action: int) -> GRUStep | MLPStep | CausalStep:
    """A new predictor of the kind that `cfg` names."""
    if cfg.predictor == "gru":
        return GRUStep(cfg.dim, action)
    if cfg.predictor == "transformer":
        head = min(64, cfg.dim)
        return CausalStep(
            cfg.dim, action, history=cfg.history, depth=cfg.predictor_layers, heads=cfg.dim // head, head_dim=head,
            mlp=cfg.predictor_width,
        )  # fmt: skip
    return MLPStep(
        cfg.dim, action, width=cfg.predictor_width, layers=cfg.predictor_layers, residual=cfg.predictor == "residual"
    )
