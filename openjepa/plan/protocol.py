"""Protocols: what a planning number means, written down before it is measured.

A protocol is a JSON file, `protocols/NAME.json`: world, start and goal pairs, budget, success, planner, seeds. Its hash
and the pairs that were drawn are kept with every result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from openjepa.config import Config, merge, nearest, parse
from openjepa.plan import PLANNERS
from openjepa.plan.cost import CostConfig
from openjepa.plan.judge import JudgeConfig
from openjepa.worlds.base import World

TRIES = 1000  # draws of one pair until its start is not solved already


class Seeds(Config):
    """The seeds first .. first + count - 1, one per pair."""

    first: int = Field(ge=0)
    count: int = Field(1000, ge=1)

    @property
    def all(self) -> range:
        return range(self.first, self.first + self.count)


class Protocol(Config):
    """What is measured, and how.

    world     settings of the world, with its `name`
    pairs     "world": start and goal are drawn by the world; "held_out": from an episode that training never saw, the
              goal `ahead` world steps after the start
    episodes  how many pairs
    budget    world steps until it is over
    success   the headline: reached at "any" time, or at the "end"; both are reported
    stop      an episode is over when its goal is reached; then both are the same
    skip      world actions per planned action that `planner` and `take` are meant for; a model with another `skip` gets
              a horizon and a `take` of as many world steps
    take      planned actions until the next look
    warm      the next search starts from what is left of the last plan
    ball      the length of an action is bounded, not each of its numbers
    judge     a success rule of the protocol's own, in place of the world's
    cost      how a model's future is compared with the goal
    planner   the search that is used when no other is given
    tune, report  seeds of pairs for choosing settings, and for numbers; they must not overlap
    published     figures of others under this protocol, with their source; differences: what is not as published
    """

    name: str
    version: int = Field(1, ge=1)
    about: str = ""
    world: dict[str, Any]
    pairs: Literal["world", "held_out"] = "world"
    ahead: int | None = Field(None, ge=1)
    episodes: int = Field(200, ge=1)
    budget: int = Field(ge=1)
    success: Literal["any", "end"] = "any"
    stop: bool = False
    skip: int = Field(1, ge=1)
    take: int = Field(1, ge=1)
    warm: bool = True
    ball: bool = False
    judge: JudgeConfig | None = None
    cost: CostConfig = CostConfig()
    planner: dict[str, Any] = {"name": "cem"}
    tune: Seeds
    report: Seeds
    published: dict[str, str] = {}
    differences: list[str] = []

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if set(self.tune.all) & set(self.report.all):
            raise ValueError("tune and report must be different seeds: settings chosen on a number make it too good")
        if max(self.episodes, 1) > self.report.count:
            raise ValueError(f"report must hold a seed for each of {self.episodes} episodes, got {self.report.count}")
        if (self.pairs == "held_out") != (self.ahead is not None):
            raise ValueError("ahead must be given where pairs are held_out, and only there")
        if "name" not in self.world:
            raise ValueError(f"world must have a name, got {self.world}")
        self.search()
        return self

    def search(self, planner: Config | Mapping[str, Any] | None = None, *, skip: int | None = None) -> Config:
        """The planner's config, or the one given, for a model whose planned action holds `skip` world actions.

        Settings without a `name` change those of the protocol's own planner.
        """
        if isinstance(planner, Mapping) and "name" not in planner:
            planner = merge(self.search(skip=skip).model_dump(), dict(planner))
        given = self.planner if planner is None else planner
        cfg = given if isinstance(given, Config) else planner_config(given)
        if planner is not None or skip in (None, self.skip):
            return cfg
        steps = -(-cfg.horizon * self.skip // (skip or 1))  # type: ignore[attr-defined]
        return cfg.override({"cem": {"horizon": steps}} if "cem" in type(cfg).model_fields else {"horizon": steps})

    def takes(self, skip: int) -> int:
        """Planned actions between two looks, for a model with this `skip`."""
        return max(1, self.take * self.skip // skip)

    @property
    def hash(self) -> str:
        """Of everything above: 16 hex digits of a SHA-256."""
        values = self.model_dump(mode="json")
        cost, reach = values["cost"], values["cost"]["reach"]
        if cost["goal"] != "steps":
            del cost["reach"]
        for group, name in ((values, "judge"), (cost, "goal"), (cost, "doubt"), (cost, "leap"), (reach, "policy")):
            if group[name] in (None, "latent", 0.0):  # settings of later make no protocol another one by being there
                del group[name]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def planner_config(given: Mapping[str, Any]) -> Config:
    """A planner's settings from plain data; `name` says which.

    >>> planner_config({"name": "mppi", "temperature": 0.5}).temperature
    0.5
    """
    name = str(given.get("name", ""))
    if name not in PLANNERS:
        raise ValueError(f"planner must be one of the known ones, got {name!r}. {nearest(name, PLANNERS)}")
    return parse(PLANNERS[name].config, dict(given))


def protocols() -> list[str]:
    """Names of the protocols that come with the library."""
    return sorted(p.name.removesuffix(".json") for p in _shipped().iterdir() if p.name.endswith(".json"))


def load_protocol(name: str | Path | Protocol) -> Protocol:
    """By name, or from a JSON file.

    >>> load_protocol("two-rooms-published").budget
    200
    """
    if isinstance(name, Protocol):
        return name
    path = Path(name)
    if path.suffix == ".json":
        if not path.is_file():
            raise ValueError(f"protocol must exist, got {path}. Known by name: {', '.join(protocols())}.")
        return parse(Protocol, json.loads(path.read_text(encoding="utf-8")))
    if str(name) not in protocols():
        raise ValueError(
            f"protocol must be a .json file or a known name, got {name!r}. {nearest(str(name), protocols())}"
        )
    return parse(Protocol, json.loads((_shipped() / f"{name}.json").read_text(encoding="utf-8")))


def _shipped() -> Any:
    return resources.files("openjepa.plan") / "protocols"


@dataclass(frozen=True)
class Manifest:
    """The pairs of an evaluation: start i and goal i, states of the world.

    origin   of each pair: "seed 1000", or "seed 1000: episode NAME, step 17"
    refused  draws that were thrown away because the start was solved already
    """

    starts: np.ndarray  # (n, P)
    goals: np.ndarray  # (n, P)
    origin: tuple[str, ...]
    split: Literal["tune", "report"]
    refused: int

    def __len__(self) -> int:
        return len(self.starts)

    def first(self, n: int | None) -> Manifest:
        """The first n pairs; all of them for None or where there are fewer."""
        return Manifest(self.starts[:n], self.goals[:n], self.origin[:n], self.split, self.refused)

    def episodes(self) -> set[str]:
        """Names of the held-out episodes that the pairs are from; none where the world drew them."""
        found = (text.partition(": episode ")[2].rpartition(", step ")[0] for text in self.origin)
        return {name for name in found if name}

    @property
    def hash(self) -> str:
        """Of the numbers and where they come from: 16 hex digits of a SHA-256."""
        digest = hashlib.sha256(json.dumps([self.starts.shape, self.origin, self.split]).encode())
        for x in (self.starts, self.goals):
            digest.update(np.ascontiguousarray(x, "<f8").tobytes())
        return digest.hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        return {
            "hash": self.hash, "split": self.split, "refused": self.refused, "origin": list(self.origin),
            "starts": self.starts.tolist(), "goals": self.goals.tolist(),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `as_dict` gave; raises when the numbers are not those of the hash."""
        starts, goals = (np.array(values[k], float) for k in ("starts", "goals"))
        found = cls(starts, goals, tuple(values["origin"]), values["split"], values["refused"])
        if found.hash != values["hash"]:
            raise ValueError(
                f"manifest must have hash {values['hash']}, got {found.hash}. It was changed after saving."
            )
        return found


