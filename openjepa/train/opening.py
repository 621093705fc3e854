"""From the settings to batches: a stream of pictures, clips or windows, as the method eats, and what the data are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import ValidationError

from openjepa.config import ClipView, Config
from openjepa.core.dist import rank, world_size
from openjepa.data import PictureStream, Source, open_source
from openjepa.data.clips import ClipSource, ClipStream, open_clips
from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.fit import long_enough
from openjepa.data.clips.opening import holds
from openjepa.data.clips.pace import span, words
from openjepa.data.config import DataConfig
from openjepa.data.episodes import Episodes, WindowStream, open_episodes
from openjepa.data.episodes.config import EpisodeConfig
from openjepa.data.episodes.opening import surely_episodes
from openjepa.data.source import Bad
from openjepa.methods import METHODS, Method
from openjepa.train.launch import first_then_rest
from openjepa.train.run import RunConfig, eats_clips

log = logging.getLogger("openjepa.data")

Data = Source | ClipSource | WindowStream


class Closing(Protocol):
    """A stream that can be ended."""

    @property
    def steps_per_epoch(self) -> int: ...

    def batches(self, start_step: int = 0) -> Iterator[Any]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Opened:
    """Data, ready to train on.

    source    what observers are shown: the source of pictures or clips, or the stream of windows
    stream    of batches
    keywords  what the method is built with
    facts     for checkpoints and env.json: how to prepare other data (`preprocess`), and which these were (`data`)
    files     for the run folder
    bad       what could not be read so far, as (name, reason)
    views     kinds of clips that were taken because the settings name none and the usual ones do not fit the videos
    """

    source: Data
    stream: Closing
    keywords: dict[str, Any]
    facts: dict[str, Any]
    bad: Callable[[], Bad]
    files: dict[str, Any] = field(default_factory=dict)
    views: tuple[ClipView, ...] | None = None

    def fitted(self, run: RunConfig) -> RunConfig:
        """The run's settings with the views that were taken: what is built, and saved."""
        if self.views is None:
            return run
        return run.model_copy(update={"method": run.method.model_copy(update={"views": self.views})})


def undecided(method: Config) -> bool:
    """Whether the settings leave it to the data which clips are taken."""
    return eats_clips(method) and "views" not in method.model_fields_set


def open_data(run: RunConfig, device: torch.device, method: Method | None = None) -> Opened:
    """The data of a run for `method`, or for the one that `run.method` names."""
    eats = (method or METHODS[run.method.name]).eats  # type: ignore[attr-defined]
    name = getattr(run.method, "name", type(run.method).__name__)
    settings: Any = method.cfg if method else run.method
    if eats == "windows":
        if not isinstance(run.data, EpisodeConfig):
            raise ValueError(
                f"data must be episodes for method {name}, got a {type(run.data).__name__}. Give an EpisodeConfig."
            )
        return open_windows(run, run.data, device, settings.window)
    if eats == "clips":
        if not isinstance(run.data, ClipConfig):
            raise ValueError(
                f"data must be clips for method {name}, got a {type(run.data).__name__}. Give a ClipConfig."
            )
        refuse_episodes(run.data.path, "clips", name)
        return open_videos(run, run.data, device, settings, free=method is None and undecided(settings))
    if not isinstance(run.data, DataConfig):
        raise ValueError(
            f"data must be pictures for method {name}, got a {type(run.data).__name__}. Give a DataConfig."
        )
    refuse_episodes(run.data.path, "pictures", name)
    if holds(run.data.path) == {"clips"}:
        clips = ", ".join(sorted(n for n, m in METHODS.items() if m.eats == "clips"))
        raise ValueError(
            f"data must be pictures for method {name}, got videos: {run.data.path}. "
            f"Methods that learn from clips: {clips or 'none yet'}."
        )
    return open_pictures(run, run.data, device, settings.views)


def refuse_episodes(path: str, wanted: str, name: str) -> None:
    """A `ValueError` when a path is surely episodes."""
    if surely_episodes(path):
        windows = ", ".join(sorted(n for n, m in METHODS.items() if m.eats == "windows"))
        raise ValueError(
            f"data must be {wanted} for method {name}, got episodes: {path}. "
            f"Methods that learn from episodes: {windows}."
        )


def open_pictures(run: RunConfig, cfg: DataConfig, device: torch.device, views: Any) -> Opened:
    source = first_then_rest(lambda: open_source(cfg, seed=run.seed))
    stream = PictureStream(
        source, views, batch_size=run.batch_size, accumulate=run.accumulate, seed=run.seed, rank=rank(),
        world=world_size(), workers=cfg.workers, device=device,
    )  # fmt: skip
    facts = {
        "preprocess": {
            "size": source.size,
            "channels": source.channels,
            "mean": [float(x) for x in source.mean],
            "std": [float(x) for x in source.std],
            "resample": "bicubic",
        },
        "data": {**cfg.model_dump(mode="json"), "pictures": len(source), "fingerprint": source.fingerprint()},
    }
    keywords = {"size": source.size, "channels": source.channels}
    return Opened(source, stream, keywords, facts, lambda: source.bad)


