"""Telling what a file is by its first bytes, and reading weights and settings with one sentence when it is not that."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

State = dict[str, Tensor]

_MAGIC = (  # first bytes -> what it is and what to do
    (b"version https://git-lfs", "a git-lfs pointer, not the weights. Do git lfs pull"),
    (b"\x89HDF", "an HDF5 file. Export the weights as .safetensors"),
    (b"\x93NUMPY", "a NumPy array. Export the weights as .safetensors"),
    (b"\x1f\x8b", "a gzip archive. Unpack it first"),
    (b"GGUF", "a GGUF file. Export the weights as .safetensors"),
    (b"<", "a web page or XML, perhaps a failed download. Download it again"),
)
CODE = (
    "must hold only tensors, got a pickle with Python objects: opening it would run code. Where it was made, do "
    "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')."
)


def kind_of(path: Path) -> str:
    """What a file is: "safetensors", "zip" (torch.save), "pickle" (old torch.save) or "json"; `ValueError` for others.

    >>> import tempfile; path = Path(tempfile.mkdtemp()) / "a.bin"; _ = path.write_bytes(b"PK\\x03\\x04....")
    >>> kind_of(path)
    'zip'
    """
    size = path.stat().st_size
    with path.open("rb") as f:
        head = f.read(64)
    if size == 0:
        raise ValueError(f"{path} must hold weights, got an empty file. Copy or download it again.")
    for magic, what in _MAGIC:
        if head.startswith(magic):
            raise ValueError(f"{path} must hold weights, got {what}.")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if head.lstrip()[:1] in (b"{", b"["):
        return "json"
    # safetensors: the length of a JSON header in 8 bytes, then the header
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    raise ValueError(f"{path} must hold weights (.safetensors, or a file of torch.save), got something unknown.")


def read_weights(path: Path) -> State:
    """The tensors of a .safetensors file or of a torch.save that holds nothing but tensors, numbers and words."""
    kind = kind_of(path)
    if kind == "json":
        raise ValueError(f"{path} must hold weights, got a JSON file. Point to the weights or to their folder.")
    if kind == "safetensors":
        try:
            return load_file(path)
        except SafetensorError as e:
            raise ValueError(f"{path} must be a whole .safetensors file, got damage ({e}). Copy it again.") from None
    found = _unpickle(path, mapped=kind == "zip")
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold named tensors, got {type(found).__name__}. Save model.state_dict().")
    return found


def _unpickle(path: Path, mapped: bool) -> Any:
    try:
        # mapped: of a file with an optimiser and two encoders only what is used is ever read
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        raise ValueError(f"{path} {CODE}") from None
    except (RuntimeError, SafetensorError, EOFError, zipfile.BadZipFile, OSError, ValueError, KeyError) as e:
        first = (str(e).splitlines() or [type(e).__name__])[0]
        raise ValueError(f"{path} must be a whole file of torch.save, got damage ({first}). Copy it again.") from None


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} must hold {path.name}, got none. Is this a checkpoint's folder?") from None
    except (ValueError, OSError) as e:
        raise ValueError(f"{path} must be JSON, got a damaged file ({e}). Copy the checkpoint again.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold named settings, got {type(found).__name__}.")
    return found


def check_sealed(folder: Path, name: str) -> None:
    """Where a folder lists the SHA-256 of its files (files.json), `name` must be what was written."""
    if not (folder / "files.json").is_file():
        return
    recorded = read_json(folder / "files.json").get(name)
    if not isinstance(recorded, dict):
        raise ValueError(f"{folder / 'files.json'} must list {name}, got no entry. The checkpoint is not whole.")
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{folder} must hold {name}, got none. The checkpoint is not whole: use an older one.")
    size = path.stat().st_size
    if size != recorded.get("bytes"):
        raise ValueError(
            f"{path} must have {recorded.get('bytes')} bytes, got {size}. It is damaged: use an older one."
        )
    with path.open("rb") as f:
        if hashlib.file_digest(f, "sha256").hexdigest() != recorded.get("sha256"):
            raise ValueError(f"{path} must be what was written, got other content. It is damaged: use an older one.")
