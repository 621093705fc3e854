import math

import pytest
import torch

from openjepa.core.epps_pulley import _sizes, epps_pulley, knots_and_weights
from openjepa.core.spread import (
    NORMALITY,
    SIGREG_SCALES,
    covariance,
    random_directions,
    sigreg,
    sigreg_floor,
    sigreg_weight,
    variance,
)

TESTS = ["epps_pulley", *NORMALITY]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def direct(z, unit, knots=17, limit=3.0):
    """Epps-Pulley as the paper writes it, with the N x K x T tensor. The oracle."""
    t = torch.linspace(0, limit, knots, dtype=z.dtype)
    dt = limit / (knots - 1)
    w = torch.tensor([dt, *[2 * dt] * (knots - 2), dt], dtype=z.dtype)
    phi = torch.exp(-t * t / 2)
    angle = (z @ unit.T).unsqueeze(-1) * t
    error = (angle.cos().mean(-3) - phi) ** 2 + angle.sin().mean(-3) ** 2
    return (error * w * phi).sum(-1).mean() * z.shape[-2]


# --- the fast form is the direct formula ---


@pytest.mark.parametrize("knots", [2, 3, 4, 5, 8, 9, 10, 13, 17, 18, 24, 40])
@pytest.mark.parametrize("shape", [(33, 5), (3, 64, 4)])
def test_value_and_gradient_equal_the_direct_formula(knots, shape):
    z = (torch.randn(shape, generator=rng(), dtype=torch.float64) * 1.7 + 0.3).requires_grad_()
    unit = random_directions(21, shape[-1], rng(1)).double()
    value, want = sigreg(z, directions=unit, knots=knots, limit=2.5), direct(z, unit, knots, 2.5)
    assert value.item() == pytest.approx(want.item(), rel=1e-12)
    (grad,), (want_grad,) = torch.autograd.grad(3 * value, z), torch.autograd.grad(3 * want, z)
    torch.testing.assert_close(grad, want_grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 5.0, 100.0])
def test_float32_is_as_exact_as_the_direct_formula_in_float32(scale):
    z = (torch.randn(2048, 32, generator=rng()) * scale).requires_grad_()
    unit = random_directions(96, 32, rng(1))
    true = z.detach().double().requires_grad_()
    want = direct(true, unit.double())
    (want_grad,) = torch.autograd.grad(want, true)
    value = sigreg(z, directions=unit)
    (grad,) = torch.autograd.grad(value, z)
    assert value.item() == pytest.approx(want.item(), rel=2e-6)
    largest = want_grad.abs().max()
    tolerance = 1e-5 if scale < 100 else 1e-3  # t x to 300: float32 angles themselves are off by 1e-5
    assert (grad - want_grad).abs().max() <= tolerance * largest + 1e-9


@pytest.mark.parametrize("shape", [(2, 7), (3, 1), (5, 4099, 3), (1, 40000, 2), (64, 8, 4)])
def test_every_shape_of_blocks_gives_the_same_number(shape):
    """One sample past a block, more samples than a block holds, prime counts, many small views."""
    z = torch.randn(shape, generator=rng(), dtype=torch.float64)
    unit = random_directions(37, shape[-1], rng(1)).double()
    want = torch.stack([direct(v, unit) for v in z.view(-1, *shape[-2:])]).mean()
    assert sigreg(z, directions=unit).item() == pytest.approx(want.item(), rel=1e-12)


def test_many_directions_are_done_in_chunks():
    z, unit = torch.randn(1, 4096, 3, generator=rng(), dtype=torch.float64), random_directions(600, 3, rng(1)).double()
    assert _sizes(1, 4096, 600, z.device)[0] < 600
    z.requires_grad_()
    value, grad = epps_pulley(z, unit, 17, 3.0, True)
    parts = [epps_pulley(z, u, 17, 3.0, True) for u in unit.split(200)]
    assert value.item() == pytest.approx(sum(p[0].item() for p in parts) / 3, rel=1e-12)
    torch.testing.assert_close(grad, sum(p[1] for p in parts) / 3)


