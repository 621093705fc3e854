"""Simulators: a state that actions move, and what can be seen of it. No models.

To add a world: a file with a config and a class, a line in `WORLDS`. To add a policy: a class, a line in `POLICIES`.
Importing this package imports numpy and nothing heavier; a simulator's own libraries are imported when it is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from openjepa.config import Config, nearest, parse
from openjepa.worlds.base import Policy, World

# name -> "module:Class"; "gym" stands for "gym:ID" with any Gymnasium id
WORLDS: dict[str, str] = {
    "bouncing-ball": "openjepa.worlds.physics.balls:Bouncing",
    "bouncing-balls": "openjepa.worlds.physics.balls:Bouncings",
    "billiards": "openjepa.worlds.physics.billiards:Billiards",
    "pendulum": "openjepa.worlds.physics.pendulum:Pendulum",
    "spring": "openjepa.worlds.physics.spring:Spring",
    "orbit": "openjepa.worlds.physics.orbit:Orbit",
    "point-mass": "openjepa.worlds.physics.balls:PointMass",
    "two-rooms": "openjepa.worlds.two_rooms:TwoRooms",
    "reacher": "openjepa.worlds.mujoco:Reacher",
    "pointmaze": "openjepa.worlds.mujoco:PointMaze",
    "pusht": "openjepa.worlds.pusht:PushT",
    "gym": "openjepa.worlds.gym:GymWorld",
}

# name -> "module:Class"; worlds add their own in `scripted` (expert, walk, door ...), see `known_policies`
POLICIES: dict[str, str] = {
    "random": "openjepa.worlds.policies:Random",
    "ornstein-uhlenbeck": "openjepa.worlds.policies:OrnsteinUhlenbeck",
    "zero": "openjepa.worlds.policies:Zero",
}


def make_world(world: str | Mapping[str, Any] | Config, **settings: Any) -> World:
    """A world by name, or by its saved settings, with some settings changed.

    world     a name in `WORLDS`, "gym:ID", or settings with a `name` (a mapping, or the `cfg` of another world)
    settings  fields of the world's config; unknown ones raise with the nearest name

    >>> world = make_world("point-mass", force=2.0)
    >>> make_world(world.cfg).high.tolist()
    [2.0, 2.0]
    >>> make_world("point-mas")
    Traceback (most recent call last):
    ValueError: world must be one of the known ones, got 'point-mas'. Did you mean 'point-mass'?
    """
    if isinstance(world, Config):
        given = world.model_dump()
    else:
        given = {"name": world} if isinstance(world, str) else dict(world)
    if "name" not in given:
        raise ValueError(f"world settings must have a name, got {sorted(given)}. Known: {', '.join(WORLDS)}.")
    name = str(given["name"])
    cls = find(WORLDS, "gym" if name.startswith("gym:") else name, "world")
    return cls(parse(cls.Config, {**given, **settings}))


def make_policy(name: str, world: World, seed: int = 0) -> Policy:
    """A policy of `world` by name; `seed` starts its own generator, used when `act` is given none.

    >>> make_policy("expert", make_world("orbit"))
    Traceback (most recent call last):
    ValueError: policy must be one that orbit has, got 'expert'. Known: random, ornstein-uhlenbeck, zero.
    """
    table = known_policies(world)
    if name not in table:
        raise ValueError(f"policy must be one that {world.name} has, got {name!r}. {nearest(name, table)}")
    return find(table, name, "policy")(world, seed)


def known_policies(world: World) -> dict[str, str]:
    """The policies that `world` has, name -> "module:Class": those of all worlds, and its own scripted ones.

    >>> list(known_policies(make_world("two-rooms")))[:8]
    ['random', 'ornstein-uhlenbeck', 'zero', 'walk', 'expert', 'door', 'mixed', 'rounds']
    """
    return {**POLICIES, **scripted_policies(world)} if world.action else dict(POLICIES)


def scripted_policies(world: Any) -> dict[str, str]:
    """What a world, or its class, has in `scripted`; where that has an expert, a noisy one too."""
    scripted: dict[str, str] = getattr(world, "scripted", {})
    return {**scripted, **({"noisy-expert": NOISY} if "expert" in scripted else {})}


NOISY = "openjepa.worlds.policies:NoisyExpert"


def find(table: Mapping[str, str], name: str, kind: str) -> Any:
    """The class that `table` gives for `name`, imported now."""
    if name not in table:
        raise ValueError(f"{kind} must be one of the known ones, got {name!r}. {nearest(name, table)}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
