"""Runs on episodes: what each preset is for, and what it changes from the published recipe."""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]


def one_room_pldm() -> Settings:
    """PLDM from pixels on a dot in one room: the second half of the demo, half a minute on two cores.

    33 x 33 pictures, a small convolutional encoder and a residual predictor; the dot is moved by the action itself, so
    one frame is the whole state and four steps of unrolling are enough.
    """
    return {
        "method": {
            "name": "pldm",
            "window": {"steps": 9},
            "encoder": {"name": "convnet_lean"},
            "dim": 32,
            "predictor": "residual",
            "predictor_width": 128,
            "unroll": 4,
            "slowness": 1.0,
        },
        "data": {
            "path": "two-rooms",
            "world": {"size": 33, "wall": "fixed", "door_half": 64},
            "policy": "walk",
            "episodes": 500,
            "steps": 60,
        },
        "batch_size": 64,
        "budget": {"steps": 400},
        "optim": {"lr": 2e-3, "weight_decay": 1e-5, "clip": 2.0},
        "log": {"every": 50, "look": 100},
    }
