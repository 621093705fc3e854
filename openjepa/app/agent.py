"""The older API, kept: `JEPAConfig` with attributes to set, `JEPAAgent` to train. A facade over `methods/masked.py`.

from openjepa import JEPAAgent, JEPAConfig

cfg = JEPAConfig()
cfg.dataset = "imagefolder"
cfg.root_path = "./data"
cfg.image_folder = "train"
cfg.epochs = 100

agent = JEPAAgent(cfg)
agent.train()
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openjepa.app.settings import free_folder
from openjepa.config import nearest, parse

if TYPE_CHECKING:
    from torch import Tensor

    from openjepa.app.runs import Run
    from openjepa.train.run import RunConfig

DATASETS = ("imagefolder", "cifar10", "file", "digits", "shapes")


@dataclass
class JEPAConfig:
    """Settings as attributes: every one has a default, a misspelt one raises `AttributeError` with the nearest name.

    dataset       "imagefolder": the pictures below root_path/image_folder; "cifar10": Parquet files in root_path;
                  "file": root_path is a file (.npz, .npy, .parquet, .txt, .tar ...); "digits", "shapes": built in
    num_frames    above 1, root_path is an array file of clips, (clips, frames, height, width[, channels])
    masking       "block", "random", or "temporal": predict the last predict_horizon frames of a clip
    *_weight      0 leaves the term out: variance keeps features apart, invariance draws two crops of a picture
                  together, consistency neighbouring frames of a clip
    output_dir    the run folder, new or empty; by default runs/jepa, numbered

    >>> cfg = JEPAConfig(epochs=5)
    >>> cfg.mask_ratio, cfg.epochs
    (0.75, 5)
    >>> cfg.learnin_rate = 1e-3
    Traceback (most recent call last):
    AttributeError: JEPAConfig has no setting 'learnin_rate'. Did you mean 'learning_rate'?
    """

    # where the pictures are
    dataset: str = "imagefolder"
    root_path: str | Path = "./data"
    image_folder: str = "train"
    num_frames: int = 1
    channels: int = 3
    num_workers: int | None = None
    # the networks
    image_size: int = 224
    patch_size: int = 16
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    temporal_layers: int = 2
    predictor_dim: int | None = None
    predictor_layers: int = 6
    # what is hidden, and what is asked of the features
    masking: str = "block"
    mask_ratio: float = 0.75
    num_blocks: int = 1
    predict_horizon: int = 1
    variance_weight: float = 1.0
    invariance_weight: float = 0.0
    consistency_weight: float = 0.0
    ema_momentum: float = 0.996
    # how it is trained
    epochs: float = 100
    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    output_dir: str | Path | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        names = [f.name for f in fields(self)]
        if name not in names:
            raise AttributeError(f"JEPAConfig has no setting {name!r}. {nearest(name, names)}")
        super().__setattr__(name, value)

    def run(self) -> RunConfig:
        """The settings of the run that this stands for; a one-line `ValueError` when they do not fit."""
        from openjepa.train.run import RunConfig

        return parse(
            RunConfig,
            {
                "method": self._method(),
                "data": self._data(),
                "out": self.output_dir if self.output_dir is None else str(self.output_dir),
                "seed": self.seed,
                "batch_size": self.batch_size,
                "budget": {"epochs": self.epochs},
                "optim": {"lr": self.learning_rate, "weight_decay": self.weight_decay},
                "device": self.device,
                "precision": self.precision,
            },
        )

    def _method(self) -> dict[str, Any]:
        return {
            "name": "masked",
            "encoder": {
                "name": "vit_base",
                "patch": self.patch_size,
                "width": self.embed_dim,
                "depth": self.num_layers,
                "heads": self.num_heads,
            },
            "frames": self.num_frames,
            "temporal_depth": self.temporal_layers,
            "predictor_width": self.predictor_dim,
            "predictor_depth": self.predictor_layers,
            "masking": self.masking,
            "mask_ratio": self.mask_ratio,
            "blocks": self.num_blocks,
            "predict_horizon": self.predict_horizon,
            "variance": self.variance_weight,
            "invariance": self.invariance_weight,
            "consistency": self.consistency_weight,
            "crops": 2 if self.invariance_weight else 1,
            "ema": (self.ema_momentum, 1.0),
        }

    def _data(self) -> dict[str, Any]:
        if self.dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {self.dataset!r}.")
        path: dict[str, str | Path] = {
            "imagefolder": Path(self.root_path) / self.image_folder,
            "digits": "digits",
            "shapes": "shapes",
        }
        data = {
            "path": str(path.get(self.dataset, self.root_path)),
            "size": self.image_size,
            "channels": self.channels,
            "workers": self.num_workers,
        }
        if self.dataset == "cifar10":
            data["split"] = "train"
        if self.num_frames > 1:
            data["frames"] = self.num_frames
        return data


class JEPAAgent:
    """Trains, encodes, saves and loads what a `JEPAConfig` describes; the work is done by the parts of `openjepa`.

    run  the run that was trained (`openjepa.Run`: probe, embed, look, export ...), None before
    """

    def __init__(self, cfg: JEPAConfig | None = None) -> None:
        self.cfg = cfg if cfg is not None else JEPAConfig()
        self.run: Run | None = None
        self._networks: Networks | None = None

    def train(self) -> Path:
        """Train as the config says and return the run folder; every verb of `openjepa` takes it."""
        from openjepa.app.training import start

        run = self.cfg.run()
        if run.out is None:
            run = run.override({"out": free_folder("jepa")})
        print(f"Training on {run.data.path} for {run.budget.epochs:g} epochs into {run.out}")
        self.run = start(run)
        self._networks = Networks(self.run.path)
        print(f"Trained: {self._networks.checkpoint}. Look at it with: openjepa look {self.run.path}")
        return self.run.path

    def encode(self, images: Tensor) -> Tensor:
        """Frozen features of pictures (B, C, H, W), (B, N, D), or of clips (B, T, C, H, W), (B, T * N, D).

        images  uint8, or floats in 0..1; not normalised. H and W are multiples of patch_size.
        """
        return self._ready("encode").encode(images)

    def save(self, path: str | Path) -> Path:
        """Copy the trained checkpoint to the new folder `path`; `load` takes it back."""
        source, path = self._ready("save").checkpoint, Path(path)
        if path.exists():
            raise ValueError(f"path must not exist yet, got {path}. Choose another, or remove it.")
        shutil.copytree(source, path)
        return path

    def load(self, path: str | Path) -> JEPAAgent:
        """Take the networks of a run folder, or of a folder that `save` wrote, for `encode`. Returns the agent.

        `cfg` stays as it is: it says what `train` would do.
        """
        self._networks = Networks(Path(path))
        return self

    def _ready(self, what: str) -> Networks:
        if self._networks is None:
            raise ValueError(f"agent must be trained or loaded to {what}. Do agent.train() or agent.load(path).")
        return self._networks


class Networks:
    """The networks of a checkpoint of the masked method, and how pictures must reach them."""

    def __init__(self, path: Path) -> None:
        from openjepa.methods.masked import MaskedConfig, MaskedJEPA
        from openjepa.train.state import load_weights
        from openjepa.train.weights import checkpoint_in

        self.checkpoint = checkpoint_in(path).resolve()
        try:
            found = json.loads((self.checkpoint / "config.json").read_text(encoding="utf-8"))
        except OSError:
            raise ValueError(f"path must be a run or a checkpoint folder, got {path} without config.json.") from None
        if found["method"]["name"] != "masked":
            method = found["method"]["name"]
            raise ValueError(f"path must hold a run of JEPAAgent, got method {method} in {path}. Use openjepa.load.")
        see = found["preprocess"]
        self.mean, self.std = see["mean"], see["std"]
        self.method = MaskedJEPA(parse(MaskedConfig, found["method"]), size=see["size"], channels=see["channels"])
        load_weights(self.method, self.checkpoint)
        self.method.eval().requires_grad_(False)

    def encode(self, images: Tensor) -> Tensor:
        """See `JEPAAgent.encode`."""
        import torch

        from openjepa.data.augment import normalise

        if images.dim() == 5:
            images = images.flatten(1, 2)  # (B, T C, H, W)
        if images.dim() != 4:
            raise ValueError(f"images must be (B, C, H, W), or clips (B, T, C, H, W), got {tuple(images.shape)}.")
        if images.is_floating_point():
            images = images * 255
        with torch.no_grad():
            return self.method.encode(normalise(images, self.mean, self.std))
