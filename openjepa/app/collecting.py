"""Episodes of a world, from the command line and from Python."""

from __future__ import annotations

import sys
import time
from typing import Any

from openjepa.app.requests import CollectRequest
from openjepa.data.collect import collect


def collect_world(world: str, asked: CollectRequest) -> dict[str, Any]:
    """Collect, and say what is there: with the seconds it took, for a person to plan the next one by."""
    begin = time.perf_counter()

    def progress(done: int, of: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == of else "\r"
            print(f"{done} of {of} episodes", end=end, file=sys.stderr, flush=True)

    episodes = collect(
        {**asked.world, "name": world}, asked.policy, episodes=asked.episodes, steps=asked.steps, out=asked.out,
        seed=asked.seed, progress=progress,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    return {
        "out": asked.out,
        "world": world,
        "settings": {k: v for k, v in (episodes.about.world or {}).items() if k != "name"},
        "policy": episodes.about.policy,
        "seed": asked.seed,
        "episodes": len(episodes),
        "frames": episodes.frames,
        "obs": list(episodes.obs.shape[1:]),
        "action": episodes.action.shape[1],
        "seconds": round(seconds, 2),
        "hash": episodes.hash,
    }
