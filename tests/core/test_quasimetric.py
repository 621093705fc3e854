"""Quasimetrics: the axioms, an exact embedding of a one-way street, and the two terms that shape one."""

from __future__ import annotations

import torch

from openjepa.core.quasimetric import nearness, overrun, quasimetric


def test_axioms_hold_for_any_embedding():
    a, b, c = torch.randn(3, 200, 4, 8, dtype=torch.float64)
    assert (quasimetric(a, a) == 0).all()
    assert (quasimetric(a, b) >= 0).all()
    assert (quasimetric(a, c) <= quasimetric(a, b) + quasimetric(b, c) + 1e-12).all()
    assert not torch.allclose(quasimetric(a, b), quasimetric(b, a))


def test_distances_from_landmarks_embed_a_ring_of_one_way_streets_exactly():
    n = 7
    steps = (torch.arange(n)[None] - torch.arange(n)[:, None]) % n  # i -> j, one way round
    # Feature l of place i is minus the distance from i to l: then max over l of f_l(j) - f_l(i) is d(i, j).
    f = -steps.double()[:, None]  # (n, 1 group, n)
    assert torch.equal(quasimetric(f[:, None], f[None]), steps.double())


def test_terms_by_hand():
    d = torch.tensor([0.5, 1.0, 3.0])
    assert overrun(d).item() == torch.tensor([0.0, 0.0, 4.0]).mean().item()
    wanted = (torch.log1p(torch.exp(0.1 * (60 - d))) / 0.1).mean()
    assert torch.allclose(nearness(d, 60.0), wanted)
    far = torch.tensor([10.0, 500.0], requires_grad=True)
    nearness(far, 60.0).backward()
    assert far.grad is not None
    assert far.grad[0] < -0.4 and far.grad[1].abs() < 1e-6  # pushed while near, left alone beyond the offset
