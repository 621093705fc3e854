"""Truth for every pixel: drawn masks agree with the drawn pictures, files are found and cut like their pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openjepa.data import open_source
from openjepa.data.clips import open_clips
from openjepa.data.clips.config import ClipConfig
from openjepa.data.config import DataConfig
from openjepa.data.dense import MapFolder, of_bouncing, of_shapes


def test_masks_of_shapes_lie_on_the_shapes():
    source = open_source(DataConfig(path="shapes:30", size=48))
    rows = np.arange(30)
    assert source.factors is not None and source.arrays is not None
    classes, order = of_shapes(source.factors, rows, 48)
    assert set(np.unique(order)) == {0.0, 1.0} and ((classes > 0) == (order > 0)).all()
    for i in rows:
        assert set(np.unique(classes[i])) == {0, 1 + source.factors["shape"][i]}
        grey = np.ptp(source.arrays[i].astype(int), axis=0)  # the ground has no colour, the shapes have
        assert ((grey > 60) == (classes[i] > 0)).mean() > 0.97


def test_masks_of_bouncing_shapes_put_the_second_in_front():
    source = open_clips(ClipConfig(path="bouncing-shapes:20", size=40))
    rows, numbers = np.arange(20), np.tile(np.arange(0, 20, 5), (20, 1))
    assert source.factors is not None and source.together is not None
    known = source.factors(rows, numbers)
    classes, order = of_bouncing(known, 40, 40)
    pictures = source.together.take(rows, numbers)
    coloured = np.ptp(pictures.astype(int), axis=2) > 60
    assert classes.shape == (20, 4, 40, 40) and (coloured == (order > 0)).mean() > 0.97
    for k in (1, 2):
        shape = known["shape"][..., k - 1]
        assert (classes[order == k] == 1 + np.broadcast_to(shape[..., None, None], order.shape)[order == k]).all()
    assert ((order == 2).sum((2, 3)) > 0).all()  # the front one is never hidden


def test_files_are_found_by_name_and_cut_like_pictures(tmp_path: Path):
    (tmp_path / "a").mkdir()
    mask = np.zeros((10, 20), np.uint8)
    mask[:, 5:10], mask[:, 10:15] = 3, 7  # the middle square
    Image.fromarray(mask).save(tmp_path / "a" / "one.png")
    np.save(tmp_path / "two.npy", np.full((8, 8), 1.5, np.float32))
    maps = MapFolder(tmp_path)
    found = maps.read("a/one.jpg", 4)
    assert found.tolist() == [[3, 3, 7, 7]] * 4 and found.dtype == np.int64
    assert maps.read("two.jpeg", 4).dtype == np.float32
    assert maps.file("three.jpg") is None
    with pytest.raises(ValueError, match="must hold a map for three"):
        maps.read("three.jpg", 4)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match="one number per pixel"):
        maps.read("rgb.png", 4)
    with pytest.raises(ValueError, match="folder of files"):
        MapFolder(tmp_path / "nowhere")
