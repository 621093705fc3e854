"""What a plan costs: a model's imagined future, judged by one or more terms.

    cost = ModelCost(model, z, [LatentGoal(z_goal, over="sum"), Effort(weight=0.01)])
    cost(actions)        # (B, S), for actions (B, S, H, A)

The model is rolled out once for all terms. Nothing here knows a simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from openjepa.config import Config
from openjepa.core.quasimetric import quasimetric
from openjepa.core.rollout import rollout
from openjepa.core.types import Dynamics
from openjepa.nn.reach import ReachHead
from openjepa.plan.base import Cost
from openjepa.plan.reach import ReachConfig

Over = Literal["last", "sum"]
Distance = Literal["mse", "l1", "l2", "cosine"]
PART, PART_CPU = 256 * 2**20, 4 * 2**20


class CostConfig(Config):
    """How the future is compared with the goal.

    goal      "latent": distance to the goal's z; "state": to what a linear probe reads from the goal's z, each variable
              over its spread; "steps": a learned count of steps to the goal, the negative of a value
    distance  "mse" and "l1": means over all features; "l2": Euclidean length; "cosine": 1 - cosine, mean over tokens
    over      "last": the last step counts; "sum": all steps, so that arriving early and staying pays
    effort    weight of the squared size of the actions, summed over time
    doubt     weight of what an ensemble disagrees about, summed over time
    leap      weight of imagined steps that the count takes for more than one (`goal` "steps" only): against plans
              through walls in which the model only half believes
    reach     how the count of steps is learned, where `goal` is "steps"
    """

    goal: Literal["latent", "state", "steps"] = "latent"
    distance: Distance = "mse"
    over: Over = "last"
    effort: float = Field(0.0, ge=0)
    doubt: float = Field(0.0, ge=0)
    leap: float = Field(0.0, ge=0)
    reach: ReachConfig = ReachConfig()

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if self.leap and self.goal != "steps":
            raise ValueError(
                f"leap must be 0 where no steps are counted, got {self.leap} for goal {self.goal!r}. "
                "Do cost.leap=0, or cost.goal=steps."
            )
        return self


@dataclass(frozen=True, eq=False)
class Imagined:
    """A part of the candidates: episodes `rows` of the batch, b of them, and s candidates of each."""

    z: Tensor  # (b, s, H, ...) latents after each action
    actions: Tensor  # (b, s, H, A)
    start: Tensor  # (b, ...) latents before the first
    rows: slice
    embedded: dict[ReachHead, Tensor] = field(default_factory=dict)

    def embed(self, head: ReachHead) -> Tensor:
        """(b, s, H, G, L): all of z, embedded once for every term that asks, as that costs as much as imagining it."""
        if head not in self.embedded:
            self.embedded[head] = head.embed(self.z)
        return self.embedded[head]


class Term(Protocol):
    """A judgement (b, s) of a part of the candidates; `weight` times it enters the cost."""

    @property
    def weight(self) -> float: ...
    def __call__(self, seen: Imagined) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LatentGoal:
    """Distance to the latent of a goal, `goal` (B, D) or (B, N, D)."""

    goal: Tensor
    distance: Distance = "mse"
    over: Over = "last"
    weight: float = 1.0

    def __call__(self, seen: Imagined) -> Tensor:
        z = seen.z[:, :, -1:] if self.over == "last" else seen.z  # (b, s, 1 or H, ...)
        return apart(z, self.goal[seen.rows][:, None, None], self.distance).sum(2)


@dataclass(frozen=True, eq=False)
class StateGoal:
    """Squared distance, in physical units, between what `probe` reads from the latents and `goal` (B, P).

    probe  latents (..., D) or (..., N, D) -> (..., P); scale: (P,) by which each variable is divided, 0 leaves it out
    """

    probe: Callable[[Tensor], Tensor]
    goal: Tensor
    over: Over = "last"
    scale: Tensor | None = None
    weight: float = 1.0

    def __call__(self, seen: Imagined) -> Tensor:
        z = seen.z[:, :, -1:] if self.over == "last" else seen.z
        away = self.probe(z) - self.goal[seen.rows][:, None, None]  # (b, s, 1 or H, P)
        if self.scale is not None:
            away = torch.where(self.scale > 0, away / self.scale.clamp_min(1e-12), 0.0)
        return away.square().sum(-1).sum(2)


@dataclass(frozen=True, eq=False)
class Learned:
    """A head that gives one number per latent: a cost, or with a negative weight a value. With `goal`: head(z, goal).

    head  (..., D) [, (..., D)] -> (...)
    """

    head: Callable[..., Tensor]
    goal: Tensor | None = None
    over: Over = "last"
    weight: float = 1.0

    def __call__(self, seen: Imagined) -> Tensor:
        z = seen.z[:, :, -1:] if self.over == "last" else seen.z
        if self.goal is None:
            return self.head(z).sum(2)
        return self.head(z, self.goal[seen.rows][:, None, None].expand_as(z)).sum(2)


class StepsGoal:
    """Steps to a goal (B, D) or (B, N, D) that `head` counts, see `openjepa.plan.reach`; the goal is embedded once."""

    def __init__(self, head: ReachHead, goal: Tensor, over: Over = "last", weight: float = 1.0) -> None:
        self.head, self.over, self.weight = head, over, weight
        self.there = head.embed(goal)  # (B, G, L)

    def __call__(self, seen: Imagined) -> Tensor:
        here = self.head.embed(seen.z[:, :, -1:]) if self.over == "last" else seen.embed(self.head)
        return quasimetric(here, self.there[seen.rows][:, None, None]).sum(2)  # (b, s, 1 or H) -> (b, s)


class Leap:
    """What steps of the plan cover beyond one step of the data: sum over t of max(0, d(z_t, z_t+1) - 1 - slack).

    d is the count of `head`, which holds steps of the data at one, up to `slack`, and obeys the triangle inequality: a
    plan that comes nearer than its steps allow must have a step that counts for many, wherever the model is wrong.
    """

    def __init__(self, head: ReachHead, slack: float, weight: float = 1.0) -> None:
        self.head, self.limit, self.weight = head, 1 + slack, weight

    def __call__(self, seen: Imagined) -> Tensor:
        after = seen.embed(self.head)  # (b, s, H, G, L)
        start = self.head.embed(seen.start)[:, None, None].expand_as(after[:, :, :1])
        before = torch.cat([start, after[:, :, :-1]], 2)
        return (quasimetric(before, after) - self.limit).clamp_min(0).sum(2)


@dataclass(frozen=True, eq=False)
class Disagreement:
    """How much an ensemble disagrees about the future: variance over members, mean over features, sum over time.

    others  models with the same latent space as the one that is planned with; that one is a member too
    """

    others: Sequence[Dynamics]
    weight: float = 1.0

    def __call__(self, seen: Imagined) -> Tensor:
        b, s = seen.actions.shape[:2]
        start, actions = side_by_side(seen.start, s), seen.actions.flatten(0, 1)
        futures = [rollout(m, start, actions).unflatten(0, (b, s)) for m in self.others]
        spread = torch.stack([seen.z, *futures]).var(0, correction=0)  # (b, s, H, ...)
        return spread.flatten(3).mean(-1).sum(2)


@dataclass(frozen=True, eq=False)
class Effort:
    """Squared size of the actions relative to `rest` (A,), mean over numbers, summed over time."""

    rest: Tensor | None = None
    weight: float = 1.0

    def __call__(self, seen: Imagined) -> Tensor:
        away = seen.actions if self.rest is None else seen.actions - self.rest
        return away.square().mean(-1).sum(2)


@dataclass(frozen=True, eq=False)
class ModelCost:
    """Sum over terms of weight * term of the future that `model` imagines from `z` (B, ...).

    max_bytes  futures are imagined in parts of about this size (by default `PART`, or `PART_CPU` on a CPU, where what
               does not fit its caches costs twice the time); z is expanded over candidates within a part only, and
               not copied at all where a part holds one episode

    >>> class Walk:
    ...     def encode(self, obs): return obs
    ...     def step(self, z, action): return z + action
    >>> goal = LatentGoal(torch.ones(2, 1), over="sum")
    >>> ModelCost(Walk(), torch.zeros(2, 1), [goal])(torch.full((2, 3, 2, 1), 0.5))[0].tolist()
    [0.25, 0.25, 0.25]
    """

    model: Dynamics
    z: Tensor
    terms: Sequence[Term]
    max_bytes: int | None = None

    def __call__(self, actions: Tensor) -> Tensor:
        if actions.dim() != 4 or actions.shape[0] != self.z.shape[0]:
            raise ValueError(f"actions must be (B = {self.z.shape[0]}, S, H, A), got {tuple(actions.shape)}.")
        out = []
        for rows, columns in self.parts(actions):
            start, some = self.z[rows], actions[rows, columns]  # (b, ...), (b, s, H, A)
            b, s = some.shape[:2]
            z = rollout(self.model, side_by_side(start, s), some.flatten(0, 1)).unflatten(0, (b, s))  # (b, s, H, ...)
            seen = Imagined(z, some, start, rows)
            costs = [term(seen) if term.weight == 1 else term.weight * term(seen) for term in self.terms]
            out.append(torch.stack(costs).sum(0) if len(costs) > 1 else costs[0])
        if len(out) == 1:
            return out[0]
        return torch.cat([x.flatten() for x in out]).view(actions.shape[:2])

    def parts(self, actions: Tensor) -> Iterator[tuple[slice, slice]]:
        """Episodes and candidates of each part, in order: whole episodes if they fit, else candidates of one."""
        batch, samples, horizon = actions.shape[:3]
        row = 4 * (horizon + 1) * self.z[0].numel() * self.z.element_size()  # futures, and what is made of them
        fit = max(1, (self.max_bytes or (PART_CPU if self.z.device.type == "cpu" else PART)) // row)
        if fit >= samples:
            many = fit // samples
            for i in range(0, batch, many):
                yield slice(i, i + many), slice(None)
        else:
            for i in range(batch):
                for j in range(0, samples, fit):
                    yield slice(i, i + 1), slice(j, j + fit)


def together(*costs: Cost) -> Cost:
    """The sum of whole costs, each with a model of its own.

    >>> together(lambda a: a.sum((2, 3)), lambda a: 0 * a.sum((2, 3)) + 1)(torch.ones(1, 1, 2, 1)).item()
    3.0
    """

    def total(actions: Tensor) -> Tensor:
        parts = [cost(actions) for cost in costs]
        return torch.stack(parts).sum(0)

    return total


def apart(z: Tensor, goal: Tensor, distance: Distance) -> Tensor:
    """Distance between latents (b, s, H, ...) and goals (b, 1, 1, ...), (b, s, H)."""
    if distance == "cosine":
        far = 1 - F.cosine_similarity(z, goal.expand_as(z), dim=-1)
        return far if far.dim() == 3 else far.flatten(3).mean(-1)
    away = (z - goal).flatten(3)
    if distance == "mse":
        return away.square().mean(-1)
    if distance == "l1":
        return away.abs().mean(-1)
    if distance == "l2":
        return away.square().sum(-1).clamp_min(1e-12).sqrt()  # a gradient at zero distance
    raise ValueError(f"distance must be mse, l1, l2 or cosine, got {distance!r}.")


def side_by_side(z: Tensor, samples: int) -> Tensor:
    """(b, ...) -> (b * samples, ...): a view where b is 1."""
    return z[:, None].expand(-1, samples, *z.shape[1:]).flatten(0, 1)
