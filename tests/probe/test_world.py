"""Known answers: a perfect model does not drift, one that ignores actions is found out, guesses meet their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from openjepa.probe.energy import energy_drift
from openjepa.probe.stretches import Resampled, Stretches, median, others, places, rms
from openjepa.probe.variables import Readout, Variables, fit_readout, varying
from openjepa.probe.world import actions_matter, drift, imagine, latent_spread, readable

LENGTHS, STEP = [30, 24, 30, 18, 30, 27], 0.1
MIX = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0][:, :4]  # z = MIX s, exactly


class Point:
    """Positions and velocities under forces, seen through MIX; `heeds` how much of an action it takes in."""

    def __init__(self, heeds: float = 1.0) -> None:
        self.heeds = heeds

    def encode(self, obs: Tensor) -> Tensor:
        return obs @ MIX.T

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        return move(z @ MIX, self.heeds * action) @ MIX.T


def move(s: Tensor, action: Tensor) -> Tensor:
    v = s[..., 2:] + STEP * action
    return torch.cat([s[..., :2] + STEP * v, v], -1)


def episodes(seed: int = 0) -> tuple[Tensor, Tensor]:
    """States (F, 4) and actions (F, 2) of all episodes end to end."""
    g = torch.Generator().manual_seed(seed)
    state, action = [], []
    for n in LENGTHS:
        a, s = torch.randn(n, 2, generator=g), [torch.randn(4, generator=g)]
        for k in range(n - 1):
            s.append(move(s[-1], a[k]))
        state.append(torch.stack(s))
        action.append(a)
    return torch.cat(state), torch.cat(action)


def stretches(steps: int = 100, z: Tensor | None = None) -> Stretches:
    state, action = episodes()
    at = places(LENGTHS, steps=steps)
    owner = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    return Stretches(
        Point().encode(state) if z is None else z, state.double(), owner, at, action[at.frames[:, 1:-1]]
    )  # fmt: skip


def reader() -> Readout:
    state, _ = episodes(seed=5)
    return fit_readout(Point().encode(state), state, Variables(("x", "y", "vx", "vy")))


def test_a_perfect_model_reads_everything_and_does_not_drift() -> None:
    held, readout = stretches(), reader()
    assert all(row["r2"] > 1 - 1e-6 and row["low"] > 1 - 1e-6 for row in readable(readout, held))
    found = drift(held, imagine(Point(), held, held.action, readout), readout)
    assert found["steps"][-1] == 28 and found["rollouts"][0] > found["rollouts"][-1] >= 3
    assert max(found["latent"]["model"]["high"]) < 1e-5 < 0.05 < found["latent"]["copy_last"]["value"][0]
    assert max(found["all"]["model"]["value"]) < 1e-3 and found["all"]["probe"]["value"] < 1e-3
    assert max(found["variables"]["vx"]["model"]["value"]) < 1e-3 * found["variables"]["vx"]["spread"] * 2


def test_the_guesses_equal_their_formulas() -> None:
    held, readout = stretches(steps=5), reader()
    found = drift(held, imagine(Point(), held, held.action, readout), readout)["variables"]["y"]
    state, _ = episodes()
    y = state[:, 1].double()
    for k in (1, 3, 5):
        still, on = [], []
        for _, now, *then in held.at.frames.tolist():
            if held.at.valid[len(still), k - 1]:
                still.append(float(y[then[k - 1]] - y[now]) ** 2)
                on.append(float(y[now] + k * (y[now] - y[now - 1]) - y[then[k - 1]]) ** 2)
        assert found["copy_last"]["value"][k - 1] == pytest.approx(math.sqrt(sum(still) / len(still)), rel=1e-6)
        assert found["constant_velocity"]["value"][k - 1] == pytest.approx(math.sqrt(sum(on) / len(on)), rel=1e-6)


def test_stretches_stay_in_their_episode_and_step_by_skip() -> None:
    at = places([20, 3, 13], steps=4, skip=3)
    ends = torch.tensor([19, -1, 35])
    assert set(at.episode.tolist()) == {0, 2}  # three frames cannot hold a step before and a step after
    assert at.frames[:, 1].min() == 3 and (at.frames[:, 1] - at.frames[:, 0] == 3).all()
    steps = at.frames[:, 2:] - at.frames[:, 1:-1]
    assert (steps[at.valid] == 3).all() and (at.frames <= ends[at.episode][:, None]).all()
    with pytest.raises(ValueError, match="7 frames, got at most 6"):
        places([6, 2], skip=3)


def test_a_model_that_ignores_actions_is_found_out() -> None:
    held, readout = stretches(steps=10), reader()

    def told(model: Point) -> dict:
        right = imagine(model, held, held.action, readout)
        found = actions_matter(model, held, right, readout, zero=torch.zeros(2))
        assert found is not None
        return found

    deaf, hears = told(Point(0.0)), told(Point(0.7))
    assert deaf["shuffled"]["latent"] == {key: [1.0] * 10 for key in ("value", "low", "high")} == deaf["zero"]["state"]
    assert min(hears["shuffled"]["latent"]["low"]) > 2 and min(hears["zero"]["state"]["low"]) > 1.5
    alone = held._replace(at=held.at._replace(episode=torch.zeros_like(held.at.episode)))
    right = imagine(Point(), held, held.action, None)
    assert right.state is None and actions_matter(Point(), alone, right, None) is None


def test_partners_are_of_other_episodes() -> None:
    episode = places(LENGTHS, steps=3).episode
    for seed in range(5):
        partner = others(episode, seed)
        assert partner is not None and (episode[partner] != episode).all()
        assert sorted(partner.tolist()) == list(range(len(episode)))


def test_angles_go_the_short_way_and_what_never_varies_is_refused() -> None:
    v = Variables(("theta", "omega"))
    turn = torch.linspace(0, 20, 400).double()
    state = torch.stack([turn, torch.cos(turn)], -1)
    assert torch.allclose(v.difference(v.values(v.targets(state)), state), torch.zeros(400, 2).double(), atol=1e-9)
    readout = fit_readout(v.targets(state).float(), state, v)
    assert v.difference(readout(v.targets(state)), state).abs().max() < 1e-3
    assert readout.spread[0] < math.pi
    still = torch.cat([state, torch.full((400, 1), 3.0)], 1)
    assert varying(still) == [True, True, False]
    with pytest.raises(ValueError, match="got mass that do not"):
        fit_readout(state, still, Variables(("theta", "omega", "mass")))


def test_intervals_span_episodes_and_a_dead_latent_has_no_spread() -> None:
    """Frames of an episode that err alike are one draw, not many."""
    episode = torch.arange(8).repeat_interleave(50)
    squares = (episode.double() + 1)[:, None]
    valid = torch.ones(400, 1, dtype=torch.bool)
    together = rms(squares, valid, Resampled(episode))
    single = rms(squares, valid, Resampled(torch.arange(400)))
    assert together["value"] == single["value"]
    wide, narrow = (x["high"][0] - x["low"][0] for x in (together, single))
    assert wide > 4 * narrow
    assert latent_spread(torch.full((9, 3), 2.0)) == 0.0 < latent_spread(torch.randn(9, 3))


def test_energy_is_kept_by_a_perfect_model_and_its_loss_is_told() -> None:
    """Kinetic energy: a model whose speeds fade by a tenth each step has .9^(2k) of it after k steps, less no force."""

    class Fading(Point):
        def step(self, z: Tensor, action: Tensor) -> Tensor:
            s = move(z @ MIX, action)
            return torch.cat([s[..., :2], 0.9 * s[..., 2:]], -1) @ MIX.T

    def energy(s: Tensor) -> Tensor:
        return s[..., 2:].square().sum(-1) / 2

    held, readout = stretches(steps=6), reader()
    right = energy_drift(held, imagine(Point(), held, held.action, readout), readout, energy)
    assert max(right["model"]["high"]) < 1e-3 < 0.01 < right["copy_last"]["value"][0]  # forces do work
    assert right["scale"] == pytest.approx(float(energy(held.state).mean()), rel=1e-9)

    still = held._replace(action=torch.zeros_like(held.action))
    found = energy_drift(still, imagine(Fading(), still, still.action, readout), readout, energy)
    assert found["drift"]["value"][5] < 0 and found["probe"]["value"] < 1e-3
    state = held.state[held.at.frames]  # (R, H + 2, P)
    for k in (1, 6):
        faded = energy(state[:, 1]) * 0.81**k - energy(state[:, k + 1])
        expected = faded[held.at.valid[:, k - 1]].sort().values / right["scale"]
        assert found["drift"]["value"][k - 1] == pytest.approx(float(expected[(len(expected) - 1) // 2]), abs=1e-3)


def test_the_median_draws_episodes_and_bears_what_is_no_number() -> None:
    values = torch.tensor([[1.0], [2.0], [3.0], [float("inf")], [float("nan")], [7.0]])
    valid = torch.tensor([[True]] * 5 + [[False]])
    found = median(values, valid, Resampled(torch.tensor([0, 1, 2, 3, 4, 4])))
    assert found["value"] == [3.0] and found["low"][0] <= 2.0 and found["high"][0] == 1e30
    alone = median(values[:3], valid[:3], Resampled(torch.zeros(3, dtype=torch.long)))
    assert alone == {"value": [2.0], "low": [2.0], "high": [2.0]}  # one episode: nothing to draw from
