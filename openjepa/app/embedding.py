"""Features of every picture of a source, with names and labels, in memory or as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from openjepa.app.requests import EmbedRequest
from openjepa.app.runs import Run
from openjepa.app.subjects import Batches, describe, of_run, prepared
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
    encoder = of_run(run, asked.weights, device)
    source = prepared(asked.data or run.pictures, encoder.preprocess)
    batches = Batches(source, None, asked.batch_size, device)()
    found = features(encoder.encoder, batches, layers=asked.layers, pooling=asked.pooling, device=device)
    index = found.index.tolist()
    return Embedding(found.z.cpu(), [source.names[i] for i in index], found.labels.cpu())


def embed_run(run: Run, asked: EmbedRequest) -> dict[str, Any]:
    """Embed and write; where to and how much."""
    out = asked.out or str(run.path / "embeddings.npz")
    if Path(out).suffix not in WRITERS:  # said before the work, not after it
        raise ValueError(f"out must end in {', '.join(WRITERS)}, got {out!r}. The ending is the format.")
    found = embedding(run, asked)
    write_embeddings(out, found.z, found.names, found.labels, dtype=asked.dtype)
    count, dim = found.z.shape
    data = describe(asked.data or run.pictures)
    return {"run": str(run.path), "data": data, "out": out, "pictures": count, "features": dim}
