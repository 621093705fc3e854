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
from openjepa.plan.evaluate import CONTROLS, ROWS, Result, evaluate
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
    notes: Sequence[str] = (),
) -> Result:
    """`evaluate`, and what it found written to the folder `out`.

    model, preprocess  a `Dynamics` and the scales it was trained with; None and None for the controls alone
    world              None: made from the protocol's settings
    protocol           a `Protocol`, a name in `protocols()`, or a JSON file
    films              so many episodes are filmed, the first ones of the list: chosen before anything is known of them

    The other arguments are those of `evaluate`. `out` gets result.json, pairs.json (the manifest), protocol.json and
    model_000.gif (simulator_000.gif without a model); their names are in `values["files"]`. All of it is written
    after every row, with `values["complete"]` False until the last. Interrupted, it keeps the rows that are done and
    raises a `KeyboardInterrupt` that says which.
    """
    protocol = load_protocol(protocol)
    world = make_world(protocol.world) if world is None else world
    folder = None if out is None else Path(out)
    done: list[str] = []

    def keep(found: Result) -> None:
        assert folder is not None
        if "files" not in found.values:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "pairs.json", found.manifest.as_dict())
            write_json(folder / "protocol.json", protocol.model_dump(mode="json"))
            found.values["files"] = ["result.json", "pairs.json", "protocol.json"]
        write_json(folder / "result.json", found.as_dict())
        done[:] = found.values["rows"]
        if films and filmed(found, world, folder, films, ("gif", "mp4") if film == "both" else (film,)):
            write_json(folder / "result.json", found.as_dict())

    try:
        return evaluate(
            model, world, protocol, planner, preprocess, skip=skip, split=split, episodes=episodes, held_out=held_out,
            controls=controls, ceiling_episodes=ceiling_episodes, seed=seed, device=device, heads=heads,
            tell=tell, keep=None if folder is None else keep, notes=notes,
        )  # fmt: skip
    except KeyboardInterrupt:
        what = f"{folder}/result.json keeps {'; '.join(ROWS[k] for k in done)}" if done else "no row was finished"
        raise KeyboardInterrupt(f"Interrupted: {what}. The same command measures all of it anew.") from None


def filmed(found: Result, world: World, folder: Path, films: int, endings: Sequence[str]) -> bool:
    """Film what the row that was measured last did, if that is the model, or without one the simulator; their names
    join `values["files"]`. Whether there is anything new to write down."""
    name = next(n for n in ("model", "simulator", "") if n in found.values["wanted"] or not n)
    if name != next(reversed(found.drives)):
        return False
    for episode in range(min(films, len(found.drives[name].steps))):
        try:
            pictures = film_of(world, found, name, episode)
        except ValueError as e:  # a world that cannot be drawn: the numbers are not lost for that
            found.values["no_film"] = str(e)
            break
        for ending in endings:
            found.values["files"].append(save_film(pictures, folder / f"{name}_{episode:03d}.{ending}").name)
    return True


def film_of(world: World, found: Result, name: str, episode: int) -> np.ndarray:
    """The frames of an episode; without its goal where a world cannot show a state that it is not in."""
    try:
        return frames(world, found.drives[name], found.manifest.goals, episode)
    except ValueError:
        if getattr(world, "settable", True):
            raise
        return frames(world, found.drives[name], found.manifest.goals, episode, blank=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)