def test_threads_share_the_directions_and_leave_the_setting_alone():
    z = torch.randn(2, 1024, 4, generator=rng(), dtype=torch.float64, requires_grad=True)
    unit = random_directions(301, 4, rng(1)).double()
    before, found = torch.get_num_threads(), {}
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            value = sigreg(z, directions=unit)
            found[threads] = (value.detach(), torch.autograd.grad(value, z)[0])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[2], found[1])
    torch.testing.assert_close(found[3], found[1])


@pytest.mark.parametrize("test", TESTS)
def test_gradcheck(test):
    z = torch.randn(2, 9, 3, generator=rng(), dtype=torch.float64, requires_grad=True)
    unit = random_directions(5, 3, rng(1)).double()
    assert torch.autograd.gradcheck(lambda z: sigreg(z, directions=unit, test=test), z)


def test_the_operator_keeps_the_rules_of_torch():
    z, unit = torch.randn(2, 8, 3, generator=rng(), requires_grad=True), random_directions(5, 3, rng(1))
    for learn in (True, False):
        torch.library.opcheck(
            epps_pulley,
            (z if learn else z.detach(), unit, 17, 3.0, learn),
            test_utils=("test_schema", "test_faketensor"),
        )


# --- scale laws ---


@pytest.mark.parametrize(("std", "per_sample"), [(0.0, 0.402), (0.5, 0.151), (0.8, 0.022), (2.0, 0.236)])
def test_wrong_scale_costs_in_proportion_to_samples(std, per_sample):
    t, weights, phi = knots_and_weights(17, 3.0)
    assert (weights * (torch.exp(-((std * t) ** 2) / 2) - phi).square()).sum() == pytest.approx(per_sample, abs=5e-4)
    for n in (4096, 16384):
        z = torch.randn(n, 8, generator=rng()) * std
        found = sigreg(z, directions=32, generator=rng(1)).item() / n
        assert found == pytest.approx(per_sample, rel=0.03, abs=1e-3)  # what a sample of this size allows


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("n", [32, 500])
def test_null_floor_by_monte_carlo(test, n):
    """Independent one-dimensional standard normal samples: the mean statistic is the floor, for any N."""
    z = torch.randn(400, n, 4, generator=rng(), dtype=torch.float64)
    values = torch.stack([sigreg(v, directions=torch.eye(4), test=test) for v in z])
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - sigreg_floor(test)) < 4 * error
    assert 4 * error < 0.25 * sigreg_floor(test)


def test_floor_of_epps_pulley_follows_its_grid():
    assert sigreg_floor() == pytest.approx(1.0525, abs=5e-5)
    # The integral of exp(-t^2/2) (1 - exp(-t^2)) over the line is sqrt(2 pi) (1 - 1/sqrt 3).
    assert sigreg_floor(knots=401, limit=9.0) == pytest.approx(
        math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3)), rel=1e-6
    )
    t, weights, phi = knots_and_weights(17, 3.0)
    assert (weights / phi).sum() == pytest.approx(6.0) and t[1] == 3 / 16


def test_total_collapse_has_no_gradient_and_a_large_value():
    z = torch.zeros(256, 8, requires_grad=True)
    value = sigreg(z, directions=64, generator=rng())
    value.backward()
    assert value.item() == pytest.approx(0.402 * 256, rel=2e-3)
    assert z.grad.abs().max() < 1e-6


