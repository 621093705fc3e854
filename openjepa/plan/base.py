"""What planners share: bounds, the plan they return, and the careful handling of a cost and of randomness.

A planner sees only `cost(actions) -> (B, S)` for `actions (B, S, H, A)`: B episodes, S candidates, H steps. It knows
neither model nor world. All of them are called alike:

    plan = PLANNERS["cem"].plan(cost, bounds, cfg, generator, init=None)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from openjepa.config import Config

Cost = Callable[[Tensor], Tensor]  # (B, S, H, A) -> (B, S)
Generators = torch.Generator | Sequence[torch.Generator]


@dataclass(frozen=True, eq=False)
class Bounds:
    """Where planned actions may be: a box, and a ball in the world's own units.

    low, high  (A,) box, in the units the planner searches in; infinite where there is none
    norm       largest length of one world action, None for no ball
    mean, std  (A,) world action = mean + std * planned action (0 and 1 by default): the ball is round in the world only
    parts      world actions joined in one planned action, A / parts numbers each; the ball holds for each of them
    choices    number of choices where actions are indices; then A = parts * choices, one-hot

    >>> Bounds.box([-1, -1], [1, 1], norm=1.0).project(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """

    low: Tensor
    high: Tensor
    norm: float | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    parts: int = 1
    choices: int | None = None

    def __post_init__(self) -> None:
        if self.low.dim() != 1 or self.low.shape != self.high.shape or not bool((self.low <= self.high).all()):
            raise ValueError(f"bounds must be two (A,) tensors with low <= high, got {self.low} and {self.high}.")
        if len(self.low) % self.parts:
            raise ValueError(f"parts must divide A = {len(self.low)}, got {self.parts}.")
        if self.norm is not None:
            inside = (self.world(self.low) <= 0).all() & (self.world(self.high) >= 0).all()
            if not self.norm > 0 or not bool(inside):
                raise ValueError(f"norm must be > 0 and the box must hold the world's zero action, got {self.norm}.")

    @classmethod
    def box(
        cls,
        low: Any,
        high: Any,
        *,
        norm: float | None = None,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        parts: int = 1,
        choices: int | None = None,
    ) -> Bounds:
        """From anything that becomes a float32 tensor."""
        low, high = (torch.as_tensor(x, dtype=torch.float32) for x in (low, high))
        return cls(low, high, norm, mean, std, parts, choices)

    @property
    def still(self) -> Tensor:
        """(A,) the planned action that is the world's zero action. Where zero is not between the bounds (an action that
        is a place to go to, not a push), it is the planned zero: the mean action of the data."""
        zero = torch.zeros_like(self.low)
        if self.mean is not None:
            rest = -self.mean / (1.0 if self.std is None else self.std)
            zero = torch.where((self.low < rest) & (rest < self.high), rest, zero)
        return self.project(zero)

    def world(self, actions: Tensor) -> Tensor:
        """Planned actions in the world's units."""
        scaled = actions if self.std is None else actions * self.std
        return scaled if self.mean is None else scaled + self.mean

    def project(self, actions: Tensor) -> Tensor:
        """Actions (..., A) brought inside: first shortened to the ball, direction kept, then clipped to the box."""
        if self.norm is not None:
            world = self.world(actions).unflatten(-1, (self.parts, -1))  # (..., parts, A / parts)
            length = world.square().sum(-1, keepdim=True).clamp_min(1e-24).sqrt()  # no NaN gradient at rest
            world = (world * (self.norm / length).clamp_max(1.0)).flatten(-2)  # (..., A)
            planned = world if self.mean is None else world - self.mean
            planned = planned if self.std is None else planned / self.std
            # Only what was outside is touched: the way there and back rounds.
            outside = (length > self.norm).expand(*length.shape[:-1], len(self.low) // self.parts).flatten(-2)
            actions = torch.where(outside, planned, actions)
        return actions.clamp(self.low, self.high)

    def to(self, device: torch.device | str) -> Bounds:
        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device)

        return replace(
            self, low=self.low.to(device), high=self.high.to(device), mean=move(self.mean), std=move(self.std)
        )


