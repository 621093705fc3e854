"""Boxes have the stated distribution; both ways of cropping equal Pillow."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from openjepa.data.crop import BOX_DRAWS, _matrices, crop, crop_batch, filter_matrix, sample_boxes

from .conftest import photo


def pillow(pixels: torch.Tensor, box, size: int, filter: str) -> np.ndarray:
    """Crop, then horizontal and vertical resize, each by Pillow itself.

    In one call Pillow makes the same two passes, except that version 13 begins with the vertical one when the height
    shrinks much more; on noise the clipping in between then differs. Two calls fix the order for every version.
    """
    top, left, h, w = box
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).crop((left, top, left + w, top + h))
    kind = getattr(Image.Resampling, filter.upper())
    return np.asarray(image.resize((size, h), kind).resize((size, size), kind)).astype(int)


def rounded(x: torch.Tensor) -> np.ndarray:
    return (x + 0.5).floor().permute(0, 2, 3, 1).numpy().astype(int)


def boxes(count: int, height: int, width: int, seed: int, scale=(0.05, 1.0), ratio=(0.5, 2.0)) -> torch.Tensor:
    u = torch.rand(count, BOX_DRAWS, generator=torch.Generator().manual_seed(seed))
    return sample_boxes(u, height, width, scale, ratio)


@pytest.mark.parametrize("filter", ["bicubic", "bilinear"])
@pytest.mark.parametrize("side", [28, 57, 120])
def test_both_ways_equal_pillow_on_pictures(side, filter):
    stack = torch.stack([torch.from_numpy(photo(side, side + 5, seed=i)) for i in range(12)]).permute(0, 3, 1, 2)
    off: list[float] = []
    for size in (16, 24, 32, 96):
        some = boxes(12, side, side + 5, seed=size)
        ours = rounded(crop_batch(stack, some, size, filter))
        for i, box in enumerate(some.tolist()):
            expected = pillow(stack[i], box, size, filter)
            assert abs(ours[i] - expected).max() <= 1
            one = crop(stack[i].contiguous(), box, size, filter).permute(1, 2, 0).numpy().astype(int)
            off += [(abs(one - expected) > 1).mean()]
            assert abs(one - expected).max() <= 2
    assert np.mean(off) < 1e-4


@pytest.mark.parametrize("filter", ["bicubic", "bilinear"])
def test_both_ways_equal_pillow_on_white_noise(filter):
    """The hardest input there is: the batch stays exact to a level, the uint8 kernel (16-bit weights) to two."""
    worst, off = 0, 0.0
    stack = torch.randint(0, 256, (40, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for size in (16, 32, 48):
        some = boxes(40, 40, 40, seed=size)
        ours = rounded(crop_batch(stack, some, size, filter))
        for i, box in enumerate(some.tolist()):
            expected = pillow(stack[i], box, size, filter)
            assert abs(ours[i] - expected).max() <= 2
            off += (abs(ours[i] - expected) > 1).mean()
            one = crop(stack[i], box, size, filter).permute(1, 2, 0).numpy().astype(int)
            worst = max(worst, abs(one - expected).max())
    assert worst <= 2 and off / 120 < 1e-4


def test_wide_boxes_equal_pillows_own_single_call():
    stack = torch.stack([torch.from_numpy(photo(64, 64, seed=i)) for i in range(8)]).permute(0, 3, 1, 2)
    some = boxes(8, 64, 64, seed=3, ratio=(1.0, 2.0))
    ours = rounded(crop_batch(stack, some, 32))
    for i, (top, left, h, w) in enumerate(some.tolist()):
        image = Image.fromarray(stack[i].permute(1, 2, 0).numpy()).crop((left, top, left + w, top + h))
        assert abs(ours[i] - np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)).astype(int)).max() <= 1


def test_flip_is_the_mirrored_crop():
    stack = torch.rand(6, 3, 30, 30) * 255
    some = boxes(6, 30, 30, seed=0)
    flip = torch.tensor([True, False] * 3)
    plain, mirrored = crop_batch(stack, some, 16), crop_batch(stack, some, 16, flip=flip)
    assert torch.equal(mirrored[1::2], plain[1::2])
    # rounding between the passes is the same, so the mirror is exact up to float error
    assert torch.allclose(mirrored[::2], plain[::2].flip(3), atol=1e-3)


def test_identity_and_grey():
    stack = torch.randint(0, 256, (2, 1, 9, 9)).float()
    assert torch.equal(crop_batch(stack, torch.tensor([[0, 0, 9, 9]] * 2), 9), stack)
    byte = stack[0].to(torch.uint8)
    assert torch.equal(crop(byte, (0, 0, 9, 9), 9), byte)
    assert crop(byte, (1, 2, 5, 4), (3, 6)).shape == (1, 3, 6)


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 40), st.integers(1, 40), st.data(), st.sampled_from(["bicubic", "bilinear"]))
def test_rows_sum_to_one_and_stay_in_the_box(extent, size, data, filter):
    length = data.draw(st.integers(1, extent))
    start = data.draw(st.integers(0, extent - length))
    arguments = (torch.tensor([start]), torch.tensor([length]), size, extent, filter)
    matrix = filter_matrix(*arguments)
    assert torch.allclose(matrix.sum(2), torch.ones(1, size), atol=1e-5)
    assert (matrix[:, :, :start] == 0).all() and (matrix[:, :, start + length :] == 0).all()
    assert torch.equal(matrix, _matrices(*arguments, None))  # looked up or computed: the same


def test_box_area_and_aspect_have_the_stated_distribution():
    some = boxes(20_000, 400, 400, seed=0, scale=(0.2, 0.6), ratio=(3 / 4, 4 / 3)).double()
    share, aspect = some[:, 2] * some[:, 3] / 400**2, some[:, 3] / some[:, 2]
    assert abs(share.mean() - 0.4) < 0.003 and share.min() > 0.195 and share.max() < 0.605
    assert abs(share.var() - 0.4**2 / 12) < 0.0005
    assert abs(aspect.log().mean()) < 0.003 and abs(aspect.log().std() - 2 * np.log(4 / 3) / 12**0.5) < 0.003
    room = 400 - some[:, 2]
    assert abs((some[:, 0] / room.clamp_min(1)).mean() - 0.5) < 0.01


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_boxes_fit(height, width, seed):
    some = boxes(64, height, width, seed)
    top, left, h, w = some.unbind(1)
    assert (h >= 1).all() and (w >= 1).all() and (top >= 0).all() and (left >= 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()


def test_when_no_draw_fits_the_central_box_is_taken():
    some = boxes(5, 10, 100, seed=0, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert some.tolist() == [[0, 45, 10, 10]] * 5


def test_sizes_may_differ_by_row():
    u = torch.rand(3, BOX_DRAWS)
    joined = sample_boxes(u, torch.tensor([10, 20, 30]), torch.tensor([30, 20, 10]), (0.2, 1), (0.5, 2))
    single = [
        sample_boxes(u[i : i + 1], h, w, (0.2, 1), (0.5, 2)) for i, (h, w) in enumerate([(10, 30), (20, 20), (30, 10)])
    ]
    assert torch.equal(joined, torch.cat(single))
