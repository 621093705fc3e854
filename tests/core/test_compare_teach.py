import pytest
import torch

from openjepa.core.compare import centre, mse, smooth_l1, whiten_tokens
from openjepa.core.teach import ema_


def test_smooth_l1_is_quadratic_inside_beta_and_linear_outside():
    e = torch.tensor([0.2, -0.2, 4.0])
    assert smooth_l1(e, torch.zeros(3)) == pytest.approx((0.02 + 0.02 + 3.5) / 3)
    assert smooth_l1(e, torch.zeros(3), beta=4.0) == pytest.approx((0.005 + 0.005 + 2.0) / 3)


def test_comparisons_are_float32_under_half_precision():
    a = torch.full((1000,), 1.0, dtype=torch.bfloat16)
    assert mse(a, torch.zeros_like(a)).dtype == torch.float32
    assert whiten_tokens(torch.randn(3, 8).bfloat16()).dtype == torch.float32


def test_whitened_tokens_do_not_know_the_scale_of_the_teacher():
    z = torch.randn(5, 7, 16, generator=torch.Generator().manual_seed(0))
    w = whiten_tokens(z)
    assert torch.allclose(w, whiten_tokens(3 * z + 2), atol=1e-4)
    assert torch.allclose(w.mean(-1), torch.zeros(5, 7), atol=1e-5)
    assert torch.allclose(w.var(-1, unbiased=False), torch.ones(5, 7), atol=1e-3)


def test_centre_is_the_mean_over_views():
    z = torch.arange(12.0).reshape(3, 2, 2)
    assert torch.equal(centre(z), torch.tensor([[[4.0, 5.0], [6.0, 7.0]]]))


def test_ema_follows_geometrically():
    teacher, student = [torch.zeros(3), torch.zeros(2, 2)], [torch.ones(3), torch.ones(2, 2)]
    for _ in range(10):
        ema_(teacher, student, 0.9)
    for t in teacher:
        assert torch.allclose(t, torch.full_like(t, 1 - 0.9**10))


def test_ema_refuses_what_does_not_pair():
    with pytest.raises(ValueError, match="same tensors"):
        ema_([torch.zeros(3)], [torch.zeros(3), torch.zeros(1)], 0.9)
    with pytest.raises(ValueError, match="momentum must be"):
        ema_([torch.zeros(3)], [torch.zeros(3)], 1.5)
