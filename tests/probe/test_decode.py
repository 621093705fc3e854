"""A decoder finds the picture when z holds it, and nothing when z holds nothing."""

from __future__ import annotations

import pytest
import torch

from openjepa.nn.decoder import PixelDecoder
from openjepa.probe.decode import fit_decoder
from tests.methods.toy_windows import dot


def test_the_dot_is_drawn_from_its_place_and_not_from_noise() -> None:
    batch = dot(400, 2, size=10)
    pictures, place = batch.obs[:, 0], batch.state[:, 0]
    known = fit_decoder(place, pictures, steps=150, width=16)
    blind = fit_decoder(torch.randn(400, 2), pictures, steps=150, width=16)
    assert known.r2 > 0.5 and blind.r2 < 0.1, (known.r2, blind.r2)
    new = dot(50, 2, seed=5, size=10)
    assert (known.decoder(new.state[:, 0]) - new.obs[:, 0]).square().mean() < 0.5 * new.obs[:, 0].var()


def test_nothing_reaches_the_model_and_the_seed_decides() -> None:
    z = torch.randn(60, 3, 4, requires_grad=True)
    pictures = torch.randn(60, 2, 9, 12)
    before = torch.get_rng_state()
    a, b = (fit_decoder(z, pictures, steps=5) for _ in range(2))
    assert z.grad is None and a.r2 == b.r2 and torch.equal(torch.get_rng_state(), before)
    assert a.decoder(z).shape == (60, 2, 9, 12) and not any(p.requires_grad for p in a.decoder.parameters())
    with pytest.raises(ValueError, match="N rows each"):
        fit_decoder(z, pictures[:10])


@pytest.mark.parametrize("obs", [(1, 8, 8), (2, 65, 65), (3, 30, 64), (3, 224, 224)])
def test_sizes(obs: tuple[int, int, int]) -> None:
    assert PixelDecoder((16,), obs, width=16)(torch.zeros(2, 16)).shape == (2, *obs)
    assert PixelDecoder((4, 16), obs, width=16)(torch.zeros(2, 4, 16)).shape == (2, *obs)
