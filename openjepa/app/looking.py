"""The report of a run: its numbers, and what its encoder makes of some pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openjepa.app.measuring import as_pictures
from openjepa.app.report import Neighbours, ReportInputs, read_run, report
from openjepa.app.requests import LookRequest, refuse
from openjepa.app.runs import Run
from openjepa.app.subjects import prepared, sample
from openjepa.app.world_report import read_world
from openjepa.core.types import Clock, Pictures, Seen
from openjepa.data import PictureStream, Source
from openjepa.data.clips.config import ClipConfig
from openjepa.data.config import DataConfig
from openjepa.interop.preprocess import Preprocess
from openjepa.methods import METHODS, Method
from openjepa.probe.features import features
from openjepa.probe.pictures import mask_overlay, nearest, pca_maps, show
from openjepa.train.launch import resolve_device
from openjepa.train.state import read_config
from openjepa.train.weights import checkpoint_in, load_initial

NEIGHBOURS = 6
QUERIES = 6


def look_at(run: Run, asked: LookRequest) -> dict[str, Any]:
    """Write the report of a run and say what it says."""
    out = Path(asked.out or run.path / "report.html")
    inputs = read_run(run.path)
    if isinstance(run.config.data, DataConfig):
        inputs = with_pictures(run, inputs, asked)
    elif isinstance(run.config.data, ClipConfig):
        from openjepa.app.clip_looking import with_clips

        inputs = with_clips(run, inputs, asked)
    else:
        refuse(asked, ("out", "device"), str(run.path))
        inputs = replace(inputs, world=read_world(run.path))
    return {"run": str(run.path), "report": str(report(out, inputs)), "verdict": inputs.judged.as_dict()}


def with_pictures(run: Run, inputs: ReportInputs, asked: LookRequest) -> ReportInputs:
    """`inputs` with feature maps, masks or views, and nearest neighbours; as they are when nothing was saved yet."""
    if not (run.path / "checkpoints" / "last").exists():
        return inputs
    device = resolve_device(asked.device)
    method, preprocess = rebuilt(run, device)
    source = prepared(as_pictures(asked.data) or run.pictures, preprocess)
    gallery, labels = sample(source, asked.gallery, run.config.seed, device)
    pictures = as_shown(gallery, preprocess)
    first = gallery[: asked.pictures]
    with torch.no_grad():
        tokens = method.encode(first).float()  # (n, N, D)
    shown: dict[str, Any] = {
        "pictures": pictures[: asked.pictures],
        "feature_maps": maps(tokens, preprocess.size),
        "neighbours": neighbours(method, gallery, labels, pictures, source.classes),
    }
    shown |= seen_pictures(run, method, source, len(first), preprocess, device)
    return replace(inputs, **shown)


def rebuilt(run: Run, device: torch.device) -> tuple[Method, Preprocess]:
    """The method of a run with its newest weights, and how pictures must reach it."""
    folder = checkpoint_in(run.path)
    preprocess = Preprocess.from_dict(read_config(folder)["preprocess"], str(folder))
    cfg = run.config.method
    make: Any = METHODS[cfg.name]  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[]):
        method = make(cfg, size=preprocess.size, channels=preprocess.channels)
    load_initial(method, run.path)
    return method.to(device).eval(), preprocess


def as_shown(images: Tensor, preprocess: Preprocess) -> Tensor:
    return show(images, torch.tensor(preprocess.mean), torch.tensor(preprocess.std)).cpu()


def maps(tokens: Tensor, size: int) -> Tensor | None:
    """Feature maps of encoders whose tokens lie on a square grid of two by two or more."""
    side = round(tokens.shape[1] ** 0.5)
    return pca_maps(tokens, (side, side), size=size).cpu() if side > 1 and side * side == tokens.shape[1] else None


def neighbours(
    method: Method, gallery: Tensor, labels: Tensor, pictures: Tensor, classes: list[str] | None
) -> Neighbours | None:
    """The first pictures of the gallery, each beside those whose features are most alike."""
    if len(gallery) <= NEIGHBOURS:
        return None
    batches = [(x, y, y) for x, y in zip(gallery.split(256), labels.split(256), strict=True)]
    z = features(method.encode, batches, device=gallery.device).z
    queries = torch.arange(min(QUERIES, len(z)), device=z.device)
    found, similarity = (x.cpu() for x in nearest(z, queries, k=NEIGHBOURS))
    named = [name_of(int(y), classes) for y in labels]
    known = bool((labels >= 0).all())
    return Neighbours(
        pictures[: len(queries)],
        pictures[found],
        similarity,
        named[: len(queries)] if known else None,
        [[named[int(i)] for i in row] for row in found] if known else None,
    )


def name_of(label: int, classes: list[str] | None) -> str:
    return classes[label] if classes is not None and 0 <= label < len(classes) else str(label)


def seen_pictures(
    run: Run, method: Method, source: Source, count: int, preprocess: Preprocess, device: torch.device
) -> dict[str, Any]:
    """What one training step looks at: the masks of masked methods, the views of the others."""
    stream = PictureStream(source, method.cfg.views, batch_size=count, seed=run.config.seed, workers=0, device=device)
    batch: Pictures = next(iter(stream.batches()))
    stream.close()
    with torch.no_grad():
        _, seen = method.losses(batch, Clock(0, 1, run.config.seed))
    if "context_index" in seen:
        images = as_shown(batch.views[0][0], preprocess)
        return {"pictures": images, **masks(seen, images), **again(method, batch, preprocess)}
    return {"views": [torch.stack([as_shown(v, preprocess) for v in group]) for group in batch.views]}


def again(method: Method, batch: Pictures, preprocess: Preprocess) -> dict[str, Any]:
    """Feature maps of the very crops whose masks are shown."""
    with torch.no_grad():
        return {"feature_maps": maps(method.encode(batch.views[0][0]).float(), preprocess.size)}


def masks(seen: Seen, images: Tensor) -> dict[str, Any]:
    """Context and targets drawn over the pictures; the first context where a picture has several."""
    every = len(seen["context_index"]) // len(images)
    context, targets = seen["context_index"][::every].cpu(), seen["target_index"][::every].cpu()
    side = round((int(max(context.max(), targets.max())) + 1) ** 0.5)
    return {"masks": mask_overlay(images, context, targets, (side, side))}
