"""What is special to LeJEPA."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from openjepa.core.types import Clock
from openjepa.methods import METHODS
from tests.methods.test_contract import SIZE, make, pictures, spread, step, trainable


def test_one_weight() -> None:
    assert make("lejepa", lam=0.05).weights == {"predict": 0.95, "sigreg": 0.05}


def test_prediction_is_the_centre_of_the_global_views_only() -> None:
    method = make("lejepa").eval()
    _, seen = method.losses(pictures(method), Clock(0, 10))
    assert seen["z"].shape == (4, 12, 16)
    assert torch.allclose(seen["prediction"][0], seen["z"][:2].mean(0), atol=1e-6)


def test_no_gradient_is_stopped() -> None:
    """The centre is pulled to the views as the views are to the centre: stopping it changes the gradient."""
    method = make("lejepa", lam=0.0)
    batch, clock = pictures(method), Clock(0, 10)
    w = next(method.projector.parameters())
    free = torch.autograd.grad(method.losses(batch, clock)[0]["predict"], w)[0]
    import openjepa.methods.lejepa as module

    kept = module.centre
    module.centre = lambda z: kept(z).detach()
    try:
        stopped = torch.autograd.grad(method.losses(batch, clock)[0]["predict"], w)[0]
    finally:
        module.centre = kept
    assert not torch.allclose(free, stopped, rtol=1e-3)


def test_identical_views_cost_nothing_but_spread() -> None:
    method = make("lejepa", local_views=None).eval()
    batch = pictures(method)
    same = batch._replace(views=(batch.views[0][:1].expand(2, -1, -1, -1, -1),))
    assert method.losses(same, Clock(0, 10))[0]["predict"] < 1e-10


@pytest.mark.parametrize("encoder", ["resnet18", "convnext_atto", "convnet_tiny"])
def test_runs_on_convolutions(encoder: str) -> None:
    method = make("lejepa", encoder=encoder, local_views=None)
    assert torch.isfinite(method.losses(pictures(method), Clock(0, 10))[0]["predict"])


def test_runs_on_any_module_of_the_user() -> None:
    cls = METHODS["lejepa"]
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 24))
    method = cls(cls.Config(local_views=None, projector_hidden=32, projector_out=8, slices=16), size=SIZE, encoder=net)
    assert method.encode(torch.randn(5, 3, SIZE, SIZE)).shape == (5, 1, 24)
    assert torch.isfinite(method.losses(pictures(method), Clock(0, 10))[0]["sigreg"])


@pytest.mark.parametrize(("lam", "collapses"), [(0.0, True), (0.1, False)])
def test_sigreg_is_what_prevents_collapse(lam: float, collapses: bool) -> None:
    """BatchNorm inside the projector alone does not: the encoder is free to give every picture the same answer."""
    method = make("lejepa", lam=lam, projector_layers=1)
    opt = torch.optim.AdamW(trainable(method), lr=3e-3, weight_decay=0.0)
    before = spread(method)
    for i in range(150):
        step(method, opt, pictures(method, seed=i), Clock(i, 150))
    assert (spread(method) < 0.25 * before) == collapses
