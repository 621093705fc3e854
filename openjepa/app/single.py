"""One start and one goal, told by a person: as states of the world, as observations, or as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from openjepa.app.cost_heads import heads_for
from openjepa.app.dreaming import Dreamer
from openjepa.app.requests import PlanRequest
from openjepa.config import parse
from openjepa.core.rollout import rollout
from openjepa.core.types import Clock
from openjepa.data.episodes.scale import Scale
from openjepa.plan import PLANNERS
from openjepa.plan.agent import LatentAgent, Scales
from openjepa.plan.cost import CostConfig, apart
from openjepa.plan.film import frames, save_film
from openjepa.plan.protocol import Protocol, planner_config
from openjepa.plan.receding import MPC, drive
from openjepa.plan.whole import write_json
from openjepa.worlds.base import World

Told = Sequence[float] | str


@dataclass(frozen=True)
class Points:
    """A start and a goal: states (P,) of the world, or what is seen of them; None where nothing was told."""

    start: np.ndarray | None = None
    goal: np.ndarray | None = None
    start_seen: np.ndarray | None = None
    goal_seen: np.ndarray | None = None

    @classmethod
    def of(cls, asked: PlanRequest, world: World) -> Points:
        found: dict[str, np.ndarray] = {}
        for what, told in (("start", asked.start), ("goal", asked.goal)):
            if told is not None:
                values = read(told, what, world.obs)
                fixed = not getattr(world, "settable", True)
                if what == "goal" and fixed and values.shape == tuple(world.obs) and values.ndim == 1:
                    values = np.concatenate([np.zeros(len(world.names) - len(values)), values])  # of no episode
                state = values.ndim == 1 and len(values) == len(world.names)
                if not state and values.shape != tuple(world.obs):
                    names = ", ".join(world.names[:12])
                    raise ValueError(
                        f"{what} must be {len(world.names)} numbers, {names}, got {'x'.join(map(str, values.shape))}. "
                        f"Or give an observation of shape {tuple(world.obs)}, as .npy or as a picture."
                    )
                if state and fixed and what == "start":
                    raise ValueError(
                        f"start must be left out for {world.name}, which cannot be put into a state, got {told}. "
                        "It begins where the world does."
                    )
                found[what if state else f"{what}_seen"] = values
        return cls(**found)

    @property
    def given(self) -> bool:
        return self.start is not None or self.goal is not None

    @property
    def shown(self) -> bool:
        return self.start_seen is not None or self.goal_seen is not None


def read(told: Told, what: str, shape: Sequence[int]) -> np.ndarray:
    """Numbers, or the file that `told` names: .npy, or a picture, which is made as large as observations are."""
    if not isinstance(told, str):
        return np.asarray(told, np.float64)
    path = Path(told)
    if not path.is_file():
        raise ValueError(f"{what} must be numbers or a file, got {told}, which is not there. Write {what}=[0.1,0.2].")
    if path.suffix == ".npy":
        values = np.load(path)
        return values if values.ndim == 3 else np.asarray(values, np.float64).reshape(-1)
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise ValueError(
            f"{what} must be .npy or numbers for observations of shape {tuple(shape)}, got the picture {told}."
        )
    from PIL import Image

    picture = Image.open(path).convert("RGB" if shape[-1] == 3 else "L")
    if picture.size != (shape[1], shape[0]):
        picture = picture.resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(picture, np.uint8).reshape(tuple(shape))


class Given:
    """A world whose start and goal are told: everything else is the world's own."""

    def __init__(self, world: World, start: np.ndarray | None, goal: np.ndarray | None) -> None:
        self._world, self._start, self._goal = world, start, goal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self._world.reset(n, rng) if self._start is None else np.tile(self._start, (n, 1))

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self._world.goals(states, rng) if self._goal is None else np.tile(self._goal, (len(states), 1))


class Untold(Given):
    """A world that is shown a goal it cannot compare with: nothing counts as reached."""

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.zeros(len(states))

    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.zeros(len(states), bool)


