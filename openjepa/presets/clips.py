"""Runs on clips: the published schedules at their sizes, and small ones for two laptop cores."""

from __future__ import annotations

from typing import Any

from openjepa.config import merge

Settings = dict[str, Any]

CROP: Settings = {"scale": (0.3, 1.0), "ratio": (0.75, 1.35), "flip": 0.5}
PER_EPOCH = 300  # steps of what the published code calls an epoch
LARGE_RUN: Settings = {"precision": "bf16", "compile": True, "checkpoint_activations": True, "log": {"every": 50}}


def vjepa_vitl() -> Settings:
    """V-JEPA, ViT-L/16: 90,000 steps of 3,072 clips of 16 frames at 224 pixels. Start it with torchrun on many GPUs.

    The published schedules are drawn for a run of 1.25 times the length and stop early: hence `stretch` and the last
    momentum. Published gradients are clipped after the warm-up only, here always.
    """
    return {
        "method": {
            "name": "vjepa",
            "encoder": "vit_large/16",
            "views": [{"frames": 16, "stride": 4, **CROP}],
            "ema": (0.998, 0.9996),
        },
        "data": {"path": "videos/train", "size": 224},
        "batch_size": 3072,
        "budget": {"steps": 300 * PER_EPOCH},
        "optim": {
            "lr": 6.25e-4,
            "warmup": 40 * PER_EPOCH,
            "start_factor": 2e-4 / 6.25e-4,
            "final_factor": 1e-6 / 6.25e-4,
            "stretch": 1.25,
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
            "clip": 10.0,
        },
        **LARGE_RUN,
    }


def vjepa_vith() -> Settings:
    """V-JEPA, ViT-H/16 at 224 pixels: as ViT-L."""
    return merge(vjepa_vitl(), {"method": {"encoder": "vit_huge/16"}})


def vjepa_vith_384() -> Settings:
    """V-JEPA, ViT-H/16 at 384 pixels, 2,400 clips per step."""
    return merge(vjepa_vith(), {"data": {"size": 384}, "batch_size": 2400})


def vjepa2_vitl() -> Settings:
    """V-JEPA 2, ViT-L/16: 16 frames of 4 per second at 256 pixels, constant rate, decay and momentum, 240,000 steps.

    Long clips come afterwards, at a falling rate: `vjepa2-vitl-cooldown`. The public weights of its data are
    Kinetics-710 0.335, Something-Something v2 0.100, HowTo100M 0.565 (`data.mix`).
    """
    return {
        "method": {
            "name": "vjepa",
            "encoder": {"name": "vit_large/16", "pos": "rope-tiled"},
            "views": [{"frames": 16, "fps": 4, **CROP}],
            "predictor_heads": 12,
            "ema": (0.99925, 0.99925),
        },
        "data": {"path": "videos/train", "size": 256},
        "batch_size": 3072,
        "budget": {"steps": 800 * PER_EPOCH},
        "optim": {
            "lr": 5.25e-4,
            "schedule": "constant",
            "warmup": 40 * PER_EPOCH,
            "start_factor": 1e-4 / 5.25e-4,
            "weight_decay": 0.04,
        },
        **LARGE_RUN,
    }


def vjepa2_vitl_cooldown() -> Settings:
    """The end of V-JEPA 2, ViT-L: 12,000 steps on clips of 64 frames while the rate falls to 1e-6.

    Weights come from `init_from`; rotary positions need no change for longer clips. The optimiser starts anew.
    """
    return cooldown(vjepa2_vitl(), "runs/vjepa2-vitl", frames=64, size=256, steps=40 * PER_EPOCH)


def vjepa2_vitg() -> Settings:
    """V-JEPA 2, ViT-g/16 with its 22 heads; otherwise as ViT-L."""
    return merge(vjepa2_vitl(), {"method": {"encoder": {"name": "vit_giant/16", "heads": 22}}})


def vjepa2_vitg_384_cooldown() -> Settings:
    """The end of V-JEPA 2, ViT-g: 64 frames at 384 pixels."""
    return cooldown(vjepa2_vitg(), "runs/vjepa2-vitg", frames=64, size=384, steps=40 * PER_EPOCH)


def vjepa21_vitl() -> Settings:
    """V-JEPA 2.1 at ViT-L/16, clips and pictures, 135,000 steps.

    The published ViT-L is distilled from a larger one; this one learns from its own teacher, as the large ones do. The
    published step has 128 videos and 2,304 pictures, and a quarter of the gradient is the pictures'; here a quarter of
    the steps is, at one batch size. `data.mix={"pictures:photos/": 0.5}` adds photographs to the frames of videos.
    """
    return {
        "method": {
            "name": "vjepa21",
            "encoder": {"name": "vit_large/16", "pos": "rope", "levels": 4, "picture_patch": True},
            "views": [{"frames": 16, "fps": 4, "share": 0.75, **CROP}, {"frames": 1, "share": 0.25, **CROP}],
            "predictor_depth": 12,
        },
        "data": {"path": "videos/train", "size": 256},
        "batch_size": 512,
        "budget": {"steps": 135_000},
        "optim": vjepa2_vitl()["optim"],
        **LARGE_RUN,
    }


