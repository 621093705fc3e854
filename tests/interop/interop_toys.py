"""Checkpoint folders as a run leaves them, written out here so that the reader is tested against the layout itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from openjepa.nn import Encoder, EncoderConfig, build_encoder

PREPROCESS = {"size": 16, "channels": 3, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "resample": "bicubic"}


def network(name: str = "vit_micro/4", *, seed: int = 0, size: int = 16, channels: int = 3) -> Encoder:
    torch.manual_seed(seed)
    encoder = build_encoder(name, size=size, channels=channels)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return encoder.eval()


def config(name: str = "vit_micro/4", **changes: Any) -> dict[str, Any]:
    encoder = EncoderConfig(name=name).model_dump(mode="json")
    found: dict[str, Any] = {
        "format": "openjepa/1",
        "method": {"name": "ijepa", "encoder": encoder},
        "encoder": encoder,
    }
    found |= {"parts": ["encoder"], "preprocess": PREPROCESS, "data": {"path": "shapes:10"}, "step": 20}
    return found | {"licence": "Apache-2.0", "version": "0.1.0"} | changes


def checkpoint(folder: Path, parts: dict[str, Encoder], settings: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    for stem, module in parts.items():
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, folder / f"{stem}.safetensors")
    (folder / "config.json").write_text(json.dumps(settings or config()))
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    files = {
        p.name: {"bytes": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()}
        for p in folder.iterdir()
        if p.name != "files.json"
    }
    (folder / "files.json").write_text(json.dumps(files))