def plan_shown(found: Dreamer, world: World, protocol: Protocol, points: Points, asked: PlanRequest) -> dict[str, Any]:
    """Act towards a goal that was shown. Whether it is reached only the model can say: by its distance in z."""
    if points.start_seen is not None:
        return plan_blind(found, asked, protocol)
    if points.goal_seen is None:
        raise ValueError("goal must be given with a start, got none. Write goal=goal.png, .npy or numbers.")
    scales = Scales.of(found.preprocess, world, skip=found.skip)
    agent = LatentAgent(
        found.model, scales, protocol.cost, heads=heads_for(found, protocol.cost), device=found.device
    )  # fmt: skip
    cfg = protocol.search(asked.planner or None, skip=found.skip)
    take = min(protocol.takes(found.skip), cfg.horizon)  # type: ignore[attr-defined]
    shown = points.goal_seen[None]
    start = world.reset(1, np.random.default_rng(asked.seed)) if points.start is None else points.start[None]
    acting = MPC(agent, shown, cfg, take=take, warm=protocol.warm, seed=asked.seed)
    judged = cast(World, Untold(world, None, None))
    happened = drive(judged, start, start, acting, budget=protocol.budget)
    with torch.no_grad():
        z, goal = agent.think(world.observe(happened.states[0])), agent.think(shown)
        far = apart(z[None, :, None], goal[:, None, None], "l2")[0, :, 0].cpu().numpy()
    nearest = int(far.argmin())
    about = (
        f"From the start {far[0]:.3g} away from the goal in z; nearest after {nearest} steps, {far[nearest]:.3g}; "
        f"after all {len(far) - 1} steps {far[-1]:.3g}. A goal that is only shown cannot be told to be reached: "
        "give its state for that."
    )
    out = Path(asked.out) if asked.out else found.run.path / "plan" / "shown"
    goal_picture = points.goal_seen if points.goal_seen.ndim == 3 else None
    pictures = frames(world, happened, start, 0, shown=goal_picture, blank=goal_picture is None)
    result = {"kind": "one", "about": about, "distance_in_z": far.tolist(), "start": start[0].tolist(),
              "actions": happened.actions[0].tolist(), "states": happened.states[0].tolist()}  # fmt: skip
    return written(found, out, result, pictures, asked)


def plan_blind(found: Dreamer, asked: PlanRequest, protocol: Protocol | None = None) -> dict[str, Any]:
    """The actions that the model would take, from one observation to another: nobody carries them out."""
    p, skip = found.preprocess, found.skip
    shape = tuple(p["obs_shape"])
    shape = (*shape[1:], shape[0]) if len(shape) == 3 else shape
    seen = []
    for what, told in (("start", asked.start), ("goal", asked.goal)):
        if told is None:
            raise ValueError(f"{what} must be given where no world is known, got none. Or name a world: --world W.")
        values = read(told, what, shape)
        if values.shape != shape:
            raise ValueError(f"{what} must be an observation of shape {shape}, got {values.shape}.")
        seen.append(values[None] if values.dtype == np.uint8 else values[None].astype(np.float32))
    scales = Scales(Scale.from_dict(p), np.asarray(p["low"], float), np.asarray(p["high"], float), None, skip)
    cost = protocol.cost if protocol else parse(CostConfig, {"over": "sum", **asked.cost})
    agent = LatentAgent(found.model, scales, cost, heads=heads_for(found, cost), device=found.device)
    usual = {"name": "cem" if p["discrete"] is None else "categorical", "horizon": 15, "samples": 200, "iterations": 6}
    cfg: Any = planner_config(asked.planner if "name" in asked.planner else {**usual, **asked.planner})
    with torch.no_grad():
        now, goal = (agent.think(x) for x in seen)
        stream = Clock(step=0, seed=asked.seed).generator("plan 0", found.device)
        bounds = scales.bounds().to(found.device)
        best = PLANNERS[cfg.name].plan(agent.cost(now, goal), bounds, cfg, [stream]).actions
        future = rollout(found.model, now, best)
        ahead = torch.cat([now[:, None], future], 1)[:, None]  # (1, 1, H + 1, ...)
        far = apart(ahead, goal[:, None, None], "l2")[0, 0].cpu().numpy()
    actions = scales.unscale(best)[0].reshape(-1, len(p["low"]))
    nearest = int(far.argmin())
    about = (
        f"Nobody acted: a plan of {len(actions)} actions. The model imagines to come from {far[0]:.3g} to "
        f"{far[nearest]:.3g} away from the goal in z, after {nearest * skip} of them."
    )
    out = Path(asked.out) if asked.out else found.run.path / "plan" / "imagined"
    result = {"kind": "one", "about": about, "distance_in_z": far.tolist(), "actions": actions.tolist()}
    return written(found, out, result, None, asked)


def written(
    found: Dreamer, out: Path, result: Mapping[str, Any], pictures: np.ndarray | None, asked: PlanRequest
) -> dict[str, Any]:
    """The result and the film in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    files = ["result.json"]
    if pictures is not None and asked.films:
        for ending in ("gif", "mp4") if asked.film == "both" else (asked.film,):
            files.append(save_film(pictures, out / f"model_000.{ending}").name)
    write_json(out / "result.json", {**result, "files": files})
    return {"run": str(found.run.path), "out": str(out), **result, "files": files}