def vjepa21_vitl_cooldown() -> Settings:
    """The end of V-JEPA 2.1: 12,000 steps on 64 frames at 384 pixels and pictures at 512, lambda at its full height."""
    run = cooldown(vjepa21_vitl(), "runs/vjepa21-vitl", frames=64, size=384, steps=40 * PER_EPOCH)
    views = [{"frames": 64, "fps": 4, "share": 0.75, **CROP}, {"frames": 1, "share": 0.25, "size": 512, **CROP}]
    return merge(run, {"method": {"views": views, "context_from": 0.0, "context_full": 0.0}})


def vjepa2_ac_vitg() -> Settings:
    """V-JEPA 2-AC: the action-conditioned predictor on V-JEPA 2's frozen ViT-g, 94,500 steps of 256 windows.

    `method.checkpoint` is the encoder: a published file, or a run of ours. Windows are 8 frames at 4 per second;
    `method.window.skip` is how many frames of the episodes that is (DROID has 15 per second).
    """
    return {
        "method": {"name": "vjepa2_ac", "window": {"steps": 8, "skip": 4}, "checkpoint": "vitg.pt"},
        "data": {"path": "droid/"},
        "batch_size": 256,
        "budget": {"steps": 315 * PER_EPOCH},
        "optim": {
            "lr": 4.25e-4,
            "schedule": "wsd",
            "warmup": 15 * PER_EPOCH,
            "start_factor": 7.5e-5 / 4.25e-4,
            "cooldown": 15 / 315,
            "final_factor": 0.0,
            "weight_decay": 0.04,
        },
        **LARGE_RUN,
    }


def vjepa2_ac_planner() -> Settings:
    """The search that V-JEPA 2-AC's notebook plans with, as `planner` and `cost` of `openjepa plan` or of a protocol.

    400 candidates, 10 elites, 10 rounds, 15 % of the old mean and spread kept, two steps ahead, mean L1 between the
    last imagined features and the goal's. Its bounds (5 cm per axis and step, gripper 0.75, no rotation) are the
    world's.
    """
    return {
        "planner": {
            "name": "cem", "horizon": 2, "samples": 400, "elites": 10, "iterations": 10, "momentum": 0.15,
            "keep_mean": False, "returns": "mean",
        },
        "cost": {"goal": "latent", "distance": "l1", "over": "last"},
    }  # fmt: skip


def cooldown(run: Settings, start: str, *, frames: int, size: int, steps: int) -> Settings:
    """The second phase of a run of constant rate: longer, larger clips, and a rate that falls in a line to 1e-6."""
    view = run["method"]["views"][0] | {"frames": frames}
    optim = {"schedule": "linear", "warmup": 0, "final_factor": 1e-6 / run["optim"]["lr"]}
    return merge(
        run,
        {
            "method": {"views": [view, *run["method"]["views"][1:]]}, "data": {"size": size},
            "budget": {"steps": steps}, "optim": optim, "init_from": start,
        },
    )  # fmt: skip


def moving_mnist_vjepa_cpu() -> Settings:
    """V-JEPA on Moving-MNIST for two laptop cores: clips of 20 frames, 64 x 64 pixels, one channel.

    Give the digits: `data=moving-mnist:PATH`. 640 tubelets of 2 x 8 x 8; a small net with rotary positions; a quarter
    of the tubelets is predicted per mask, which costs the predictor a third of what all hidden ones would. Masked
    prediction alone learns slowly at this size, so SIGReg spreads the pooled contexts of a clip, which must agree over
    its two masks, as for I-JEPA on CIFAR-10 (docs/design/0002-ijepa-small.md).
    """
    return {
        "method": {
            "name": "vjepa",
            "encoder": {"name": "vit_micro/8", "pos": "rope"},
            "views": [{"frames": 20, "stride": 1, "scale": (0.6, 1.0), "ratio": (0.9, 1.1), "filter": "bilinear"}],
            "masks": [{"target_keep": 0.25}, {"blocks": 2, "scale": (0.7, 0.7), "target_keep": 0.25}],
            "predictor_width": 64,
            "predictor_depth": 2,
            "predictor_heads": 2,
            "ema": (0.996, 1.0),
            "sigreg": 0.05,
            "agree": 0.5,
            "projector_out": 64,
        },
        "data": {"path": "moving-mnist:mnist", "split": "train", "size": 64, "channels": 1, "normalise": "data"},
        "batch_size": 32,
        "budget": {"minutes": 18},
        "optim": {"lr": 1.5e-3, "weight_decay": 0.05},
        "log": {"every": 50},
    }


def moving_mnist_future_cpu() -> Settings:
    """The future from the past on Moving-MNIST: the last four tubelets (eight frames) from the first six."""
    run = moving_mnist_vjepa_cpu()
    method = {k: v for k, v in run["method"].items() if k != "masks"}
    return {**run, "method": method | {"name": "future", "horizon": 4, "agree": 0.0}}
