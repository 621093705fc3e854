"""Episodes out of worlds: many side by side, the same ones for the same settings, written as they come."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from openjepa import worlds as simulators
from openjepa.data.cache import cache_folder
from openjepa.data.episodes.config import EpisodeConfig
from openjepa.data.episodes.episodes import About, Episode, Episodes
from openjepa.data.episodes.folder import open_folder
from openjepa.data.episodes.gather import Found, Shelf, into, on_shelf
from openjepa.data.episodes.sound import Unsound, finite
from openjepa.data.episodes.writer import Writer
from openjepa.data.source import digest
from openjepa.worlds.base import Policy, World

log = logging.getLogger("openjepa.data")

TOGETHER = 256  # episodes side by side, at most
CHUNK = 64 * 2**20  # bytes of observations of the episodes that go side by side, at most
MEMORY = 64 * 2**20  # drawn episodes are held in memory up to this many bytes, and cached beyond
_VERSION = 1
Progress = Callable[[int, int], None]


def collect(
    world: str | Mapping[str, Any] | World,
    policy: str | Policy = "random",
    *,
    episodes: int,
    steps: int,
    out: str | Path,
    seed: int = 0,
    progress: Progress | None = None,
) -> Episodes:
    """Let `policy` act in `world` and write what happens to the folder `out`; returns it opened.

    world     a name, settings with a `name`, or a world
    policy    a name, or anything with `act(states, rng)`
    episodes  how many; steps: actions in each, so each has steps + 1 observations (fewer where a world's episodes end)
    out       a folder that is not there yet. An interrupted collection of the same settings is gone on with
    seed      of everything drawn: the same settings give the same bytes, interrupted or not
    progress  called with (episodes done, episodes in all) after every chunk

    Raises `ValueError` for a world that leaves the numbers (nan), naming the episode, and when `out` is taken.

    >>> import tempfile
    >>> e = collect("pendulum", episodes=3, steps=5, out=tempfile.mkdtemp() + "/eps")
    >>> len(e), e.frames
    (3, 18)
    """
    made_world = open_world(world)
    actor = open_policy(policy, made_world)
    about = about_world(made_world, policy_name(policy), seed)
    together = side_by_side(made_world, episodes, steps)
    made = {"world": about.world, "policy": about.policy, "episodes": episodes, "steps": steps, "seed": seed,
            "together": together, "version": _VERSION}  # fmt: skip
    writer = Writer(out, about, made=made)
    try:
        for first in range(writer.done, episodes, together):
            for name, episode in chunk(made_world, actor, first, min(together, episodes - first), steps, seed):
                writer.put(episode, name)
            writer.commit()
            if progress is not None:
                progress(writer.done, episodes)
        return open_folder(writer.close())[0]
    except BaseException:
        writer.abandon()
        raise


def drawn(cfg: EpisodeConfig) -> Episodes:
    """The episodes of a world named in place of a path: in memory up to 64 MiB, else in the cache folder, where later
    runs with the same settings find them. The log says which."""
    world = open_world({**cfg.world, "name": cfg.path})
    about = about_world(world, cfg.policy, cfg.seed)
    together = side_by_side(world, cfg.episodes, cfg.steps)
    frame = int(np.prod(world.obs)) * (1 if len(world.obs) == 3 else 4) + 8 * len(world.names)
    if cfg.episodes * (cfg.steps + 1) * frame <= MEMORY:
        actor, shelf = open_policy(cfg.policy, world), Shelf()
        for first in range(0, cfg.episodes, together):
            for name, episode in chunk(world, actor, first, min(together, cfg.episodes - first), cfg.steps, cfg.seed):
                shelf.put(episode, name)
        log.info("%d episodes of %s were drawn in memory", cfg.episodes, cfg.path)
        return on_shelf(Found("world", cfg.path, (), about), shelf, [])
    key = digest(sorted((about.world or {}).items()), cfg.policy, cfg.episodes, cfg.steps, cfg.seed, _VERSION)
    place = cache_folder(cfg.cache_dir) / "episodes" / f"{cfg.path.replace(':', '-').replace('/', '-')}-{key[:16]}"
    if not (place / "episodes.json").exists():
        log.warning("%d episodes of %s are drawn once into %s", cfg.episodes, cfg.path, place)
        into(
            place,
            lambda out: collect(world, cfg.policy, episodes=cfg.episodes, steps=cfg.steps, out=out, seed=cfg.seed),
        )
    return replace(open_folder(place)[0], kind="world", where=cfg.path)


def chunk(world: World, policy: Policy, first: int, count: int, steps: int, seed: int) -> Iterator[tuple[str, Episode]]:
    """Episodes `first` .. `first + count - 1`, side by side; their randomness is a function of (seed, first)."""
    rng = np.random.default_rng([seed & 0xFFFFFFFF, first, 0xE9150DE5])
    states = world.reset(count, rng)
    restart = getattr(policy, "restart", None)  # policies that remember must not take the last episodes for these
    if restart is not None:
        restart()
    pictures = len(world.obs) == 3
    obs = np.empty((count, steps + 1, *world.obs), np.uint8 if pictures else np.float32)
    action = np.zeros((count, steps + 1, world.action), np.float32)
    state = np.empty((count, steps + 1, len(world.names)), np.float64)
    for t in range(steps + 1):
        obs[:, t], state[:, t] = world.observe(states), states
        if t < steps:
            acts = policy.act(states, rng)
            # What is kept is what was done, to the last bit: a stored action played again gives the stored future.
            action[:, t] = acts
            states = world.step(states, action[:, t].astype(acts.dtype))
    lengths = until_ended(world, state)
    for i in range(count):
        name, kept = str(first + i), slice(0, int(lengths[i]))
        try:
            for what, x in (("states", state[i]), ("actions", action[i]), ("observations", obs[i])):
                if x.dtype != np.uint8:
                    finite(what, x)
        except Unsound as e:
            raise ValueError(
                f"{world.name} must stay finite, got episode {name}, whose {e}. Change its settings or the policy."
            ) from None
        action[i, kept.stop - 1] = 0
        yield name, Episode(obs[i, kept], action[i, kept], state[i, kept])


def until_ended(world: World, state: np.ndarray) -> np.ndarray:
    """Frames of each episode (count,): all, but in worlds whose episodes end by themselves (they have a variable
    `ended`) only up to the first that is over, since from then on nothing moves."""
    count, frames = state.shape[:2]
    if "ended" not in world.names:
        return np.full(count, frames)
    over = state[:, 1:, world.names.index("ended")] > 0  # every episode has a step at least
    return np.where(over.any(1), over.argmax(1) + 2, frames)


def open_world(world: str | Mapping[str, Any] | World) -> World:
    return world if isinstance(world, World) else simulators.make_world(world)


def open_policy(policy: str | Policy, world: World) -> Policy:
    return policy if isinstance(policy, Policy) else simulators.make_policy(policy, world)


def policy_name(policy: str | Policy) -> str:
    return policy if isinstance(policy, str) else type(policy).__name__


def about_world(world: World, policy: str, seed: int) -> About:
    """What the files of collected episodes say about their world."""
    cfg = getattr(world, "cfg", None)
    settings = {"name": world.name} if cfg is None else cfg.model_dump(mode="json")
    bounded = bool(np.isfinite([*world.low, *world.high]).all())
    features = tuple(getattr(world, "obs_names", ())) if len(world.obs) == 1 else ()
    return About(
        variables=tuple(world.names),
        features=features,
        low=tuple(float(x) for x in world.low) if bounded else (),
        high=tuple(float(x) for x in world.high) if bounded else (),
        discrete=world.discrete,
        world=settings,
        policy=policy,
        seed=seed,
        dt=float(world.dt),
    )


def side_by_side(world: World, episodes: int, steps: int) -> int:
    """How many episodes go together; a function of the settings alone, since it decides what is drawn."""
    size = int(np.prod(world.obs)) * (1 if len(world.obs) == 3 else 4) * (steps + 1)
    return max(1, min(episodes, TOGETHER, CHUNK // max(1, size)))


def worlds() -> tuple[str, ...]:
    """The names there are."""
    return tuple(simulators.WORLDS)


def is_world(name: str) -> bool:
    return name.split(":")[0] in simulators.WORLDS or name.startswith("gym:")
