"""`openjepa probe` of a world model: what it knows of its world, how far it can be believed, whether actions matter."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjepa.app.dreaming import Dreamer, dreamer
from openjepa.app.measuring import write
from openjepa.app.requests import ProbeRequest, refuse
from openjepa.app.runs import Run
from openjepa.app.world_energy import energies
from openjepa.app.world_pictures import latent_map, strips
from openjepa.app.world_text import about_actions
from openjepa.data.episodes.episodes import Episodes
from openjepa.data.episodes.scale import Scale
from openjepa.data.episodes.windows import channels_first, take
from openjepa.plan.reach import Latents
from openjepa.probe.stretches import Stretches, places
from openjepa.probe.variables import Readout, Variables, fit_readout, flat, varying
from openjepa.probe.world import actions_matter, drift, imagine, readable
from openjepa.train.launch import resolve_device
from openjepa.worlds.gym_live import TICKET  # columns of a state that only say where a simulator stands

STEPS = 100  # of the model, that a future is imagined for
EPISODES, FRAMES = 64, 8000  # at most, held out
LEARN = 4000  # frames of training episodes that the probe is fitted on
NUMBERS = 2**26  # of all latents of one side together: 256 MB
FITS = ("seed", "batch_size", "device")  # settings of `probe` that mean something for a world model


def probe_world(run: Run, asked: ProbeRequest) -> dict[str, Any]:
    """Measure a world model on the episodes it never saw; the numbers go to eval/world.json, pictures beside them."""
    refuse(asked, FITS, str(run.path))
    found = dreamer(run, resolve_device(asked.device))
    sides = Sides.of(found, asked.batch_size)
    held, readout = sides.held, sides.readout
    right = imagine(found.model, held, held.action, readout, found.device)
    zero = None if found.preprocess["discrete"] is not None else sides.nothing
    actions = actions_matter(
        found.model, held, right, readout, zero=zero, seed=asked.seed, device=found.device
    )  # fmt: skip
    shown: dict[str, np.ndarray] = {}
    decoder_r2 = None
    if found.episodes.pictures:
        shown, decoder_r2 = strips(found, sides.z, sides.learnt_on, held, sides.observed, seed=asked.seed)
    dt = found.preprocess.get("dt")
    result = {
        "run": str(run.path), "kind": "world", "data": found.data.path,
        "world": (found.preprocess.get("world") or {}).get("name"), "seed": asked.seed,
        "held_out_episodes": len(held.at.episode.unique()), "held_out_frames": len(held.z),
        "stretches": len(held.at.episode), "trained_on": len(sides.z), "skip": found.skip,
        "seconds_per_step": None if dt is None else dt * found.skip, "left_out": list(sides.left_out),
        "variables": readable(readout, held, seed=asked.seed) if readout else [],
        "drift": drift(held, right, readout, seed=asked.seed), "actions": actions, "decoder_r2": decoder_r2,
        "energy": energies(found.preprocess.get("world"), held, right, readout, seed=asked.seed),
    }  # fmt: skip
    result["about_actions"] = about_actions(result)
    result = finite(result)
    arrays = {**shown, **latent_map(held, readout.variables.names if readout else ())}
    save(run.path / "eval" / "world.npz", arrays)
    file = run.path / "eval" / "world.json"
    write(file, result)
    return {**result, "file": str(file)}


@dataclass(frozen=True)
class Sides:
    """Frames of training episodes to fit on, and stretches of the held-out ones to measure on.

    z, rows      of the training frames, as the model makes them, and where they are
    chosen       the held-out episodes
    nothing      an action of zero in the world's units, as the model takes it
    left_out     variables that cannot be measured, because they never vary
    """

    seen: Seen
    rows: np.ndarray
    z: Tensor
    chosen: Episodes
    held: Stretches
    readout: Readout | None
    nothing: Tensor
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, found: Dreamer, batch: int) -> Sides:
        episodes, scale = found.episodes, Scale.from_dict(found.preprocess)
        seen = Seen(found, episodes, scale, batch)
        chosen = held_out(found)
        size = seen.encode(chosen.rows()[:1])[0].numel()
        chosen = few(chosen, min(FRAMES, max(1, NUMBERS // size)))
        rows = spaced(episodes.keep(found.split.train).rows(), min(LEARN, NUMBERS // size))
        z = seen.encode(rows)
        readout, names, kept = fitted(episodes, rows, z)
        left_out = tuple(name for i, name in enumerate(names) if i not in kept)
        nothing = scale.action(torch.zeros(found.skip * episodes.action.shape[1]))
        return cls(seen, rows, z, chosen, stretches(seen, chosen, kept), readout, nothing, left_out)

    def learnt_on(self, which: Tensor) -> Tensor:
        """Observations of the training frames at `which`, as the model takes them."""
        return self.seen.frames(self.rows[which.numpy()])

    def observed(self, which: Tensor) -> Tensor:
        """Observations of the held-out frames at `which`."""
        return self.seen.frames(self.chosen.rows()[which.numpy()])


def spaced(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, evenly over all."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64))]


def fitted(episodes: Episodes, rows: np.ndarray, z: Tensor) -> tuple[Readout | None, tuple[str, ...], list[int]]:
    """The probe of the variables that vary (None where there are none), the names of all, and which these are."""
    names, state = states(episodes, rows)
    kept = [i for i, moves in enumerate(varying(state)) if moves and names[i] not in TICKET] if names else []
    if not kept:
        return None, names, kept
    return fit_readout(flat(z), state[:, kept], Variables(tuple(names[i] for i in kept))), names, kept


def state_readout(found: Dreamer) -> tuple[Readout | None, tuple[int, ...]]:
    """The probe alone, as `Sides` fits it, and the shape of one latent."""
    episodes, seen = found.episodes, Seen(found, found.episodes, Scale.from_dict(found.preprocess), 256)
    rows = episodes.keep(found.split.train).rows()
    size = seen.encode(rows[:1])[0].numel()
    rows = spaced(rows, min(LEARN, NUMBERS // size))
    z = seen.encode(rows)
    return fitted(episodes, rows, z)[0], tuple(z.shape[1:])


def learnt_latents(found: Dreamer, frames: int, episodes: Episodes | None = None) -> Latents:
    """Whole training episodes (or `episodes`), about so many frames of them at most, encoded; neighbours are a model
    step apart.

    With `skip` world steps to a model step, an episode becomes `skip` of them, one from each of its first frames.
    """
    chosen = found.episodes.keep(found.split.train) if episodes is None else episodes
    seen = Seen(found, chosen, Scale.from_dict(found.preprocess), 256)
    chosen = chosen.keep(np.flatnonzero(chosen.lengths > found.skip))
    size = seen.encode(chosen.rows()[:1])[0].numel()
    most = max(1, int(min(frames, NUMBERS // size) / float(chosen.lengths.mean())))
    chosen = chosen.keep(spaced(np.arange(len(chosen)), most))
    begins = np.cumsum(chosen.lengths) - chosen.lengths
    parts = [
        np.arange(begin + first, begin + length, found.skip)
        for begin, length in zip(begins, chosen.lengths, strict=True)
        for first in range(min(found.skip, length - found.skip))
    ]  # each of two frames or more
    order = torch.from_numpy(np.concatenate(parts))
    return Latents(seen.encode(chosen.rows())[order], torch.tensor([len(part) for part in parts]))


@dataclass(frozen=True)
class Seen:
    """Frames as the model takes them."""

    found: Dreamer
    episodes: Episodes
    scale: Scale
    batch: int

    @torch.inference_mode()
    def encode(self, rows: np.ndarray) -> Tensor:
        """(F, D) or (F, N, D) of the frames at `rows`, on the CPU."""
        parts = np.array_split(rows, max(1, math.ceil(len(rows) / self.batch)))
        device = self.found.device
        return torch.cat([self.found.model.encode(self.frames(some).to(device)).float().cpu() for some in parts])

    def frames(self, rows: np.ndarray) -> Tensor:
        """Observations as the model takes them, on the CPU."""
        return self.scale.observation(channels_first(take(self.episodes.obs, rows)).contiguous())


def stretches(seen: Seen, chosen: Episodes, kept: list[int]) -> Stretches:
    """The held-out episodes `chosen`, encoded, with the variables at `kept`."""
    skip, rows = seen.found.skip, chosen.rows()
    at = places(chosen.lengths.tolist(), steps=STEPS, skip=skip)
    began = at.frames[:, 1:-1].numpy()[..., None] + np.arange(skip)  # (R, H, skip)
    taken = take(chosen.action, rows[np.minimum(began, len(rows) - 1)])
    owner = torch.repeat_interleave(torch.arange(len(chosen)), torch.from_numpy(np.asarray(chosen.lengths)))
    action = seen.scale.action(taken.flatten(2))
    return Stretches(seen.encode(rows), states(chosen, rows)[1][:, kept], owner, at, action)


def states(episodes: Episodes, rows: np.ndarray) -> tuple[tuple[str, ...], Tensor]:
    """Names and values (F, P) of the physical variables; where none are recorded, an observation's own numbers."""
    if episodes.state.shape[1]:
        return episodes.variables, take(episodes.state, rows).double()
    if episodes.pictures:
        return (), torch.zeros(len(rows), 0, dtype=torch.float64)
    return episodes.features, take(episodes.obs, rows).double()