def open_videos(run: RunConfig, cfg: ClipConfig, device: torch.device, settings: Any, *, free: bool) -> Opened:
    source = first_then_rest(lambda: open_clips(cfg, seed=run.seed))
    views = fit_views(settings, source) if free else settings.views
    stream = ClipStream(
        source, views, batch_size=run.batch_size, accumulate=run.accumulate, seed=run.seed, rank=rank(),
        world=world_size(), workers=cfg.workers, device=device,
    )  # fmt: skip
    main = max(views, key=lambda v: v.frames)  # what others should show the model: its longest clips
    facts = {
        "preprocess": {
            "kind": "clips",
            "frames": main.frames,
            "stride": main.stride or (1 if main.fps is None else None),
            "fps": main.fps,
            "size": source.size,
            "channels": source.channels,
            "mean": [float(x) for x in source.mean],
            "std": [float(x) for x in source.std],
            "resample": "bicubic",
        },
        "data": {
            **cfg.model_dump(mode="json"), "videos": len(source), "total_frames": int(source.lengths.sum()),
            "fingerprint": source.fingerprint(),
        },
    }  # fmt: skip
    keywords = {"size": source.size, "channels": source.channels}
    taken = None if views == settings.views else views
    return Opened(source, stream, keywords, facts, lambda: source.bad, views=taken)


def fit_views(settings: Any, source: ClipSource) -> tuple[ClipView, ...]:
    """The method's usual kinds of clips, each shortened where too many of the videos are too short for it.

    One line says so. What cannot be shortened stays, and is refused with the reason when the stream is made.
    """
    tubelet = getattr(getattr(settings, "encoder", None), "tubelet", 1)  # methods of the user's own may have none
    cuts = [source.fitted(view, whole=tubelet) for view in settings.views]
    views = tuple(
        v if cut is None or words(cut) == words(v) else v.model_copy(update=asdict(cut))
        for v, cut in zip(settings.views, cuts, strict=True)
    )
    try:
        type(settings).model_validate(settings.model_dump() | {"views": views})
    except ValidationError:  # the method needs longer ones
        return settings.views
    for view, new, cut in zip(settings.views, views, cuts, strict=True):
        if new is not view and cut is not None and rank() == 0:
            short = [int((~long_enough(v, source.lengths, source.rates)).sum()) for v in (view, new)]
            log.warning(
                "%d of %d videos are too short for the usual clip, %s (%s): this run takes method.views=[%s], for "
                "which %d are", short[0], len(source), words(view), span(view), cut.setting(), short[1],
            )  # fmt: skip
    return views


def open_windows(run: RunConfig, cfg: EpisodeConfig, device: torch.device, window: Any) -> Opened:
    episodes = first_then_rest(lambda: open_episodes(cfg))
    stream = WindowStream(
        episodes, window, cfg=cfg, batch_size=run.batch_size, accumulate=run.accumulate, seed=run.seed, rank=rank(),
        world=world_size(), device=device,
    )  # fmt: skip
    facts = {
        "preprocess": preprocess(stream),
        "data": {
            **cfg.model_dump(mode="json"), "drawn_episodes": cfg.episodes, "episodes": len(episodes),
            "frames": episodes.frames, "windows": len(stream.cuts), "held_out_episodes": len(stream.split.held),
            "fingerprint": f"{episodes.fingerprint()}-{stream.split.hash}",
        },
    }  # fmt: skip
    files = {"split.json": stream.split.as_dict()}
    return Opened(stream, stream, {"space": stream.space}, facts, lambda: episodes.bad, files)


def preprocess(stream: WindowStream) -> dict[str, Any]:
    """All that stands between a world and the model: what planners, probes and players of a checkpoint need.

    Of an action, the numbers are those of one world step, in the world's units; a step of the model takes `window.skip`
    of them. `bounds` says whether low and high are the world's, or only the range of the training episodes.
    """
    episodes, about = stream.episodes, stream.episodes.about
    low, high = about.low, about.high
    if not low:
        low, high = action_range(episodes, stream.split.train)
    return {
        "kind": "windows",
        "obs_shape": list(stream.space.obs),
        "window": stream.window.model_dump(),
        **stream.scale.as_dict(),
        "action": episodes.action.shape[1],
        "low": list(low),
        "high": list(high),
        "bounds": "world" if about.low else "data",
        "names": list(stream.space.names),
        "variables": list(episodes.variables),
        "world": about.world,
        "dt": about.dt,
        "split": {k: v for k, v in stream.split.as_dict().items() if k != "held_out_episodes"},
    }


def action_range(episodes: Episodes, train: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The least and greatest action of the training episodes."""
    rows = episodes.keep(train)
    low = np.full(episodes.action.shape[1], np.inf)
    high = -low
    for i in range(len(rows)):
        used = rows[i].action[:-1]
        low, high = np.minimum(low, used.min(0)), np.maximum(high, used.max(0))
    return tuple(map(float, low)), tuple(map(float, high))
