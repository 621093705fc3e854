"""Nearest neighbours against a loop, against scikit-learn, and on real pictures."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from openjepa.probe import Features, baselines, features, knn
from openjepa.probe import knn as knn_probe
from openjepa.probe.result import num_classes


def toy(n: int, seed: int) -> Features:
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=g)
    centres = torch.randn(3, 6, generator=torch.Generator().manual_seed(9))
    return Features(centres[labels] + 1.2 * torch.randn(n, 6, generator=g) + 2, labels, torch.arange(n))


def by_hand(train: Features, test: Features, k: int, temperature: float | None, centred: bool) -> float:
    right = 0
    mean = train.z.mean(0) if centred else 0
    for z, label in zip(test.z, test.labels, strict=True):
        cos = [(float(F.cosine_similarity(z - mean, b - mean, dim=0)), int(c)) for b, c in zip(train.z, train.labels)]  # noqa: B905
        votes = [0.0, 0.0, 0.0]
        for rank, (c, name) in enumerate(sorted(cos, reverse=True)[:k]):
            votes[name] += float(torch.tensor(c / temperature).exp()) if temperature else 1 + 1e-6 * (k - rank)
        right += votes.index(max(votes)) == int(label)
    return right / len(test.z)


@pytest.mark.parametrize("centred", [True, False])
def test_equals_a_loop(centred: bool):
    train, test = toy(60, 0), toy(40, 1)
    found = knn(train, test, k=7, centred=centred)
    assert found.parts[0].accuracy == by_hand(train, test, 7, 0.07, centred)
    assert found.parts[1].accuracy == by_hand(train, test, 7, None, centred)
    assert found.accuracy == found.parts[0].accuracy


def test_majority_equals_sklearn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    train, test = toy(200, 0), toy(150, 1)
    bank, queries = (F.normalize(x.z - train.z.mean(0), dim=1) for x in (train, test))
    theirs = neighbors.KNeighborsClassifier(5, metric="cosine").fit(bank.numpy(), train.labels.numpy())
    named = torch.from_numpy(theirs.predict(queries.numpy()))
    ours = knn(train, test, k=5).parts[1].correct
    assert ours is not None and ((named == test.labels) == ours).float().mean() > 0.97  # ties are broken differently


def test_chunks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch):
    import sys

    train, test = toy(300, 0), toy(200, 1)
    whole = knn(train, test)
    monkeypatch.setattr(sys.modules["openjepa.probe.knn"], "CHUNK", 300 * 7)
    assert knn(train, test).as_dict() == whole.as_dict()


def test_more_neighbours_than_pictures():
    train, test = toy(5, 0), toy(5, 0)
    assert num_classes(train.labels, test.labels) >= 2
    assert 0 <= knn_probe(train, test, k=50).accuracy <= 1


def pictures(data_dir: Path, split: str, n: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    pq = pytest.importorskip("pyarrow.parquet")
    file = data_dir / "cifar10" / f"{split}.parquet"
    if not file.exists():
        pytest.skip(f"no CIFAR-10 at {file}")
    table = pq.read_table(file).slice(0, n)
    found = []
    for i, (cell, label) in enumerate(zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)):
        with Image.open(io.BytesIO(cell["bytes"])) as image:
            pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        found.append(
            (pixels.view(1, 32, 32, 3).permute(0, 3, 1, 2).float() / 255, torch.tensor([label]), torch.tensor([i]))
        )
    return found


def test_raw_pixels_of_cifar10_small(data_dir: Path):
    train, test = (features(baselines.pixels(), pictures(data_dir, s, n)) for s, n in (("train", 3000), ("test", 500)))
    found = knn(train, test)
    assert 0.28 < found.accuracy < 0.42  # chance is 0.10; with all 50,000 training pictures it is 0.458


@pytest.mark.slow
def test_raw_pixels_of_cifar10_reach_the_documented_floor(data_dir: Path):
    train, test = (features(baselines.pixels(), pictures(data_dir, s, 50_000)) for s in ("train", "test"))
    assert len(train.z) == 50_000 and len(test.z) == 10_000
    assert knn(train, test).accuracy == pytest.approx(0.458, abs=0.001)
