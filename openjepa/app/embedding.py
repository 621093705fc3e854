"""Features of every picture of a source, with names and labels, in memory or as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from openjepa.app import clip_subjects
from openjepa.app.measuring import as_pictures
from openjepa.app.requests import EmbedRequest
from openjepa.app.runs import Run
from openjepa.app.subjects import Batches, describe, of_run, prepared
from openjepa.config import ClipView
from openjepa.data.clips.config import ClipConfig
from openjepa.interop.embed import WRITERS, write_embeddings
from openjepa.probe.features import features
from openjepa.train.launch import resolve_device


class Embedding(NamedTuple):
    """Row i of `z` belongs to `names[i]`. Unreadable pictures have no row."""

    z: Tensor  # (N, D)
    names: list[str]
    labels: Tensor  # (N,), -1 where there is none


def embedding(run: Run, asked: EmbedRequest) -> Embedding:
    """The features of the pictures that were asked for, in the order of the source."""
    device = resolve_device(asked.device)
    if isinstance(run.config.data, ClipConfig):
        return of_clips(run, asked, device)
    encoder = of_run(run, asked.weights, device)
    source = prepared(as_pictures(asked.data) or run.pictures, encoder.preprocess)
    batches = Batches(source, None, asked.batch_size, device)()
    found = features(encoder.encoder, batches, layers=asked.layers, pooling=asked.pooling, device=device)
    index = found.index.tolist()
    return Embedding(found.z.cpu(), [source.names[i] for i in index], found.labels.cpu())


def of_clips(run: Run, asked: EmbedRequest, device: torch.device) -> Embedding:
    """The features of the middle clip of every video. Videos that are too short or unreadable have no row."""
    encoder = clip_subjects.of_run(run, asked.weights, device)
    p = encoder.preprocess
    source = clip_subjects.prepared(clip_subjects.as_clips(asked.data, run), p)
    view = ClipView(frames=p.frames, stride=p.stride, fps=p.fps)
    size = max(1, min(asked.batch_size, 512 // p.frames))
    batches = clip_subjects.ClipBatches(source, np.arange(len(source)), view, size, device)()
    found = features(encoder.encoder, batches, layers=asked.layers, pooling=asked.pooling, device=device)
    return Embedding(found.z.cpu(), [source.names[i] for i in found.index.tolist()], found.labels.cpu())


def embed_run(run: Run, asked: EmbedRequest) -> dict[str, Any]:
    """Embed and write; where to and how much."""
    out = asked.out or str(run.path / "embeddings.npz")
    if Path(out).suffix not in WRITERS:  # said before the work, not after it
        raise ValueError(f"out must end in {', '.join(WRITERS)}, got {out!r}. The ending is the format.")
    found = embedding(run, asked)
    write_embeddings(out, found.z, found.names, found.labels, dtype=asked.dtype)
    count, dim = found.z.shape
    if isinstance(run.config.data, ClipConfig):
        data = clip_subjects.describe(clip_subjects.as_clips(asked.data, run))
        return {"run": str(run.path), "data": data, "out": out, "clips": count, "features": dim}
    data = describe(as_pictures(asked.data) or run.pictures)
    return {"run": str(run.path), "data": data, "out": out, "pictures": count, "features": dim}
