"""torchrl's CEM on a problem of ours; imported only where torchrl is installed."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.data import Composite, Unbounded
from torchrl.envs.model_based import ModelBasedEnvBase
from torchrl.modules import CEMPlanner

from tests.plan.problems import LinearQuadratic


class Env(ModelBasedEnvBase):
    """The model as torchrl wants it: state and action in, next state and reward = -cost out."""

    def __init__(self, problem: LinearQuadratic) -> None:
        super().__init__(world_model=torch.nn.Identity(), batch_size=[])
        self.problem = problem
        self.observation_spec = Composite(x=Unbounded((4,)))
        self.state_spec = Composite(x=Unbounded((4,)))
        self.action_spec = Unbounded((2,))
        self.reward_spec = Unbounded((1,))

    def _step(self, td: TensorDict) -> TensorDict:
        p, u = self.problem, td["action"]
        x = td["x"] @ p.a.T + u @ p.b.T
        cost = ((x @ p.q) * x).sum(-1, keepdim=True) + ((u @ p.r) * u).sum(-1, keepdim=True)
        done = torch.zeros_like(cost, dtype=torch.bool)
        return TensorDict({"x": x, "reward": -cost, "done": done, "terminated": done.clone()}, td.batch_size)

    def _reset(self, td: TensorDict | None, **more: object) -> TensorDict:
        return TensorDict({"x": self.problem.x0[0]}, [])

    def _set_seed(self, seed: int | None) -> None:
        return None


def torchrl_cem(problem: LinearQuadratic, *, samples: int, elites: int, iterations: int) -> Tensor:
    """(2,) the first action of its plan, its own batch of one."""
    env = Env(problem)
    planner = CEMPlanner(env, problem.horizon, iterations, samples, elites)
    with torch.no_grad():
        return planner.planning(TensorDict({"x": problem.x0}, [1]))[0]
