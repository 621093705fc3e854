"""Plans in a world whose state cannot be set: pairs begin where held-out episodes do, played anew."""

from __future__ import annotations

import numpy as np
import pytest

from openjepa.plan.evaluate import evaluate
from openjepa.plan.judge import spreads
from openjepa.plan.protocol import Protocol
from openjepa.plan.replay import can_replay, replayed
from tests.plan.plane import Exact, Plane

PREPROCESS = {"obs_mean": [0.0, 0.0], "obs_std": [1.0, 1.0], "action_mean": [0.0, 0.0], "action_std": [1.0, 1.0],
              "discrete": None}  # fmt: skip


class Forward(Plane):
    """The plane, but a state is a ticket: only the latest of an episode goes on. `slip` is drawn beside the seed."""

    names = ("episode", "tick", "ended", "seed", "x", "y", "n")
    settable = False

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[bytes, tuple[int, list[np.ndarray]]] = {}
        self.now: list[tuple[int, list[np.ndarray]]] = []
        self.slip = np.zeros(2)

    def reset(self, n, rng):
        return self.begin([int(s) for s in rng.integers(0, 2**31, n)])

    def begin(self, seeds):
        starts = [Plane.reset(self, 1, np.random.default_rng(seed))[0] for seed in seeds]
        self.now = [(seed, []) for seed in seeds]
        return self.noted(np.stack([[i, 0, 0, s, *x] for i, (s, x) in enumerate(zip(seeds, starts, strict=True))]))

    def noted(self, rows):
        for row in rows:
            seed, way = self.now[int(row[0])]
            self.known[row[1:].tobytes()] = (seed, list(way))
        return rows

    def step(self, states, actions):
        after = states.copy()
        for i, (row, action) in enumerate(zip(states, actions, strict=True)):
            seed, way = self.now[int(row[0])]
            assert (seed, len(way)) == (row[3], row[1]), "not the latest"
            way.append(action)
            after[i, 1] += 1
            after[i, 4:] = Plane.step(self, row[None, 4:], action[None])[0]
            after[i, 4:6] += self.slip * (row[1] >= 4)
        return self.noted(after)

    def again(self, states):
        ways = [self.known[row[1:].tobytes()] for row in states]
        rows = self.begin([seed for seed, _ in ways])
        for i, (_, way) in enumerate(ways):
            for action in list(way):
                rows[i] = self.step(rows[i : i + 1], action[None])[0]
        return rows

    def replay(self, seed, actions):
        rows = [self.begin([seed])]
        for action in actions:
            rows.append(self.step(rows[-1], action[None]))
        return np.concatenate(rows)

    def observe(self, states):
        return states[:, 4:6].astype(np.float32)


def recorded(world: Forward, episodes: int = 6, steps: int = 12) -> tuple[dict, dict]:
    rng = np.random.default_rng(0)
    actions = {str(i): rng.uniform(-1, 1, (steps + 1, 2)) for i in range(episodes)}
    return {k: world.replay(50 + int(k), a[:-1]) for k, a in actions.items()}, actions


def test_pairs_begin_in_the_middle_of_episodes() -> None:
    world = Forward()
    states, actions = recorded(world)
    fresh = Forward()
    assert can_replay(fresh) and not can_replay(Plane())
    held, notes = replayed(fresh, states, actions)
    assert not notes and all(np.array_equal(held[k], states[k]) for k in states)
    rule = spreads(np.concatenate(list(states.values())), world.names, tolerance=0.3)
    assert set(rule.units) == {"x", "y", "n"}, "tickets do not count"
    protocol = Protocol.model_validate(
        {"name": "plane", "world": {"name": "plane"}, "pairs": "held_out", "ahead": 5, "episodes": 8, "budget": 8,
         "judge": {"units": {"x": 1.0, "y": 1.0}, "tolerance": 0.4},
         "planner": {"name": "cem", "horizon": 4, "samples": 64, "elites": 8, "iterations": 5},
         "tune": {"first": 0, "count": 50}, "report": {"first": 100, "count": 50}}
    )  # fmt: skip
    result = evaluate(Exact(preprocess=PREPROCESS), fresh, protocol, preprocess=PREPROCESS, held_out=held)
    rows = result.values["rows"]
    assert list(rows) == ["model", "random", "zero", "goal_is_start"]
    assert rows["model"]["any"]["count"] == 8 and rows["zero"]["any"]["count"] == 0
    assert "No planner on the true simulator: plane cannot be put" in result.table()
    drive = result.drives["model"]
    assert np.array_equal(drive.states[:, 0, 1:], result.manifest.starts[:, 1:]) and drive.states[:, 0, 1].any()


def test_what_does_not_come_back_gives_no_pair() -> None:
    world = Forward()
    states, actions = recorded(world)
    other = Forward()
    other.slip = np.array([0.3, 0.0])  # from the fifth step on
    held, notes = replayed(other, states, actions)
    assert all(len(rows) == 5 for rows in held.values()) and "6 of 6 held-out episodes did not do" in notes[0]
    states["3"][0, 3] = 7  # another seed
    held, notes = replayed(Forward(), states, actions)
    assert sorted(held) == ["0", "1", "2", "4", "5"] and "1 of 6" in notes[0] and "from them" in notes[0]
    for rows in states.values():
        rows[:, 4] += 1
    with pytest.raises(ValueError, match=r"got none of 6: something beside the seed.*pairs=world"):
        replayed(Forward(), states, actions)
