"""Does an imagined future keep its energy? For worlds that have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from openjepa.probe.stretches import Resampled, Stretches, median
from openjepa.probe.variables import Readout, flat
from openjepa.probe.world import Errors, always, one


def energy_drift(
    held: Stretches, found: Errors, readout: Readout, energy: Callable[[Tensor], Tensor], *, seed: int = 0
) -> dict[str, Any]:
    """The energy of the state that the probe reads from imagined latents, beside that of what happened.

        off_k = (E(read_k) - E(true_k)) / mean over frames of |E(true)|

    found    of `imagine` under the actions that were taken, with a readout
    energy   states (N, P) in their own units -> (N,), the variables in the order of `readout.variables`
    returns  `scale`, that mean; `model`, the median of |off| over rollouts at each step; `drift`, the median of off,
             whose sign says whether energy is gained or lost; `copy_last`, |off| of a state that stays as it was (0
             where energy is kept); `probe`, |off| of what is read from true z. Each with an interval over episodes.

    Medians, because an energy such as that of an orbit has no bound: one imagined future that comes too near to the
    centre would hide all others. Where actions do work, the true energy changes too, and is compared step by step.
    """
    if found.read is None:
        raise ValueError("found must hold what the probe reads, got none. Imagine with a readout.")
    true = energy(held.state).double()  # (F,)
    scale = float(true.abs().mean()) or float("nan")
    then = true[held.at.frames[:, 2:]]  # (R, H)
    off = (energy(found.read.flatten(0, 1)).double().view_as(then) - then) / scale
    still = (true[held.at.frames[:, 1]][:, None] - then) / scale
    draws, valid = Resampled(held.at.episode, seed=seed), held.at.valid
    own = ((energy(readout(flat(held.z))).double() - true) / scale).abs()[:, None]  # (F, 1)
    return {
        "steps": list(range(1, valid.shape[1] + 1)),
        "scale": scale,
        "model": median(off.abs(), valid, draws),
        "drift": median(off, valid, draws),
        "copy_last": median(still.abs(), valid, draws),
        "probe": one(median(own, always(own), Resampled(held.owner, seed=seed))),
    }
