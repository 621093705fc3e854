"""Held-out episodes of a world whose state cannot be set, played anew from their seeds: plans can begin there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from openjepa.worlds.base import World
from openjepa.worlds.gym_live import SEED, TICKET, same


def can_replay(world: World) -> bool:
    """Whether episodes of the world can be played anew: it has a `replay`, and a seed in its states."""
    return getattr(world, "replay", None) is not None and tuple(world.names[: len(TICKET)]) == TICKET


def replayed(
    world: Any, states: Mapping[str, np.ndarray], actions: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The episodes as the world plays them anew, each up to where it no longer does what was recorded; and what to
    say of it.

    states   name -> (T, P) as recorded; their first row holds the seed
    actions  name -> (T, A); the last row is not used

    Raises `ValueError` where no episode comes back: then something beside the seed decides what happens.
    """
    found, cut, lost = {}, 0, 0
    for name, recorded in states.items():
        rows = world.replay(int(recorded[0, SEED]), actions[name][: len(recorded) - 1])
        wrong = np.flatnonzero(~same(rows, recorded))
        kept = int(wrong[0]) if len(wrong) else len(rows)
        if kept > 1:
            found[name] = rows[:kept]
            cut += kept < len(rows)
        else:
            lost += 1
    if not found:
        raise ValueError(
            f"held-out episodes of {world.name} must come back by their seeds and actions, got none of {len(states)}: "
            "something beside the seed decides what happens. Do pairs=world, or give the environment get_state() and "
            "set_state(row)."
        )
    if not cut + lost:
        return found, []
    return found, [
        f"Played anew, {cut + lost} of {len(states)} held-out episodes did not do what was recorded; no pair is from "
        f"{'them' if not cut else 'what they did from there on'}."
    ]
