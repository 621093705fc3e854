"""Positions: values computed by hand, and the property that makes rotary positions relative."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from openjepa.nn.position import resize, rotate, rotation, sincos


def test_sincos_by_hand():
    table = sincos(8, (3, 4))
    row, column = 2, 1
    f = [1.0, 10000.0**-0.5]
    want = [math.sin(column * f[0]), math.sin(column * f[1]), math.cos(column * f[0]), math.cos(column * f[1])]
    want += [math.sin(row * f[0]), math.sin(row * f[1]), math.cos(row * f[0]), math.cos(row * f[1])]
    assert table.dtype == torch.float32
    torch.testing.assert_close(table[row * 4 + column], torch.tensor(want), atol=1e-7, rtol=0)


def test_sincos_is_rounded_once():
    """Every entry is the float32 nearest to the exact value, at positions where float32 arithmetic is already off."""
    dim, side = 64, 48
    p = np.arange(side, dtype=np.float64)[:, None] * 10000.0 ** -(np.arange(dim // 4) / (dim / 4))
    half = np.concatenate([np.sin(p), np.cos(p)], 1).astype(np.float32)
    table = sincos(dim, (side, side)).view(side, side, dim).numpy()
    np.testing.assert_allclose(table[:, :, : dim // 2], np.broadcast_to(half[None], (side, side, dim // 2)), atol=6e-8)
    np.testing.assert_allclose(
        table[:, :, dim // 2 :], np.broadcast_to(half[:, None], (side, side, dim // 2)), atol=6e-8
    )


def test_resize_keeps_a_linear_ramp():
    """A table that is the column's place in the picture stays so on a finer grid, to a twentieth of a cell."""
    place = (torch.arange(8.0) + 0.5) / 8
    table = place.expand(8, 8).reshape(1, 64, 1)
    fine = resize(table, (8, 8), (16, 16)).view(16, 16)
    torch.testing.assert_close(fine[5, 3:13], ((torch.arange(16.0) + 0.5) / 16)[3:13], atol=0.05 / 8, rtol=0)
    assert resize(table, (8, 8), (8, 8)) is table


def attend(q: torch.Tensor, k: torch.Tensor, turn) -> torch.Tensor:
    return rotate(q, turn) @ rotate(k, turn).transpose(-1, -2)  # (B, heads, N, N)


def test_rotation_depends_on_the_shift_only():
    """With the same q and k everywhere, q.k of two patches is a function of their difference in row and column."""
    grid, d = (5, 6), 16
    turn = rotation(d, grid, grid)
    q = torch.randn(1, 2, 1, d).expand(1, 2, 30, d)
    k = torch.randn(1, 2, 1, d).expand(1, 2, 30, d)
    score = attend(q, k, turn).view(2, 5, 6, 5, 6)
    for dr, dc in [(1, 0), (0, 2), (2, -1)]:
        values = torch.stack(
            [score[:, r, c, r + dr, c + dc] for r in range(5 - dr) for c in range(max(0, -dc), 6 - max(0, dc))]
        )
        assert (values - values[0]).abs().max() < 1e-4
    assert (score[:, 0, 0, 1, 0] - score[:, 0, 0, 0, 1]).abs().max() > 1e-3  # rows and columns are told apart
    assert (score[:, 0, 0, 0, 2] - score[:, 0, 0, 0, 1]).abs().max() > 1e-3


def test_rotation_keeps_lengths_and_leaves_the_prefix():
    turn = rotation(8, (2, 3), (2, 3))
    x = torch.randn(2, 3, 2 + 6, 8)
    y = rotate(x, turn)
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(y[:, :, :2], x[:, :, :2]) and not torch.equal(y[:, :, 3:], x[:, :, 3:])


def test_rotation_stretches_to_the_native_picture():
    """Cell centres of a grid twice as fine: the mean angle of a 2 x 2 group is that of the native cell."""
    d = 8
    fine = torch.stack(rotation(d, (4, 4), (2, 2)))
    again = torch.stack(rotation(d, (4, 4), (4, 4)))
    coarse = torch.stack(rotation(d, (2, 2), (2, 2)))
    angle = torch.atan2(fine[1], fine[0]).view(2, 2, 2, 2, -1).mean((1, 3)).reshape(4, -1)
    torch.testing.assert_close(angle, torch.atan2(coarse[1], coarse[0]), atol=1e-6, rtol=0)
    assert not torch.allclose(fine, again)


def test_rotation_stays_float32():
    cos, sin = rotation(8, (2, 2), (2, 2))
    assert cos.dtype == sin.dtype == torch.float32
    x = torch.randn(1, 1, 4, 8)
    y = rotate(x.bfloat16(), (cos, sin))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), rotate(x.bfloat16().float(), (cos, sin)), atol=0.02, rtol=0.01)


@pytest.mark.parametrize("make", [lambda: sincos(6, (2, 2)), lambda: rotation(6, (2, 2), (2, 2))])
def test_widths_that_do_not_divide(make):
    with pytest.raises(ValueError, match="multiple of 4"):
        make()
