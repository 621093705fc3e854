"""MuJoCo worlds with goals of their own: Reacher and PointMaze. Others go by their id: gym:HalfCheetah-v5."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from openjepa.worlds.gym import GymWorld, SimulatorConfig, import_gymnasium
from openjepa.worlds.gym_state import Carrier
from openjepa.worlds.mujoco_arm import Arm
from openjepa.worlds.mujoco_camera import Camera, choose_backend
from openjepa.worlds.physics.pendulum import wrap


class ReacherConfig(SimulatorConfig):
    """An arm to pose.

    arm        "gymnasium": Reacher-v5; "dm_control": that of its suite, which LeWM and DINO-WM took. Random torques
               turn the first by 10 rad/s and the second by 1
    tolerance  radians within which each joint must be of the goal's
    target     whether the ball that Gymnasium's own reward is about is drawn; goals here are poses of the arm
    """

    name: Literal["reacher"] = "reacher"
    arm: Literal["gymnasium", "dm_control"] = "gymnasium"
    tolerance: float = Field(0.05, gt=0)
    target: bool = False


class Reacher(GymWorld):
    """An arm of two links in the plane, moved by torques: Gymnasium's Reacher-v5, or that of dm_control.

    state     joint0, joint1 (rad), for Gymnasium's also target_x, target_y (m), and the velocities of all
    reset     any pose: joint0 all round, joint1 within 2.8 rad (dm_control's: 2.6), slowly moving
    goals     another pose at rest, the target where it is; reached when each joint is within `tolerance` (as in LeWM)
    distance  the larger of the two angles, radians
    """

    Config = ReacherConfig
    scripted = {"expert": "openjepa.worlds.mujoco_experts:ReacherExpert"}
    # The second joint stops at 3 rad and at 2.79 rad.
    bends: ClassVar[dict[str, float]] = {"gymnasium": 2.8, "dm_control": 2.6}

    def environment(self) -> str:
        return "Reacher-v5"

    def make(self) -> Any:
        if self.cfg.arm == "gymnasium":
            return super().make()
        choose_backend()
        return Arm()

    def find_inner(self) -> Any:
        inner = self.env.unwrapped
        joints = int(inner.model.nq)
        self.speeds = slice(joints, joints + 2)  # the columns of the arm's own velocities
        if joints > 2 and not self.cfg.target:
            inner.model.geom("target").rgba[3] = 0
        return inner

    def settle(self) -> Carrier | None:
        joints = ("joint0", "joint1", "target_x", "target_y")
        return renamed(super().settle(), joints[: self.inner.model.nq])

    def camera(self) -> Camera:
        return Camera(self.inner.model, (0.0, 0.0, 0.0), 0.62)

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        states = super().reset(n, rng)
        states[:, :2] = self.poses(n, rng)
        states[:, self.speeds] = 0.1 * rng.standard_normal((n, 2))
        return states

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        goals = self.check(states).copy()
        goals[:, :2], goals[:, self.speeds] = self.poses(len(goals), rng), 0
        return goals

    def poses(self, n: int, rng: np.random.Generator) -> np.ndarray:
        bend = self.bends[self.cfg.arm]
        return np.stack([rng.uniform(-np.pi, np.pi, n), rng.uniform(-bend, bend, n)], -1)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        gap = self.check(states)[:, :2] - self.check(goals)[:, :2]
        gap[:, 0] = wrap(gap[:, 0])  # the second joint does not go round
        return np.abs(gap).max(-1)


class PointMazeConfig(SimulatorConfig):
    """A maze to cross.

    maze       the part of the id between PointMaze_ and -v3
    tolerance  metres (DINO-WM: 0.5)
    """

    name: Literal["pointmaze"] = "pointmaze"
    maze: Literal["Open", "UMaze", "Medium", "Large"] = "UMaze"
    tolerance: float = Field(0.5, gt=0)


class PointMaze(GymWorld):
    """PointMaze of gymnasium-robotics: a ball pushed through a maze.

    state     x, y (m), vx, vy (m/s);  action  the push along x and y, in [-1, 1]
    reset     at rest, in the middle of any free cell give or take a quarter of it; goals likewise, in another cell
    distance  the straight one, metres; `path` counts it cell by cell
    """

    Config = PointMazeConfig
    scripted = {"expert": "openjepa.worlds.mujoco_experts:MazeExpert"}

    def environment(self) -> str:
        gymnasium = import_gymnasium()
        try:
            import gymnasium_robotics
        except ImportError as e:
            raise ValueError(f"pointmaze must have gymnasium-robotics: {e}. pip install openjepa[mujoco]") from None
        gymnasium.register_envs(gymnasium_robotics)
        return f"PointMaze_{self.cfg.maze}-v3"

    def find_inner(self) -> Any:
        maze = self.env.unwrapped
        inner = maze.point_env
        inner.model.site("target").rgba[3] = 0  # the environment's own target; goals here are states
        plan = maze.maze
        self.cell = float(plan.maze_size_scaling)
        self.span = self.cell * (max(plan.map_length, plan.map_width) - 1.4)  # without most of the outer wall
        self.free = np.array([[spot != 1 for spot in row] for row in plan.maze_map])  # (rows, columns)
        rows, columns = np.nonzero(self.free)
        x = (columns + 0.5) * self.cell - plan.x_map_center
        y = plan.y_map_center - (rows + 0.5) * self.cell
        self.cells = np.stack([x, y], -1)  # middles of the free cells, metres
        self.grid = np.stack([rows, columns], -1)
        return inner

    def settle(self) -> Carrier | None:
        return renamed(super().settle(), ("x", "y"))

    def camera(self) -> Camera:
        return Camera(self.inner.model, (0.0, 0.0, 0.0), 1.25 * self.span)

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self.place(rng.integers(0, len(self.cells), n), rng)

    def place(self, cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        spots = self.cells[cells] + self.cell * rng.uniform(-0.25, 0.25, (len(cells), 2))
        return np.concatenate([spots, np.zeros_like(spots)], -1)

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        here = self.nearest_cell(self.check(states))
        return self.place((here + rng.integers(1, len(self.cells), len(here))) % len(self.cells), rng)

    def nearest_cell(self, states: np.ndarray) -> np.ndarray:
        """The free cell whose middle is nearest, (n,) indices into `cells`."""
        return np.linalg.norm(states[:, None, :2] - self.cells, axis=-1).argmin(-1)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self.check(states)[:, :2] - self.check(goals)[:, :2], axis=-1)

    def hops(self) -> np.ndarray:
        """Cells to go from each free cell to each other one, (cells, cells); infinite where there is no way."""
        d = np.abs(self.grid[:, None] - self.grid[None]).sum(-1)
        hops = np.where(d <= 1, d, np.inf).astype(np.float64)
        for k in range(len(hops)):
            hops = np.minimum(hops, hops[:, k : k + 1] + hops[k : k + 1])
        return hops

    def path(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Cells to go times the side of a cell: (n,) metres, for analysis."""
        here, there = self.nearest_cell(self.check(states)), self.nearest_cell(self.check(goals))
        return self.cell * self.hops()[here, there]


def renamed(way: Carrier | None, positions: tuple[str, ...]) -> Carrier | None:
    """Plain names for a carrier's positions, and v and the same for their velocities."""
    if way is not None:
        way.names = (*positions, *(f"v{name}" if len(name) == 1 else f"v_{name}" for name in positions))
    return way
