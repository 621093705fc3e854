"""Runs on episodes: what each preset is for, and what it changes from the published recipe."""

from __future__ import annotations

from typing import Any

from openjepa.config import merge

Settings = dict[str, Any]


def one_room_pldm() -> Settings:
    """PLDM from pixels on a dot in one room: the second half of the demo, half a minute on two cores.

    33 x 33 pictures, a lean convolutional encoder, a residual predictor, sixteen features. A model step is three of the
    world's. Made for a planner that counts the steps to its goal (protocol one-room, `cost.goal=steps`): the distance
    between sixteen features says little, as variance and covariance fold the plane of places (docs/log.md).
    """
    return {
        "method": {
            "name": "pldm",
            "window": {"steps": 5, "skip": 3},
            "encoder": {"name": "convnet_lean"},
            "dim": 16,
            "norm": False,
            "predictor": "residual",
            "predictor_width": 128,
            "unroll": 4,
            "slowness": 1.0,
        },
        "data": {
            "path": "two-rooms",
            "world": {"size": 33, "wall": "fixed", "door_half": 64},
            "policy": "walk",
            "episodes": 300,
            "steps": 60,
        },
        "batch_size": 32,
        "budget": {"steps": 700},
        "optim": {"lr": 2e-3, "weight_decay": 1e-5, "clip": 2.0},
        "log": {"every": 50, "look": 100},
    }


def two_rooms_fixed_pldm() -> Settings:
    """PLDM on Two Rooms, 65 x 65 pixels, the wall always in one place: a quarter of an hour of one core.

    As `one-room-pldm` with 32 features and windows of nine frames. Half of the episodes walk, half go back and forth by
    the door. Plan with protocol two-rooms-fixed, whose cost counts steps: 200 of 200 goals were reached and held
    with seed 0, in 3.5 processor seconds of planning each (docs/log.md).
    """
    return merge(
        one_room_pldm(),
        {
            "method": {"dim": 32, "window": {"steps": 9}, "unroll": 8, "predictor_width": 256},
            "data": {"world": {"size": 65, "door_half": 4}, "policy": "mixed", "episodes": 1200, "steps": 150},
            "budget": {"steps": 6000},
            "log": {"every": 50, "look": 1000},
        },
    )
