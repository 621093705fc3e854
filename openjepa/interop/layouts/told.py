"""What the settings beside a checkpoint of `transformers` say, and refusing those that our networks do not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from openjepa.interop.files import State
from openjepa.interop.hf import from_hf_ijepa
from openjepa.interop.layouts.record import Asked, Found, Opened
from openjepa.interop.preprocess import Preprocess

M = TypeVar("M", bound=nn.Module)
PILLOW = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def renamed_vit(state: State, found: Found) -> State:
    """The state of a ViT of transformers under our names; errors name the file."""
    try:
        return from_hf_ijepa(state)
    except ValueError as e:
        raise ValueError(f"{found.path}: {e}") from None


def exported_by_us(opened: Opened, found: Found, asked: Asked) -> Opened:
    """With what our own export wrote into config.json, in place of what is known of the published files."""
    facts = found.config.get("openjepa")
    if not isinstance(facts, Mapping):
        return opened
    prepared = facts.get("preprocess")
    if isinstance(prepared, Mapping) and asked.size is None and asked.frames is None:
        opened = replace(opened, preprocess=type(opened.preprocess).from_dict(prepared, str(found.path)))
    made = " ".join(["openjepa", *([str(facts["version"])] if "version" in facts else [])])
    return replace(
        opened,
        weights=str(facts.get("weights", opened.weights)),
        licence=str(facts.get("licence", "that of whoever trained it")),
        notes=(f"exported by {made}: the source above is that of the architecture",),
    )


def refuse_settings(found: Found, wanted: Mapping[str, Any]) -> None:
    """A `ValueError` when config.json sets something that changes the numbers in a way our networks cannot follow."""
    for name, value in wanted.items():
        got = found.config.get(name, value)
        if got != value:
            raise ValueError(
                f"{name} in the config.json of {found.path} must be {value!r}, got {got!r}. Use transformers for it."
            )


def eps_of(found: Found, default: float) -> Callable[[M], M]:
    """Sets the eps of every layer norm to what config.json says."""
    eps = float(found.config.get("layer_norm_eps", default))

    def with_eps(network: M) -> M:
        for m in network.modules():
            if isinstance(m, nn.LayerNorm):
                m.eps = eps
        return network

    return with_eps


def told_preprocess(found: Found, size: int, channels: int) -> Preprocess:
    """Pictures as preprocessor_config.json has them, else a central square with ImageNet's numbers."""
    told = found.prepared
    if not told:
        return Preprocess(size=size, channels=channels).grey_or_colour()
    side = told.get("size")
    squashed = isinstance(side, dict) and "height" in side and not told.get("do_center_crop")
    values = {
        "size": size,
        "channels": channels,
        "mean": tuple(told.get("image_mean", (0.485, 0.456, 0.406)))[:channels],
        "std": tuple(told.get("image_std", (0.229, 0.224, 0.225)))[:channels],
        "resample": PILLOW.get(told.get("resample", 3), "bicubic"),
        "fit": "squash" if squashed else "crop",
        "short": side["shortest_edge"] / size if isinstance(side, dict) and "shortest_edge" in side else 1.0,
    }
    return Preprocess.from_dict(values, str(found.path))
