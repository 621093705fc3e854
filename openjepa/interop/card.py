"""The model card: what a stranger must know before using the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

from openjepa.interop.model import Model
from openjepa.interop.preprocess import ClipPreprocess, Preprocess


@dataclass(frozen=True)
class Card:
    """The facts of a card that the checkpoint itself does not tell. What is not known is said to be not known.

    name          title
    licence       of the weights
    data          what they were trained on, with its own licence
    metrics       rows with name, accuracy, low, high, n and settings, as `ProbeResult.rows()` gives them
    evaluated_on  the labelled pictures behind the metrics
    notes         anything else: intended use, limits
    """

    name: str = "OpenJEPA encoder"
    licence: str = "Apache-2.0"
    data: str | None = None
    metrics: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    evaluated_on: str | None = None
    notes: str | None = None


def card_text(model: Model, card: Card, *, library: str, use: str) -> str:
    """README.md of an exported folder: a YAML head as the hub reads it, then licence, data, recipe, numbers and use.

    `library` is the hub's name of the library that opens the folder, `use` a piece of code that does it.
    """
    config, p, encoder = model.config, model.preprocess, model.encoder
    head = ["---", f"license: {card.licence.lower()}", f"library_name: {library}"]
    kind = "feature-extraction" if isinstance(p, ClipPreprocess) else "image-feature-extraction"
    head += [f"pipeline_tag: {kind}", "tags:", "- self-supervised-learning", "- jepa", "---"]
    parameters = sum(x.numel() for x in encoder.parameters())
    facts = [
        ("Encoder", f"{_name(config)}, {parameters:,} parameters, {encoder.dim} features, grid {encoder.grid}"),
        ("Weights", model.weights),
        ("Method", _method(config)),
        ("Steps", config.get("step", "not recorded")),
        ("Data", card.data or _plain(config.get("data")) or "not recorded"),
        _seen(p),
        ("Licence", card.licence),
        ("Made with", f"openjepa {config.get('version') or code_version()}"),
    ]
    lines = [*head, "", f"# {card.name}", "", "| | |", "|---|---|"]
    lines += [f"| {what} | {str(value).replace('|', '/')} |" for what, value in facts]
    lines += ["", "## Measured", "", *_metrics(card), "", "## Use", "", "```python", use.strip(), "```", ""]
    lines += ["## Recipe", "", "```json", json.dumps(config.get("method") or {}, indent=2), "```", ""]
    return "\n".join(lines + ([card.notes, ""] if card.notes else []))


def _metrics(card: Card) -> list[str]:
    if not card.metrics:
        return ["Nothing was measured."]
    on = f" on {card.evaluated_on}" if card.evaluated_on else ""
    lines = [f"Accuracy{on}, with 95 % intervals.", ""]
    lines += ["| probe | accuracy | interval | over | test pictures |", "|---|---|---|---|---|"]
    for row in card.metrics:
        over = dict(row.get("settings") or {}).get("interval", "")
        value, low, high = _numbers(row)
        interval = f"{low} to {high}" if low and high else ""
        lines.append(f"| {row['name']} | {value} | {interval} | {over} | {row.get('n', '')} |")
    return lines


def _numbers(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """A metric and the ends of its interval as text: shares in per cent, other numbers (R2, RMSE) as they are.

    >>> _numbers({"accuracy": 0.5, "low": 0.4, "high": 0.6}), _numbers({"r2": 0.91})
    (('50.0 %', '40.0', '60.0 %'), ('0.910', '', ''))
    """
    if "accuracy" in row:
        ends = (f"{100 * row['low']:.1f}", f"{100 * row['high']:.1f} %") if "low" in row and "high" in row else ("", "")
        return f"{100 * row['accuracy']:.1f} %", *ends
    value = row.get("r2", row.get("value"))
    low, high = (f"{row[end]:.3f}" if end in row else "" for end in ("low", "high"))
    return ("" if value is None else f"{value:.3f}"), low, high


def _name(config: Mapping[str, Any]) -> str:
    encoder = config.get("encoder")
    return str(encoder["name"]) if isinstance(encoder, dict) and "name" in encoder else "ViT"


def _method(config: Mapping[str, Any]) -> str:
    method = config.get("method")
    return str(method.get("name")) if isinstance(method, dict) else "not recorded"


def _seen(p: Preprocess) -> tuple[str, str]:
    """What the encoder was shown, and how it was prepared."""
    sides = f"{p.size} x {p.size}, {p.channels} channels, mean {_short(p.mean)}, std {_short(p.std)}"
    if not isinstance(p, ClipPreprocess):
        return "Pictures", sides
    pace = f"at {p.fps:g} a second" if p.fps is not None else f"at stride {p.stride}" if p.stride else "over the file"
    return "Clips", f"{p.frames} frames {pace}, {sides}"


def _plain(data: Any) -> str:
    if isinstance(data, Mapping):
        return ", ".join(f"{k}: {v}" for k, v in data.items() if v is not None)
    return "" if data is None else str(data)


def _short(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:g}" for v in values) + ")"


def code_version() -> str:
    try:
        return installed("openjepa")
    except PackageNotFoundError:
        return "unknown"