class Plan(NamedTuple):
    """What a planner returns.

    actions  (B, H, A) inside the bounds
    cost     (B,) of exactly these actions; +inf where no candidate had a finite cost
    info     iterations (int), evaluations (int, candidates judged per episode), nonfinite ((B,) candidates whose cost
             was NaN: they counted as +inf), history ((iterations, B) lowest cost so far)
    memory   (B, E, H, A) the best candidates, for planners that start from them the next time; or None
    """

    actions: Tensor
    cost: Tensor
    info: dict[str, Any]
    memory: Tensor | None = None


class SearchConfig(Config):
    """What every planner is told.

    horizon       steps of the model that a plan holds
    action_block  one action is held for so many steps; the last block may be shorter
    samples       candidates per iteration and episode
    iterations    at most
    std           spread of the first candidates, a standard deviation in the units of the search
    tolerance     stop early when the lowest cost fell by less than this share in `patience` iterations; 0: never
    """

    horizon: int = Field(5, ge=1)
    action_block: int = Field(1, ge=1)
    samples: int = Field(300, ge=1)
    iterations: int = Field(30, ge=1)
    std: float = Field(1.0, gt=0)
    tolerance: float = Field(0.0, ge=0)
    patience: int = Field(3, ge=1)

    @property
    def knots(self) -> int:
        """Actions that are searched for: one per block."""
        return -(-self.horizon // self.action_block)


class Judge:
    """A cost made safe: blocks unrolled, shape checked, NaN turned into +inf and counted, candidates counted."""

    def __init__(self, cost: Cost, cfg: SearchConfig, batch: int) -> None:
        self.cost, self.cfg, self.batch = cost, cfg, batch
        self.evaluations = 0
        self.nonfinite: Tensor | None = None

    def steps(self, knots: Tensor) -> Tensor:
        """(B, S, K, A) -> (B, S, H, A)."""
        block = self.cfg.action_block
        return knots if block == 1 else knots.repeat_interleave(block, -2)[..., : self.cfg.horizon, :]

    def __call__(self, knots: Tensor) -> Tensor:
        """(B, S, K, A) -> (B, S)."""
        found = self.cost(self.steps(knots))
        if found.shape != knots.shape[:2]:
            raise ValueError(f"cost must return {tuple(knots.shape[:2])} (episodes, candidates), got {found.shape}.")
        self.evaluations += knots.shape[1]
        bad = found.isnan()
        count = bad.sum(1)
        self.nonfinite = count if self.nonfinite is None else self.nonfinite + count
        return found.masked_fill(bad, torch.inf)


class Best:
    """The best candidate so far, per episode, and whether it still gets better."""

    def __init__(self, knots: Tensor, cfg: SearchConfig) -> None:
        self.knots, self.cfg = knots, cfg  # (B, K, A): what is returned when nothing was finite
        self.cost = torch.full((knots.shape[0],), torch.inf, dtype=knots.dtype, device=knots.device)
        self.history: list[Tensor] = []
        self.done = torch.zeros(knots.shape[0], dtype=torch.bool, device=knots.device)

    def see(self, knots: Tensor, cost: Tensor, *, log: bool = True) -> None:
        """Candidates (B, S, K, A) with their costs (B, S); episodes that are done are left as they are."""
        low, index = cost.detach().min(1)
        better = (low < self.cost) & ~self.done
        rows = torch.arange(len(low), device=low.device)
        self.knots = torch.where(better[:, None, None], knots.detach()[rows, index], self.knots)
        self.cost = torch.where(better, low.to(self.cost.dtype), self.cost)
        if log:
            self.history.append(self.cost)

    def finished(self, settled: Tensor | None = None) -> bool:
        """Marks the episodes that stopped getting better, and those `settled` (B,); True when all are marked."""
        cfg = self.cfg
        if settled is not None:
            self.done = self.done | settled
        if cfg.tolerance > 0 and len(self.history) > cfg.patience:
            before = self.history[-1 - cfg.patience]
            self.done = self.done | (before.isfinite() & (before - self.cost <= cfg.tolerance * before.abs()))
        elif settled is None:
            return False  # nothing to look at: the device is not waited for
        return bool(self.done.all())


def finish(judge: Judge, best: Best, knots: Tensor, memory: Tensor | None = None) -> Plan:
    """The plan `knots` (B, K, A) judged once more, with the account of the search."""
    with torch.no_grad():
        cost = judge(knots[:, None])[:, 0]
        best.see(knots[:, None], cost[:, None], log=False)
    info = {
        "iterations": len(best.history),
        "evaluations": judge.evaluations,
        "nonfinite": judge.nonfinite,
        "history": torch.stack(best.history),
    }
    kept = None if memory is None else judge.steps(memory)
    return Plan(judge.steps(knots[:, None])[:, 0], cost, info, kept)


def episodes(generator: Generators, init: Plan | Tensor | None, batch: int | None) -> int:
    """B, from whatever tells it; 1 when nothing does."""
    told = {
        "generator": None if isinstance(generator, torch.Generator) else len(generator),
        "init": None if init is None else (init.actions if isinstance(init, Plan) else init).shape[0],
        "batch": batch,
    }
    known = {k: v for k, v in told.items() if v is not None}
    if len(set(known.values())) > 1:
        raise ValueError(f"the number of episodes must be one number, got {known}.")
    return next(iter(known.values()), 1)


def start(init: Plan | Tensor | None, bounds: Bounds, cfg: SearchConfig, batch: int) -> Tensor:
    """(B, K, A) where the search begins: the mean of each block of `init`, else standing still."""
    if init is None:
        return bounds.still.expand(batch, cfg.knots, -1).clone()
    steps = init.actions if isinstance(init, Plan) else init
    if steps.shape != (batch, cfg.horizon, len(bounds.low)):
        want = (batch, cfg.horizon, len(bounds.low))
        raise ValueError(f"init must have shape (B, H, A) = {want}, got {tuple(steps.shape)}.")
    return bounds.project(to_knots(steps.to(bounds.low), cfg))


def to_knots(steps: Tensor, cfg: SearchConfig) -> Tensor:
    """(..., H, A) -> (..., K, A): the mean of each block."""
    if cfg.action_block == 1:
        return steps
    missing = cfg.knots * cfg.action_block - cfg.horizon
    padded = torch.cat([steps, steps[..., -1:, :].expand(*steps.shape[:-2], missing, -1)], -2)
    return padded.unflatten(-2, (cfg.knots, cfg.action_block)).mean(-2)  # (..., K, A)


def normal(generator: Generators, batch: int, *shape: int, like: Tensor) -> Tensor:
    """N(0, 1) of shape (batch, *shape). One generator: one draw for all. One per episode: neighbours do not matter."""
    return _drawn(torch.randn, generator, (batch, *shape), like)


def uniform(generator: Generators, batch: int, *shape: int, like: Tensor) -> Tensor:
    """U[0, 1) of shape (batch, *shape), as `normal`."""
    return _drawn(torch.rand, generator, (batch, *shape), like)


def _drawn(draw: Callable[..., Tensor], generator: Generators, shape: tuple[int, ...], like: Tensor) -> Tensor:
    if isinstance(generator, torch.Generator):
        return draw(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
    rows = [draw(shape[1:], generator=g, device=g.device, dtype=like.dtype) for g in generator]
    return torch.stack(rows).to(like.device)


def shift(plan: Plan, steps: int) -> Plan:
    """The plan as it stands after its first `steps` actions were taken; the last action is repeated to fill it.

    >>> shift(Plan(torch.arange(3.0).view(1, 3, 1), torch.zeros(1), {}), 1).actions.flatten().tolist()
    [1.0, 2.0, 2.0]
    """

    def moved(x: Tensor) -> Tensor:
        k = min(steps, x.shape[-2])
        return torch.cat([x[..., k:, :], x[..., -1:, :].expand(*x.shape[:-2], k, -1)], -2)

    return plan._replace(actions=moved(plan.actions), memory=None if plan.memory is None else moved(plan.memory))


def pick(plan: Plan, rows: Tensor) -> Plan:
    """The episodes `rows` (indices or a mask) of a plan; `info` is left out."""
    return Plan(plan.actions[rows], plan.cost[rows], {}, None if plan.memory is None else plan.memory[rows])
