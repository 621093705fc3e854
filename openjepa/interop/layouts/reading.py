"""From a file or a folder to groups of tensors with plain keys: wrappers' prefixes off, double keys noticed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from openjepa.interop.files import State, read_json, read_weights
from openjepa.interop.layouts.record import Found

SUFFIXES = (".safetensors", ".pt", ".pth", ".tar", ".bin", ".ckpt")
_WRAPPERS = re.compile(r"^(?:(?:module|backbone|_orig_mod|_fsdp_wrapped_module)\.)+")
_WRAPPED = ("state_dict", "model", "model_state_dict")  # names that others put around a whole state


def read_found(path: Path) -> Found:
    """What lies at `path`, a file of weights or a folder that holds one (or several parts of one) and a config.json."""
    folder = path if path.is_dir() else path.parent
    given = {
        name: read_json(folder / name) if (folder / name).is_file() else {}
        for name in ("config.json", "preprocessor_config.json", "video_preprocessor_config.json")
    }
    state = _merged(folder) if path.is_dir() else read_weights(path)
    entries, plain, doubled = _groups(state, path)
    prepared = given["video_preprocessor_config.json"] or given["preprocessor_config.json"]
    return Found(path, entries, plain, given["config.json"], doubled, prepared)


def _merged(folder: Path) -> dict[str, Any]:
    """The weights of a folder: its one file, or the parts that an index lists."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _parts(folder, index)
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in SUFFIXES)
    safe = [p for p in files if p.suffix == ".safetensors"]
    files = safe or files
    if len(files) != 1:
        got = ", ".join(p.name for p in files[:5]) or "none"
        raise ValueError(f"{folder} must hold one file of weights, got {got}. Name the file itself.")
    return read_weights(files[0])


def _parts(folder: Path, index: Path) -> dict[str, Any]:
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict):
        raise ValueError(f"{index} must say which file holds which tensor, got no weight_map. Copy the folder again.")
    state: State = {}
    for name in sorted(set(map(str, where.values()))):
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder} must hold {name}, which its index lists, got none. Copy the folder again.")
        part = read_weights(folder / name)
        twice = [k for k in part if k in state]
        if twice:
            raise ValueError(f"{folder} must hold every tensor once, got {twice[0]} in two files. Copy it again.")
        state |= part
    lost = [k for k in where if k not in state]
    if lost:
        raise ValueError(f"{folder} must hold every tensor of its index, got no {lost[0]}. Copy the folder again.")
    return state


def _groups(state: Mapping[str, Any], path: Path) -> tuple[dict[str, State], tuple[str, ...], tuple[str, ...]]:
    """The groups of tensors, the names of what is none, and keys that stand twice."""
    if len(state) == 0:
        raise ValueError(f"{path} must hold weights, got an empty file of torch.save. Save model.state_dict().")
    wrapped = [k for k in _WRAPPED if isinstance(state.get(k), Mapping) and _tensors(state[k])]
    if len(wrapped) == 1 and not any(isinstance(v, Tensor) for v in state.values()):
        others = tuple(k for k in state if k != wrapped[0] and not _tensors(state[k]))
        if len(others) == len(state) - 1:
            cleaned, doubled = clean(state[wrapped[0]], "")
            return {"": cleaned}, others, tuple(doubled)
    if all(isinstance(v, Tensor) for v in state.values()):
        cleaned, doubled = clean(state, "")
        return {"": cleaned}, (), tuple(doubled)
    entries: dict[str, State] = {}
    plain, twice = [], []
    loose = {k: v for k, v in state.items() if isinstance(v, Tensor) and v.dim() > 0}
    for name, value in [*state.items(), *([("", loose)] if loose else [])]:
        groups = {name: value} if isinstance(value, Mapping) else {}
        if isinstance(value, list | tuple) and value and all(isinstance(v, Mapping) for v in value):
            groups = {f"{name}[{i}]": v for i, v in enumerate(value)}
        for label, group in groups.items():
            if _tensors(group):
                entries[label], doubled = clean(group, label)
                twice += doubled
        if not any(label in entries for label in groups) and name not in loose:
            plain.append(str(name))
    return entries, tuple(plain), tuple(twice)


def _tensors(group: Any) -> bool:
    """Whether something is a named group of tensors: most of its values are, none is a group of its own."""
    if not isinstance(group, Mapping) or not group:
        return False
    found = sum(isinstance(v, Tensor) for v in group.values())
    return 2 * found > len(group)


def clean(group: Mapping[str, Any], label: str) -> tuple[State, list[str]]:
    """The keys without what data parallelism, compilation and sequence wrappers put in front; and what is then double.

    >>> clean({"module.backbone.norm.weight": 1, "module.norm.weight": 2}, "encoder")[1]
    ['encoder: norm.weight as module.backbone.norm.weight and as module.norm.weight']
    """
    state: State = {}
    came: dict[str, str] = {}
    doubled = []
    for key, value in group.items():
        name = _WRAPPERS.sub("", str(key)).replace("._orig_mod.", ".")
        if name in state:
            doubled.append(f"{label}: {name} as {came[name]} and as {key}".removeprefix(": "))
        state[name], came[name] = value, str(key)
    return state, doubled
