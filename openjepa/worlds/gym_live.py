"""Environments whose state cannot be set: n of them run side by side, and a state is a ticket for one of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from openjepa.worlds.gym_state import flat

TICKET = ("episode", "tick", "ended", "seed")
SEED = TICKET.index("seed")
SAME = 1e-4  # how far a state may be from the one it is to be, as a share of 1 + its size


class Live:
    """Rows (episode, tick, ended, seed, *observation); a picture is kept here and not in the row.

    A row can be stepped from only while it is the latest of its episode. It can be come back to (`again`, and to be
    drawn) by its seed and the actions that led there, which are remembered as soon as `past` is a dictionary.
    """

    def __init__(self, make: Callable[[], Any], env: Any, seen: Any) -> None:
        self.make, self.envs, self.spare = make, [env], None
        self.image = isinstance(seen, np.ndarray) and seen.ndim == 3 and seen.dtype == np.uint8
        numbers = () if self.image else tuple(f"o{i}" for i in range(len(flat(seen))))
        self.names = (*TICKET, *numbers)
        self.obs: tuple[int, ...] = seen.shape if self.image else (len(numbers),)
        self.now: list[np.ndarray] = []  # the latest row of every episode
        self.seen: list[Any] = []  # and what was seen then
        self.past: dict[bytes, tuple[bytes, Any]] | None = None  # row -> the row before it, and the action between
        self.spare_now, self.spare_seen = np.zeros(0), None

    spare: Any  # one more environment, for pictures of rows that are over

    def reset(self, seeds: list[int]) -> np.ndarray:
        """New episodes; those begun before are over, because their environments are taken."""
        while len(self.envs) < len(seeds):
            self.envs.append(self.make())
        self.now, self.seen = [], []
        for i, seed in enumerate(seeds):
            seen = begin(self.envs[i], seed)
            self.now.append(self.row(i, 0, False, seed, seen))
            self.seen.append(seen)
        return np.stack(self.now)

    def step(self, states: np.ndarray, actions: list[Any]) -> np.ndarray:
        episodes = [self.latest(row) for row in states]
        if len(set(episodes)) != len(episodes):
            raise ValueError(
                "states must be of different episodes, got one twice. Its environment can go only one way."
            )
        return np.stack([self.act(i, action) for i, action in zip(episodes, actions, strict=True)])

    def act(self, i: int, action: Any) -> np.ndarray:
        """The next row of episode i; one that has ended stands still."""
        before = self.now[i]
        self.now[i], self.seen[i] = self.after(self.envs[i], before, self.seen[i], action)
        if self.past is not None:
            self.past.setdefault(key(self.now[i]), (key(before), action))
        return self.now[i]

    def after(self, env: Any, before: np.ndarray, seen: Any, action: Any) -> tuple[np.ndarray, Any]:
        ended = bool(before[2])
        if not ended:
            seen, _, terminated, truncated, _ = env.step(action)
            ended = bool(terminated or truncated)
        return self.row(int(before[0]), int(before[1]) + 1, ended, int(before[SEED]), seen), seen

    def again(self, states: np.ndarray) -> np.ndarray:
        """New episodes that stand where these rows do: begun from their seeds, and led there by the same actions."""
        ways = [self.way(row) for row in states]
        rows = self.reset([int(row[SEED]) for row in states])
        for i, way in enumerate(ways):
            for action in way:
                rows[i] = self.act(i, action)
            require_same(rows[i], states[i])
        return rows

    def way(self, row: np.ndarray, since: bytes = b"") -> list[Any]:
        """The actions that lead to a row, from the beginning of its episode, or from the row with the key `since`."""
        at, way, past = key(row), [], self.past or {}
        while at != since and at in past:
            at, action = past[at]
            way.append(action)
        if at != since and len(way) != row[1]:
            raise ValueError(
                f"states must be ones that were reached here, got tick {int(row[1])} of seed {int(row[SEED])}, which "
                "was not. An environment that cannot be put into a state must come there step by step."
            )
        return way[::-1]

    def observe(self, states: np.ndarray) -> np.ndarray:
        if not self.image:
            return states[:, len(TICKET) :].astype(np.float32)
        return np.stack([self.at(row)[1] for row in states])

    def env_of(self, row: np.ndarray) -> Any:
        return self.at(row)[0]

    def at(self, row: np.ndarray) -> tuple[Any, Any]:
        """An environment that stands at a row, to look at, and what is seen from there. For rows that are not the
        latest a spare one is led there; along an episode it goes on from the row before."""
        i = int(row[0])
        if self.past is None or (i < len(self.now) and np.array_equal(self.now[i], row, equal_nan=True)):
            i = self.latest(row)
            return self.envs[i], self.seen[i]
        if self.spare is None:
            self.spare = self.make()
        since = key(self.spare_now)
        way = self.way(row, since)
        if len(way) == row[1]:  # from the beginning
            self.spare_seen = begin(self.spare, int(row[SEED]))
            self.spare_now = self.row(0, 0, False, int(row[SEED]), self.spare_seen)
        for action in way:
            self.spare_now, self.spare_seen = self.after(self.spare, self.spare_now, self.spare_seen, action)
        require_same(self.spare_now, row)
        return self.spare, self.spare_seen

    def row(self, episode: int, tick: int, ended: bool, seed: int, seen: Any) -> np.ndarray:
        return np.concatenate([[episode, tick, ended, seed], np.zeros(0) if self.image else flat(seen)])

    def latest(self, row: np.ndarray) -> int:
        """The number of the episode whose latest row this is."""
        i = int(row[0])
        now = self.now[i] if i < len(self.now) else None
        if now is None or not np.array_equal(now, row, equal_nan=True):
            lost = now is None or now[SEED] != row[SEED]
            where = "is over" if lost else f"is at tick {int(now[1])}"  # type: ignore[index]
            raise ValueError(
                f"states must be the latest of their episodes, got tick {int(row[1])} of episode {i}, which {where}. "
                "This environment cannot be put into a state: step it forward only, or give it get_state() and "
                "set_state(row) methods."
            )
        return i


def begin(env: Any, seed: int) -> Any:
    """Reset an environment by a seed; what is seen then. Some draw from numpy's or Python's own generators: for as long
    as this takes these are seeded, too."""
    kept = np.random.get_state(), random.getstate()
    try:
        np.random.seed(seed)
        random.seed(seed)
        return env.reset(seed=seed)[0]
    finally:
        np.random.set_state(kept[0])
        random.setstate(kept[1])


def key(row: np.ndarray) -> bytes:
    """What a row is known by: all but the place where its episode runs."""
    return row[1:].tobytes()


def same(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which of the rows (n, P) are those wanted, (n,) bool, wherever their episodes run."""
    rows, wanted = rows[:, 1:], wanted[:, 1:]
    near = np.abs(rows - wanted) <= SAME * (1 + np.abs(wanted))
    return np.asarray((near | (rows == wanted)).all(1))  # infinite numbers are near to none, but equal


def require_same(row: np.ndarray, wanted: np.ndarray) -> None:
    if not same(row[None], wanted[None])[0]:
        raise ValueError(
            f"an environment must come back to a state by its seed and actions, got another one at tick "
            f"{int(wanted[1])} of seed {int(wanted[SEED])}. Draw its noise from the seed that reset(seed=...) is given."
        )
