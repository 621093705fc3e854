"""Every picture once, in order, at the right size."""

import numpy as np
import pytest
import torch
from PIL import Image

from openjepa.data import evaluation, open_source
from openjepa.data.config import DataConfig
from openjepa.data.evaluate import centre_square

from .conftest import encoded, fill, photo


def source(path, **settings):
    return open_source(DataConfig(path=str(path), **settings))


def levels(images: torch.Tensor, s) -> np.ndarray:
    back = images * torch.tensor(s.std)[:, None, None] + torch.tensor(s.mean)[:, None, None]
    return (back * 255).permute(0, 2, 3, 1).numpy()


def test_arrays_of_the_size_are_not_touched():
    s = source("shapes:20", size=16)
    parts = list(evaluation(s, batch_size=8))
    assert [len(x) for x, _, _ in parts] == [8, 8, 4]
    images, labels, index = (torch.cat(p) for p in zip(*parts, strict=True))
    assert index.tolist() == list(range(20)) and labels.tolist() == s.labels.tolist()
    assert abs(levels(images, s) - s.arrays.transpose(0, 2, 3, 1)).max() < 1e-3


def test_chosen_ones_in_their_order():
    s = source("shapes:20", size=16)
    ((images, labels, index),) = evaluation(s, indices=[7, 3, 3])
    assert index.tolist() == [7, 3, 3] and labels.tolist() == s.labels[[7, 3, 3]].tolist() and len(images) == 3
    assert list(evaluation(s, indices=[])) == []
    with pytest.raises(ValueError, match=r"indices must be in 0\.\.19"):
        list(evaluation(s, indices=[20]))


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("size", [16, 24, 40])
def test_the_centre_resized_as_pillow_does(tmp_path, cache, size):
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(encoded(photo(40, 60, seed=i)))
    s = source(tmp_path, cache=cache)
    ((images, labels, _),) = evaluation(s, size=size)
    assert labels.tolist() == [-1] * 5
    for i in range(5):
        square = Image.fromarray(photo(40, 60, seed=i)).crop((10, 0, 50, 40))
        expected = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
        assert abs(levels(images, s)[i] - expected).max() <= 2.01


def test_unreadable_ones_are_left_out(tmp_path):
    names = fill(tmp_path, 10, (30, 30))
    (tmp_path / names[4]).write_bytes(b"nothing")
    s = source(tmp_path, cache=False, max_bad=0.2)
    index = torch.cat([i for _, _, i in evaluation(s, batch_size=3)])
    assert index.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9] and s.bad == [(names[4], "not a picture file")]
    assert list(evaluation(s, indices=[4])) == []
    with pytest.raises(ValueError, match="1 of"):
        list(evaluation(source(tmp_path, cache=False, max_bad=0.05)))


def test_centre_square():
    assert centre_square(9, 4) == (2, 0, 4, 4) and centre_square(4, 4) == (0, 0, 4, 4)
