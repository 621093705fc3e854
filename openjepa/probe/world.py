"""Does a model know its world? What z holds of it, how far its imagination can be believed, whether actions matter.

Every number is of episodes that training never saw, and every interval spans episodes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from openjepa.core.rollout import rollout
from openjepa.core.types import Dynamics
from openjepa.probe.stretches import Resampled, Stretches, others, ratio, rms, with_ends
from openjepa.probe.variables import Readout, flat

BATCH = 64  # stretches that are imagined together
FLAT = 1e-6  # a latent that varies less than this share of its size is the same everywhere


class Errors(NamedTuple):
    """Squared errors of imagined futures, per stretch and step."""

    latent: Tensor  # (R, H) mean over the numbers of z
    state: Tensor | None  # (R, H, P) of each variable, as the probe reads it
    read: Tensor | None = None  # (R, H, P) what the probe reads, in the variables' own units


def readable(readout: Readout, held: Stretches, *, seed: int = 0) -> list[dict[str, Any]]:
    """How much of the variance of every variable the probe finds in z, on all frames of the held-out episodes.

        R^2 = 1 - sum (read - true)^2 / sum (true - mean true)^2

    An angle counts as its cosine and its sine. One dict per target: name, r2, low, high; the interval draws episodes.
    Difference from `regress`: its interval draws single pictures, which frames of an episode are too much alike for.
    """
    true = readout.variables.targets(held.state)  # (F, K)
    error = readout.targets(flat(held.z)) - true
    shifted = true - true.mean(0)  # so that the squares keep their digits
    draws = Resampled(held.owner, seed=seed)
    n, drawn_n = draws.sums(torch.ones(len(true), 1))
    parts = [draws.sums(x) for x in (error.square(), shifted.square(), shifted)]
    (e, drawn_e), (s, drawn_s), (m, drawn_m) = parts
    value = 1 - e / (s - m.square() / n)
    found = with_ends(value, 1 - drawn_e / (drawn_s - drawn_m.square() / drawn_n))
    rows = zip(readout.variables.target_names, found["value"], found["low"], found["high"], strict=True)
    return [{"name": name, "r2": r2, "low": low, "high": high} for name, r2, low, high in rows]


def drift(held: Stretches, found: Errors, readout: Readout | None, *, seed: int = 0) -> dict[str, Any]:
    """How far imagined futures lead away from what happened, at every step, beside guesses that need no model.

    `found` is of `imagine` under the actions that were taken: the model starts from one held-out observation and is
    then fed its own predictions. In z and, through the `readout`, in the units of each variable:

        copy last          nothing changes
        constant velocity  s + k (s - s_before): the last change goes on; told the true states
        probe              what the readout errs by on true z: no future read through it can be expected to do better

    `variables` has root mean square errors in own units; `all` the root mean square over variables of error / spread,
    so that guessing the mean state would err by 1; `latent` the error of z over the spread of z. Each with an interval
    over episodes.
    """
    draws = Resampled(held.at.episode, seed=seed)
    valid, frames = held.at.valid, held.at.frames
    spread = latent_spread(held.z)
    out: dict[str, Any] = {"steps": list(range(1, valid.shape[1] + 1)), "rollouts": valid.sum(0).tolist()}
    still = torch.stack([apart(held.z[row[2:]], held.z[row[1]][None]) for row in frames])  # (R, H)
    scale = spread**2 or float("nan")  # of a latent that is the same everywhere no error can be told
    both = {"model": found.latent, "copy_last": still}
    out["latent"] = {"spread": spread, **{name: rms(x / scale, valid, draws) for name, x in both.items()}}
    if readout is None or found.state is None:
        return out
    squares = {"model": found.state, **guesses(held, readout)}
    spreads = readout.spread  # (P,)
    read = readout.variables.difference(readout(flat(held.z)), held.state).square()  # (F, P)
    own = Resampled(held.owner, seed=seed)
    out["all"] = {name: rms((x / spreads.square()).mean(-1), valid, draws) for name, x in squares.items()}
    out["all"]["probe"] = one(rms((read / spreads.square()).mean(-1)[:, None], always(read), own))
    out["variables"] = {
        name: {"spread": float(spreads[p]), "probe": one(rms(read[:, p, None], always(read), own))}
        | {guess: rms(x[..., p], valid, draws) for guess, x in squares.items()}
        for p, name in enumerate(readout.variables.names)
    }
    return out


def actions_matter(
    model: Dynamics,
    held: Stretches,
    right: Errors,
    readout: Readout | None,
    *,
    zero: Tensor | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Any] | None:
    """How much worse imagined futures get under wrong actions: those of another episode, and none at all.

    right    of `imagine` under the actions that were taken
    zero     (A,) an action that does nothing, as the model takes it; None where there is no such action
    returns  for "shuffled" and "zero": `latent` (and `state`), the error as a multiple of that under the right actions,
             at each step; 1 says that the model does not look at its actions. None where nobody acts, or where there
             are too few episodes to swap actions between.
    """
    partner = others(held.at.episode, seed)
    if held.action.shape[-1] == 0 or partner is None:
        return None
    valid = held.at.valid & held.at.valid[partner]
    wrong = {"shuffled": held.action[partner]}
    if zero is not None:
        wrong["zero"] = zero.to(held.action).expand_as(held.action)
    draws = Resampled(held.at.episode, seed=seed)
    out: dict[str, Any] = {"steps": list(range(1, valid.shape[1] + 1))}
    for name, actions in wrong.items():
        found = imagine(model, held, actions, readout, device)
        out[name] = {"latent": ratio(found.latent, right.latent, valid, draws)}
        if found.state is not None and right.state is not None and readout is not None:
            weight = 1 / readout.spread.square()
            a, b = ((x * weight).mean(-1) for x in (found.state, right.state))
            out[name]["state"] = ratio(a, b, valid, draws)
    return out


@torch.inference_mode()
def imagine(
    model: Dynamics, held: Stretches, actions: Tensor, readout: Readout | None, device: torch.device | str = "cpu"
) -> Errors:
    """Roll every stretch out from its start under `actions` (R, H, A), and compare with what happened.

    The model is on `device`; all else stays on the CPU.
    """
    latent, state, seen = [], [], []
    for rows in torch.arange(len(actions)).split(BATCH):
        future = rollout(model, held.start[rows].to(device), actions[rows].to(device)).cpu()  # (b, H, ...)
        then = held.at.frames[rows, 2:]
        latent.append(apart(future, held.z[then], keep=2))
        if readout is not None:
            read = readout(flat(future.flatten(0, 1))).unflatten(0, future.shape[:2])
            state.append(readout.variables.difference(read, held.state[then]).square())
            seen.append(read)
    if not state:
        return Errors(torch.cat(latent), None)
    return Errors(torch.cat(latent), torch.cat(state), torch.cat(seen))


def guesses(held: Stretches, readout: Readout) -> dict[str, Tensor]:
    """Squared errors (R, H, P) of the guesses that need no model."""
    before, now = held.state[held.at.frames[:, 0]], held.state[held.at.frames[:, 1]]  # (R, P)
    then = held.state[held.at.frames[:, 2:]]  # (R, H, P)
    differ = readout.variables.difference
    k = torch.arange(1, then.shape[1] + 1, dtype=then.dtype)[:, None]
    moved = now[:, None] + k * differ(now, before)[:, None]
    return {"copy_last": differ(now[:, None], then).square(), "constant_velocity": differ(moved, then).square()}


def apart(a: Tensor, b: Tensor, keep: int = 1) -> Tensor:
    """Mean squared difference over all but the first `keep` axes."""
    return (a - b).double().square().flatten(keep).mean(-1)


def latent_spread(z: Tensor) -> float:
    """Root mean square distance of z from its mean over frames, per number; 0 for one that is the same everywhere."""
    x = z.flatten(1).double()
    spread, size = (x - x.mean(0)).square().mean().sqrt(), x.square().mean().sqrt()
    return float(spread) if spread > FLAT * size else 0.0


def always(rows: Tensor) -> Tensor:
    return torch.ones(len(rows), 1, dtype=torch.bool)


def one(found: dict[str, Any]) -> dict[str, float]:
    """A list of one number as the number."""
    return {key: value[0] for key, value in found.items()}