def held_out(found: Dreamer) -> Episodes:
    """Episodes that training never saw, long enough for a step before and a step after a start."""
    held = found.split.held
    fits = held[found.episodes.lengths[held] > 2 * found.skip]
    if len(fits) == 0:
        raise ValueError(
            f"probe must have held-out episodes of {2 * found.skip + 1} frames, got {len(held)} held out and none so "
            f"long in {found.data.path}. Train with data.held_out=0.1 on more or longer episodes."
        )
    return found.episodes.keep(fits)


def few(episodes: Episodes, frames: int) -> Episodes:
    """At most EPISODES of them and about so many frames, evenly over all; two at least, where there are two."""
    count = min(len(episodes), EPISODES, max(2, int(frames / float(episodes.lengths.mean()))))
    return episodes.keep(np.unique(np.linspace(0, len(episodes) - 1, count).astype(np.int64)))


def finite(item: Any) -> Any:
    """Nested plain values with None for numbers that are not finite, so that they can be written as JSON."""
    if isinstance(item, dict):
        return {k: finite(v) for k, v in item.items()}
    if isinstance(item, list):
        return [finite(v) for v in item]
    return None if isinstance(item, float) and not math.isfinite(item) else item


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as f:
        np.savez_compressed(f, **arrays)  # type: ignore[arg-type]
    os.replace(part, path)
