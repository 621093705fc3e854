"""Before and after a run: what data holds, what a checkpoint is, what this machine is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from openjepa.config import nest, parse
from openjepa.data.config import DataConfig

OPTIONAL = ("scikit-learn", "pyarrow", "transformers", "datasets", "timm", "onnx", "onnxruntime", "webdataset", "wandb")


def check_data(path: str | Mapping[str, Any], overrides: Iterable[str] = ()) -> dict[str, Any]:
    """What `openjepa.data.check` found, as plain values; `overrides` are settings of the data, such as `split=test`."""
    from openjepa.data import check

    given = {"path": path} if isinstance(path, str) else dict(path)
    return check(parse(DataConfig, {**given, **nest(overrides)})).as_dict()


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


def about_checkpoint(path: Path) -> dict[str, Any]:
    """What a run, a checkpoint folder, an exported folder or a single file of weights holds."""
    if not path.exists():
        raise ValueError(f"info must be given a run, a checkpoint or a file of weights, got {path}. Check the path.")
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
    """Tensors and parameters of a file of weights; pickles are opened as weights only, so no code in them runs."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as f:  # type: ignore[no-untyped-call]
                shapes = [f.get_slice(name).get_shape() for name in f.keys()]  # noqa: SIM118
        except SafetensorError as e:
            raise ValueError(f"{path} must be a readable .safetensors file, got: {e}.") from None
    else:
        shapes = [list(x.shape) for x in tensors(path)]
    count = sum(product(s) for s in shapes)
    return {"path": str(path), "tensors": len(shapes), "numbers": count, "bytes": path.stat().st_size}


def tensors(path: Path) -> list[Any]:
    """Every tensor in a torch file, however deep it lies."""
    import pickle

    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as e:
        reason = str(e).strip().splitlines()[0]
        raise ValueError(f"{path} must be .safetensors or a torch file of plain weights, got: {reason}") from None
    flat: list[Any] = []
    stack = [found]
    while stack:
        item = stack.pop()
        if isinstance(item, torch.Tensor):
            flat.append(item)
        elif isinstance(item, Mapping):
            stack += list(item.values())
        elif isinstance(item, list | tuple):
            stack += list(item)
    return flat


def product(shape: Iterable[int]) -> int:
    """
    >>> product([2, 3]), product([])
    (6, 1)
    """
    total = 1
    for n in shape:
        total *= n
    return total
