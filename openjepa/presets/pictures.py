"""Runs on pictures: what each preset changes from the published recipe, and why."""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]

# What is not said of a view is as the method has it: these say of every colour step whether it is done.
COLOUR: Settings = {
    "flip": 0.5, "jitter": (0.4, 0.4, 0.2, 0.1), "jitter_p": 0.8, "grey": 0.2, "blur": 0.0, "solarize": 0.0,
}  # fmt: skip
AS_IT_IS: Settings = {"flip": 0.0, "jitter": (0.0, 0.0, 0.0, 0.0), "grey": 0.0, "blur": 0.0, "solarize": 0.0}


def digits_lejepa() -> Settings:
    """LeJEPA on scikit-learn's 8 x 8 digits: the demo, about a minute on two cores.

    Digits have no colour and mean something else when flipped, so the views are crops, a little stretched and tilted.
    A small weight on SIGReg (lam 0.01) buys agreement between views, which is what counts with one label per class.
    """
    view = {"count": 4, "scale": (0.4, 1.0), "ratio": (0.8, 1.25), "filter": "bilinear", "rotate": 30.0, **AS_IT_IS}
    return {
        "method": {
            "name": "lejepa",
            "encoder": {"name": "convnet_tiny", "width": 16},
            "lam": 0.01,
            "slices": 256,
            "projector_hidden": 256,
            "projector_out": 32,
            "global_views": view,
            "local_views": None,
        },
        "data": {"path": "digits", "split": "train", "channels": 1, "normalise": "data"},
        "batch_size": 128,
        "budget": {"steps": 1200},
        "optim": {"lr": 4e-3, "weight_decay": 0.05},
        "log": {"every": 50, "look": 100},
    }


def digits_collapse() -> Settings:
    """The demo's sick twin: lam 0 takes SIGReg away, and nothing keeps the features from becoming one point."""
    run = digits_lejepa()
    run["method"] = {**run["method"], "lam": 0.0}
    return {**run, "budget": {"steps": 120}, "log": {"every": 20, "look": 10}}


def digits_ijepa() -> Settings:
    """I-JEPA on the digits, 2 x 2 patches on a 4 x 4 grid."""
    return {
        "method": {
            "name": "ijepa",
            "encoder": {"name": "vit_micro/2", "pos": "rope"},
            "predictor_width": 64,
            "predictor_depth": 2,
            "share_context": True,
            "ema": (0.99, 1.0),
            "crop": {"scale": (0.6, 1.0), "filter": "bilinear"},
        },
        "data": {"path": "digits", "split": "train", "channels": 1, "normalise": "data"},
        "batch_size": 128,
        "budget": {"steps": 1000},
        "optim": {"lr": 1e-3, "weight_decay": 0.05},
        "log": {"every": 20, "look": 100},
    }


def cifar10_lejepa_cpu() -> Settings:
    """LeJEPA on CIFAR-10 (32 x 32) for two laptop cores.

    Every picture costs, so the net is narrow (0.7 M parameters, 51 MFLOP a picture) and the local views are half size,
    which makes them four times cheaper.
    """
    return {
        "method": {
            "name": "lejepa",
            "encoder": {"name": "convnet_tiny", "width": 24},
            "lam": 0.02,
            "slices": 512,
            "projector_hidden": 512,
            "projector_out": 64,
            "global_views": {"count": 2, "scale": (0.3, 1.0), "filter": "bilinear", **COLOUR},
            "local_views": {"count": 2, "size": 16, "scale": (0.1, 0.4), "filter": "bilinear", **COLOUR},
        },
        "data": {"path": "cifar10", "split": "train", "normalise": "data"},
        "batch_size": 128,
        "budget": {"minutes": 18},
        "optim": {"lr": 2e-3, "weight_decay": 0.05},
        "log": {"every": 20},
    }


