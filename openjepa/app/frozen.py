"""World models on a frozen encoder: the checkpoint that their settings name, opened and fitted to the episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openjepa.config import Config
from openjepa.interop import load
from openjepa.nn.encoder import Encoder
from openjepa.nn.rescaled import Rescaled


def frozen(cfg: Config) -> str | None:
    """The checkpoint whose encoder the method stands on, None for methods without one."""
    return getattr(cfg, "checkpoint", None)


def frozen_encoder(cfg: Config, preprocess: Mapping[str, Any]) -> Encoder | None:
    """That encoder, behind the change from the statistics of the episodes to those it was trained with."""
    path = frozen(cfg)
    if path is None:
        return None
    model = load(path, worlds=True)
    return Rescaled(
        model.encoder, mean=preprocess["obs_mean"], std=preprocess["obs_std"], own_mean=model.preprocess.mean,
        own_std=model.preprocess.std,
    )  # fmt: skip
