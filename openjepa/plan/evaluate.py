"""Evaluation: how often goals are reached under a protocol, beside what no model and a perfect model would give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from openjepa.config import Config
from openjepa.core.interval import wilson
from openjepa.core.types import Dynamics
from openjepa.plan.agent import Agent, Heads, LatentAgent, Scales, SimulatorAgent
from openjepa.plan.judge import judged
from openjepa.plan.protocol import Manifest, Protocol, draw_pairs
from openjepa.plan.receding import MPC, Controller, Drive, Random, Still, drive
from openjepa.worlds.base import World

CONTROLS = ("random", "zero", "goal_is_start", "simulator")
ROWS = {
    "model": "planner on the model",
    "simulator": "planner on the true simulator",
    "goal_is_start": "planner, told that the start is the goal",
    "zero": "zero action",
    "random": "random policy",
}


@dataclass(frozen=True)
class Result:
    """An evaluation. `values` is plain data for JSON; `drives` holds what happened, `manifest` the pairs.

    While it goes on, `values["complete"]` is False and `values["rows"]` holds the rows of `values["wanted"]` so far.
    """

    values: dict[str, Any]
    manifest: Manifest
    drives: dict[str, Drive]

    def as_dict(self) -> dict[str, Any]:
        return self.values

    def table(self) -> str:
        """One line per row, with 95 % intervals, for a terminal."""
        v = self.values
        lines = [f"{v['protocol']['name']}  {v['split']} pairs {v['manifest']['hash']}  n = {v['n']}"]
        lines.append(f"{'':42s}{'any time':>22s}{'at the end':>22s}{'steps':>8s}{'s/episode':>11s}")
        for key, label in ROWS.items():
            if key in v["rows"]:
                row = v["rows"][key]
                shares = "".join(f"{_percent(row[k]):>22s}" for k in ("any", "end"))
                steps = "-" if row["steps"] is None else f"{row['steps']['median']:.0f}"
                seconds = "-" if row["seconds"] is None else f"{row['seconds']['per_episode']:.2f}"
                label += "" if row["n"] == v["n"] else f" (n = {row['n']})"
                lines.append(f"{label:42s}{shares}{steps:>8s}{seconds:>11s}")
        if v["protocol"]["judge"]:
            lines.append(v["protocol"]["about"])
        if self.manifest.episodes():
            lines.append(f"Pairs are from {len(self.manifest.episodes())} held-out episodes.")
        lines += v["notes"]
        if not v["complete"]:
            left = [ROWS[k] for k in v["wanted"] if k not in v["rows"]]
            lines.append(f"Not measured, interrupted: {'; '.join(left)}.")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def _percent(share: Mapping[str, float]) -> str:
    return f"{100 * share['rate']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def evaluate(
    model: Dynamics | None,
    world: World,
    protocol: Protocol,
    planner: Config | Mapping[str, Any] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    *,
    skip: int | None = None,
    split: Literal["tune", "report"] = "report",
    episodes: int | None = None,
    held_out: Mapping[str, np.ndarray] | None = None,
    controls: Sequence[str] = CONTROLS,
    ceiling_episodes: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    heads: Heads | None = None,
    tell: Callable[[str], None] | None = None,
    keep: Callable[[Result], None] | None = None,
    notes: Sequence[str] = (),
) -> Result:
    """Success under `protocol`, with the controls beside it.

    model       a `Dynamics`; None measures the controls alone
    planner     settings that replace the protocol's: choose them on `split="tune"`, see `tune`
    preprocess  the scales the model was trained with; needed with a model
    skip        world actions in one of the model's actions, the protocol's by default
    episodes    pairs to measure, the protocol's number by default
    held_out    name -> states (T, P) of held-out episodes, where the protocol draws from them
    controls    which of `CONTROLS`; the random policy and standing still cost nothing
    ceiling_episodes  the planner on the true simulator is measured on so many of the pairs, the first ones, by default
                on all: simulators can be slow. A world whose states cannot be set has no such row
    seed        of the search and of the random policy
    heads       what the protocol's cost needs beside the model, see `agent.Heads`
    tell        called with the name of each row before it is measured
    keep        called after each row with all that is known by then
    notes       sentences that belong below the table
    """
    world = require_sense(model, world, protocol, preprocess, controls)
    skip = protocol.skip if skip is None else skip
    pairs = draw_pairs(protocol, world, split=split, episodes=episodes, held_out=held_out)
    bounded = {"skip": skip, "norm": float(world.high.max()) if protocol.ball and world.discrete is None else None}
    scales = Scales.of(preprocess, world, **bounded) if preprocess else Scales.of_world(world, **bounded)  # type: ignore[arg-type]
    cfg = protocol.search(planner, skip=skip)
    take = min(protocol.takes(skip), cfg.horizon)  # type: ignore[attr-defined]  # a plan of one's own may be shorter
    if world.discrete is not None and planner is None and cfg.name != "categorical":  # type: ignore[attr-defined]
        raise ValueError(f"planner must be categorical for {world.name}, whose actions are choices, got {cfg!r}.")

    def mpc(agent: Agent, goals: np.ndarray, *, ceiling: bool = False) -> MPC:
        shown = goals if agent.sees == "state" else world.observe(goals)
        return MPC(agent, shown, cfg, take=take, warm=protocol.warm, seed=seed, ceiling=ceiling)

    agent = None if model is None else LatentAgent(model, scales, protocol.cost, heads=heads, device=device)
    makers = controllers(agent, SimulatorAgent(world, scales, protocol.cost), world, mpc, seed, protocol.ball)
    wanted = [name for name in (*(("model",) if agent else ()), *controls) if name in makers]
    values = described(protocol, world, pairs, wanted) | {
        "planner": cfg.model_dump(mode="json"), "own_planner": planner is not None, "take": take, "skip": skip,
        "seed": seed, "notes": [*notes, *absent(world, controls)],
    }  # fmt: skip
    result = Result(values, pairs, {})
    for name in wanted:
        if tell is not None:
            tell(name)
        some = pairs.first(ceiling_episodes) if name == "simulator" else pairs
        controller = makers[name](some)
        happened = drive(world, some.starts, some.goals, controller, budget=protocol.budget, stop=protocol.stop)
        row = summary(happened, controller)
        if agent is not None and name == "model":
            row["seconds"]["plan_alone"] = alone(mpc(agent, pairs.goals[:1]), world, pairs.starts[:1])
        values["rows"][name], result.drives[name] = row, happened
        values["complete"] = len(values["rows"]) == len(wanted)
        if keep is not None:
            keep(result)
    return result


def described(protocol: Protocol, world: World, pairs: Manifest, wanted: Sequence[str]) -> dict[str, Any]:
    """What is to be measured, before any of it is."""
    return {
        "protocol": protocol.model_dump(mode="json") | {"hash": protocol.hash},
        "world": settings_of(world) or protocol.world,
        "split": pairs.split,
        "n": len(pairs),
        "manifest": {"hash": pairs.hash, "refused": pairs.refused, "episodes": len(pairs.episodes())},
        "headline": protocol.success,
        "wanted": list(wanted),
        "complete": not wanted,
        "rows": {},
    }


def settings_of(world: World) -> dict[str, Any]:
    """The settings a world was made with; empty for one that was not made from any."""
    cfg = getattr(world, "cfg", None)
    return {} if cfg is None else cfg.model_dump(mode="json")


def require_sense(
    model: Dynamics | None,
    world: World,
    protocol: Protocol,
    preprocess: Mapping[str, Any] | None,
    controls: Sequence[str],
) -> World:
    """The world under the protocol's own rule; what can be refused is refused before anything is drawn."""
    if model is not None and preprocess is None:
        raise ValueError("preprocess must be given with a model, got None. It is in the checkpoint's config.json.")
    if protocol.world["name"] != world.name:
        raise ValueError(f"world must be {protocol.world['name']!r} for {protocol.name}, got {world.name!r}.")
    unknown = set(controls) - set(CONTROLS)
    if unknown:
        raise ValueError(f"controls must be among {', '.join(CONTROLS)}, got {', '.join(sorted(unknown))}.")
    return judged(world, protocol.judge)


