"""Episodes in HDF5: flat arrays with the cuts between episodes, one group per episode, or Minari's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.data.episodes.config import EpisodeConfig
from openjepa.data.episodes.episodes import About
from openjepa.data.episodes.flat import cuts
from openjepa.data.episodes.gather import Found, stamp_of
from openjepa.data.episodes.naming import three
from openjepa.data.episodes.sound import Raw

SUFFIXES = (".h5", ".hdf5", ".hdf")


def library() -> Any:
    try:
        import h5py
    except ImportError:
        raise ValueError("HDF5 must be read with h5py, got none. Do pip install openjepa[episodes].") from None
    return h5py


def open_hdf5(cfg: EpisodeConfig) -> Found:
    """One file. Groups that hold observations are episodes (robomimic: data/demo_0/obs/..., actions, states; Minari:
    episode_0/observations, actions); without such groups, the file's own arrays are flat.

    Parts of an observation that are vectors are joined in the order of their names, and so for actions; pictures are
    taken before vectors.
    """
    path = Path(cfg.path).expanduser()
    h5py = library()
    try:
        with h5py.File(path, "r") as file:
            names = episode_groups(file)
            size = sum(nbytes(file[n]) for n in names) if names else nbytes(file)
            about = said(file.get("data", file))
    except OSError as e:
        raise ValueError(f"{path} must be an HDF5 file, got: {str(e).splitlines()[0]}.") from None
    stamp = stamp_of([path], cfg.keys, cfg.obs)
    raws = Groups(path, names, cfg) if names else Flat(path, cfg)
    return Found("hdf5", str(path), raws, about, size=size, stamp=stamp)


def open_minari(cfg: EpisodeConfig) -> Found:
    """A Minari data set in its HDF5 layout: data/main_data.hdf5 and data/metadata.json, with the spaces beside it."""
    path = Path(cfg.path).expanduser()
    data = path if (path / "main_data.hdf5").exists() else path / "data"
    found = open_hdf5(cfg.model_copy(update={"path": str(data / "main_data.hdf5")}))
    try:
        meta = json.loads((data / "metadata.json").read_text(encoding="utf-8"))
        space = meta["action_space"]
        space = json.loads(space) if isinstance(space, str) else space
    except (OSError, ValueError, KeyError, TypeError):
        return found
    found.kind = "minari"
    if space.get("type") == "Discrete":
        found.about = About(discrete=int(space["n"]))
    elif space.get("type") == "Box":
        low, high = (np.broadcast_to(np.asarray(space[k], float), space.get("shape", ())).ravel().tolist()
                     for k in ("low", "high"))  # fmt: skip
        if np.isfinite([*low, *high]).all():
            found.about = About(low=tuple(low), high=tuple(high))
    return found


def said(group: Any) -> About:
    """What robomimic notes about its environment."""
    try:
        env = json.loads(group.attrs["env_args"])
        return About(world={"name": str(env["env_name"]), **(env.get("env_kwargs") or {})})
    except (KeyError, ValueError, TypeError):
        return About()


class Groups:
    """One group per episode."""

    def __init__(self, path: Path, names: list[str], cfg: EpisodeConfig) -> None:
        self.path, self.names, self.cfg = path, names, cfg

    def __iter__(self) -> Iterator[Raw]:
        with library().File(self.path, "r") as file:
            for name in self.names:
                short = name.rpartition("/")[2]
                try:
                    obs, action, state = self.parts(file[name])
                except OSError as e:
                    yield Raw(short, trouble=f"cannot be read: {str(e).splitlines()[0]}")
                    continue
                yield Raw(short, obs, action, state)

    def parts(self, group: Any) -> tuple[Any, Any, Any]:
        obs, action, state = three(group.keys(), self.cfg.keys, "auto", str(self.path))
        vectors = lambda name: None if name is None else whole(group[name], "state")  # noqa: E731
        states = vectors(state) if state != obs else None
        seen = None if obs is None else whole(group[obs], self.cfg.obs, self.cfg.keys.get("pictures"))
        if states is None and seen is not None and seen.ndim == 4:
            states = vectors(obs) if is_group(group[obs]) else None
        if self.cfg.obs == "state" and seen is not None and seen.ndim == 4:
            seen = states
        return seen, vectors(action), states


class Flat:
    """Arrays end to end. Rows are read episode by episode, in blocks that HDF5 can serve."""

    def __init__(self, path: Path, cfg: EpisodeConfig) -> None:
        self.path, self.cfg = path, cfg

    def __iter__(self) -> Iterator[Raw]:
        where = str(self.path)
        with library().File(self.path, "r") as file:
            arrays = {name: x for name, x in file.items() if not is_group(x)}
            keys = three(arrays, self.cfg.keys, self.cfg.obs, where)
            obs, action, state = (None if k is None else arrays[k] for k in keys)
            if obs is None:
                raise ValueError(
                    f"{where} must hold observations, got {', '.join(file)}. Name them with keys.obs=NAME."
                )
            many = cuts(arrays, self.cfg.keys, where, len(obs))
            if many is None:
                many = np.array([0]), np.array([len(obs)])
            for i, (start, length) in enumerate(zip(*many, strict=True)):
                rows = slice(int(start), int(start + length))
                try:
                    o, a, s = (None if x is None else x[rows] for x in (obs, action, state))
                    yield Raw(str(i), o, a, s)
                except OSError as e:
                    yield Raw(str(i), trouble=f"cannot be read: {str(e).splitlines()[0]}")


def episode_groups(file: Any) -> list[str]:
    """Paths of the groups that are episodes, in the order of the numbers in their names."""
    for prefix in ("data/", ""):
        above = file[prefix] if prefix and prefix in file else file if not prefix else {}
        names = [n for n in above if is_group(above[n]) and three(above[n].keys(), {}, "auto", n)[0] is not None]
        if names:
            return [prefix + n for n in sorted(names, key=lambda n: (int("0" + "".join(filter(str.isdigit, n))), n))]
    return []


def is_group(x: Any) -> bool:
    return isinstance(x, Mapping)  # h5py's groups are mappings, its arrays are not


def whole(x: Any, seen: str, picture: str | None = None) -> np.ndarray | None:
    """An array, or the parts of a group: its (first, or named) pictures, else all its vectors side by side."""
    if not is_group(x):
        return x[...]
    parts = {name: part for name, part in x.items() if not is_group(part)}
    pictures = [name for name, part in parts.items() if part.ndim == 4]
    if pictures and seen != "state":
        return parts[picture if picture in parts else pictures[0]][...]
    vectors = [part[...].reshape(len(part), -1) for name, part in parts.items() if part.ndim in (1, 2)]
    return np.concatenate(vectors, 1) if vectors else None


def nbytes(x: Any) -> int:
    """Bytes of all arrays in a group, unpacked."""
    return sum(map(nbytes, x.values())) if is_group(x) else int(x.nbytes)
