"""Environments whose state cannot be set: n of them run side by side, and a state is a ticket for one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from openjepa.worlds.gym_state import flat

TICKET = ("episode", "tick", "ended")


class Live:
    """Rows (episode, tick, ended, *observation); a picture is kept here and not in the row.

    A row can be stepped from, drawn and (where it is a picture) observed only while it is the latest of its episode.
    """

    def __init__(self, make: Callable[[], Any], env: Any, seen: Any) -> None:
        self.make, self.envs = make, [env]
        self.image = isinstance(seen, np.ndarray) and seen.ndim == 3 and seen.dtype == np.uint8
        numbers = () if self.image else tuple(f"o{i}" for i in range(len(flat(seen))))
        self.names = (*TICKET, *numbers)
        self.obs: tuple[int, ...] = seen.shape if self.image else (len(numbers),)
        self.episodes = 0  # all that were ever begun
        self.at: dict[int, int] = {}  # episode -> place in `envs`
        self.ticks: dict[int, int] = {}
        self.last: dict[int, Any] = {}  # episode -> its latest observation

    def reset(self, seeds: list[int]) -> np.ndarray:
        """New episodes; those begun before are over, because their environments are taken."""
        while len(self.envs) < len(seeds):
            self.envs.append(self.make())
        self.at, self.ticks, self.last = {}, {}, {}
        rows = []
        for i, seed in enumerate(seeds):
            seen, _ = self.envs[i].reset(seed=seed)
            episode = self.episodes = self.episodes + 1
            self.at[episode], self.ticks[episode] = i, 0
            rows.append(self._row(episode, False, seen))
        return np.stack(rows)

    def step(self, states: np.ndarray, actions: list[Any]) -> np.ndarray:
        episodes = [self._latest(row) for row in states]
        if len(set(episodes)) != len(episodes):
            raise ValueError(
                "states must be of different episodes, got one twice. Its environment can go only one way."
            )
        rows = []
        for episode, row, action in zip(episodes, states, actions, strict=True):
            ended, seen = bool(row[2]), self.last[episode]
            if not ended:
                seen, _, terminated, truncated, _ = self.envs[self.at[episode]].step(action)
                ended = bool(terminated or truncated)
            self.ticks[episode] += 1
            rows.append(self._row(episode, ended, seen))
        return np.stack(rows)

    def observe(self, states: np.ndarray) -> np.ndarray:
        if not self.image:
            return states[:, len(TICKET) :].astype(np.float32)
        return np.stack([self.last[self._latest(row)] for row in states])

    def env_of(self, row: np.ndarray) -> Any:
        return self.envs[self.at[self._latest(row)]]

    def _row(self, episode: int, ended: bool, seen: Any) -> np.ndarray:
        self.last[episode] = seen
        numbers = np.zeros(0) if self.image else flat(seen)
        return np.concatenate([[episode, self.ticks[episode], ended], numbers])

    def _latest(self, row: np.ndarray) -> int:
        episode, tick = int(row[0]), int(row[1])
        if self.ticks.get(episode) != tick:
            now = f"is at tick {self.ticks[episode]}" if episode in self.ticks else "is over"
            raise ValueError(
                f"states must be the latest of their episodes, got tick {tick} of episode {episode}, which {now}. "
                "This environment cannot be put into a state: step it forward only, or give it get_state() and "
                "set_state(row) methods."
            )
        return episode