def controllers(
    agent: Agent | None, ceiling: Agent, world: World, mpc: Callable[..., MPC], seed: int, ball: bool
) -> dict[str, Callable[[Manifest], Controller]]:
    """Row -> who acts on some pairs. No ceiling where the world's state cannot be set; no model, no rows of it."""
    makers: dict[str, Callable[[Manifest], Controller]] = {
        "zero": lambda some: Still(world),
        "random": lambda some: Random(world, seed=seed, ball=ball),
    }
    if getattr(world, "settable", True):
        makers["simulator"] = lambda some: mpc(ceiling, some.goals, ceiling=True)
    if agent is not None:
        makers["model"] = lambda some: mpc(agent, some.goals)
        makers["goal_is_start"] = lambda some: mpc(agent, some.starts)
    return makers


def absent(world: World, controls: Sequence[str]) -> list[str]:
    """Why a row that was asked for is not there."""
    if "simulator" not in controls or getattr(world, "settable", True):
        return []
    return [f"No planner on the true simulator: {world.name} cannot be put into the states that it would try."]


def summary(happened: Drive, controller: Controller) -> dict[str, Any]:
    """Plain numbers of a drive: success with intervals, steps to it, distances, and what planning took."""
    reached, n = happened.reached[:, 1:], len(happened.reached)
    ever = reached.any(1)
    first = reached.argmax(1)[ever] + 1
    held = [float(reached[i, k - 1 :].mean()) for i, k in zip(np.flatnonzero(ever), first, strict=True)]
    out: dict[str, Any] = {"n": n, "any": share(int(ever.sum()), n), "end": share(int(reached[:, -1].sum()), n)}
    out["steps"] = None
    if len(first):
        out["steps"] = {
            "mean": float(first.mean()), "median": float(np.median(first)), "p90": float(np.quantile(first, 0.9)),
            "held_after": float(np.mean(held)),
        }  # fmt: skip
    out["distance"] = {
        "start": float(happened.distance[:, 0].mean()),
        "end": float(happened.distance[:, -1].mean()),
        "end_median": float(np.median(happened.distance[:, -1])),
        "least": float(happened.distance.min(1).mean()),
    }
    out["seconds"] = None
    if isinstance(controller, MPC):
        t = controller.times
        plans = max(1, sum(t.episodes))
        out["seconds"] = {
            "per_episode": float(happened.seconds.mean()),
            "processor_per_episode": sum(t.processor) / n,
            "per_plan": sum(t.wall) / plans,
            "plans_per_episode": plans / n,
            "together": max(t.episodes, default=0),
        }
    return out


