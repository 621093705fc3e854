"""A tiny Gymnasium environment in four kinds: as it should be, noisy, with a hidden clock, and closed."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Drifter(gymnasium.Env):
    """A point that a push moves; `noise` makes its future random, `clock` hides a counter in it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, noise: float = 0.0, clock: bool = False, carries: bool = True, render_mode: Any = None) -> None:
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float64)
        self.x, self.t, self.noise, self.clock, self.render_mode = np.zeros(2), 0, noise, clock, render_mode
        if carries:
            self.get_state, self.set_state = lambda: self.x.copy(), self._put

    def _put(self, row: np.ndarray) -> None:
        self.x = row.copy()

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1, 1, 2), 0
        return self.x.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        push = action * (1 + self.t) if self.clock else action
        self.x = self.x + push + self.noise * self.np_random.standard_normal(2)
        return self.x.copy(), 0.0, self.t >= 5 and not hasattr(self, "set_state"), False, {}

    def render(self) -> np.ndarray:
        shades = np.clip(128 + 60 * self.x, 0, 255).astype(np.uint8)
        return np.stack([np.full((32, 32), shade, np.uint8) for shade in (*shades, 0)], -1)


for _name, _options in (
    ("Plain", {}),
    ("Noisy", {"noise": 0.1}),
    ("Clock", {"clock": True}),
    ("Closed", {"carries": False}),
):
    gymnasium.register(f"OpenJepa{_name}-v0", entry_point=Drifter, kwargs=_options)
