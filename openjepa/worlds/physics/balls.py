"""Balls in a box: elastic walls, optional gravity; and one that can be pushed, which is a point mass to navigate."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from openjepa.worlds.canvas import COLOURS, box, disc
from openjepa.worlds.physics.flight import fall, push, reflect
from openjepa.worlds.state_world import SeenConfig, StateWorld


def ball_names(balls: int) -> tuple[str, ...]:
    """One ball: x, y, vx, vy. More: x0, y0, vx0, vy0, x1 ..."""
    tags = [""] if balls == 1 else [str(i) for i in range(balls)]
    return tuple(f"{v}{tag}" for tag in tags for v in ("x", "y", "vx", "vy"))


class BoxConfig(SeenConfig):
    """A square box with balls in it.

    size       side of the box, metres; balls are inside [radius, size - radius]
    radius     of a ball, metres
    speed      the largest at the start, metres per second
    dt         seconds per step
    tolerance  metres within which a goal counts as reached
    """

    size: float = Field(1.0, gt=0)
    radius: float = Field(0.06, gt=0)
    speed: float = Field(1.0, ge=0)
    dt: float = Field(0.1, gt=0)
    tolerance: float = Field(0.1, gt=0)

    def model_post_init(self, _: object) -> None:
        if 2 * self.radius >= self.size:
            raise ValueError(
                f"radius must be below size / 2 = {self.size / 2}, got {self.radius}. Make the ball smaller."
            )


class BouncingConfig(BoxConfig):
    """`balls` that pass through one another, and `gravity` (m/s^2, towards y = 0)."""

    name: Literal["bouncing-ball", "bouncing-balls"] = "bouncing-ball"
    balls: int = Field(1, ge=1, le=64)
    gravity: float = Field(0.0, ge=0)


class BoxWorld(StateWorld):
    """What worlds of balls in a box share: (x, y, vx, vy) per ball, y upwards; distance in metres over all balls."""

    balls: int

    def __init__(self, cfg: BoxConfig, balls: int, bound: np.ndarray | None = None) -> None:
        super().__init__(cfg, ball_names(balls), bound)
        self.balls, self.dt = balls, cfg.dt

    @property
    def low_wall(self) -> float:
        return float(self.cfg.radius)

    @property
    def high_wall(self) -> float:
        return float(self.cfg.size - self.cfg.radius)

    def split(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities, (n, balls, 2) each."""
        s = states.reshape(len(states), self.balls, 4)
        return s[..., :2], s[..., 2:]

    def join(self, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        return np.concatenate([position, velocity], -1).reshape(len(position), -1)

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Anywhere in the box, in any direction, at half the top speed or more."""
        position = rng.uniform(self.low_wall, self.high_wall, (n, self.balls, 2))
        heading = rng.uniform(0, 2 * np.pi, (n, self.balls))
        speed = self.cfg.speed * rng.uniform(0.5, 1, (n, self.balls))
        velocity = speed[..., None] * np.stack([np.cos(heading), np.sin(heading)], -1)
        return self.join(position, velocity)

    def energy(self, states: np.ndarray) -> np.ndarray:
        """Kinetic energy of all balls, mass 1 kg each: (n,) joules."""
        _, velocity = self.split(self.check(states))
        return np.square(velocity).sum((1, 2)) / 2

    def draw(self, states: np.ndarray, size: int = 128) -> np.ndarray:
        states = self.check(states)
        position, _ = self.split(states)
        margin = 0.04 * size
        scale = (size - 2 * margin) / self.cfg.size
        canvas = box(len(states), size, margin, max(1.0, size / 64))
        for i in range(self.balls):
            xy = np.stack([margin + scale * position[:, i, 0], size - margin - scale * position[:, i, 1]], -1)
            disc(canvas, xy, scale * self.cfg.radius, COLOURS[i % len(COLOURS)])
        return canvas


class Bouncing(BoxWorld):
    """Balls that fly freely and bounce off the walls without loss; they do not see one another.

    state    x, y (m), vx, vy (m/s) of each ball
    physics  closed form: any number of bounces in a step, no error that grows

    >>> from openjepa.worlds import make_world
    >>> world = make_world("bouncing-ball")
    >>> world.step(np.array([[0.9, 0.5, 1.0, 0.0]]), np.zeros((1, 0))).round(3).tolist()
    [[0.88, 0.5, -1.0, 0.0]]
    """

    Config = BouncingConfig

    def __init__(self, cfg: BouncingConfig) -> None:
        super().__init__(cfg, cfg.balls)

    def advance(self, states: np.ndarray, actions: np.ndarray, dt: float) -> np.ndarray:
        position, velocity = self.split(states)
        low, high, g = self.low_wall, self.high_wall, self.cfg.gravity
        x, vx = reflect(position[..., 0], velocity[..., 0], low, high, dt)
        if g > 0:
            y, vy = fall(position[..., 1], velocity[..., 1], low, high, g, dt)
        else:
            y, vy = reflect(position[..., 1], velocity[..., 1], low, high, dt)
        return self.join(np.stack([x, y], -1), np.stack([vx, vy], -1))

    def energy(self, states: np.ndarray) -> np.ndarray:
        position, _ = self.split(self.check(states))
        return super().energy(states) + self.cfg.gravity * (position[..., 1] - self.low_wall).sum(-1)


class Bouncings(Bouncing):
    """`Bouncing` with three balls unless told otherwise."""

    class Config(BouncingConfig):
        """As `BouncingConfig`, with three balls."""

        name: Literal["bouncing-balls"] = "bouncing-balls"
        balls: int = Field(3, ge=1, le=64)


class PointMassConfig(BoxConfig):
    """A ball to steer. `force` is the largest push along each axis, newtons on 1 kg; `speed` is that of the start."""

    name: Literal["point-mass"] = "point-mass"
    force: float = Field(1.0, gt=0)
    speed: float = Field(0.3, ge=0)
    tolerance: float = Field(0.05, gt=0)


class PointMass(BoxWorld):
    """A ball of 1 kg in a box, moved by a force; there is no friction, and walls stop it.

    state    x, y (m), vx, vy (m/s);  action  fx, fy (N), constant over the step
    goal     to be at rest at a random place; `reached` looks at the position alone
    physics  closed form in each axis, walls included
    """

    Config = PointMassConfig
    scripted = {"expert": "openjepa.worlds.controllers:PointMassExpert"}

    def __init__(self, cfg: PointMassConfig) -> None:
        super().__init__(cfg, 1, np.full(2, cfg.force))

    def advance(self, states: np.ndarray, actions: np.ndarray, dt: float) -> np.ndarray:
        position, velocity = push(states[:, :2], states[:, 2:], actions, self.low_wall, self.high_wall, dt)
        return np.concatenate([position, velocity], -1)

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """At rest, anywhere at least a quarter of the box away from where the ball is."""
        states = self.check(states)
        goals = np.zeros_like(states)
        far = np.zeros(len(states), bool)
        while not far.all():
            again = rng.uniform(self.low_wall, self.high_wall, (len(states), 2))
            goals[~far, :2] = again[~far]
            far = np.linalg.norm(goals[:, :2] - states[:, :2], axis=-1) >= self.cfg.size / 4
        return goals
