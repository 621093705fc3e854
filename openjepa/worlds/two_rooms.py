"""Two Rooms: a dot, a wall with a door, and a goal on the other side; the geometry of PLDM and eb_jepa."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from openjepa.worlds.canvas import COLOURS, INK, WHITE, disc
from openjepa.worlds.rooms_motion import Walls, bounce, freeze, hashed_normal, shortest, slide
from openjepa.worlds.rooms_picture import add_dots, walls
from openjepa.worlds.state_world import StateWorld, WorldConfig

LARGEST_TABLE = 129  # px; above it the pictures of all walls would fill more than 40 MB, and are drawn one by one
BOUNCE, CLEARANCE = 0.5, 0.3  # px of 65: spread of the noise after a bounce, and the least distance from a wall then


class TwoRoomsConfig(WorldConfig):
    """Lengths are in pixels of the published 65 px picture, whatever `size` is: everything scales with (size - 1) / 64.

    size         side of the picture, pixels
    observe      "picture", (size, size, 2) of dot and walls; or "state", the four numbers
    wall         "random": x and door drawn per world from the published ranges (whole pixels, 20 to 44 and 10 to 54);
                 "fixed": at `wall_x` and `door_y` in all of them
    wall_width, door_half   width of the wall, half of that of the door (64: no wall is left)
    max_step     the longest action
    dot          standard deviation of the Gaussian dot
    margin       starts and goals keep so far from walls
    tolerance    a goal is reached when the dot is closer than this
    collisions   "slide" (along the wall), "freeze" (the step is not taken), "bounce" (put at the wall, with noise);
                 `null` for "slide", or for "bounce" with `paper_exact`
    paper_exact  see `TwoRooms`
    """

    name: Literal["two-rooms"] = "two-rooms"
    size: int = Field(65, ge=17, le=513)
    observe: Literal["picture", "state"] = "picture"
    wall: Literal["random", "fixed"] = "random"
    wall_x: int = Field(32, ge=12, le=52)
    door_y: int = Field(18, ge=10, le=54)
    wall_width: int = Field(3, ge=1, le=9)
    door_half: float = Field(4.0, gt=0, le=64)
    border: int = Field(4, ge=1, le=8)
    max_step: float = Field(2.45, gt=0)
    dot: float = Field(1.3, gt=0)
    margin: float = Field(2.6, ge=0, le=6)
    tolerance: float = Field(4.5, gt=0)
    collisions: Literal["slide", "freeze", "bounce"] | None = None
    paper_exact: bool = False

    @model_validator(mode="after")
    def _odd(self) -> TwoRoomsConfig:
        if self.wall_width % 2 == 0:
            raise ValueError(f"wall_width must be odd, got {self.wall_width}. Take {self.wall_width + 1}.")
        return self


class TwoRooms(StateWorld):
    """A dot in a square that a wall with a door divides; it is to get to the other room.

    state        x, y of the dot, wall_x, door_y: pixels of the picture, y downwards; the last two never change
    action       (dx, dy) in pixels per step; longer than `max_step` is shortened to it
    observation  (size, size, 2) uint8: the dot, and the walls
    goals        in the other room, behind the same wall; `distance` is the straight one in pixels, `path` the walk
    policies     random (uniform in the disc of actions), walk (heading with momentum), expert, door,
                 mixed (walk and door), rounds (walk, door and expert)

    The walls stop the dot where their drawn surface has its outermost pixel centres, and it slides along them.

    `paper_exact=True` reproduces what is known of the published environment: a dot that meets a wall is put on it and
    thrown back by Gaussian noise of 0.5 px, at least 0.3 px clear of the walls of its room; and actions are not
    shortened. `collisions="freeze"` is what the published *training data* do instead: a step that would touch a wall is
    not taken. The noise is a function of state and action, so that a step has one outcome. Success at the last
    step only, and a planner that leaves its own bounds, are not of the world and belong to the evaluation.

    Source: PLDM (Sobal et al., arXiv 2502.14819) and eb_jepa (arXiv 2602.03604).

    >>> world = TwoRooms(TwoRoomsConfig(wall="fixed"))
    >>> world.step(np.array([[30.0, 40.0, 32.0, 18.0]]), np.array([[2.0, 1.0]])).tolist()
    [[31.0, 41.0, 32.0, 18.0]]
    """

    Config = TwoRoomsConfig
    cfg: TwoRoomsConfig
    dt = 1.0
    scripted = {
        "random": "openjepa.worlds.rooms_policies:AnyStep",
        "walk": "openjepa.worlds.rooms_policies:Walk",
        "expert": "openjepa.worlds.rooms_policies:Expert",
        "door": "openjepa.worlds.rooms_policies:Door",
        "mixed": "openjepa.worlds.rooms_policies:Mixed",
        "rounds": "openjepa.worlds.rooms_policies:Rounds",
        "straight": "openjepa.worlds.rooms_policies:Straight",
        "bumps": "openjepa.worlds.rooms_policies:Bumps",
        "flank": "openjepa.worlds.rooms_policies:Flank",
    }

    def __init__(self, cfg: TwoRoomsConfig) -> None:
        self.unit = (cfg.size - 1) / 64  # pixels of this picture per pixel of the published one
        super().__init__(cfg, ("x", "y", "wall_x", "door_y"), np.full(2, cfg.max_step * self.unit))
        self.groups = {"positions": (0, 1), "walls": (2, 3)}
        self.half, self.door, self.border = (
            self.unit * w for w in (cfg.wall_width // 2, cfg.door_half, cfg.border)
        )  # fmt: skip
        default: Literal["slide", "bounce"] = "bounce" if cfg.paper_exact else "slide"
        self.collisions = cfg.collisions or default

    @property
    def obs(self) -> tuple[int, ...]:
        return (4,) if self.cfg.observe == "state" else (self.cfg.size, self.cfg.size, 2)

    def walls(self, states: np.ndarray) -> Walls:
        """The surfaces in each world."""
        wall_x, door_y = states[:, 2], states[:, 3]
        high = self.cfg.size - 1 - self.border
        return Walls(
            self.border, high, wall_x - self.half, wall_x + self.half, door_y - self.door, door_y + self.door
        )  # fmt: skip

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """A wall, and a dot in either room with equal chance, uniform there."""
        if self.cfg.wall == "random":
            layout = np.stack([rng.integers(20, 45, n), rng.integers(10, 55, n)], -1)
        else:
            layout = np.broadcast_to(np.array([self.cfg.wall_x, self.cfg.door_y]), (n, 2))
        states = np.concatenate([np.zeros((n, 2)), self.unit * layout], -1)
        return self.place(states, rng.random(n) < 0.5, rng)

    def place(self, states: np.ndarray, west: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The same worlds with the dot anywhere in the west (left) or east room, `margin` away from the walls."""
        w, margin, states = self.walls(states), self.unit * self.cfg.margin, states.copy()
        low = np.where(west, w.low, w.right) + margin
        high = np.where(west, w.left, w.high) - margin
        u = rng.random((len(states), 2))
        states[:, 0] = low + u[:, 0] * (high - low)
        states[:, 1] = w.low + margin + u[:, 1] * (w.high - w.low - 2 * margin)
        return states

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        states = self.check(states)
        return self.place(states, states[:, 0] > states[:, 2], rng)

    def check_actions(self, actions: np.ndarray, n: int) -> np.ndarray:
        actions = np.asarray(actions, np.float64)
        if actions.shape != (n, 2):
            raise ValueError(f"actions of {self.name} must have shape ({n}, 2), got {actions.shape}. Give (dx, dy).")
        if self.cfg.paper_exact:
            return actions
        length = np.sqrt(np.square(actions).sum(-1, keepdims=True))
        longest = self.cfg.max_step * self.unit
        return actions * (longest / np.maximum(length, longest))

    def advance(self, states: np.ndarray, actions: np.ndarray, dt: float) -> np.ndarray:
        p, w = states[:, :2], self.walls(states)
        if self.collisions == "slide":
            moved = slide(p, actions, w)
        elif self.collisions == "freeze":
            moved = freeze(p, actions, w)
        else:
            noise = BOUNCE * self.unit * hashed_normal(np.concatenate([states, actions], -1), seed=0)
            moved = bounce(p, actions, w, noise, CLEARANCE * self.unit)
        return np.concatenate([moved, states[:, 2:]], -1)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self.check(states)[:, :2] - self.check(goals)[:, :2], axis=-1)

    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return self.distance(states, goals) < self.cfg.tolerance * self.unit

    def path(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Length of the shortest walk to the goal, through the door where it must be: (n,) pixels, for analysis."""
        return shortest(self.check(states)[:, :2], self.check(goals)[:, :2], self.walls(states))

    def observe(self, states: np.ndarray) -> np.ndarray:
        states = self.check(states)
        if self.cfg.observe == "state":
            return states.astype(np.float32)
        pictures = self._walls_only(states)  # (n, size, size, 2)
        add_dots(pictures[..., 0], states[:, :2], self.cfg.dot * self.unit)
        return pictures

    def draw(self, states: np.ndarray, size: int = 128) -> np.ndarray:
        states = self.check(states)
        scale = (size - 1) / (self.cfg.size - 1)
        shade = self._cover(states[:, 2], states[:, 3], size, scale)[..., None]
        canvas = np.rint(np.array(WHITE) * (1 - shade) + np.array(INK) * shade).astype(np.uint8)
        disc(canvas, scale * states[:, :2] + 0.5, max(1.5, 1.5 * self.cfg.dot * self.unit * scale), COLOURS[0])
        return canvas

    def _cover(self, wall_x: np.ndarray, door_y: np.ndarray, size: int, scale: float = 1.0) -> np.ndarray:
        half, door, border, unit = (scale * v for v in (self.half, self.door, self.border, self.unit))
        return walls(scale * wall_x, scale * door_y, half, door, border, unit, size)

    def _walls_only(self, states: np.ndarray) -> np.ndarray:
        """Observations without the dot; walls at the places where `reset` puts them come from a table."""
        if self.cfg.size <= LARGEST_TABLE:
            xs, ys, table = self._table
            column, row = (np.rint(states[:, i] / self.unit).astype(np.intp) for i in (2, 3))
            inside = (column >= xs[0]) & (column <= xs[-1]) & (row >= ys[0]) & (row <= ys[-1])
            if inside.all() and np.array_equal(np.stack([column, row], -1) * self.unit, states[:, 2:]):
                return table[(column - xs[0]) * len(ys) + row - ys[0]]
        return self._pictures(states[:, 2], states[:, 3])

    def _pictures(self, wall_x: np.ndarray, door_y: np.ndarray) -> np.ndarray:
        pictures = np.zeros((len(wall_x), self.cfg.size, self.cfg.size, 2), np.uint8)
        pictures[..., 1] = np.rint(255 * self._cover(wall_x, door_y, self.cfg.size))
        return pictures

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        fixed = self.cfg.wall == "fixed"
        xs = np.array([self.cfg.wall_x]) if fixed else np.arange(20, 45)
        ys = np.array([self.cfg.door_y]) if fixed else np.arange(10, 55)
        wall_x, door_y = (self.unit * grid.ravel() for grid in np.meshgrid(xs, ys, indexing="ij"))
        return xs, ys, self._pictures(wall_x, door_y)
