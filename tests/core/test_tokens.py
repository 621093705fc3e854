"""Known answers and gradients of picking tokens, putting them back, and patches."""

import pytest
import torch

from openjepa.core.tokens import patchify, put, take, unpatchify


def picks(b: int, n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(b, n, generator=torch.Generator().manual_seed(seed)).argsort(1)[:, :k]


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4), (3, 2, 2, 2)])
def test_take_equals_row_by_row_indexing(shape: tuple[int, ...]) -> None:
    x, index = torch.randn(3, 7, 5), torch.randint(0, 7, shape)
    expected = torch.stack([x[b][index[b]] for b in range(3)])
    assert torch.equal(take(x, index), expected)


def test_take_equals_gather_in_value_and_gradient() -> None:
    x = torch.randn(4, 9, 6, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 9, (4, 20))  # tokens taken more than once: their gradients add up
    weight = torch.randn(4, 20, 6, dtype=torch.float64)
    ours = take(x, index)
    theirs = x.gather(1, index[..., None].expand(-1, -1, 6))
    assert torch.equal(ours, theirs)
    (a,) = torch.autograd.grad((ours * weight).sum(), x)
    (b,) = torch.autograd.grad((theirs * weight).sum(), x)
    assert torch.allclose(a, b)


def test_take_works_on_what_is_not_contiguous() -> None:
    x = torch.randn(2, 5, 3).transpose(1, 2)  # (2, 3, 5)
    index = torch.tensor([[2, 0], [1, 1]])
    assert torch.equal(take(x, index)[1, 0], x[1, 1])


def test_gradcheck() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    fill = torch.randn(3, dtype=torch.float64, requires_grad=True)
    index = picks(2, 5, 3)
    assert torch.autograd.gradcheck(lambda x: take(x, index), x)
    assert torch.autograd.gradcheck(lambda x, f: put(take(x, index), index, 5, fill=f), (x, fill))


def test_put_undoes_take_and_fills_the_rest() -> None:
    x, index = torch.randn(3, 8, 4), picks(3, 8, 5)
    back = put(take(x, index), index, 8, fill=torch.full((4,), 9.0))
    kept = torch.zeros(3, 8, dtype=torch.bool).scatter_(1, index, True)
    assert torch.equal(back[kept], x[kept])
    assert (back[~kept] == 9.0).all()
    assert (put(take(x, index), index, 8)[~kept] == 0.0).all()


def test_put_does_not_write_into_its_fill() -> None:
    fill = torch.zeros(2, 4, 3)
    put(torch.ones(2, 1, 3), torch.zeros(2, 1, dtype=torch.long), 4, fill=fill)
    assert (fill == 0).all()


@pytest.mark.parametrize(("c", "h", "w", "p"), [(3, 8, 12, 4), (1, 6, 6, 1), (2, 5, 5, 5)])
def test_patches_round_trip_in_raster_order(c: int, h: int, w: int, p: int) -> None:
    x = torch.randn(2, c, h, w)
    patches = patchify(x, p)
    assert patches.shape == (2, (h // p) * (w // p), p * p * c)
    assert torch.equal(unpatchify(patches, p, (h // p, w // p)), x)
    last = x[:, :, -p:, -p:].permute(0, 2, 3, 1).flatten(1)  # row, column, channel
    assert torch.equal(patches[:, -1], last)


def test_patches_are_what_a_strided_convolution_sees() -> None:
    x = torch.randn(2, 3, 8, 8)
    conv = torch.nn.Conv2d(3, 10, 4, stride=4, bias=False)
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)  # (10, P)
    assert torch.allclose(patchify(x, 4) @ weight.T, conv(x).flatten(2).transpose(1, 2), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: take(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.long)), r"x must have shape \(B, N, D\)"),
        (lambda: take(torch.zeros(2, 3, 4), torch.zeros(3, 1, dtype=torch.long)), "index must have shape"),
        (lambda: take(torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.long)), "index must have shape"),
        (lambda: put(torch.zeros(2, 3, 4), torch.zeros(2, 2, dtype=torch.long), 5), "index must have shape"),
        (lambda: patchify(torch.zeros(1, 3, 8, 9), 4), "multiples of patch 4"),
        (lambda: patchify(torch.zeros(3, 8, 8), 4), "images must have shape"),
        (lambda: unpatchify(torch.zeros(1, 4, 16), 4, (2, 3)), "patches must have shape"),
        (lambda: unpatchify(torch.zeros(1, 4, 15), 4, (2, 2)), "multiple of 4"),
    ],
)
def test_wrong_shapes_are_named(call, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
