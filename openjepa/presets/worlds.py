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
    the door. Plan with protocol two-rooms-fixed, whose cost counts steps: 200 and 199 of 200 goals were reached
    and held (seeds 0 and 1), in some 3 processor seconds of planning each (docs/log.md).
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


def two_rooms_random_pldm() -> Settings:
    """PLDM on Two Rooms with wall and door drawn per episode: 40 minutes of one core.

    Tokens are places (`keypoints`), sixteen features of them with little covariance: wall, door and dot can then lie in
    z in a straight line, and what was learned of one wall holds for the next. A third of the episodes run into walls
    (`bumps`). The encoder learns for the first 2,375 steps; for the other 16,625, which take half of the time, it is
    settled, and the predictor learns on from kept latents until it hardly believes any more that a wall can be crossed.
    With protocol two-rooms-random 99.5 % of 200 goals were held with seed 1 (published 97 %). With seed 0 no place
    follows the door, which z then hardly tells: see `openjepa probe RUN` first (docs/design/0006-two-rooms.md).
    """
    return merge(
        two_rooms_fixed_pldm(),
        {
            "method": {
                "encoder": {"name": "keypoints", "heads": 32},
                "dim": 16,
                "window": {"steps": 5},
                "unroll": 4,
                "predictor_width": 384,
                "variance": 4.0,
                "covariance": 0.25,
                "slowness": 3.0,
                "inverse": 0.25,
                "replay": 5,
                "memory": 65536,
                "settle": 0.875,
            },
            "data": {"world": {"wall": "random"}, "policy": "bumps", "episodes": 2000, "steps": 100},
            "batch_size": 96,
            "budget": {"steps": 19_000},
        },
    )


def two_rooms_lewm() -> Settings:
    """LeWM on Two Rooms, 65 x 65 pixels, wall and door drawn per episode: a quarter of an hour of one core.

    A lean convolutional encoder and a predictor of two blocks: a tenth of the published size, which has a ViT. A model
    step is five of the world's. For protocol two-rooms-lewm, whose goals are 25 steps ahead: of 200 goals 80.5 % were
    reached with the published cost, 90.5 % with `cost.goal=steps cost.reach.across=false` (docs/log.md).
    """
    return {
        "method": {
            "name": "lewm",
            "window": {"steps": 5, "skip": 5},
            "encoder": {"name": "convnet_lean"},
            "dim": 64,
            "projector_hidden": 256,
            "depth": 2,
            "heads": 4,
            "head_dim": 32,
            "mlp": 256,
            "dropout": 0.0,
            "action_hidden": 128,
            "sigreg": 0.18,
            "slices": 256,
        },
        "data": {
            "path": "two-rooms",
            "world": {"size": 65, "wall": "random"},
            "policy": "rounds",
            "episodes": 2000,
            "steps": 100,
        },
        "batch_size": 64,
        "budget": {"steps": 6000},
        "optim": {"lr": 1e-3, "weight_decay": 1e-5, "clip": 2.0},
        "log": {"every": 50, "look": 1000},
    }


def two_rooms_dino_wm() -> Settings:
    """DINO-WM on Two Rooms, on a frozen encoder of ours: `method.checkpoint=RUN`, such as of `two-rooms-random-pldm`.

    The predictor is as small as that of `two-rooms-lewm`, whose data, model steps and protocol it shares; nothing but
    the predictor is trained. Without a checkpoint it predicts random features. Not yet measured.
    """
    base = two_rooms_lewm()
    same = {k: base["method"][k] for k in ("window", "depth", "heads", "head_dim", "mlp", "dropout")}
    return {**base, "method": {"name": "dino_wm", "encoder": {"name": "keypoints", "heads": 32}, **same}}


def reacher_lewm() -> Settings:
    """LeWM on the reacher of dm_control, 64 x 64 pixels, random torques: that of `two-rooms-lewm` on another world.

    For protocol reacher-lewm, whose goals are poses 25 steps ahead, each joint within 0.05 rad. Needs MuJoCo.
    """
    data = {"path": "reacher", "world": {"arm": "dm_control", "pixels": 64}, "policy": "random", "episodes": 1000,
            "steps": 100}  # fmt: skip
    return {**two_rooms_lewm(), "data": data}


def pusht_lewm() -> Settings:
    """LeWM on Push-T, 64 x 64 pixels, on noisy pushes of our own: that of `two-rooms-lewm` on another world.

    For protocol pusht, whose goals are places of hand and block 25 steps ahead. Needs gym-pusht.
    """
    data = {"path": "pusht", "world": {"pixels": 64}, "policy": "push", "episodes": 1000, "steps": 100}
    return {**two_rooms_lewm(), "data": data}
