"""Whole runs by name: settings, not code paths. `openjepa train NAME data=...` starts one; any field can be overridden.

A preset is a function that returns nested settings for `RunConfig`. To add one: a function and one line in `PRESETS`.
Its `tiny` variant (`tiny("NAME")`) keeps the method and the source and shrinks everything else to seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openjepa.config import merge, nearest
from openjepa.presets.clips import (
    moving_mnist_future_cpu,
    moving_mnist_vjepa_cpu,
    vjepa2_ac_vitg,
    vjepa2_vitg,
    vjepa2_vitg_384_cooldown,
    vjepa2_vitl,
    vjepa2_vitl_cooldown,
    vjepa21_vitl,
    vjepa21_vitl_cooldown,
    vjepa_vith,
    vjepa_vith_384,
    vjepa_vitl,
)
from openjepa.presets.own_worlds import world_pixels, world_states
from openjepa.presets.pictures import (
    cifar10_ijepa_cpu,
    cifar10_ijepa_gpu,
    cifar10_lejepa_cpu,
    cifar10_lejepa_gpu,
    digits_collapse,
    digits_ijepa,
    digits_lejepa,
    imagenet_ijepa,
    imagenet_lejepa,
)
from openjepa.presets.worlds import (
    one_room_pldm,
    pusht_lewm,
    reacher_lewm,
    two_rooms_dino_wm,
    two_rooms_fixed_pldm,
    two_rooms_lewm,
    two_rooms_random_pldm,
)

Settings = dict[str, Any]

PRESETS: dict[str, Callable[[], Settings]] = {
    "digits-lejepa": digits_lejepa,
    "digits-ijepa": digits_ijepa,
    "digits-collapse": digits_collapse,
    "cifar10-lejepa-cpu": cifar10_lejepa_cpu,
    "cifar10-ijepa-cpu": cifar10_ijepa_cpu,
    "cifar10-lejepa-gpu": cifar10_lejepa_gpu,
    "cifar10-ijepa-gpu": cifar10_ijepa_gpu,
    "imagenet-ijepa": imagenet_ijepa,
    "imagenet-lejepa": imagenet_lejepa,
    "one-room-pldm": one_room_pldm,
    "two-rooms-fixed-pldm": two_rooms_fixed_pldm,
    "two-rooms-random-pldm": two_rooms_random_pldm,
    "two-rooms-lewm": two_rooms_lewm,
    "two-rooms-dino-wm": two_rooms_dino_wm,
    "reacher-lewm": reacher_lewm,
    "pusht-lewm": pusht_lewm,
    "moving-mnist-vjepa-cpu": moving_mnist_vjepa_cpu,
    "moving-mnist-future-cpu": moving_mnist_future_cpu,
    "vjepa-vitl": vjepa_vitl,
    "vjepa-vith": vjepa_vith,
    "vjepa-vith-384": vjepa_vith_384,
    "vjepa2-vitl": vjepa2_vitl,
    "vjepa2-vitl-cooldown": vjepa2_vitl_cooldown,
    "vjepa2-vitg": vjepa2_vitg,
    "vjepa2-vitg-384-cooldown": vjepa2_vitg_384_cooldown,
    "vjepa21-vitl": vjepa21_vitl,
    "vjepa21-vitl-cooldown": vjepa21_vitl_cooldown,
    "vjepa2-ac-vitg": vjepa2_ac_vitg,
    "world-states": world_states,
    "world-pixels": world_pixels,
}


def preset(name: str) -> Settings:
    """The settings of a preset, or a `ValueError` with the nearest name."""
    if name not in PRESETS:
        raise ValueError(f"preset must be a known name, got {name!r}. {nearest(name, PRESETS)}")
    return PRESETS[name]()


def tiny(name: str) -> Settings:
    """The same method and source for twenty steps: what tests and a first look use."""
    small = {
        "budget": {"steps": 20, "epochs": None, "minutes": None},
        "batch_size": 32,
        "compile": False,
        "precision": "fp32",
        "data": {"limit": 128},
        "probe": {"limit": 100},
        "log": {"every": 5, "look": 10},
    }
    return merge(preset(name), small)