def share(count: int, n: int) -> dict[str, float]:
    low, high = wilson(count, n)
    return {"count": count, "rate": count / n, "low": low, "high": high}


def alone(controller: MPC, world: World, starts: np.ndarray) -> float:
    """Wall-clock seconds of one plan for one episode, after one to warm up."""
    for _ in range(2):
        controller.act(np.arange(1), starts if controller.sees == "state" else world.observe(starts))
    return controller.times.wall[-1]


def tune(
    model: Dynamics | None,
    world: World,
    protocol: Protocol,
    planners: Sequence[Config | Mapping[str, Any]],
    preprocess: Mapping[str, Any] | None = None,
    *,
    skip: int | None = None,
    episodes: int = 50,
    held_out: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[Config, list[dict[str, Any]]]:
    """The planner of `planners` with most successes on the tuning seeds (the headline; at a tie the faster one), and
    the account: settings and row of each. Without a model they are tried on the true simulator.
    """
    tried = []
    for planner in planners:
        found = evaluate(
            model, world, protocol, planner, preprocess, skip=skip, split="tune", episodes=episodes,
            held_out=held_out, controls=() if model is not None else ("simulator",), seed=seed, device=device,
        )  # fmt: skip
        row = found.values["rows"]["model" if model is not None else "simulator"]
        tried.append({"planner": found.values["planner"], "row": row})
    best = max(
        range(len(tried)),
        key=lambda i: (tried[i]["row"][protocol.success]["rate"], -tried[i]["row"]["seconds"]["per_episode"]),
    )
    return protocol.search(planners[best]), tried
