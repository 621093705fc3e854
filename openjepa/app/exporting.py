"""Weights for other programs: one function per format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openjepa.app.requests import ExportRequest
from openjepa.app.runs import Run
from openjepa.interop import EXPORTS, Card


def export_run(run: Run, asked: ExportRequest) -> dict[str, Any]:
    """Write the newest weights of a run, with a card that says what they are."""
    to = Path(asked.to)
    kind = asked.format or guess(to)
    model = run.load(asked.weights)
    path = EXPORTS[kind](model, to, card=card(run))
    files = sorted(p.name for p in path.iterdir()) if path.is_dir() else [path.name]
    return {"run": str(run.path), "to": str(path), "format": kind, "weights": model.weights, "files": files}


def card(run: Run) -> Card:
    """What the run folder tells beyond the checkpoint: the data, and what was measured on it."""
    measured = [json.loads(p.read_text(encoding="utf-8")) for p in sorted((run.path / "eval").glob("*.json"))]
    scores = [row for one in measured for row in one.get("scores", [])]
    places = dict.fromkeys(f"{one['data']}, measured on {one['test']}" for one in measured if "scores" in one)
    data = run.settings["data"]
    split = f" ({data['split']})" if data.get("split") else ""
    verdict = run.verdict()
    return Card(
        name=run.path.resolve().name,
        data=f"{data['path']}{split}",
        metrics=scores,
        evaluated_on="; ".join(places) or None,
        notes=f"Health of the run: {verdict.name}. {' '.join(verdict.evidence)}",
    )


def guess(to: Path) -> str:
    """The format from the name: a file that ends in .onnx, a folder called hf, else our own.

    >>> guess(Path("a/encoder.onnx")), guess(Path("hf/")), guess(Path("exported"))
    ('onnx', 'hf', 'openjepa')
    """
    if to.suffix == ".onnx":
        return "onnx"
    return "hf" if to.name == "hf" else "openjepa"
