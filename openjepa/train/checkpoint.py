"""Checkpoints as folders: written whole or not at all, checked before they are believed.

    checkpoints/step_200/{config.json, encoder.safetensors, predictor.safetensors ..., training.pt, files.json}
    checkpoints/last -> step_200

`files.json` lists the size and the SHA-256 of every other file. A folder appears under its name only after all its
bytes are on the disk, so a process may be killed at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = "openjepa/1"
Parts = dict[str, dict[str, Tensor]]  # file stem -> tensor name -> tensor


def write(checkpoints: Path, step: int, parts: Parts, config: dict[str, Any], training: dict[str, Any]) -> Path:
    """Save one checkpoint and point `last` at it. On any error nothing that was there before is changed."""
    target, draft = checkpoints / f"step_{step}", checkpoints / f".step_{step}.draft"
    checkpoints.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        for stem, tensors in parts.items():
            save_file(separate(tensors), draft / f"{stem}.safetensors", metadata={"format": "pt"})
        with (draft / "training.pt").open("wb") as f:
            torch.save(training, f)
        write_json(draft / "config.json", config)
        write_json(draft / "files.json", {p.name: seal(p) for p in sorted(draft.iterdir())})
        for path in draft.iterdir():
            flush(path)
        flush(draft)
        put(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    point_last(checkpoints, target.name)
    return target


def put(draft: Path, target: Path) -> None:
    """Give the finished folder its name; one of the same name, left by an earlier run of these steps, makes room."""
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    draft.rename(target)
    flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def point_last(checkpoints: Path, name: str) -> None:
    """`last` becomes a link to `name`, in one step; a text file with the name where links are not to be had."""
    fresh = checkpoints / ".last.draft"
    fresh.unlink(missing_ok=True)
    try:
        fresh.symlink_to(name, target_is_directory=True)
    except OSError:
        fresh.write_text(name + "\n", encoding="utf-8")
    os.replace(fresh, checkpoints / "last")


def listed(checkpoints: Path) -> list[Path]:
    """All checkpoints by name, oldest first. Drafts and damaged ones do not count."""
    found = [p for p in checkpoints.glob("step_*") if p.is_dir() and p.name.removeprefix("step_").isdecimal()]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def prune(checkpoints: Path, keep: int) -> None:
    """Delete all but the newest `keep`."""
    for path in listed(checkpoints)[:-keep]:
        shutil.rmtree(path)


def damage(path: Path) -> str | None:
    """Why a checkpoint cannot be believed, or None when every file has its recorded size and SHA-256."""
    try:
        files = json.loads((path / "files.json").read_text(encoding="utf-8"))
        for name, recorded in files.items():
            size = (path / name).stat().st_size
            if size != recorded["bytes"]:
                return f"{name} has {size} bytes instead of {recorded['bytes']}"
            if seal(path / name) != recorded:
                return f"{name} has other content than was written"
    except FileNotFoundError as e:
        return f"{Path(e.filename).name} is missing"
    except (ValueError, TypeError, KeyError, AttributeError):
        return "files.json is not readable"
    return None


def newest_good(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole. Damaged newer ones are renamed and named in a warning."""
    for path in reversed(listed(checkpoints)):
        reason = damage(path)
        if reason is None:
            point_last(checkpoints, path.name)
            return path
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        warnings.warn(
            f"checkpoint {path} is damaged ({reason}) and was set aside as {aside.name}; using the one before it.",
            stacklevel=2,
        )
    return None


def clean(checkpoints: Path) -> None:
    """Remove what a killed process left half-written; bring back what it had moved out of the way."""
    for old in checkpoints.glob(".step_*.old"):
        name = checkpoints / old.name.removeprefix(".").removesuffix(".old")
        if name.exists():
            shutil.rmtree(old)
        else:
            old.rename(name)
    for draft in checkpoints.glob(".step_*.draft"):
        shutil.rmtree(draft)


def read_parts(path: Path) -> Parts:
    """The tensors of every safetensors file in a checkpoint folder, by file stem."""
    return {p.stem: load_file(p) for p in sorted(path.glob("*.safetensors"))}


def read_training(path: Path) -> dict[str, Any]:
    return torch.load(path / "training.pt", map_location="cpu", weights_only=True)


def separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, as the file format wants them: tied weights are written twice."""
    seen: set[int] = set()
    out = {}
    for name, x in tensors.items():
        address = x.untyped_storage().data_ptr()
        out[name] = x.clone(memory_format=torch.contiguous_format) if address in seen else x.contiguous()
        seen.add(address)
    return out


def seal(path: Path) -> dict[str, int | str]:
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
