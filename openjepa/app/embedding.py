"""Features of every picture of a source, with names and labels, in memory or as a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from openjepa.app.requests import EmbedRequest
from openjepa.app.runs import Run
from openjepa.app.subjects import Batches, describe, of_run, prepared
from openjepa.probe.features import features
from openjepa.train.launch import resolve_device


class Embedding(NamedTuple):
    """Row i of `z` belongs to `names[i]`. Unreadable pictures have no row."""

    z: np.ndarray  # (N, D)
    names: list[str]
    labels: np.ndarray  # (N,) int64, -1 where there is none


def embedding(run: Run, asked: EmbedRequest) -> Embedding:
    """The features of the pictures that were asked for, in the order of the source."""
    device = resolve_device(asked.device)
    encoder = of_run(run, asked.weights, device)
    source = prepared(asked.data or run.config.data, encoder.preprocess)
    batches = Batches(source, None, asked.batch_size, device)()
    found = features(encoder.encoder, batches, layers=asked.layers, pooling=asked.pooling, device=device)
    index = found.index.cpu().numpy()
    z = found.z.cpu().numpy().astype(asked.dtype)
    return Embedding(z, [source.names[int(i)] for i in index], found.labels.cpu().numpy())


def embed_run(run: Run, asked: EmbedRequest) -> dict[str, Any]:
    """Embed and write; where to and how much."""
    out = asked.out or str(run.path / "embeddings.npz")
    writer(out)  # a wrong ending is said before the work, not after
    found = embedding(run, asked)
    write(found, out)
    count, dim = found.z.shape
    data = describe(asked.data or run.config.data)
    return {"run": str(run.path), "data": data, "out": out, "pictures": count, "features": dim}


def write(found: Embedding, out: str) -> Path:
    """Write to a file whose ending is the format, whole or not at all."""
    path = Path(out)
    put = writer(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    put(found, part)
    os.replace(part, path)
    return path


def writer(out: str) -> Callable[[Embedding, Path], None]:
    suffix = Path(out).suffix
    if suffix not in WRITERS:
        raise ValueError(f"out must end in {', '.join(WRITERS)}, got {out!r}.")
    return WRITERS[suffix]


def write_npy(found: Embedding, path: Path) -> None:
    """The features alone; the names go beside it, one per line."""
    np.save(path, found.z)
    names = path.with_name(path.name.removeprefix(".").replace(".part", "")).with_suffix(".names.txt")
    names.write_text("\n".join(found.names) + "\n", encoding="utf-8", errors="surrogateescape")


def write_npz(found: Embedding, path: Path) -> None:
    np.savez(path, z=found.z, names=np.array(found.names), labels=found.labels)


def write_parquet(found: Embedding, path: Path) -> None:
    """Columns name, label and z, a list of fixed length."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(
            'a .parquet file needs pyarrow, got none. Do pip install "openjepa[eval]", or end in .npz.'
        ) from None
    flat = pa.array(found.z.reshape(-1))
    z = pa.FixedSizeListArray.from_arrays(flat, found.z.shape[1])
    pq.write_table(pa.table({"name": found.names, "label": found.labels, "z": z}), path, compression="zstd")


WRITERS: dict[str, Callable[[Embedding, Path], None]] = {
    ".npz": write_npz,
    ".npy": write_npy,
    ".parquet": write_parquet,
}
