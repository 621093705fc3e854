"""The true world as a model: what a planner could do if its model were perfect. The ceiling beside every number.

Never part of a result's own planner: `receding.MPC` refuses a simulator unless it is told that this is the ceiling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from openjepa.plan.cost import Imagined, Over
from openjepa.worlds.base import World


class Simulator:
    """`Dynamics` whose latent is the exact state, (n, P) float64.

    world    steps many states at once, by numpy
    unscale  planned actions (n, A) -> world actions (n, skip, a), see `agent.Scales`
    """

    def __init__(self, world: World, unscale: Callable[[Tensor], np.ndarray]) -> None:
        self.world, self.unscale = world, unscale

    def encode(self, obs: Tensor) -> Tensor:
        """States as they are."""
        return obs.double()

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        states = z.cpu().numpy()
        actions = self.unscale(action)
        for i in range(actions.shape[1]):
            states = self.world.step(states, actions[:, i])
        return torch.from_numpy(np.asarray(states, np.float64)).to(z.device)


@dataclass(frozen=True, eq=False)
class WorldGoal:
    """The world's own distance to the goal states (B, P), at the last step or summed over time: a term of a cost.

    Where a world has a `path`, that is its distance: round the walls. The straight one is no ceiling behind them.
    """

    world: World
    goal: Tensor
    over: Over = "sum"
    weight: float = 1.0

    def __call__(self, seen: Imagined) -> Tensor:
        z = seen.z[:, :, -1:] if self.over == "last" else seen.z  # (b, s, 1 or H, P)
        goals = self.goal[seen.rows][:, None, None].expand_as(z).flatten(0, 2)
        measure = getattr(self.world, "path", None) or self.world.distance
        far = measure(z.flatten(0, 2).cpu().numpy(), goals.cpu().numpy())
        return torch.as_tensor(far, dtype=torch.float32).view(z.shape[:3]).sum(2).to(seen.actions.device)
