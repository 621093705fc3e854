"""How the whole state of a Gymnasium environment is read and written, for the kinds where that is possible."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

# what the numbers of `env.state` are, where Gymnasium's own classic control keeps them
CLASSIC = {
    "PendulumEnv": ("theta", "omega"),
    "CartPoleEnv": ("x", "vx", "theta", "omega"),
    "MountainCarEnv": ("x", "vx"),
    "Continuous_MountainCarEnv": ("x", "vx"),
    "AcrobotEnv": ("theta0", "theta1", "omega0", "omega1"),
}
# and of their observations, where these are not the state
SEEN = {
    "PendulumEnv": ("cos_theta", "sin_theta", "omega"),
    "AcrobotEnv": ("cos_theta0", "sin_theta0", "cos_theta1", "sin_theta1", "omega0", "omega1"),
}


class Carrier(ABC):
    """Reads and writes the state of one environment (unwrapped) as a row of numbers."""

    names: tuple[str, ...]
    seen: tuple[str, ...] | None = None  # names of the observation's own variables where they are known

    def __init__(self, env: Any) -> None:
        self.env = env

    @abstractmethod
    def read(self) -> np.ndarray: ...

    @abstractmethod
    def write(self, row: np.ndarray) -> None: ...

    def vector(self) -> np.ndarray:
        """The environment's own observation of the state it is in, flat; the state where it has no method for that."""
        for method in ("_get_obs", "_get_ob", "get_obs"):
            look = getattr(self.env, method, None)
            if look is not None:
                seen = look()
                return flat(seen[0] if isinstance(seen, tuple) else seen)
        return flat(self.read())


class ClassicCarrier(Carrier):
    """Classic control keeps its whole state in `env.state`."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        kinds = [c.__name__ for c in type(env).__mro__]
        known = (CLASSIC[kind] for kind in kinds if kind in CLASSIC)
        self.names = next(known, tuple(f"s{i}" for i in range(len(env.state))))
        self.seen = next((SEEN[kind] for kind in kinds if kind in SEEN), None)

    def read(self) -> np.ndarray:
        return np.array(self.env.state, np.float64)

    def write(self, row: np.ndarray) -> None:
        self.env.state = np.array(row, np.float64)
        if getattr(self.env, "steps_beyond_terminated", None) is not None:
            self.env.steps_beyond_terminated = None  # an end is not part of the physics


class MujocoCarrier(Carrier):
    """Positions, velocities and activations; time, controls and the solver's warm start begin at zero at every step."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        model = env.model
        joints = [model.joint(i).name or f"joint{i}" for i in range(model.njnt)]
        wide = [(7, 6), (4, 3), (1, 1), (1, 1)]  # numbers per free, ball, slide and hinge joint: positions, velocities
        sizes = [wide[int(kind)] for kind in model.jnt_type]
        positions = [f"{j}.{k}" if q > 1 else j for j, (q, _) in zip(joints, sizes, strict=True) for k in range(q)]
        speeds = [
            f"v_{j}.{k}" if v > 1 else f"v_{j}" for j, (_, v) in zip(joints, sizes, strict=True) for k in range(v)
        ]
        self.names = (*positions, *speeds, *(f"act{i}" for i in range(model.na)))
        self.nq, self.nv = model.nq, model.nv

    def read(self) -> np.ndarray:
        data = self.env.data
        return np.concatenate([data.qpos, data.qvel, data.act]).astype(np.float64)

    def write(self, row: np.ndarray) -> None:
        data = self.env.data
        data.time = 0.0
        data.ctrl[:], data.qacc_warmstart[:] = 0, 0
        data.act[:] = row[self.nq + self.nv :]
        self.env.set_state(row[: self.nq].copy(), row[self.nq : self.nq + self.nv].copy())


class OwnCarrier(Carrier):
    """An environment with `get_state() -> array` and `set_state(array)` of its own."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.names = tuple(f"s{i}" for i in range(len(self.read())))

    def read(self) -> np.ndarray:
        return flat(self.env.get_state())

    def write(self, row: np.ndarray) -> None:
        self.env.set_state(np.array(row, np.float64))


def flat(seen: Any) -> np.ndarray:
    """Numbers in a row; of a dictionary, those under "observation", else all in the order of their names."""
    if isinstance(seen, dict):
        if "observation" in seen:
            return flat(seen["observation"])
        return np.concatenate([flat(seen[key]) for key in sorted(seen)])
    return np.asarray(seen, np.float64).ravel()


def carrier(env: Any) -> Carrier | None:
    """The way to carry the state of `env` (unwrapped, after a reset), or None where none is known."""
    has = {name: getattr(env, name, None) is not None for name in ("model", "data", "set_state", "get_state", "state")}
    if has["model"] and has["data"] and has["set_state"] and getattr(env.data, "qpos", None) is not None:
        return MujocoCarrier(env)
    if has["get_state"] and has["set_state"]:
        return OwnCarrier(env)
    if has["state"] and any("classic_control" in c.__module__ for c in type(env).__mro__):
        return ClassicCarrier(env)
    return None


def honest(way: Carrier, actions: list[Any]) -> bool:
    """Whether writing a state really puts the environment there: the same actions must lead to the same states again.

    It is false for environments that draw noise, or keep something beside the state that matters.
    """
    start, ends = way.read(), []
    for _ in range(2):
        way.write(start)
        path = []
        for action in actions:
            way.env.step(action)
            path.append(way.read())
            way.write(path[-1])  # and back through the row at every step
        ends.append(np.stack(path))
    way.write(start)
    for action in actions:
        way.env.step(action)
    ends.append(np.broadcast_to(way.read(), ends[0][-1:].shape))
    way.write(start)
    scale = 1e-4 * (1 + np.abs(ends[0]))
    through = np.abs(ends[0] - ends[1]) <= scale
    direct = np.abs(ends[0][-1:] - ends[2]) <= scale[-1:]
    return bool(through.all() and direct.all())
