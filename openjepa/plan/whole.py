"""From a model and a protocol to a folder: result.json, pairs.json, films. One call does it all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from openjepa.config import Config
from openjepa.core.types import Dynamics
from openjepa.plan.agent import Heads
from openjepa.plan.evaluate import CONTROLS, Result, evaluate
from openjepa.plan.film import frames, save_film
from openjepa.plan.protocol import Protocol, load_protocol
from openjepa.worlds import make_world
from openjepa.worlds.base import World


def run_protocol(
    model: Dynamics | None,
    preprocess: Mapping[str, Any] | None,
    world: World | None,
    protocol: Protocol | str | Path,
    planner: Config | Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    skip: int | None = None,
    split: Literal["tune", "report"] = "report",
    episodes: int | None = None,
    held_out: Mapping[str, np.ndarray] | None = None,
    controls: Sequence[str] = CONTROLS,
    ceiling_episodes: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    films: int = 1,
    film: Literal["gif", "mp4", "both"] = "gif",
    heads: Heads | None = None,
    tell: Callable[[str], None] | None = None,
) -> Result:
    """`evaluate`, and what it found written to the folder `out`.

    model, preprocess  a `Dynamics` and the scales it was trained with; None and None for the controls alone
    world              None: made from the protocol's settings
    protocol           a `Protocol`, a name in `protocols()`, or a JSON file
    films              so many episodes are filmed, the first ones of the list: chosen before anything is known of them

    The other arguments are those of `evaluate`. `out` gets result.json, pairs.json (the manifest), protocol.json and
    model_000.gif (simulator_000.gif without a model); their names are in `values["files"]`.
    """
    protocol = load_protocol(protocol)
    world = make_world(protocol.world) if world is None else world
    result = evaluate(
        model, world, protocol, planner, preprocess, skip=skip, split=split, episodes=episodes, held_out=held_out,
        controls=controls, ceiling_episodes=ceiling_episodes, seed=seed, device=device, heads=heads,
        tell=tell,
    )  # fmt: skip
    if out is None:
        return result
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    files = ["result.json", "pairs.json", "protocol.json"]
    for name in [n for n in ("model", "simulator") if n in result.drives][:1]:
        for episode in range(min(films, len(result.manifest))):
            try:
                pictures = frames(world, result.drives[name], result.manifest.goals, episode)
            except ValueError as e:  # a world that cannot be drawn: the numbers are not lost for that
                result.values["no_film"] = str(e)
                break
            for ending in ("gif", "mp4") if film == "both" else (film,):
                files.append(save_film(pictures, folder / f"{name}_{episode:03d}.{ending}").name)
    result.values["files"] = files
    write_json(folder / "pairs.json", result.manifest.as_dict())
    write_json(folder / "protocol.json", protocol.model_dump(mode="json"))
    write_json(folder / "result.json", result.as_dict())
    return result


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)
