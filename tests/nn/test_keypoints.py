"""The encoder whose tokens are places: it finds them, they move as the picture moves, and gradients reach them."""

from __future__ import annotations

import pytest
import torch

from openjepa.nn import EncoderConfig, build_encoder
from openjepa.nn.keypoints import SoftArgmax
from openjepa.nn.vector import VectorHead


def blob(x: float, y: float, side: int = 17) -> torch.Tensor:
    """The logarithm of a Gaussian bump (1, 1, side, side) at cell (x, y), whose softmax has its mean there."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (-((columns - x) ** 2 + (rows - y) ** 2) / 2.0)[None, None]


@pytest.mark.parametrize(("x", "y"), [(8.0, 8.0), (5.0, 10.0), (6.3, 9.8)])
def test_a_bump_is_found_between_cells_too(x: float, y: float) -> None:
    found = SoftArgmax(1)(blob(x, y)).flatten()
    assert torch.allclose(found, torch.tensor([x - 8, y - 8]) / 4, atol=2e-3)  # 16 cells are 4 units


def test_a_larger_scale_is_nearer_to_the_maximum() -> None:
    net, maps = SoftArgmax(1), torch.zeros(1, 1, 5, 7)
    maps[..., 0, 6] = 3.0  # the corner at the top right: (2, -2)
    soft = net(maps)
    torch.nn.init.constant_(net.scale, 10.0)
    assert soft[0, 0] < 1.5 and torch.allclose(net(maps).flatten(), torch.tensor([2.0, -2.0]), atol=1e-3)


@pytest.mark.parametrize(("size", "side"), [(65, 17), (33, 17), (12, 12)])
def test_places_are_tokens_of_two_numbers(size: int, side: int) -> None:
    encoder = build_encoder(EncoderConfig(name="keypoints", heads=5, width=8), size=size, channels=2)
    x = torch.randn(3, 2, size, size)
    places = encoder(x)
    assert places.shape == (3, 5, 2) and (encoder.dim, encoder.grid, encoder.prefix) == (2, (1, 5), 0)
    assert places.abs().max() <= 2
    assert VectorHead(encoder, dim=None)(places).shape == (3, 10)
    maps, last = encoder.layers(x, [0, -1])
    assert maps.shape == (3, side * side, 8) and torch.equal(last, places)
    places.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_places_move_as_the_picture_moves() -> None:
    """A dot far from the border moved by one cell: what changes is the share that the dot has in each mean, no more."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(name="keypoints"), size=65, channels=1)
    with torch.no_grad():
        encoder.blocks[-1][1].scale.fill_(200.0)  # maps that follow the dot, or a border, and nothing between
        dots = torch.zeros(3, 1, 65, 65)
        for i, (x, y) in enumerate(((28, 28), (32, 28), (28, 32))):
            dots[i, 0, y - 2 : y + 3, x - 2 : x + 3] = 4.0
        here, right, down = encoder(dots)
    follow = ((right - here)[:, 0] - 0.25).abs() < 1e-3
    assert follow.sum() >= 3, "some maps must have their maximum at the dot"
    assert torch.allclose((down - here)[follow], torch.tensor([0.0, 0.25]), atol=1e-3)
    assert torch.allclose((right - here)[follow], torch.tensor([0.25, 0.0]), atol=1e-3)


def test_a_peak_of_tens_is_tamed_before_anything_is_made_of_it() -> None:
    """Standardised, a dot on nothing stands at 28 where a wall stands at 3; tamed, at 4 and 1.8."""
    encoder = build_encoder(EncoderConfig(name="keypoints"), size=33, channels=2)
    x = torch.full((2, 2, 33, 33), -0.1)
    x[0, 0, 7, 9], x[1, 1, :, 16] = 28.0, 3.0
    assert torch.equal(encoder.stem(x), encoder.stem[1:](x.asinh()))
    assert encoder.stem[0](x).max() < 4.1


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(ValueError, match="patch must be left"):
        build_encoder(EncoderConfig(name="keypoints", patch=4), size=65)
