"""The whole contract of a method: four members."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from openjepa.config import Config
from openjepa.core.types import Clock, Seen, Terms


class Method(nn.Module, ABC):
    """An objective and the networks it trains.

    eats        "pictures" (then `cfg.views` says which views); "clips" (then `cfg.views` is a tuple of `ClipView`, and
                the method is built as `M(cfg, size=, channels=)`); or "windows" of episodes (then `cfg.window`, how
                they are cut, and the method is built as `M(cfg, space=Space(...))`)
    weights     loss term -> weight; `losses` must return exactly these names
    losses      one batch -> (unweighted terms, what was seen); the optimiser minimises sum of weights * terms
    encode      observation -> frozen features, (B, N, D) tokens: for probes, planners, export and the playground;
                on windows one observation, (B, S) or (B, C, H, W), -> z, (B, D) or (B, N, D)
    after_step  called after every optimiser step (a teacher follows here); nothing by default
    stages      shares of the run at which other parameters begin to learn alone, such as (0.6,) for two stages; the
                schedule of the rate begins anew with each. None by default

    Each child module (`encoder`, `predictor`, `teacher`, `projector` ...) is saved in a file of its own name.
    Counters and statistics that must survive a resume are buffers.
    """

    Config: ClassVar[type[Config]]
    eats: ClassVar[Literal["pictures", "clips", "windows"]] = "pictures"
    weights: dict[str, float]
    stages: tuple[float, ...] = ()
    cfg: Any

    @abstractmethod
    def losses(self, batch: Any, clock: Clock) -> tuple[Terms, Seen]: ...

    @abstractmethod
    def encode(self, obs: Tensor) -> Tensor: ...

    def after_step(self, clock: Clock) -> None:
        return None

    def forward(self, batch: Any, clock: Clock) -> tuple[Terms, Seen]:
        """`losses`, so that wrappers which intercept `forward` (DDP, FSDP, compile) see the step."""
        return self.losses(batch, clock)


def total(terms: Terms, weights: dict[str, float]) -> Tensor:
    """sum of weights * terms; a missing or extra name raises."""
    if terms.keys() != weights.keys():
        raise ValueError(
            f"loss terms must be {sorted(weights)}, got {sorted(terms)}. Give every term one weight, and no other."
        )
    parts = [w * terms[name] for name, w in weights.items()]
    return sum(parts[1:], parts[0])
