"""Other people's checkpoints in, ours out. `load` opens what holds an encoder; `EXPORTS` is the table of formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from openjepa.interop.card import Card
from openjepa.interop.checkpoint import load
from openjepa.interop.embed import write_embeddings
from openjepa.interop.export import export, export_hf, export_onnx
from openjepa.interop.model import Encoded, Model
from openjepa.interop.preprocess import Preprocess

EXPORTS: dict[str, Callable[..., Path]] = {  # (model, to, *, card) -> path
    "openjepa": export,
    "hf": export_hf,
    "onnx": export_onnx,
}
