"""Clips in array files: frames along the channels, one crop for all of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa.config import View
from openjepa.data import PictureStream, evaluation, open_source
from openjepa.data.config import DataConfig


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Eight clips of three frames whose every pixel says which clip, frame and channel it is from."""
    n, t, c = np.meshgrid(np.arange(8), np.arange(3), np.arange(3), indexing="ij")
    values = (n * 20 + t * 3 + c).astype(np.uint8)
    path = tmp_path / "clips.npz"
    np.savez(path, images=np.broadcast_to(values[:, :, None, None], (8, 3, 10, 10, 3)), labels=np.arange(8) % 2)
    return path


def config(path: Path, **changes: object) -> DataConfig:
    return DataConfig.model_validate({"path": str(path), "frames": 3, "normalise": "half", **changes})


def test_frames_lie_along_the_channels_in_order(clips: Path) -> None:
    source = open_source(config(clips))
    assert (source.channels, source.frames, source.size, len(source.mean), len(source.std)) == (3, 3, 10, 3, 3)
    expected = torch.tensor([5 * 20 + t * 3 + c for t in range(3) for c in range(3)])
    assert torch.equal(source.read(5)[:, 0, 0].long(), expected)
    assert source.labels is not None and source.labels.tolist() == [0, 1] * 4


def test_every_frame_gets_the_same_crop(tmp_path: Path) -> None:
    """A clip that stands still must stand still after cropping, flipping and resizing too."""
    still = np.random.default_rng(0).integers(0, 255, (6, 1, 16, 16, 3), dtype=np.uint8).repeat(3, axis=1)
    np.save(tmp_path / "still.npy", still)
    source = open_source(config(tmp_path / "still.npy"))
    stream = PictureStream(source, [View(count=2, size=8, flip=0.5)], batch_size=6, seed=0)
    views = next(stream.batches()).views[0].unflatten(2, (3, 3))  # (V, B, T, C, H, W)
    assert torch.equal(views[:, :, 0], views[:, :, 1]) and torch.equal(views[:, :, 0], views[:, :, 2])
    assert not torch.equal(views[0], views[1])


def test_evaluation_and_measured_statistics(clips: Path) -> None:
    source = open_source(config(clips, normalise="data"))
    images, labels, index = next(evaluation(source, size=8))
    assert images.shape == (8, 9, 8, 8) and labels.tolist() == [0, 1] * 4 and index.tolist() == list(range(8))
    assert abs(images.unflatten(1, (3, 3)).mean((0, 1, 3, 4))).max() < 1e-3


def test_large_clips_are_cropped_one_by_one_the_same_way(tmp_path: Path) -> None:
    still = np.random.default_rng(0).integers(0, 255, (4, 1, 70, 70, 3), dtype=np.uint8).repeat(2, axis=1)
    np.save(tmp_path / "large.npy", still)
    source = open_source(config(tmp_path / "large.npy", frames=2))
    views = next(PictureStream(source, [View(size=16)], batch_size=4, seed=0).batches()).views[0]
    assert views.shape == (1, 4, 6, 16, 16) and torch.equal(views[:, :, :3], views[:, :, 3:])


def test_grey_clips(tmp_path: Path) -> None:
    np.save(tmp_path / "grey.npy", np.zeros((4, 3, 9, 9), dtype=np.uint8))
    assert open_source(config(tmp_path / "grey.npy", channels=1)).read(0).shape == (3, 9, 9)


def test_other_lengths_and_other_kinds_are_refused(clips: Path) -> None:
    with pytest.raises(ValueError, match="must hold clips of 4 frames"):
        open_source(config(clips, frames=4))
    with pytest.raises(ValueError, match="file of clips when frames is 3"):
        open_source(DataConfig(path="digits", frames=3))
    with pytest.raises(ValueError, match="set frames=T"):
        open_source(config(clips, frames=1))
