"""World models for worlds and episodes of one's own: `openjepa train world-states data=eps/`, or `world-pixels`."""

from __future__ import annotations

from typing import Any

from openjepa.presets.worlds import one_room_pldm

Settings = dict[str, Any]


def world_states() -> Settings:
    """PLDM on observations that are vectors: any Gymnasium environment, or files."""
    return {
        "method": {
            "name": "pldm",
            "window": {"steps": 5},
            "dim": 8,
            "norm": False,
            "predictor": "residual",
            "predictor_width": 128,
            "unroll": 4,
            "slowness": 1.0,
        },
        "data": {"path": "point-mass"},
        "batch_size": 128,
        "budget": {"steps": 2000},
        "optim": {"lr": 2e-3, "weight_decay": 1e-5, "clip": 2.0},
        "log": {"every": 50, "look": 250},
    }


def world_pixels() -> Settings:
    """PLDM on pictures, 32 pixels or more: that of `one-room-pldm`, with 16 features, for pictures of one's own. A
    picture that stands still shows no speed: worlds with inertia are better learnt from their states.
    """
    settings = one_room_pldm()
    return {**settings, "method": {**settings["method"], "dim": 16}, "budget": {"steps": 2000}}
