"""A model with its scales: from what a world shows to what a model sees, and from planned actions back to real ones.

Models see normalised values only; planners search in normalised actions within normalised bounds. With `skip` > 1 a
planned action holds that many world actions, side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from openjepa.core.types import Dynamics
from openjepa.data.episodes.scale import Scale
from openjepa.nn.reach import ReachHead
from openjepa.plan.base import Bounds
from openjepa.plan.cost import CostConfig, Disagreement, Effort, LatentGoal, Leap, ModelCost, StateGoal, StepsGoal, Term
from openjepa.plan.simulator import Simulator, WorldGoal
from openjepa.worlds.base import World


@dataclass(frozen=True)
class Scales:
    """How values of the world become values of the model, and planned actions become those of the world.

    scale      mean and standard deviation of observations and of one world action, as trained with
    low, high  (a,) bounds of one world action, in its own units
    norm       largest length of one world action, None for no such bound
    skip       world actions in one planned action
    """

    scale: Scale
    low: np.ndarray
    high: np.ndarray
    norm: float | None = None
    skip: int = 1

    @classmethod
    def of(cls, preprocess: Mapping[str, Any], world: World, *, skip: int = 1, norm: float | None = None) -> Scales:
        """From the `preprocess` group of a world model's checkpoint, and the bounds of the world it is to act in."""
        try:
            scale = Scale.from_dict(preprocess)
        except KeyError as e:
            raise ValueError(
                f"preprocess must hold the scales of a world model, got no {e}. Train it on episodes."
            ) from None
        numbers = len(scale.obs_mean), len(scale.action_mean), scale.discrete
        shown = world.obs[-1] if len(world.obs) == 3 else world.obs[0]
        if numbers != (shown, world.action, world.discrete):
            raise ValueError(
                f"{world.name} must show and take what the model was trained on, got {shown} numbers or channels, "
                f"{world.action} per action and {world.discrete} choices for {numbers}."
            )
        return cls(scale, np.asarray(world.low, float), np.asarray(world.high, float), norm, skip)

    @classmethod
    def of_world(cls, world: World, *, skip: int = 1, norm: float | None = None) -> Scales:
        """For use without a model: observations as they are; actions such that uniform ones have spread 1."""
        shown = world.obs[-1] if len(world.obs) == 3 else world.obs[0]
        low, high = np.asarray(world.low, float), np.asarray(world.high, float)
        wide = np.isfinite(high - low)
        middle, half = np.where(wide, (low + high) / 2, 0.0), np.where(wide, (high - low) / 2, 1.0)
        std = np.where(half > 0, half, 1.0) / 3**0.5
        if world.discrete is not None:
            middle, std = np.zeros(world.action), np.ones(world.action)
        scale = Scale((0.0,) * shown, (1.0,) * shown, tuple(middle.tolist()), tuple(std.tolist()), world.discrete)
        return cls(scale, low, high, norm, skip)

    def see(self, obs: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """Observations (n, S), or pictures (n, H, W, C) uint8, as the model wants them: (n, S) or (n, C, H, W)."""
        x = torch.from_numpy(np.ascontiguousarray(obs)).to(device)
        return self.scale.observation(x.permute(0, 3, 1, 2) if x.dim() == 4 else x)

    def bounds(self) -> Bounds:
        """Of a planned action, in the model's units; `ValueError` where nobody acts."""
        if not len(self.low):
            raise ValueError(
                "actions must be of one number at least to plan, got none: nobody acts in this world. "
                "Train on one that can be acted in, such as pendulum with world.torque=15."
            )
        choices = self.scale.discrete
        if choices is not None:
            size = self.skip * choices
            return Bounds.box([0.0] * size, [1.0] * size, choices=choices, parts=self.skip)
        mean, std, low, high = (
            torch.tensor(np.asarray(x), dtype=torch.float32).repeat(self.skip)
            for x in (self.scale.action_mean, self.scale.action_std, self.low, self.high)
        )
        return Bounds((low - mean) / std, (high - mean) / std, self.norm, mean, std, self.skip)

    def unscale(self, planned: Tensor) -> np.ndarray:
        """Planned actions (..., A) as world actions (..., skip, a), inside the world's bounds to the last digit."""
        actions = self.scale.world_action(planned.detach().cpu().double()).numpy()  # (..., skip, a)
        return actions if self.scale.discrete is not None else np.clip(actions, self.low, self.high)


@dataclass(frozen=True)
class Heads:
    """What costs beside the distance in z are computed with, fitted on frozen z.

    state    latents (..., D) or (..., N, D) -> (..., P), variables of which each gap of 1 counts alike
    steps    counts the steps from z to the z of a goal
    members  models that share the planner's latents, whose disagreement is doubt
    """

    state: Callable[[Tensor], Tensor] | None = None
    steps: ReachHead | None = None
    members: Sequence[Dynamics] = ()


class Agent(Protocol):
    """What `receding.MPC` needs: something that looks, and turns a goal into a cost.

    sees  "obs": it is shown observations only; "state": it is the ceiling and is shown states
    """

    sees: Literal["obs", "state"]
    scales: Scales
    device: torch.device

    def think(self, seen: np.ndarray) -> Tensor: ...  # (n, ...) of the world -> (n, ...) latents
    def cost(self, now: Tensor, goal: Tensor) -> ModelCost: ...  # latents now and wanted -> the planner's cost


class LatentAgent:
    """A world model and its scales. Its cost knows the model, two latents, and nothing else.

    heads      what `cost.goal` other than "latent", and `cost.doubt`, need
    max_bytes  see `ModelCost`
    """

    sees: Literal["obs", "state"] = "obs"

    def __init__(
        self,
        model: Dynamics,
        scales: Scales,
        cost: CostConfig | None = None,
        *,
        heads: Heads | None = None,
        device: torch.device | str = "cpu",
        max_bytes: int | None = None,
    ) -> None:
        if isinstance(model, Simulator | World):
            raise TypeError("model must be a learned model, got a simulator: that is the ceiling, see SimulatorAgent.")
        if not isinstance(model, Dynamics):
            raise ValueError(f"model must have encode and step, got {type(model).__name__}.")
        if isinstance(model, nn.Module):
            model.to(device).eval()
        self.model, self.scales, self.how = model, scales, cost or CostConfig()
        self.device, self.max_bytes, self.heads = torch.device(device), max_bytes, heads or Heads()
        needs = {"latent": True, "state": self.heads.state, "steps": self.heads.steps}
        if not needs[self.how.goal] or (self.how.doubt and len(self.heads.members) < 2):
            raise ValueError(f"heads must hold what the cost needs, got {self.heads} for {self.how!r}.")

    @torch.no_grad()
    def think(self, seen: np.ndarray) -> Tensor:
        parts = [self.scales.see(seen[i : i + 256], self.device) for i in range(0, len(seen), 256)]
        return torch.cat([self.model.encode(x) for x in parts])

    def cost(self, now: Tensor, goal: Tensor) -> ModelCost:
        terms = [self.goal_term(goal)]
        if self.how.leap and self.heads.steps is not None:
            terms.append(Leap(self.heads.steps, self.how.reach.slack, weight=self.how.leap))
        if self.how.doubt:
            terms.append(Disagreement(self.heads.members, weight=self.how.doubt))
        if self.how.effort:
            rest = self.scales.bounds().still.to(self.device)
            terms.append(Effort(rest, weight=self.how.effort))
        return ModelCost(self.model, now, terms, self.max_bytes)

    @torch.no_grad()
    def goal_term(self, goal: Tensor) -> Term:
        if self.heads.state is not None and self.how.goal == "state":
            return StateGoal(self.heads.state, self.heads.state(goal), self.how.over)
        if self.heads.steps is not None and self.how.goal == "steps":
            return StepsGoal(self.heads.steps, goal, self.how.over)
        return LatentGoal(goal, self.how.distance, self.how.over)


class SimulatorAgent:
    """The ceiling: the true world as the model, exact states, its own distance as the cost, the same search."""

    sees: Literal["obs", "state"] = "state"

    def __init__(self, world: World, scales: Scales, cost: CostConfig | None = None) -> None:
        self.world, self.scales, self.how = world, scales, cost or CostConfig()
        self.model, self.device = Simulator(world, scales.unscale), torch.device("cpu")

    def think(self, seen: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(seen), dtype=torch.float64)

    def cost(self, now: Tensor, goal: Tensor) -> ModelCost:
        return ModelCost(self.model, now, [WorldGoal(self.world, goal, self.how.over)])
