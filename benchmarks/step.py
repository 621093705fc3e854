"""One training step of I-JEPA and of LeJEPA against the step that people build today; cost against size and batch.

    python -m benchmarks.step                  # ratios, in one run, alternating

I-JEPA's rival is made of `transformers`' IJepaModel the way its users do it: the student runs on all tokens with the
hidden ones replaced by its mask token, a torch TransformerEncoder predicts each target block from [context | block],
the teacher is a deep copy that follows parameter by parameter. Same picture size, patch, width, depth, heads, predictor
width and depth, masks, loss and optimiser. LeJEPA's rival has our encoder and projector, and the direct SIGReg formula.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.record import save
from benchmarks.sigreg import direct
from openjepa.core.masks import multiblock
from openjepa.core.spread import random_directions
from openjepa.core.tokens import take
from openjepa.core.types import Clock, Pictures
from openjepa.methods import METHODS, Method, total

VIT = {
    "vit_nano/4@32": (32, 4, 128, 6, 4),
    "vit_tiny/16@96": (96, 16, 192, 12, 3),
    "vit_small/16@224": (224, 16, 384, 12, 6),
}


def ours(method: Method, batch: Pictures, compiled: bool = False) -> Callable[[int], Tensor]:
    opt = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-4, fused=True)
    call = torch.compile(method) if compiled else method

    def step(i: int) -> Tensor:
        clock = Clock(i, 1000)
        terms, _ = call(batch, clock)
        loss = total(terms, method.weights)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        method.after_step(clock)
        return loss.detach()

    return step


class Usual(nn.Module):
    """The I-JEPA step as assembled from `transformers`."""

    def __init__(self, size: int, patch: int, width: int, depth: int, heads: int, narrow: int, layers: int) -> None:
        super().__init__()
        from transformers import IJepaConfig, IJepaModel

        cfg = IJepaConfig(
            image_size=size, patch_size=patch, hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
            intermediate_size=4 * width, layer_norm_eps=1e-6,
        )  # fmt: skip
        self.student = IJepaModel(cfg, add_pooling_layer=False, use_mask_token=True)
        self.teacher = deepcopy(self.student).requires_grad_(False)
        self.grid, n = size // patch, (size // patch) ** 2
        self.down, self.up = nn.Linear(width, narrow), nn.Linear(narrow, width)
        self.token = nn.Parameter(torch.zeros(1, 1, narrow))
        self.position = nn.Parameter(torch.randn(n, narrow) * 0.02)
        layer = nn.TransformerEncoderLayer(
            narrow, max(1, narrow // 32), 4 * narrow, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.predictor = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(narrow), enable_nested_tensor=False)

    def forward(self, images: Tensor, clock: Clock) -> Tensor:
        masks = multiblock((self.grid, self.grid), len(images), clock=clock)
        with torch.no_grad():
            target = F.layer_norm(self.teacher(images).last_hidden_state, (self.down.in_features,))
        hidden = torch.ones(len(images), self.grid**2, dtype=torch.bool).scatter_(1, masks.context, False)
        z = take(self.student(images, bool_masked_pos=hidden).last_hidden_state, masks.context)
        loss = torch.zeros(())
        for block in masks.targets.unbind(1):
            c, t = self.down(z) + self.position[masks.context], self.token + self.position[block]
            y = self.up(self.predictor(torch.cat([c, t], 1))[:, c.shape[1] :])
            loss = loss + F.smooth_l1_loss(y, take(target, block))
        return loss / masks.targets.shape[1]


def usual_ijepa(model: Usual, images: Tensor) -> Callable[[int], Tensor]:
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step(i: int) -> Tensor:
        loss = model(images, Clock(i, 1000))
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            for t, s in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
                t.mul_(0.996).add_(s, alpha=0.004)
        return loss.detach()

    return step


def usual_lejepa(method: Method, batch: Pictures, slices: int) -> Callable[[int], Tensor]:
    """LeJEPA as on one page of example code: one forward per view, SIGReg by the direct formula."""
    opt = torch.optim.AdamW(method.parameters(), lr=1e-4)

    def step(i: int) -> Tensor:
        g = torch.Generator().manual_seed(i)
        h = torch.stack([method.encoder(v).mean(1) for kind in batch.views for v in kind])  # type: ignore[operator]
        z = method.projector(h.flatten(0, 1)).unflatten(0, h.shape[:2])  # type: ignore[operator]
        predict = (z[: len(batch.views[0])].mean(0) - z).square().mean()
        a = random_directions(slices, z.shape[-1], g)
        spread = torch.stack([direct(v, a) for v in z]).mean()
        loss = 0.95 * predict + 0.05 * spread
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss.detach()

    return step


def race(runners: dict[str, Callable[[int], Tensor]], batch: int, rounds: int) -> dict[str, float]:
    """Images per second of each, by turns so that a busy machine slows them alike; the median of `rounds`."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for name in runners:
        runners[name](0)
    for i in range(1, rounds + 1):
        for name, step in runners.items():
            begin = time.perf_counter()
            step(i)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - begin)
    return {name: batch / statistics.median(t) for name, t in times.items()}