def test_descent_turns_a_bad_cloud_into_a_gaussian_one():
    """Skewed, squeezed, off-centre and correlated samples end below the floor with unit covariance."""
    g = rng()
    mix = torch.randn(4, 4, generator=g)
    z = (torch.rand(256, 4, generator=g).square() @ mix).requires_grad_()
    optimiser = torch.optim.Adam([z], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        sigreg(z, directions=64, generator=g).backward()
        optimiser.step()
    assert sigreg(z.detach(), directions=512, generator=g) < sigreg_floor()
    assert torch.allclose(z.detach().T.cov(), torch.eye(4), atol=0.15)


def test_a_far_sample_is_not_pulled_back_by_epps_pulley_but_by_anderson_darling():
    """Its gradient is bounded, the price being that a far sample moves on unseen: watch the spread too."""
    x = torch.cat([torch.randn(255, 1, generator=rng()), torch.tensor([[40.0]])]).requires_grad_()
    pull = {t: torch.autograd.grad(sigreg(x, directions=torch.ones(1, 1), test=t), x)[0].flatten() for t in TESTS}
    assert pull["epps_pulley"][-1].abs() < pull["epps_pulley"][:-1].abs().max()
    assert pull["cramer_von_mises"][-1].abs() < 1e-6
    assert pull["anderson_darling"][-1].item() == pytest.approx(40 / 256, rel=0.01)


@pytest.mark.parametrize("test", TESTS)
def test_every_test_sees_every_kind_of_deviation(test):
    g, floor = rng(), sigreg_floor(test)
    gauss = torch.randn(2000, 1, generator=g)
    wrong = {
        "shifted": gauss + 0.5,
        "narrow": 0.6 * gauss,
        "wide": 1.6 * gauss,
        "skewed": (torch.randn(2000, 1, generator=g).square() - 1) / math.sqrt(2),
        "two lumps": torch.randn(2000, 1, generator=g).sign() * 0.95 + 0.3 * gauss,
        "flat": (torch.rand(2000, 1, generator=g) - 0.5) * math.sqrt(12),
    }
    for name, z in wrong.items():
        assert sigreg(z, directions=torch.ones(1, 1), test=test) > 4 * floor, name


def test_anderson_darling_equals_its_textbook_form_and_survives_far_samples():
    x = torch.randn(50, 1, generator=rng(), dtype=torch.float64)
    f = torch.distributions.Normal(0, 1).cdf(x.sort(0).values).squeeze()
    i = torch.arange(1, 51)
    want = -50 - ((2 * i - 1) * (f.log() + (1 - f.flip(0)).log())).mean()
    assert sigreg(x, directions=torch.ones(1, 1), test="anderson_darling").item() == pytest.approx(
        want.item(), rel=1e-9
    )
    far = torch.tensor([[-1e3], [0.0], [50.0], [1e4]], requires_grad=True)
    for test in TESTS:
        value = sigreg(far, directions=torch.ones(1, 1), test=test)
        (grad,) = torch.autograd.grad(value, far)
        assert value.isfinite() and grad.isfinite().all(), test


# --- numerics around it ---


def test_float32_under_autocast_and_for_half_precision_input():
    z = torch.randn(512, 16, generator=rng())
    unit = random_directions(32, 16, rng(1))
    for test in TESTS:
        want = sigreg(z, directions=unit, test=test)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(sigreg(z, directions=unit, test=test), want)
    half = z.bfloat16().requires_grad_()
    value = sigreg(half, directions=unit)
    value.backward()
    assert value.dtype == torch.float32 and half.grad.dtype == torch.bfloat16
    assert value.item() == pytest.approx(sigreg(half.detach().float(), directions=unit).item())


def test_compiled_without_a_graph_break():
    unit = random_directions(16, 8, rng(1))
    z = torch.randn(2, 32, 8, generator=rng(), requires_grad=True)

    def loss(z):
        return 0.1 * sigreg(z * 2, directions=unit) + z.square().mean()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    (want,) = torch.autograd.grad(loss(z), z)
    (grad,) = torch.autograd.grad(compiled(z), z)
    torch.testing.assert_close(compiled(z), loss(z))
    torch.testing.assert_close(grad, want)
    with torch.no_grad():
        torch.testing.assert_close(compiled(z), loss(z))


def test_input_that_is_not_contiguous():
    z = torch.randn(8, 2, 64, generator=rng(), dtype=torch.float64).permute(1, 2, 0).requires_grad_()
    unit = random_directions(5, 8, rng(1)).double()
    (grad,) = torch.autograd.grad(sigreg(z, directions=unit), z)
    (want,) = torch.autograd.grad(torch.stack([direct(v, unit) for v in z]).mean(), z)
    torch.testing.assert_close(grad, want)


def test_no_gradient_is_computed_when_none_is_wanted():
    z, unit = torch.randn(1, 64, 4, generator=rng()), random_directions(5, 4, rng(1))
    assert epps_pulley(z, unit, 17, 3.0, False)[1].numel() == 0
    assert not sigreg(z, directions=unit).requires_grad


def test_directions_are_unit_and_repeatable():
    u = random_directions(500, 24, rng(3))
    assert torch.equal(u, random_directions(500, 24, rng(3))) and u.dtype == torch.float32
    torch.testing.assert_close(u.norm(dim=1), torch.ones(500))
    assert u.mean(0).abs().max() < 5 * (1 / 24 / 500) ** 0.5
    z = torch.randn(64, 24, generator=rng())
    assert torch.equal(sigreg(z, directions=500, generator=rng(3)), sigreg(z, directions=u))


def test_errors_say_what_to_do():
    z = torch.randn(8, 3, generator=rng())
    with pytest.raises(ValueError, match="generator must be given"):
        sigreg(z)
    with pytest.raises(ValueError, match="test must be one of epps_pulley, cramer"):
        sigreg(z, directions=torch.eye(3), test="kolmogorov")
    with pytest.raises(ValueError, match=r"directions must be \(K, 3\)"):
        sigreg(z, directions=torch.eye(4))
    with pytest.raises(ValueError, match="at least two samples"):
        sigreg(z[:1], directions=torch.eye(3))
    with pytest.raises(ValueError, match="knots must be at least 2"):
        sigreg_floor(knots=1)
    with pytest.raises(ValueError, match="at least 1"):
        random_directions(0, 3, rng())


# --- weights used elsewhere ---


def test_weights_translate_between_code_bases():
    assert sigreg_weight(10, source="eb_jepa", samples=256) == pytest.approx(0.039, abs=1e-4)
    assert sigreg_weight(0.09, source="lewm", target="eb_jepa", samples=128) == pytest.approx(11.52)
    assert sigreg_weight(0.02, source="lejepa", samples=256) == pytest.approx(0.02 / 0.98)
    assert sigreg_weight(0.02, source="stable_pretraining", samples=64, views=8) == pytest.approx(0.16)
    for name in SIGREG_SCALES:
        there = sigreg_weight(0.05, source="openjepa", target=name, samples=96, views=4)
        assert sigreg_weight(there, source=name, samples=96, views=4) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="source and target must be one of"):
        sigreg_weight(1.0, source="other", samples=64)
    with pytest.raises(ValueError, match="below 1"):
        sigreg_weight(1.0, source="lejepa", samples=64)


