"""A checkpoint of others as a `Model`, and what there is to say of one without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from openjepa.interop.layouts import LAYOUTS
from openjepa.interop.layouts.opening import open_layout
from openjepa.interop.layouts.record import Asked, Layout, Opened, Part
from openjepa.interop.model import Model
from openjepa.nn.encoder import Encoder
from openjepa.nn.lewm_published import PublishedLeWM


def load_layout(path: Path, asked: Asked, *, family: str | None = None, classifier: Path | None = None) -> Model:
    """The encoder of a file of others, with its other parts, and a classifier from a file of its own if given."""
    layout, opened, built = open_layout(path, asked, LAYOUTS, family)
    world = built.get("world")
    encoder = built.pop("encoder", None) or (world.encoder if isinstance(world, PublishedLeWM) else None)
    if not isinstance(encoder, Encoder):
        raise ValueError(
            f"{path} must hold an encoder, got a {layout.name} alone ({opened.size}). Do load(ENCODER, classifier=...)."
        )
    notes = remarks(layout, opened)
    if classifier is not None:
        built["classifier"], note = _classifier(classifier, encoder, asked)
        notes.append(note)
    return Model(
        encoder, opened.preprocess, {"family": layout.name, "source": layout.source}, opened.weights, path,
        family=layout.name, size=opened.size, licence=licence(layout, opened), parts=built,
        ignored=dict(opened.ignored), notes=tuple(notes), pooling=opened.pooling,
    )  # fmt: skip


def _classifier(path: Path, encoder: Encoder, asked: Asked) -> tuple[nn.Module, str]:
    layout, opened, built = open_layout(path, replace(asked, weights="auto"), LAYOUTS)
    if list(built) != ["classifier"]:
        raise ValueError(f"classifier must be a file of an attentive classifier, got {layout.name} in {path}.")
    width = opened.parts["classifier"].state["linear.weight"].shape[1]
    if width != encoder.dim:
        raise ValueError(
            f"classifier must take features of width {encoder.dim}, as the encoder gives them, got {width} in {path}. "
            "It belongs to another encoder."
        )
    return built["classifier"], f"{layout.name} from {path}: {opened.size}; {layout.licence}"


def bare(layout: Layout, opened: Opened) -> bool:
    """Whether nothing but the tensors says what a file is: anybody's code may have saved it."""
    return all(part.entry == "" for part in opened.parts.values()) and "transformers" not in layout.name


def licence(layout: Layout, opened: Opened) -> str:
    """Of published weights; a bare state may be anybody's."""
    if opened.licence is not None:
        return opened.licence
    whose = f"that of whoever trained it; published {layout.name}: {layout.licence}"
    return whose if bare(layout, opened) else layout.licence


def remarks(layout: Layout, opened: Opened) -> list[str]:
    """What a user should read."""
    told = [f"a bare state: that it is {layout.name} is concluded from its tensors alone"]
    return [*opened.notes, *(told if bare(layout, opened) else [])]


def about(path: Path, asked: Asked | None = None, family: str | None = None) -> dict[str, Any]:
    """What a file of others is, fully checked but not loaded: family, size, weights, parameters, licence and so on."""
    asked = replace(asked or Asked(), look=True)
    layout, opened, built = open_layout(path, asked, LAYOUTS, family)
    return {
        "path": str(path),
        "family": layout.name,
        "size": opened.size,
        "weights": _words(opened.parts, opened.weights),
        "parameters": {name: sum(p.numel() for p in network.parameters()) for name, network in built.items()},
        "heads": {name: _heads(name, network, asked) for name, network in built.items()},
        "licence": licence(layout, opened),
        "source": layout.source,
        "preprocess": opened.preprocess.as_dict(),
        "ignored": dict(opened.ignored),
        "not taken": list(opened.also),
        "notes": remarks(layout, opened),
    }


def _heads(name: str, network: nn.Module, asked: Asked) -> int | str:
    """Attention heads of a network's first block; a width that no published network has leaves them open."""
    found = next((h for m in network.modules() if isinstance(h := getattr(m, "heads", None), int)), None)
    if found is None:
        return "none"
    return found if found > 1 or name in asked.heads else f"not in the file: heads.{name}=N"


def _words(parts: Mapping[str, Part], weights: str) -> str:
    """Which encoder it is, and the group of the file that it comes from."""
    entry = next((p.entry for name, p in parts.items() if name == "encoder"), None)
    if entry is None:
        return ", ".join(parts)
    return f"{'target (teacher)' if weights == 'teacher' else 'online'} encoder" + (f", {entry!r}" if entry else "")
