"""Real sets: what is known about them is what is read."""

import numpy as np
import torch

from openjepa.config import View
from openjepa.data import PictureStream, check, evaluation, open_source
from openjepa.data.config import DataConfig


def test_cifar10_test_split(data_dir):
    path = data_dir / "cifar10"
    s = open_source(DataConfig(path=str(path), split="test", normalise="data", limit=1000))
    assert s.arrays.shape == (1000, 3, 32, 32) and np.bincount(s.labels).tolist() == [100] * 10
    assert s.classes[:3] == ["airplane", "automobile", "bird"] and s.bad == []
    assert np.allclose(s.mean, (0.494, 0.485, 0.450), atol=0.015) and np.allclose(
        s.std, (0.247, 0.243, 0.262), atol=0.015
    )
    views = [View(count=2, flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2)]
    batch = next(PictureStream(s, views, batch_size=64, seed=0).batches())
    assert batch.views[0].shape == (2, 64, 3, 32, 32) and 0.5 < batch.views[0].std() < 1.5


def test_mnist_is_grey_and_complete(data_dir):
    s = open_source(DataConfig(path=str(data_dir / "mnist"), split="test", channels=1, limit=500))
    assert s.arrays.shape == (500, 1, 28, 28) and len(s.classes) == 10 and s.size == 28
    # nearest mean of the other half: near the published 80 % of a nearest-mean classifier, so labels fit the pictures
    x, y = s.arrays.reshape(500, -1).astype(float), s.labels
    half = np.arange(500) % 2 == 0
    means = np.stack([x[half & (y == k)].mean(0) for k in range(10)])
    nearest = ((x[~half, None] - means) ** 2).sum(2).argmin(1)
    assert (nearest == y[~half]).mean() > 0.65


def test_sign_digits_with_three_large_photos(data_dir):
    cfg = DataConfig(path=str(data_dir / "sign-digits"))
    report = check(cfg, decode=False)
    assert report.ok and report.pictures == 2062 and report.sizes["max"] == 3024 and report.sizes["common"] == "100x100"
    assert list(report.classes) == [str(k) for k in range(10)] and report.recommended_size == 96
    few = cfg.model_copy(update={"limit": 60, "cache": False, "workers": 0})
    s = open_source(few)
    assert s.size == 100 and s.classes == [str(k) for k in range(10)]
    batch = next(PictureStream(s, [View(size=64)], batch_size=30, seed=0).batches())
    assert batch.views[0].shape == (1, 30, 3, 64, 64) and s.bad == []
    images = torch.cat([x for x, _, _ in evaluation(s, size=32)])
    assert images.shape == (60, 3, 32, 32)


def test_robot_episodes_are_array_files(data_dir):
    s = open_source(DataConfig(path=str(data_dir / "bridge" / "episode_000.npz")))
    assert s.arrays.shape == (10, 3, 64, 64) and s.labels is None
