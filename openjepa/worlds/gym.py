"""Any Gymnasium environment by its id, as a world: by its full state where that can be set, else step after step."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from openjepa.worlds.gym_live import TICKET, Live, begin
from openjepa.worlds.gym_state import Carrier, MujocoCarrier, carrier, honest
from openjepa.worlds.mujoco_camera import Camera, choose_backend
from openjepa.worlds.state_world import SeenConfig, by_kind


class SimulatorConfig(SeenConfig):
    """A world made by Gymnasium.

    options     keyword arguments of `gymnasium.make`
    tolerance   a goal is reached when the state is closer than this, in the state's own units
    """

    options: dict[str, Any] = {}
    tolerance: float = Field(0.1, gt=0)


class GymConfig(SimulatorConfig):
    """`name` is "gym:" and an id that Gymnasium knows; "gym:package:ID" imports the package first."""

    name: str = "gym:Pendulum-v1"

    @field_validator("name")
    @classmethod
    def _id(cls, name: str) -> str:
        if not name.startswith("gym:") or len(name) < 5:
            raise ValueError(f"name must be gym:ID, got {name!r}. Write for example gym:Pendulum-v1.")
        return name


class GymWorld:
    """A Gymnasium environment as a `World`.

    state        the environment's whole state where it can be set (`settable`): classic control, MuJoCo (positions,
                 velocities), and any environment with `get_state()` and `set_state(row)`. That setting it works is
                 tried out when the world is made. One simulator then serves n worlds, and steps are pure functions of
                 states and actions. Time limits, ends of episodes and wrappers are left out: they are not physics.
                 Elsewhere (noise, a hidden state) n environments run side by side; a state is a ticket
                 (episode, tick, ended, seed) with the observation behind it, and only the latest one of an episode can
                 be stepped from. An episode that has ended stands still. `again` comes back to earlier ones: its
                 seed and its actions are played anew.
    observation  the environment's own for the state, flat; with `pixels`, its picture. In MuJoCo Gymnasium's own lag a
                 substep behind where they hold Cartesian places, which are computed before it integrates; these do not.
    goals        states reached from here by 25 random actions. Where the state cannot be set, the episodes themselves
                 go there: `again(states)` leads them back
    distance     root of the summed squares over the state, in its own units: for success choose `tolerance` with care

    >>> from openjepa.worlds import make_world
    >>> world = make_world("gym:Pendulum-v1")                                                # doctest: +SKIP
    >>> world.names, world.obs, world.settable                                               # doctest: +SKIP
    (('theta', 'omega'), (3,), True)
    """

    Config: ClassVar[type[SimulatorConfig]] = GymConfig
    ahead: ClassVar[int] = 25
    scripted: ClassVar[dict[str, str]] = {}
    serial: ClassVar[bool] = True  # steps one state after the other: a planner on it is slow

    def __init__(self, cfg: Any) -> None:
        self.cfg, self.name = cfg, cfg.name
        self.env = self.make()
        self._camera: Camera | None = None
        space = self.env.action_space
        self.low, self.high, self.discrete, self._first = bounds(space, self.name)
        self.action = len(self.low)
        seen, _ = self.env.reset(seed=0)
        self.inner = self.find_inner()
        self.way = self.settle()
        self.settable = self.way is not None
        self.live = None if self.settable else Live(self.make, self.env, seen)
        self.names = self.way.names if self.way is not None else self.live.names  # type: ignore[union-attr]
        self.dt = float(getattr(self.inner, "dt", None) or getattr(self.inner, "tau", None) or 1.0)
        size = cfg.pixels
        if size is not None:
            self.obs: tuple[int, ...] = (size, size, 3)
        else:
            self.obs = self.live.obs if self.live is not None else (len(self.way.vector()),)  # type: ignore[union-attr]
        self.obs_names = self.variables()
        self.groups = by_kind(self.obs_names)

    def variables(self) -> tuple[str, ...]:
        """Names of the vector observation's own variables; o0, o1 ... where they are not known."""
        if self.way is None:
            return self.live.names[len(TICKET) :]  # type: ignore[union-attr]
        count = len(self.way.vector())
        if self.way.seen is not None and len(self.way.seen) == count:
            return self.way.seen
        return self.names if count == len(self.names) else tuple(f"o{i}" for i in range(count))

    def make(self) -> Any:
        """A fresh environment, drawing into arrays where it can."""
        choose_backend()
        gymnasium, name = import_gymnasium(), self.environment()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated versions and the like: the id is the user's choice
            try:
                if ":" in name:
                    package, _, name = name.partition(":")
                    importlib.import_module(package)
                spec = gymnasium.spec(name)
                modes = getattr(_entry(gymnasium, spec), "metadata", {}).get("render_modes", ())
                mode = "rgb_array" if "rgb_array" in modes else None
                return gymnasium.make(name, **{"render_mode": mode, **self.cfg.options})
            except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as e:
                raise ValueError(
                    f"name must be gym:ID of an environment that Gymnasium can make, got {self.cfg.name!r}: {e} "
                    "Check the id, its options, and that its package is installed and imported (gym:package:ID)."
                ) from None

    def environment(self) -> str:
        """The id that Gymnasium knows."""
        return str(self.cfg.name.removeprefix("gym:"))

    def find_inner(self) -> Any:
        """The environment whose state is carried: without its wrappers."""
        return self.env.unwrapped

    def settle(self) -> Carrier | None:
        way = carrier(self.inner)
        if way is None:
            return None
        rng = np.random.default_rng(0)
        trials = [self.native(a) for a in self.some_actions(3, rng)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return way if honest(way, trials) else None

    def some_actions(self, n: int, rng: np.random.Generator) -> np.ndarray:
        if self.discrete is not None:
            return rng.integers(0, self.discrete, (n, 1))
        return rng.uniform(self.low, self.high, (n, self.action))

    def native(self, action: np.ndarray) -> Any:
        """One action as the environment takes it."""
        space = self.env.action_space
        if self.discrete is not None:
            return int(action[0]) + self._first
        return np.clip(action, self.low, self.high).reshape(space.shape).astype(space.dtype)

    def reset(self, n: int, rng: np.random.Generator) -> np.ndarray:
        seeds = rng.integers(0, 2**31, n)
        if self.way is None:
            assert self.live is not None
            return self.live.reset([int(s) for s in seeds])
        rows = np.empty((n, len(self.names)))
        for i, seed in enumerate(seeds):
            begin(self.env, int(seed))
            rows[i] = self.way.read()
        return rows

    def step(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        states = self.check(states)
        actions = np.asarray(actions)
        if actions.shape != (len(states), self.action):
            raise ValueError(
                f"actions of {self.name} must have shape ({len(states)}, {self.action}), got {actions.shape}. "
                f"Give one row of {self.action} numbers per world."
            )
        native = [self.native(a) for a in actions]
        if self.way is None:
            assert self.live is not None
            return self.live.step(states, native)
        after = np.empty_like(states)
        for i, action in enumerate(native):
            self.way.write(states[i])
            self.inner.step(action)
            after[i] = self.way.read()
        return after

    def again(self, states: np.ndarray) -> np.ndarray:
        """Rows to step from that are these states: they themselves where a state can be set. Elsewhere new episodes,
        begun from the same seeds and led there by the same actions; those begun before are then over. A state that was
        not reached in this world before, or by `replay`, is refused, and so is a seed that leads somewhere else."""
        states = self.check(states)
        if self.live is None:
            return states
        self.live.past = {} if self.live.past is None else self.live.past
        return self.live.again(states)

    def replay(self, seed: int, actions: np.ndarray) -> np.ndarray:
        """The states (T + 1, P) of an episode whose state cannot be set, by its seed and its T actions (T, A)."""
        if self.live is None:
            raise ValueError(f"replay must be of a world whose state cannot be set, got {self.name}. Write its states.")
        self.live.past = {} if self.live.past is None else self.live.past
        rows = [self.live.reset([seed])]
        for action in actions:
            rows.append(self.live.step(rows[-1], [self.native(action)]))
        return np.concatenate(rows)

    def goals(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        states = self.check(states)
        if self.live is not None:  # the goals are remembered, to be drawn
            self.live.past = {} if self.live.past is None else self.live.past
        for _ in range(self.ahead):
            states = self.step(states, self.some_actions(len(states), rng))
        return states

    def observe(self, states: np.ndarray) -> np.ndarray:
        states = self.check(states)
        if self.cfg.pixels is not None:
            return self.draw(states, self.cfg.pixels)
        if self.way is None:
            assert self.live is not None
            return self.live.observe(states)
        seen = np.empty((len(states), *self.obs), np.float32)
        for i, row in enumerate(states):
            self.way.write(row)
            seen[i] = self.way.vector()
        return seen

    def draw(self, states: np.ndarray, size: int = 128) -> np.ndarray:
        states = self.check(states)
        pictures = np.empty((len(states), size, size, 3), np.uint8)
        for i, row in enumerate(states):
            if self.way is None:
                assert self.live is not None
                pictures[i] = resized(self.live.env_of(row).render(), size, self.name)
            else:
                self.way.write(row)
                pictures[i] = self.picture(size)
        return pictures

    def picture(self, size: int) -> np.ndarray:
        """What the inner environment looks like now."""
        if isinstance(self.way, MujocoCarrier):
            if self._camera is None:
                self._camera = self.camera()
            return self._camera.look(self.inner.data, size)
        return resized(self.env.render(), size, self.name)

    def camera(self) -> Camera:
        """How a MuJoCo environment is looked at."""
        return Camera(self.inner.model)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        first = 0 if self.settable else len(TICKET)
        gap = self.check(states)[:, first:] - self.check(goals)[:, first:]
        if not gap.shape[1]:
            raise ValueError(f"distance needs numbers, and {self.name} shows pictures only. Compare features instead.")
        return np.sqrt(np.square(gap).sum(-1))

    def reached(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return self.distance(states, goals) < self.cfg.tolerance

    def check(self, states: np.ndarray) -> np.ndarray:
        states = np.asarray(states, np.float64)
        if states.ndim != 2 or states.shape[1] != len(self.names):
            raise ValueError(
                f"states of {self.name} must have shape (n, {len(self.names)}), got {states.shape}. "
                f"Give one row per world: {', '.join(self.names[:12])}."
            )
        return states


def import_gymnasium() -> Any:
    try:
        import gymnasium
    except ImportError:
        raise ValueError(
            "gym worlds must have gymnasium, and it is not installed. pip install openjepa[worlds]"
        ) from None
    return gymnasium


def _entry(gymnasium: Any, spec: Any) -> Any:
    """The class behind a spec, for its metadata; the spec itself where it is a function."""
    if isinstance(spec.entry_point, str):
        return gymnasium.envs.registration.load_env_creator(spec.entry_point)
    return spec.entry_point


def bounds(space: Any, name: str) -> tuple[np.ndarray, np.ndarray, int | None, int]:
    """low, high (A,), the number of choices or None, and the first choice."""
    kind = type(space).__name__
    if kind == "Discrete":  # by name: gymnasium is imported by then, and need not be here
        n = int(space.n)
        return np.zeros(1), np.full(1, float(n - 1)), n, int(space.start)
    if kind != "Box":
        raise ValueError(f"actions of {name} must be a Box or Discrete space, got {kind}. Wrap it into one of them.")
    low, high = (np.asarray(b, np.float64).ravel() for b in (space.low, space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            f"actions of {name} must have finite bounds, got {space}. Wrap it with ClipAction or RescaleAction."
        )
    return low, high, None, 0


def resized(picture: Any, size: int, name: str) -> np.ndarray:
    """A rendered picture as (size, size, 3), averaged down."""
    if not isinstance(picture, np.ndarray):
        raise ValueError(f"pictures of {name} must come from render(), got {type(picture).__name__}. Use pixels=null.")
    from PIL import Image

    return np.asarray(Image.fromarray(picture).convert("RGB").resize((size, size), Image.Resampling.BOX))
