"""How fast the worlds are on one core: steps, observations and pictures per second of processor time.

    python -m benchmarks.worlds              # about half a minute
    python -m benchmarks.worlds two-rooms    # some of them

Random actions, `side` worlds side by side; simulators of others are left out where they are not installed.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.record import save
from openjepa.worlds import WORLDS, make_policy, make_world

CASES: list[tuple[str, dict[str, Any], int]] = [
    *((name, {}, 1000) for name, home in WORLDS.items() if ".physics." in home),
    *(("two-rooms", {"size": size}, 1000) for size in (33, 65)),
    ("two-rooms", {"paper_exact": True}, 1000),
    ("two-rooms", {}, 64),
    *((f"gym:{name}", {}, 16) for name in ("Pendulum-v1", "CartPole-v1", "HalfCheetah-v5")),
    *((name, {}, 16) for name in ("reacher", "pointmaze", "pusht")),
]


def rate(call: Callable[[], object], count: int, seconds: float = 0.4, rounds: int = 3) -> float:
    """Units per second of processor time, best of `rounds`; `count` units per call."""
    best = 0.0
    for _ in range(rounds):
        calls, start = 0, time.process_time()
        while (spent := time.process_time() - start) < seconds / rounds or not calls:
            call()
            calls += 1
        best = max(best, calls * count / spent) if spent else best
    return best


def measure(name: str, settings: dict[str, Any], side: int) -> dict[str, Any]:
    world, rng = make_world(name, **settings), np.random.default_rng(0)
    policy = make_policy("random", world)
    states = world.reset(side, rng)
    actions = policy.act(states, rng)
    row: dict[str, Any] = {"world": name, "settings": settings, "side": side}
    row["steps"] = rate(lambda: world.step(states, actions), side)
    world.observe(states)
    row["observations"] = rate(lambda: world.observe(states), side)
    for size in (64, 224):
        try:
            world.draw(states[:1], size)
            row[f"draw{size}"] = rate(lambda size=size: world.draw(states[:16], size), min(16, side))
        except ValueError:
            row[f"draw{size}"] = None
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("worlds", nargs="*", help="names; all when none is given")
    wanted = parser.parse_args().worlds
    warnings.simplefilter("ignore")
    print(f"{'world':45}{'side':>5}{'steps/s':>13}{'observed/s':>13}{'64 px/s':>10}{'224 px/s':>10}")
    rows = []
    for name, settings, side in CASES:
        if wanted and name not in wanted:
            continue
        try:
            row = measure(name, settings, side)
        except ValueError as e:
            print(f"{name:45}{e}")
            continue
        rows.append(row)
        label = name + "".join(f" {k}={v}" for k, v in settings.items())
        drawn = "".join(f"{row[k]:>10,.0f}" if row[k] else f"{'-':>10}" for k in ("draw64", "draw224"))
        print(f"{label:45}{side:>5}{row['steps']:>13,.0f}{row['observations']:>13,.0f}{drawn}")
    if not wanted:
        print("written to", save("worlds", {"rows": rows}))


if __name__ == "__main__":
    main()
