"""The LeRobot layout: Parquet rows with episode and frame numbers, meta/info.json, and pictures as video or bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.data.episodes.config import EpisodeConfig
from openjepa.data.episodes.episodes import About
from openjepa.data.episodes.gather import Found, stamp_of
from openjepa.data.episodes.sound import Raw
from openjepa.data.picture import BadPicture, read_picture

EPISODE, FRAME, STATE = "episode_index", "frame_index", "observation.state"


def open_lerobot(cfg: EpisodeConfig) -> Found:
    """A LeRobot data set of version 2 (a file per episode) or 3 (many episodes per file).

    The observation is the first picture among the features (or keys.obs=NAME), else `observation.state`. With obs=state
    videos are not opened.
    """
    path = Path(cfg.path).expanduser()
    try:
        info = json.loads((path / "meta" / "info.json").read_text(encoding="utf-8"))
        features = dict(info["features"])
    except (OSError, ValueError, KeyError) as e:
        raise ValueError(
            f"{path} must be a LeRobot data set, got a meta/info.json that does not say so: {e}."
        ) from None
    tables = sorted((path / "data").rglob("*.parquet"))
    if not tables:
        raise ValueError(f"{path} must hold data/**/*.parquet, got none. Fetch the data set again.")
    camera = chosen(features, cfg, path)
    names = features.get(STATE, {}).get("names")
    names = next(iter(names.values())) if isinstance(names, dict) else names
    fps = float(info.get("fps") or 0)
    about = About(variables=tuple(map(str, names or ())), dt=1 / fps if fps else None)
    video = camera is not None and features[camera].get("dtype") == "video"
    frames = int(info.get("total_frames") or 0)
    each = int(np.prod(features[camera].get("shape", (0,)))) if camera else 0
    files = [*tables, *sorted((path / "videos").rglob("*.mp4"))] if video else tables
    return Found(
        "lerobot", str(path), Rows(path, tables, info, camera, video, cfg), about, size=frames * each, slow=video,
        stamp=stamp_of(files, cfg.keys, cfg.obs),
    )  # fmt: skip


def chosen(features: dict[str, Any], cfg: EpisodeConfig, path: Path) -> str | None:
    """The camera, None for states."""
    asked = cfg.keys.get("obs")
    if asked is not None and asked not in features:
        raise ValueError(f"keys.obs must be a feature of {path}, got {asked!r}. There are: {', '.join(features)}.")
    cameras = [n for n, f in features.items() if f.get("dtype") in ("video", "image") and asked in (None, n)]
    return cameras[0] if cameras and cfg.obs != "state" else None


class Rows:
    """Episodes in the order of their numbers, wherever their rows lie."""

    def __init__(
        self, path: Path, tables: list[Path], info: dict[str, Any], camera: str | None, video: bool, cfg: EpisodeConfig
    ) -> None:
        self.path, self.tables, self.info, self.camera, self.video, self.cfg = path, tables, info, camera, video, cfg
        self.places = episode_places(path) if video else {}

    def __iter__(self) -> Iterator[Raw]:
        for file in self.tables:
            try:
                table = read_table(file)
            except (OSError, ValueError) as e:
                yield Raw(file.relative_to(self.path).as_posix(), trouble=f"cannot be read: {str(e).splitlines()[0]}")
                continue
            if EPISODE not in table.column_names:
                yield Raw(file.relative_to(self.path).as_posix(), trouble=f"no column {EPISODE}")
                continue
            number = table.column(EPISODE).to_numpy()
            for episode in np.unique(number):
                yield self.episode(int(episode), table.filter(number == episode))

    def episode(self, number: int, rows: Any) -> Raw:
        name = f"{number:06d}"
        if FRAME in rows.column_names:
            frame = rows.column(FRAME).to_numpy()
            if not np.array_equal(np.sort(frame), np.arange(len(frame))):
                return Raw(name, trouble=f"frames are not 0 to {len(frame) - 1}, some are missing or twice there")
            rows = rows.take(np.argsort(frame, kind="stable"))
        column = lambda key: vectors(rows, key) if key in rows.column_names else None  # noqa: E731
        try:
            state = column(self.cfg.keys.get("state", STATE))
            action = column(self.cfg.keys.get("action", "action"))
            obs = self.pictures(number, rows) if self.camera else state
        except (OSError, ValueError, BadPicture) as e:
            return Raw(name, trouble=str(e).splitlines()[0])
        return Raw(name, obs, action, state)

    def pictures(self, number: int, rows: Any) -> np.ndarray:
        if not self.video:
            cells = rows.column(self.camera).to_pylist()
            return np.stack(
                [read_picture(c["bytes"] if c.get("bytes") else str(self.path / c["path"]), 3) for c in cells]
            )
        assert self.camera is not None
        place = self.places.get(number, {})
        at = f"videos/{self.camera}/"
        info, chunk = self.info, number // int(self.info.get("chunks_size") or 1000)
        file = str(info["video_path"]).format(
            video_key=self.camera, episode_chunk=chunk, episode_index=number,
            chunk_index=place.get(at + "chunk_index", 0), file_index=place.get(at + "file_index", 0),
        )  # fmt: skip
        begin = float(place.get(at + "from_timestamp") or 0.0)
        return decode(self.path / file, begin, len(rows), float(info["fps"]))


def episode_places(path: Path) -> dict[int, dict[str, Any]]:
    """Version 3: in which video, and where in it, an episode lies."""
    rows = [
        row for file in sorted((path / "meta" / "episodes").rglob("*.parquet")) for row in read_table(file).to_pylist()
    ]
    return {int(row[EPISODE]): row for row in rows}


def read_table(file: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError("Parquet must be read with pyarrow, got none. Do pip install openjepa[episodes].") from None
    return pq.read_table(file)


def vectors(rows: Any, name: str) -> np.ndarray:
    """A column of numbers or of lists of equal length, (T, n)."""
    values = rows.column(name).to_pylist()
    lengths = {len(v) if isinstance(v, list) else 1 for v in values}
    if len(lengths) > 1:
        raise ValueError(f"{name} is ragged: rows of {min(lengths)} to {max(lengths)} numbers")
    return np.array(values, dtype=np.float64).reshape(len(values), -1)


def decode(file: Path, begin: float, frames: int, fps: float) -> np.ndarray:
    """`frames` pictures of a video from `begin` seconds on, (T, H, W, 3) uint8, matched by their time stamps."""
    try:
        import av
    except ImportError:
        raise ValueError("video must be read with PyAV, got none. Do pip install openjepa[episodes].") from None
    if not file.exists():
        raise ValueError(f"no video {file.name} at {file.parent}")
    found: dict[int, np.ndarray] = {}
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            unit = float(stream.time_base or 1)
            container.seek(int(max(0.0, begin - 0.5 / fps) / unit), stream=stream)  # to the key frame before
            for frame in container.decode(stream):
                step = round((float(frame.time or 0.0) - begin) * fps)
                if step >= frames:
                    break
                if step >= 0:
                    found[step] = frame.to_ndarray(format="rgb24")
    except (OSError, ValueError, IndexError) as e:  # an index: there is no stream of pictures in it
        raise ValueError(f"video {file.name} cannot be read: {str(e).splitlines()[0]}") from None
    missing = frames - len(found)
    if missing:
        raise ValueError(f"video {file.name} lacks {missing} of {frames} frames")
    return np.stack([found[i] for i in range(frames)])


def is_lerobot(path: Path) -> bool:
    return (path / "meta" / "info.json").is_file() and (path / "data").is_dir()
