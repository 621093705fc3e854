"""Embeddings as files: what is read back is what was written, in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa.interop import write_embeddings

Z = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
NAMES = ["b/1.jpg", "a/2.jpg", "ü.png", "c d.png", "bad\udcff.png"]
LABELS = torch.tensor([1, 0, -1, 2, 2])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet(tmp_path: Path, dtype):
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(write_embeddings(tmp_path / "z.parquet", Z, NAMES, LABELS, dtype=dtype))
    assert table.column_names == ["path", "embedding", "label"]
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list") and "[7]" in str(
        table.schema.field("embedding").type
    )
    got = np.stack([np.array(v, dtype) for v in table["embedding"].to_pylist()])
    assert np.array_equal(got, Z.numpy().astype(dtype))
    assert table["path"].to_pylist()[:4] == NAMES[:4]
    assert table["label"].to_pylist() == [1, 0, None, 2, 2]


def test_npz_and_npy(tmp_path: Path):
    found = np.load(write_embeddings(tmp_path / "deep/z.npz", Z, NAMES, LABELS))
    assert np.array_equal(found["z"], Z.numpy()) and found["names"].tolist() == NAMES
    assert found["labels"].tolist() == LABELS.tolist()
    assert np.load(tmp_path / "deep/z.npz", allow_pickle=False)["names"].shape == (5,)
    write_embeddings(tmp_path / "z.npy", Z, NAMES, dtype="float16")
    assert np.load(tmp_path / "z.npy").dtype == np.float16
    assert (tmp_path / "z.names.txt").read_text(errors="surrogateescape").splitlines() == NAMES
    assert not list(tmp_path.rglob(".*"))


def test_no_labels(tmp_path: Path):
    assert np.load(write_embeddings(tmp_path / "z.npz", Z, NAMES))["labels"].tolist() == [-1] * 5


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_embeddings(tmp_path / "z.npz", Z, NAMES)
    before = path.read_bytes()

    def half(file: Path, **_: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("disk is full")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(OSError):
        write_embeddings(path, Z + 1, NAMES)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["z.npz"]


def test_refusals(tmp_path: Path):
    with pytest.raises(ValueError, match="must end in"):
        write_embeddings(tmp_path / "z.csv", Z, NAMES)
    with pytest.raises(ValueError, match="5 names and 4 labels"):
        write_embeddings(tmp_path / "z.npz", Z, NAMES, LABELS[:4])
    with pytest.raises(ValueError, match="within float16"):
        write_embeddings(tmp_path / "z.npz", Z * 1e6, NAMES, dtype="float16")
