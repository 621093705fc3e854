"""torchrl's CEM on a latent model: its step is the environment's, the last reward minus the cost."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs.model_based import ModelBasedEnvBase
from torchrl.modules import CEMPlanner

from openjepa.plan import CEMConfig


class Env(ModelBasedEnvBase):
    """State: latent, goal, steps so far."""

    def __init__(self, model: nn.Module, dim: int, action: int, horizon: int, device: str) -> None:
        super().__init__(world_model=nn.Identity(), device=device, batch_size=[])
        self.model, self.horizon = model, horizon
        shown = {"z": Unbounded((dim,)), "goal": Unbounded((dim,)), "t": Unbounded((1,))}
        self.observation_spec, self.state_spec = Composite(**shown), Composite(**shown)
        self.action_spec, self.reward_spec = Bounded(-2.0, 2.0, (action,)), Unbounded((1,))

    def _step(self, td: TensorDict) -> TensorDict:
        shape = td.batch_size
        z = self.model.step(td["z"].reshape(-1, td["z"].shape[-1]), td["action"].reshape(-1, td["action"].shape[-1]))
        z, t = z.view(*shape, -1), td["t"] + 1
        reward = -(z - td["goal"]).square().mean(-1, keepdim=True) * (t >= self.horizon)
        done = torch.zeros_like(t, dtype=torch.bool)
        out = {"z": z, "goal": td["goal"], "t": t, "reward": reward, "done": done, "terminated": done.clone()}
        return TensorDict(out, shape)

    def _reset(self, td: TensorDict | None, **more: object) -> TensorDict:
        raise NotImplementedError("the planner starts from given latents")

    def _set_seed(self, seed: int | None) -> None:
        return None


def planner(model: nn.Module, batch: int, cfg: CEMConfig, dim: int, action: int, device: str) -> Callable[[], Tensor]:
    """A call plans for all episodes at once, which torchrl allows too."""
    env = Env(model, dim, action, cfg.horizon, device)
    search = CEMPlanner(env, cfg.horizon, cfg.iterations, cfg.samples, cfg.elites)
    z, goal = (torch.randn(batch, dim, device=device) for _ in range(2))
    start = TensorDict({"z": z, "goal": goal, "t": torch.zeros(batch, 1, device=device)}, [batch], device=device)
    return lambda: search.planning(start)
