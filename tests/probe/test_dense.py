"""Dense probes: mIoU and RMSE with known answers, intervals, ignored pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from openjepa.probe.dense import DenseHead, depth, iou, segment

GRID = (4, 4)
QUICK = {"grid": GRID, "epochs": 30, "batch_size": 20, "lr": 2e-2}


def toy(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens whose first three numbers say the class of their patch, among noise; masks of 8 x 8 pixels."""
    g = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, 3, (n, 4, 4), generator=g)
    tokens = torch.cat([
        torch.nn.functional.one_hot(cells.flatten(1), 3).float(), torch.randn(n, 16, 5, generator=g)
    ], -1)  # fmt: skip
    return tokens, cells.repeat_interleave(2, 1).repeat_interleave(2, 2)


def test_iou_by_hand():
    assert iou(torch.tensor([[3.0, 1.0], [0.0, 4.0]])).tolist() == [0.75, pytest.approx(0.8)]
    assert iou(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))[1].isnan()


@pytest.mark.parametrize("head", ["linear", "small"])
def test_segmentation_finds_what_is_there(head: str):
    (a, x), (b, y) = toy(60, 0), toy(40, 1)
    found = segment(a, x, b, y, head=head, **QUICK)  # type: ignore[arg-type]
    # bilinear enlargement rounds corners of single patches: not 1, but far from the 0.2 of chance
    assert found.value > 0.8 and found.interval.low <= found.value <= found.interval.high
    assert set(found.parts) == {"0", "1", "2"} and found.rows()[0]["n"] == 40


def test_segmentation_of_noise_is_at_chance():
    (a, x), (b, y) = toy(60, 0), toy(40, 1)
    assert segment(a[..., 3:], x, b[..., 3:], y, **QUICK).value < 0.3


def test_a_wider_view_helps_where_the_answer_lies_next_door():
    (a, x), (b, y) = toy(80, 0), toy(40, 1)
    x, y = x.roll(2, 2), y.roll(2, 2)  # the class of the patch to the left
    linear, small = (segment(a, x, b, y, head=h, **QUICK).value for h in ("linear", "small"))  # type: ignore[arg-type]
    assert small > linear + 0.2


def test_ignored_pixels_do_not_count():
    (a, x), (b, y) = toy(40, 0), toy(20, 1)
    y = y.clone()
    y[:, :, 4:] = 255
    kept = segment(a, x, b, y, **QUICK)
    wrong = y.clone()
    wrong[:, :, 4:] = 0
    assert kept.value > 0.8 > segment(a, x, b, wrong, **QUICK).value


def test_depth_in_its_own_units():
    (a, _), (b, _) = toy(40, 0), toy(20, 1)
    maps = [(100 + 10 * z[..., 3]).view(-1, 4, 4) for z in (a, b)]
    quick = {**QUICK, "epochs": 120}
    found = depth(a, maps[0], b, maps[1], **quick)
    assert found.value < 2 and found.parts["rmse of the mean map"] == pytest.approx(10, rel=0.2)
    assert found.parts["delta 1.25"] == 1.0
    maps[1][:, 0] = torch.nan  # unknown pixels change nothing but the count
    assert depth(a, maps[0], b, maps[1], **quick).value < 2


def test_same_seed_same_number_and_errors_say_what_to_do():
    (a, x), (b, y) = toy(20, 0), toy(10, 1)
    quick = {**QUICK, "epochs": 2}
    assert segment(a, x, b, y, **quick).value == segment(a, x, b, y, **quick).value
    with pytest.raises(ValueError, match="two classes"):
        segment(a, x * 0, b, y * 0, **quick)
    with pytest.raises(ValueError, match="tokens must be"):
        segment(a[:5], x, b, y, **quick)
    with pytest.raises(ValueError, match="head must be"):
        DenseHead(4, 2, GRID, "large")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="for a grid"):
        DenseHead(4, 2, GRID)(torch.zeros(2, 5, 4), (8, 8))
