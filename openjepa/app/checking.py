"""Before and after a run: what data holds, what a checkpoint is, what this machine is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any

from openjepa.app.requests import InfoRequest
from openjepa.config import ClipView, nest, parse
from openjepa.data.clips.config import ClipConfig
from openjepa.data.config import DataConfig
from openjepa.data.episodes.config import EpisodeConfig

OPTIONAL = (
    "scikit-learn",
    "pyarrow",
    "transformers",
    "datasets",
    "timm",
    "onnx",
    "onnxruntime",
    "webdataset",
    "wandb",
    "h5py",
    "av",
    "gymnasium",
    "mujoco",
)


def check_data(path: str | Mapping[str, Any], overrides: Iterable[str] = ()) -> dict[str, Any]:
    """What there is at a path, as plain values: pictures (`openjepa.data.check`), clips or episodes, by the content;
    a folder of both pictures and videos gets both reports. `overrides` are settings of the data, such as `split=test`
    or `on_bad=skip`; of clips also `frames`, `stride` and `fps` of the clip that training would cut."""
    from openjepa.data import check
    from openjepa.data.clips.opening import holds
    from openjepa.data.episodes.checkup import check_episodes
    from openjepa.data.episodes.opening import kind_of

    given = {"path": path} if isinstance(path, str) else dict(path)
    changes = nest(overrides)
    if kind_of(str(given.get("path"))) is not None:
        return check_episodes(parse(EpisodeConfig, {**given, **changes})).as_dict()
    kinds = holds(str(given.get("path")))
    if kinds == {"clips"} or {"stride", "fps"} & set(changes):  # GIFs are clips when asked as clips
        return check_videos(given, changes)
    found = check(parse(DataConfig, {**given, **changes})).as_dict()
    if kinds == {"clips", "pictures"}:
        return {"pictures": found, "clips": check_videos(given, changes)}
    return found


def check_videos(given: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`openjepa.data.clips.check_clips` with settings and the clip's own numbers in one."""
    from openjepa.data.clips import check_clips
    from openjepa.data.clips.opening import DRAWN

    cut = {name: changes[name] for name in ("frames", "stride", "fps") if name in changes}
    parse(ClipView, cut)
    drawn = str(given.get("path")).split(":")[0] in DRAWN
    rest = {k: v for k, v in changes.items() if k not in cut or (k == "frames" and drawn)}
    return check_clips(parse(ClipConfig, {**given, **rest}), **cut).as_dict()


def about(path: str | Path | tuple[()], asked: InfoRequest) -> dict[str, Any]:
    """What lies at `path`, or without one what this machine is."""
    return about_checkpoint(Path(path), asked) if path else about_machine()


def about_machine() -> dict[str, Any]:
    """Versions, processors and devices: what a report of a fault needs. Nothing is sent anywhere."""
    from openjepa.train.environment import environment
    from openjepa.train.launch import resolve_device

    found = environment(resolve_device("auto"))
    found.pop("packages")
    found.pop("started")
    return {**found, "optional": {name: installed(name) for name in OPTIONAL}}


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def about_checkpoint(path: Path, asked: InfoRequest | None = None) -> dict[str, Any]:
    """What a run, a checkpoint folder, an exported folder or a single file of weights holds."""
    from openjepa.interop.checkpoint import by_part, foreign
    from openjepa.interop.layouts import loading
    from openjepa.interop.layouts.record import Asked

    asked = asked or InfoRequest()

    if not path.exists():
        raise ValueError(f"info must be given a run, a checkpoint or a file of weights, got {path}. Check the path.")
    if foreign(path) is not None:
        told = Asked(asked.weights, by_part(asked.heads), by_part(asked.depth), asked.size, asked.frames)
        return loading.about(path, told, asked.family)
    given = sorted(asked.model_fields_set)
    if given:
        raise ValueError(
            f"{given[0]} must be left out for what is no checkpoint of others, got {path}. Do openjepa info {path}."
        )
    if path.is_file():
        return about_file(path)
    if (path / "config.yaml").is_file():
        from openjepa.app.runs import Run

        last = path / "checkpoints" / "last"
        return {**Run(path).summary(), "checkpoint": about_checkpoint(last.resolve()) if last.exists() else None}
    if (path / "config.json").is_file():
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        files = {f.name: about_file(f) for f in sorted(path.glob("*.safetensors"))}
        return {"path": str(path), **config, "files": files}
    raise ValueError(f"info must be given a run, a checkpoint or a file of weights, got {path} without a config.")


def about_file(path: Path) -> dict[str, Any]:
    """Tensors and numbers in a file of weights; torch files are opened as weights only, so no code in them runs."""
    from openjepa.interop.files import read_weights

    shapes = [list(x.shape) for x in tensors(read_weights(path))]
    return {
        "path": str(path), "tensors": len(shapes), "numbers": sum(map(prod, shapes)), "bytes": path.stat().st_size,
    }  # fmt: skip


def tensors(found: Any) -> list[Any]:
    """Every tensor in nested dicts and lists, however deep it lies."""
    import torch

    if isinstance(found, torch.Tensor):
        return [found]
    below = found.values() if isinstance(found, Mapping) else found if isinstance(found, list | tuple) else ()
    return [x for item in below for x in tensors(item)]