def ijepa(key: str, batch: int, rounds: int) -> dict:
    size, patch, width, depth, heads = VIT[key]
    narrow, layers = (64, 2) if width < 192 else (width // 2, 4)
    settings = {
        "encoder": {"name": f"vit_nano/{patch}", "width": width, "depth": depth, "heads": heads},
        "predictor_width": narrow, "predictor_depth": layers,
    }  # fmt: skip
    images = torch.randn(batch, 3, size, size)
    pictures = Pictures((images[None],), torch.arange(batch), torch.full((batch,), -1))
    runners: dict[str, Callable[[int], Tensor]] = {"usual": usual_ijepa(Usual(*VIT[key], narrow, layers), images)}
    for name, share in (("published", False), ("shared_context", True)):
        method = METHODS["ijepa"]
        runners[name] = ours(
            method(method.Config.model_validate(settings | {"share_context": share}), size=size),  # type: ignore[call-arg]
            pictures,
        )
    rate = race(runners, batch, rounds)
    return {"batch": batch, "images_per_s": rate, "speedup": {n: rate[n] / rate["usual"] for n in rate if n != "usual"}}


def lejepa(encoder: str, size: int, batch: int, rounds: int) -> dict:
    method = METHODS["lejepa"]
    cfg = method.Config.model_validate(
        {"encoder": encoder, "slices": 1024, "projector_hidden": 512, "projector_out": 64, "lam": 0.05,
         "global_views": {"count": 2}, "local_views": {"count": 2, "size": size // 2}}
    )  # fmt: skip
    g = torch.Generator().manual_seed(0)
    views = tuple(torch.randn(2, batch, 3, s, s, generator=g) for s in (size, size // 2))
    pictures = Pictures(views, torch.arange(batch), torch.full((batch,), -1))
    torch.manual_seed(0)
    model = method(cfg, size=size)  # type: ignore[call-arg]
    rate = race({"usual": usual_lejepa(deepcopy(model), pictures, 1024), "ours": ours(model, pictures)}, batch, rounds)
    return {"batch": batch, "images_per_s": rate, "speedup": rate["ours"] / rate["usual"]}


def scaling(rounds: int) -> list[dict]:
    """Images per second of our I-JEPA step against picture size, batch and width."""
    rows = []
    for size, batch, width in [
        (32, 32, 128),
        (32, 128, 128),
        (64, 32, 128),
        (96, 32, 128),
        (32, 64, 192),
        (32, 64, 384),
    ]:
        settings = {"encoder": {"name": "vit_nano/4", "width": width, "heads": width // 32}, "predictor_width": 64,
                    "predictor_depth": 2, "share_context": True}  # fmt: skip
        cls = METHODS["ijepa"]
        images = torch.randn(1, batch, 3, size, size)
        method = cls(cls.Config.model_validate(settings), size=size)  # type: ignore[call-arg]
        step = ours(method, Pictures((images,), torch.arange(batch), torch.full((batch,), -1)))
        rate = race({"ours": step}, batch, rounds)["ours"]
        rows.append({"size": size, "tokens": (size // 4) ** 2, "batch": batch, "width": width, "images_per_s": rate})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = {
        "ijepa": {
            "vit_nano/4@32": ijepa("vit_nano/4@32", 64, args.rounds),
            "vit_tiny/16@96": ijepa("vit_tiny/16@96", 32, args.rounds),
            "vit_small/16@224": ijepa("vit_small/16@224", 8, max(3, args.rounds // 3)),
        },
        "lejepa": {
            "convnet_tiny@32": lejepa("convnet_tiny", 32, 128, args.rounds),
            "vit_nano/4@32": lejepa("vit_nano/4", 32, 64, args.rounds),
        },
        "scaling": scaling(max(3, args.rounds // 3)),
    }
    for family in ("ijepa", "lejepa"):
        for key, row in results[family].items():  # type: ignore[attr-defined]
            print(f"{family:7s} {key:18s} {row['images_per_s']}  speed-up {row['speedup']}")
    for row in results["scaling"]:
        print(row)
    print("saved", save("step", results))


if __name__ == "__main__":
    main()
