"""Features as a file, one row per picture, with the picture's name: Parquet, npy or npz."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

Dtype = Literal["float32", "float16"]


def write_embeddings(
    path: str | Path, z: Tensor, names: Sequence[str], labels: Tensor | None = None, *, dtype: Dtype = "float32"
) -> Path:
    """Write z (N, D) with the N `names`, in this order; the ending of `path` is the format. Whole, or not at all.

    .parquet  columns path (string), embedding (list of D, fixed size), label (int64, null where unknown)
    .npz      arrays z, names, labels (-1 where unknown)
    .npy      z alone; the names go beside it, one per line, in PATH.names.txt

    dtype     "float16" halves the file; the relative error is at most 0.05 %, beyond 65504 it raises

    >>> import tempfile, torch
    >>> path = write_embeddings(Path(tempfile.mkdtemp()) / "z.npz", torch.zeros(2, 4), ["a.jpg", "b.jpg"])
    >>> np.load(path)["names"].tolist()
    ['a.jpg', 'b.jpg']
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise ValueError(f"path must end in {', '.join(WRITERS)}, got {path}. The ending is the format.")
    if z.dim() != 2 or len(names) != len(z) or (labels is not None and len(labels) != len(z)):
        count = "none" if labels is None else len(labels)
        raise ValueError(
            f"z must be (N, D) with N names and labels, got {tuple(z.shape)}, {len(names)} names and {count} labels."
        )
    rows = z.detach().float().cpu().numpy()
    if dtype == "float16" and rows.size and float(np.abs(rows).max()) > 65504:
        raise ValueError(f"z must be within float16, got {float(np.abs(rows).max()):g}. Use dtype='float32'.")
    classes = np.full(len(rows), -1) if labels is None else labels.cpu().numpy().astype(np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [str(n) for n in names]
    if path.suffix == ".npy":
        text = "".join(f"{n}\n" for n in names).encode("utf-8", "surrogateescape")
        _whole(path.with_suffix(".names.txt"), lambda draft: draft.write_bytes(text))
    _whole(path, lambda draft: WRITERS[path.suffix](draft, rows.astype(dtype), names, classes))
    return path


def _parquet(path: Path, z: np.ndarray, names: list[str], labels: np.ndarray) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(
            "a .parquet file needs pyarrow, got none. Do pip install 'openjepa[eval]', or end in .npz."
        ) from None
    text = [n.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for n in names]  # Arrow wants valid UTF-8
    columns = {
        "path": pa.array(text, pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), z.shape[1]),
        "label": pa.array(labels, pa.int64(), mask=labels < 0),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def _npz(path: Path, z: np.ndarray, names: list[str], labels: np.ndarray) -> None:
    np.savez(path, z=z, names=np.array(names), labels=labels)


def _npy(path: Path, z: np.ndarray, names: list[str], labels: np.ndarray) -> None:
    np.save(path, z)


WRITERS: dict[str, Callable[[Path, np.ndarray, list[str], np.ndarray], None]] = {
    ".parquet": _parquet,
    ".npz": _npz,
    ".npy": _npy,
}


def _whole(path: Path, put: Callable[[Path], object]) -> None:
    """Let `put` write a draft that then takes the name `path`; a failure leaves what was there."""
    draft = path.with_name(f".{path.stem}.draft{path.suffix}")
    try:
        put(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
