"""Push-T: a round agent pushes a T-shaped block; the simulator is that of `gym-pusht`."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from openjepa.worlds.mujoco_camera import choose_backend
from openjepa.worlds.physics.pendulum import wrap
from openjepa.worlds.policies import WorldPolicy
from openjepa.worlds.state_world import SeenConfig, StateWorld

SIDE = 512.0  # of the table, in the simulator's own units ("pixels")
NAMES = ("agent_x", "agent_y", "agent_vx", "agent_vy", "block_x", "block_y", "block_angle", "block_vx", "block_vy",
         "block_omega")  # fmt: skip
POSITIONS = [0, 1, 4, 5]


class PushTConfig(SeenConfig):
    """pixels     side of the picture, `null` for the numbers
    target     whether the green T of the environment's own task is drawn; goals here are states
    place      units within which agent and block together must be of the goal (DINO-WM: 20)
    angle      radians within which the block's angle must be (DINO-WM: pi / 9)
    """

    name: Literal["pusht"] = "pusht"
    target: bool = False
    place: float = Field(20.0, gt=0)
    angle: float = Field(np.pi / 9, gt=0)


class PushT(StateWorld):
    """A disc on a table of 512 x 512 units pushes a T.

    state        place and velocity of the agent, place, angle and velocities of the block (units, radians, seconds)
    action       where the agent is to go, (x, y) in [0, 512]; a spring and damper pull it there during 0.1 s
    observation  agent_x, agent_y, block_x, block_y, block_angle in [0, 2 pi); or the picture
    goals        what the state becomes after 25 steps of `push`: reachable, and with both moved
    distance     root of the summed squares over both places, units; `reached` asks for the angle too

    Every step builds the space anew, so that it is a function of state and action. The simulator's memory of contacts
    (its first guess of the forces, the overlap it has yet to undo) cannot be carried over. Against an environment that
    runs on, steps without contact are equal; of 200 steps of `push`, 4 put the block more than a unit elsewhere.
    """

    Config = PushTConfig
    scripted: ClassVar[dict[str, str]] = {"push": "openjepa.worlds.pusht:Push"}

    def __init__(self, cfg: PushTConfig) -> None:
        super().__init__(cfg, NAMES)
        choose_backend()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", UserWarning)
                from gym_pusht.envs.pusht import PushTEnv
        except ImportError as e:
            raise ValueError(f"pusht must have gym-pusht: {e}. pip install openjepa[pusht]") from None
        self.env: Any = PushTEnv(obs_type="state")
        self.dt = 1.0 / self.env.control_hz
        self.low, self.high, self.action = np.zeros(2), np.full(2, SIDE), 2
        self.obs_names = ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
        self.groups = {"agent": (0, 1), "positions": (2, 3), "angle": (4,)}

    def write(self, row: np.ndarray) -> None:
        """A fresh space in the state `row`. The angle goes first: it turns the block about its centre of mass."""
        self.env._setup()
        agent, block = self.env.agent, self.env.block
        agent.position, agent.velocity = tuple(row[:2]), tuple(row[2:4])
        block.angle = float(row[6])
        block.position, block.velocity = tuple(row[4:6]), tuple(row[7:9])
        block.angular_velocity = float(row[9])
        self.env.space.reindex_shapes_for_body(agent)
        self.env.space.reindex_shapes_for_body(block)

    def read(self) -> np.ndarray:
        agent, block = self.env.agent, self.env.block
        angle = float(wrap(np.array(block.angle)))
        return np.array(
            [*agent.position, *agent.velocity, *block.position, angle, *block.velocity, block.angular_velocity]
        )

    def advance(self, states: np.ndarray, actions: np.ndarray, dt: float) -> np.ndarray:
        after = np.empty_like(states)
        for i, (row, action) in enumerate(zip(states, actions, strict=True)):
            self.write(row)
            self.drive(action, round(dt / self.env.dt))
            after[i] = self.read()
        return after

    def drive(self, action: np.ndarray, count: int) -> None:
        """The environment's own control, `count` substeps of 0.01 s, without its reward (which costs as much again)."""
        env, agent = self.env, self.env.agent
        x, y = float(action[0]), float(action[1])
        for _ in range(count):
            (px, py), (vx, vy) = agent.position, agent.velocity
            ax, ay = env.k_p * (x - px) - env.k_v * vx, env.k_p * (y - py) - env.k_v * vy
            agent.velocity = (vx + ax * env.dt, vy + ay * env.dt)
            env.space.step(env.dt)

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """As the environment: agent in [50, 450]^2, block in [100, 400]^2 at any angle; what overlaps parts."""
        states = np.zeros((n, len(NAMES)))
        states[:, :2] = rng.uniform(50, 450, (n, 2))
        states[:, 4:6] = rng.uniform(100, 400, (n, 2))
        states[:, 6] = rng.uniform(-np.pi, np.pi, n)
        for i, row in enumerate(states):
            self.write(row)
            for _ in range(20):
                self.env.space.step(self.env.dt)
            states[i] = self.read()
        states[:, 2:4] = states[:, 7:] = 0
        return states

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        states, push = self.check(states), Push(self)
        for _ in range(self.ahead):
            states = self.step(states, push.act(states, rng))
        return states

    def vector(self, states: np.ndarray) -> np.ndarray:
        angle = np.mod(states[:, 6], 2 * np.pi)
        return np.concatenate([states[:, POSITIONS], angle[:, None]], -1).astype(np.float32)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self.check(states)[:, POSITIONS] - self.check(goals)[:, POSITIONS], axis=-1)

    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        turned = np.abs(wrap(np.asarray(states)[:, 6] - np.asarray(goals)[:, 6]))
        return (self.distance(states, goals) < self.cfg.place) & (turned < self.cfg.angle)

    def draw(self, states: np.ndarray, size: int = 128) -> np.ndarray:
        import cv2
        import pygame

        states = self.check(states)
        pictures = np.empty((len(states), size, size, 3), np.uint8)
        for i, row in enumerate(states):
            self.write(row)
            if not self.cfg.target:
                self.env.goal_pose = np.array([-SIDE, -SIDE, 0.0])  # off the picture
            screen = self.env._draw()  # its own way to an array costs as much as all the rest
            table = np.frombuffer(pygame.image.tobytes(screen, "RGB"), np.uint8).reshape(*screen.get_size(), 3)
            pictures[i] = cv2.resize(table, (size, size))
        return pictures


class Push(WorldPolicy):
    """Pushes about: goes to random points near the block, each for a random while, so that it meets it often.

    A point is uniform within 100 units of the block along each axis, and kept for 5 steps on average.
    """

    reach, keep = 100.0, 0.8

    def begin(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.fresh(states, rng)

    def choose(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        change = rng.random((len(states), 1)) > self.keep
        assert self.memory is not None
        self.memory = np.where(change, self.fresh(states, rng), self.memory)
        return self.memory.copy()

    def fresh(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.clip(states[:, 4:6] + rng.uniform(-self.reach, self.reach, (len(states), 2)), 0, SIDE)
