"""What a planner's cost needs beside the model: a probe of the state, a count of steps, the members of an ensemble."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from openjepa.app.dreaming import Dreamer
from openjepa.app.world_probe import learnt_latents, state_readout
from openjepa.data.episodes import Episodes, open_episodes
from openjepa.data.episodes.config import EpisodeConfig
from openjepa.nn.reach import ReachHead
from openjepa.plan.agent import Heads
from openjepa.plan.cost import CostConfig
from openjepa.plan.reach import ReachConfig, fit_reach
from openjepa.probe.variables import flat


def heads_for(found: Dreamer, cost: CostConfig) -> Heads | None:
    """Fitted on training episodes alone, on frozen z; None where the cost asks for nothing."""
    members = members_of(found) if cost.doubt else ()
    if cost.goal == "state":
        return Heads(state=state_probe(found), members=members)
    if cost.goal == "steps":
        return Heads(steps=step_counter(found, cost.reach), members=members)
    return Heads(members=members) if members else None


def members_of(found: Dreamer) -> tuple[Any, ...]:
    """The predictors of the run's ensemble, each as a model of its own."""
    method: Any = found.method
    members = method.members() if callable(getattr(method, "members", None)) else []
    if len(members) < 2:
        raise ValueError(
            f"cost.doubt must have an ensemble that can disagree, got one predictor in {found.run.path}. "
            "Train pldm with method.members=3 or more."
        )
    return tuple(members)


def state_probe(found: Dreamer) -> Callable[[Tensor], Tensor]:
    """What the probe of `openjepa probe` reads, in units of each variable's spread; angles as cosine and sine."""
    readout, shape = state_readout(found)
    if readout is None:
        raise ValueError(
            f"cost.goal=state must have states to learn from, got none in {found.data.path}. Leave it at latent."
        )

    def read(z: Tensor) -> Tensor:
        before = z.shape[: z.dim() - len(shape)]
        found_targets = readout.targets(flat(z.reshape(-1, *shape))) / readout.scale
        return found_targets.float().reshape(*before, -1)

    return read


def step_counter(found: Dreamer, cfg: ReachConfig) -> ReachHead:
    """The learned distance, see `openjepa.plan.reach`, on training episodes or on fresh ones of `cfg.policy`."""
    fresh = None if cfg.policy is None else acted(found, cfg.policy)
    return fit_reach(learnt_latents(found, cfg.latents, fresh), cfg).to(found.device)


def acted(found: Dreamer, policy: str) -> Episodes:
    """As many episodes as the run has, as long and in the same world, with another policy and from other starts.

    Their seed is the run's plus one: with its own, each would begin as an episode of the run, the held-out ones among
    them, from which goals may be drawn.
    """
    own = found.preprocess.get("world")
    if not own:
        raise ValueError(
            f"cost.reach.policy must have a world to act in, got {policy!r} for {found.run.path}, whose episodes came "
            "without one. Do cost.reach.policy=null."
        )
    world, mine = dict(own), found.episodes.lengths
    return open_episodes(
        EpisodeConfig(
            path=world.pop("name"), world=world, policy=policy, obs=found.data.obs, episodes=len(mine),
            steps=max(1, int(mine.max()) - 1), seed=found.data.seed + 1, cache_dir=found.data.cache_dir,
        )
    )  # fmt: skip
