"""Fine-tuning: a copy of the encoder and a linear map, trained together on the labels. The original is not touched."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from openjepa.nn import LinearHead
from openjepa.nn.encoder import Encoder, pool
from openjepa.probe.features import Batch, Features, Labelled
from openjepa.probe.result import ProbeResult, num_classes, several
from openjepa.probe.training import enough_epochs, minimise, named


class Classifier(nn.Module):
    """encoder -> pool -> batch norm -> linear, (B, C, H, W) -> (B, classes)."""

    def __init__(self, encoder: Encoder, classes: int, pooling: str) -> None:
        super().__init__()
        self.encoder, self.pooling = encoder, pooling
        self.head = LinearHead(encoder.dim * len(pooling.split("+")), classes)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(pool(self.encoder(pictures), self.encoder.prefix, self.pooling).float())


def finetune(
    train: Features | Labelled,
    test: Features | Labelled,
    *,
    seed: int = 0,
    lr: float = 1e-3,
    repeats: int = 1,
    epochs: int | None = None,
    batch_size: int = 128,
    weight_decay: float = 0.05,
    layer_decay: float = 0.75,
    flip: bool = False,
) -> ProbeResult:
    """Accuracy after the whole network was trained on the labels, from where it stood.

    AdamW with a tenth of the steps warm-up and a cosine to zero; the rate of block i of n is lr * layer_decay^(n - i),
    so that what lies near the pixels moves least (Clark et al. 2020, as in the fine-tuning of BEiT and MAE). No mixup,
    no random crops: a plain recipe, the same for every encoder, whose point is the comparison. Pictures are held in
    memory: N * C * H * W * 4 bytes.

    train, test  `Labelled` with an `openjepa.nn.Encoder`; the encoder of `train` is copied and not changed
    repeats      trainings with seeds seed, seed + 1 ...
    epochs       by default 20, and more where these would be fewer than 400 steps
    flip         mirror half of the pictures in training; wrong for digits and letters
    returns      interval: t over seeds, or Wilson over test pictures when there is one

    Raises `ValueError` for features without their encoder, which cannot be trained on.
    """
    a, b = _labelled(train), _labelled(test)
    encoder, device = a.encoder, a.device
    if not isinstance(encoder, Encoder):
        raise ValueError("encoder must be an openjepa.nn.Encoder, got a plain callable. Use openjepa.nn.wrap.")
    (pictures, labels), (asked, asked_labels) = held(a), held(b)
    classes = num_classes(labels, asked_labels)
    epochs = epochs or enough_epochs(len(pictures), batch_size)
    correct = []
    for r in range(repeats):
        with torch.random.fork_rng(devices=[torch.device(device)] if torch.device(device).type == "cuda" else []):
            torch.manual_seed(seed + r)  # the head's weights, and dropped paths in the encoder
            model = Classifier(deepcopy(encoder).requires_grad_(True), classes, a.pooling).to(device).train()
            forward = Flipped(model, seed + r) if flip else model
            groups = layer_groups(model, lr, weight_decay, layer_decay)
            minimise(forward, groups, pictures, labels, epochs=epochs, batch_size=batch_size, seed=seed + r)
        found = named(model.eval(), asked, device, batch_size=4 * batch_size)
        correct.append(found == asked_labels)
    settings = {
        "lr": lr, "epochs": epochs, "batch_size": batch_size, "weight_decay": weight_decay, "flip": flip, "seed": seed,
        "layer_decay": layer_decay, "repeats": repeats, "trained_on": len(pictures), "pooling": a.pooling,
    }  # fmt: skip
    return several("finetune", correct, settings, "seeds")


class Flipped:
    """Half of the pictures of each batch mirrored, then `model`."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.model, self.generator = model, torch.Generator().manual_seed(seed)

    def __call__(self, pictures: Tensor) -> Tensor:
        mirrored = (torch.rand(len(pictures), generator=self.generator) < 0.5).to(pictures.device)
        return self.model(torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures))


def layer_groups(model: Classifier, lr: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: rate by depth, no decay for biases, norms and other one-dimensional weights.

    Depth n + 1 is the head and what follows the blocks, depth 1 ... n a block, depth 0 what comes before them. A
    foreign network without known blocks moves as one, at the full rate.
    """
    n = len(model.encoder.blocks)
    depth = {id(p): i + 1 for i, block in enumerate(model.encoder.blocks) for p in block.parameters()}
    after = ("head.", "encoder.norm.")
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        level = depth.get(id(p), n + 1 if name.startswith(after) or n == 0 else 0)
        decays = p.dim() > 1 and not name.startswith("encoder.prefix")
        rate = lr * layer_decay ** (n + 1 - level)
        fresh = {"params": [], "lr": rate, "weight_decay": weight_decay if decays else 0.0}
        groups.setdefault((level, decays), fresh)["params"].append(p)
    return list(groups.values())


def held(data: Labelled) -> tuple[Tensor, Tensor]:
    """All labelled pictures (N, C, H, W) and their classes, in memory."""
    batches: list[Batch] = list(data.batches())
    if not batches:
        raise ValueError("batches must hold at least one batch, got none. Check the source and its split.")
    pictures, labels = torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches]).long()
    known = labels >= 0
    if not bool(known.any()):
        raise ValueError("labels must be known for some pictures, got none. Probe on a labelled source.")
    return (pictures, labels) if bool(known.all()) else (pictures[known], labels[known])


def _labelled(data: Features | Labelled) -> Labelled:
    if not isinstance(data, Labelled):
        raise ValueError(
            "train and test must be Labelled, got Features. Fine-tuning needs the encoder and the pictures."
        )
    if data.layers is not None or data.pooling in ("flatten", "tokens"):
        raise ValueError(
            f"fine-tuning reads the last layer through mean, max or cls, got layers={data.layers} and "
            f"pooling={data.pooling!r}. Leave them at their defaults."
        )
    return data