@pytest.mark.parametrize(("knots", "limit"), [(10, 3.0), (17, 5.0)])
def test_the_grids_used_elsewhere_measure_nearly_the_same(knots, limit):
    """So that translating the factor alone is honest: 10 points on [-3, 3] and 17 on [-5, 5] are within 5 %."""
    t = torch.linspace(-limit, limit, knots, dtype=torch.float64)
    phi = torch.exp(-t * t / 2)
    for std in (0.0, 0.5, 0.8, 2.0):
        error = (torch.exp(-((std * t) ** 2) / 2) - phi).square()
        theirs = torch.trapezoid(error * phi, t)
        ours_t, ours_w, ours_phi = knots_and_weights(17, 3.0)
        ours = (ours_w * (torch.exp(-((std * ours_t) ** 2) / 2) - ours_phi).square()).sum()
        assert theirs.item() == pytest.approx(ours.item(), rel=0.05)


# --- variance and covariance ---


def test_variance_and_covariance_known_answers():
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert variance(z).item() == pytest.approx(0.99 / 2)  # the first feature has std 1.15, the second none
    assert variance(10 * torch.randn(64, 8, generator=rng())).item() == 0
    wide = torch.randn(4096, 3, generator=rng()) * 0.25
    assert variance(wide, floor=2.0).item() == pytest.approx(1.75, abs=0.01)
    mixed = torch.randn(3, 500, 6, generator=rng(), dtype=torch.float64) @ torch.randn(6, 6, generator=rng()).double()
    cov = torch.stack([v.T.cov() for v in mixed])
    want = (cov.square().sum() - torch.diagonal(cov, dim1=1, dim2=2).square().sum()) / 6 / 3
    assert covariance(mixed).item() == pytest.approx(want.item())


@pytest.mark.parametrize("function", [variance, covariance])
def test_variance_and_covariance_gradients_and_precision(function):
    z = torch.randn(2, 7, 3, generator=rng(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, 0.5 * z)
    flat = torch.zeros(6, 3, requires_grad=True)
    function(flat).backward()
    assert flat.grad.isfinite().all()  # the square root of a zero variance must not give nan
    x = torch.randn(64, 8, generator=rng())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(function(x), function(x.clone()))
        assert function(x.bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match="at least two samples"):
        function(x[:1])