def draw_pairs(
    protocol: Protocol,
    world: World,
    *,
    split: Literal["tune", "report"] = "report",
    episodes: int | None = None,
    held_out: Mapping[str, np.ndarray] | None = None,
) -> Manifest:
    """Start and goal pairs; pair i depends on seed i alone, so the first n of more are the same n.

    held_out  name -> states (T, P) of the episodes that training never saw; needed where the protocol says so
    """
    seeds = getattr(protocol, split)
    n = min(protocol.episodes, seeds.count) if episodes is None else episodes
    if not 1 <= n <= seeds.count:
        raise ValueError(f"episodes must be between 1 and {seeds.count} ({split} seeds of {protocol.name}), got {n}.")
    windows = None
    if protocol.pairs == "held_out":
        windows = _windows(protocol, held_out)
    starts, goals, origin, refused = [], [], [], 0
    used: set[tuple[str, int] | None] = set()
    for seed in seeds.all[:n]:
        rng = np.random.default_rng(seed)
        for _ in range(TRIES):
            where: tuple[str, int] | None
            if windows is None:
                where, name = None, f"seed {seed}"
                start = world.reset(1, rng)
                goal = world.goals(start, rng)
            else:
                episode, step = windows[int(rng.integers(len(windows)))]
                assert held_out is not None and protocol.ahead is not None
                where, name = (episode, step), f"seed {seed}: episode {episode}, step {step}"
                start, goal = (held_out[episode][[step + k]] for k in (0, protocol.ahead))
            if not world.reached(start, goal)[0] and (where is None or where not in used):
                break
            refused += 1
        else:
            raise ValueError(
                f"pairs must not be solved at the start, got {TRIES} in a row that were (or were drawn before). "
                f"Look at the goals and the tolerance of {world.name}, or hold out more episodes."
            )
        used.add(where)
        starts.append(start[0])
        goals.append(goal[0])
        origin.append(name)
    return Manifest(np.stack(starts).astype(float), np.stack(goals).astype(float), tuple(origin), split, refused)


def _windows(protocol: Protocol, held_out: Mapping[str, np.ndarray] | None) -> list[tuple[str, int]]:
    """Every (episode, step) whose goal is still in the episode."""
    assert protocol.ahead is not None
    if not held_out:
        raise ValueError(f"held_out must hold episodes for {protocol.name}, got none. Give their states by name.")
    found = [(k, t) for k in sorted(held_out) for t in range(len(held_out[k]) - protocol.ahead)]
    if not found:
        raise ValueError(f"held_out must hold episodes longer than {protocol.ahead} steps, got none.")
    return found