def cifar10_ijepa_cpu() -> Settings:
    """I-JEPA on CIFAR-10 for two laptop cores: what keeps it from the easy answers when there is little time.

    Few and cheap tokens: 8 x 8 patches behind a convolutional stem that is blind to hidden patches (six of sixteen are
    seen), and a predictor that reads the context once. Rotary positions and tokens at unit variance, so that no token
    tells only where it is. SIGReg on the projected contexts of two differently coloured crops, which must agree: this
    gives the features spread and a first meaning, so that the teacher is worth predicting.
    `docs/design/0002-ijepa-small.md` has the trials.
    """
    return {
        "method": {
            "name": "ijepa",
            "encoder": {"name": "vit_nano/8", "depth": 4, "pos": "rope", "stem": "conv"},
            "predictor_width": 64,
            "predictor_depth": 2,
            "share_context": True,
            "target_scale": (0.15, 0.25),
            "context_keep": 6,
            "ema": (0.996, 1.0),
            "sigreg": 0.05,
            "agree": 0.95,
            "projector_out": 64,
            "crop": {"count": 2, "scale": (0.3, 1.0), "filter": "bilinear", **COLOUR},
        },
        "data": {"path": "cifar10", "split": "train", "normalise": "data"},
        "batch_size": 64,
        "budget": {"minutes": 10},
        "optim": {"lr": 1.5e-3, "weight_decay": 0.05},
        "log": {"every": 50},
    }


def cifar10_lejepa_gpu() -> Settings:
    """LeJEPA, ResNet-18, CIFAR-10 on one GPU in at most 25 minutes."""
    return {
        "method": {
            "name": "lejepa",
            "encoder": "resnet18",
            "lam": 0.04,
            "slices": 1024,
            "projector_hidden": 2048,
            "projector_out": 128,
            "global_views": {"count": 2, "scale": (0.2, 1.0), **COLOUR, "solarize": 0.1},
            "local_views": None,
        },
        "data": {"path": "cifar10", "split": "train", "normalise": "data"},
        "batch_size": 512,
        "budget": {"minutes": 24},
        "optim": {"lr": 2e-3, "weight_decay": 0.01},
        "compile": True,
        "precision": "bf16",
        "log": {"every": 50},
    }


def cifar10_ijepa_gpu() -> Settings:
    """I-JEPA, small ViT, CIFAR-10 on one GPU in at most 25 minutes."""
    run = cifar10_ijepa_cpu()
    run["method"] |= {
        "encoder": {"name": "vit_tiny/4", "pos": "rope", "stem": "conv"},
        "predictor_width": 192,
        "predictor_depth": 4,
        "target_scale": (0.15, 0.2),
        "context_keep": None,
        "projector_hidden": 2048,
        "projector_out": 128,
        "ema": (0.996, 1.0),
    }
    return {
        **run,
        "batch_size": 1024,
        "budget": {"minutes": 24},
        "compile": True,
        "precision": "bf16",
        "log": {"every": 50},
    }


def imagenet_ijepa() -> Settings:
    """The published I-JEPA recipe at ViT-B/16: 300 epochs, batch 2048. Start it with torchrun on many GPUs."""
    return {
        "method": {"name": "ijepa", "encoder": "vit_base/16", "predictor_heads": 12},
        "data": {"path": "imagenet/train", "size": 224},
        "batch_size": 2048,
        "budget": {"epochs": 300},
        "optim": {
            "lr": 1e-3,
            "warmup": 40 / 300,
            "start_factor": 0.2,
            "final_factor": 1e-3,
            "weight_decay": 0.04,
            "weight_decay_end": 0.4,
        },
        "precision": "bf16",
        "compile": True,
    }


def imagenet_lejepa() -> Settings:
    """LeJEPA at ViT-S/16 with two global and six local views, batch 512."""
    return {
        "method": {
            "name": "lejepa",
            "encoder": {"name": "vit_small/16", "drop_path": 0.1},
            "lam": 0.05,
            "projector_out": 512,
            "local_views": {"count": 6, "size": 96, "scale": (0.05, 0.3), **COLOUR, "blur": 0.5, "solarize": 0.2},
        },
        "data": {"path": "imagenet/train", "size": 224},
        "batch_size": 512,
        "budget": {"epochs": 100},
        "optim": {"lr": 5e-4, "weight_decay": 0.05},
        "precision": "bf16",
        "compile": True,
    }
