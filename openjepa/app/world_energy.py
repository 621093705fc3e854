"""The energy that imagined futures gain or lose, where the world of a run has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjepa.probe.energy import energy_drift
from openjepa.probe.stretches import Stretches
from openjepa.probe.variables import Readout
from openjepa.probe.world import Errors
from openjepa.worlds import WORLDS, find, make_world


def energies(
    world: Mapping[str, Any] | None, held: Stretches, found: Errors, readout: Readout | None, *, seed: int = 0
) -> dict[str, Any] | None:
    """`energy_drift` in the world of those settings; None where it has no energy, or where a variable is not read."""
    if world is None or readout is None or str(world["name"]) not in WORLDS:
        return None
    if getattr(find(WORLDS, str(world["name"]), "world"), "energy", None) is None:
        return None
    energy = energy_of(make_world(world), readout.variables.names)
    return None if energy is None else energy_drift(held, found, readout, energy, seed=seed)


def energy_of(world: Any, names: tuple[str, ...]) -> Callable[[Tensor], Tensor] | None:
    """The energy of states whose variables stand in the order of `names`; None where one is missing."""
    if not set(world.names) <= set(names):
        return None
    columns = [names.index(name) for name in world.names]

    def energy(state: Tensor) -> Tensor:
        with np.errstate(all="ignore"):  # what was imagined need not be possible
            return torch.from_numpy(world.energy(state[:, columns].double().cpu().numpy()))

    return energy
