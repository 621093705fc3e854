import math

import pytest
import torch

from openjepa.core.measure import (
    axes_above_floor,
    cosine,
    effective_rank,
    feature_std,
    mean_similarity,
    noise_floor,
    rank_above_floor,
    rankme,
    relative_spread,
    rounding_variance,
    spectrum,
    teacher_distance,
)


def gauss(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_spread_of_scaled_features():
    z = gauss(20000, 3) * torch.tensor([0.0, 1.0, 5.0]) + 7
    torch.testing.assert_close(feature_std(z), torch.tensor([0.0, 1.0, 5.0]), rtol=0.03, atol=1e-5)
    # variance 26 over three features, mean square 26 + 3 * 49
    assert relative_spread(z).item() == pytest.approx(math.sqrt(26 / (26 + 147)), rel=0.02)
    assert relative_spread(100 * z).item() == pytest.approx(relative_spread(z).item(), rel=1e-5)


@pytest.mark.parametrize(("n", "d"), [(500, 6), (6, 40), (2, 3)])
def test_spectrum_is_that_of_the_covariance(n, d):
    z = gauss(n, d) @ gauss(d, d, seed=1) + 100 * gauss(d, seed=2)
    want = torch.linalg.eigvalsh(z.double().T.cov()).flip(0).clamp_min(0)
    found = spectrum(z)
    assert found.shape == (d,) and (found >= 0).all()
    torch.testing.assert_close(found, want.float(), rtol=1e-3, atol=1e-3)
    assert found.sum().item() == pytest.approx(feature_std(z).square().sum().item(), rel=1e-4)


def test_ranks_of_known_spectra():
    assert effective_rank(torch.ones(7)).item() == pytest.approx(7)
    assert effective_rank(torch.tensor([3.0, 0.0])).item() == pytest.approx(1)
    p = torch.tensor([0.5, 0.25, 0.25])
    assert effective_rank(8 * p).item() == pytest.approx(2**1.5)
    orthogonal = torch.linalg.qr(gauss(64, 5)).Q
    assert rankme(orthogonal).item() == pytest.approx(5, rel=1e-5)
    assert rankme(orthogonal * torch.tensor([2.0, 1.0, 1.0, 0.0, 0.0])).item() == pytest.approx(2**1.5, rel=1e-4)
    assert rankme(torch.zeros(4, 3)) == 0 and effective_rank(torch.zeros(3)) == 0


def test_rankme_is_larger_than_the_rank_of_the_covariance_and_counts_an_offset():
    z = gauss(400, 20) * torch.logspace(0, -2, 20)
    assert rankme(z) > 1.3 * effective_rank(spectrum(z))
    assert rankme(z + 100) < 2


def test_rank_rises_under_collapse_and_only_the_floor_tells():
    """The trap: shrink what was learned, and rounding noise takes over with full rank."""
    signal, dust = gauss(800, 4) @ gauss(4, 32, seed=1), 1e-3 * gauss(800, 32, seed=2)
    plain, honest = [], []
    for alive in (1.0, 1e-2, 1e-4, 0.0):
        z = alive * signal + dust + 1.0
        plain.append(effective_rank(spectrum(z)).item())
        honest.append(rank_above_floor(spectrum(z), noise_floor(800, 32, rounding_variance(z))).item())
    assert plain[0] < 4.1 and plain[-1] > 30
    assert 2 < honest[0] < 4.1 and honest[-1] == 0
    assert honest == sorted(honest, reverse=True)


def test_shrinking_to_zero_needs_an_absolute_level():
    z = gauss(300, 16)
    absolute = noise_floor(300, 16, 1e-4)
    assert rank_above_floor(spectrum(z), absolute) > 14
    assert rank_above_floor(spectrum(1e-3 * z), absolute) == 0
    assert axes_above_floor(spectrum(z), absolute) == 16 and axes_above_floor(spectrum(1e-3 * z), absolute) == 0


@pytest.mark.parametrize(("n", "d"), [(1000, 50), (400, 400), (200, 800)])
def test_noise_ends_at_the_noise_floor(n, d):
    largest = spectrum(0.3 * gauss(n, d))[0]
    floor = noise_floor(n, d, 0.09)
    assert 0.9 * floor < largest < 1.08 * floor


def test_rounding_to_bfloat16_is_below_the_floor_and_signal_above():
    same = (gauss(64).repeat(500, 1) + 1e-4 * gauss(500, 64, seed=1)).bfloat16()
    assert axes_above_floor(spectrum(same), noise_floor(500, 64, rounding_variance(same))) == 0
    other = gauss(64).repeat(500, 1) + 0.3 * gauss(500, 1, seed=1) * gauss(64, seed=2)
    assert axes_above_floor(spectrum(other), noise_floor(500, 64, rounding_variance(other))) == 1


def test_similarity_between_and_within_pairs():
    z = gauss(50, 8) + 0.5
    unit = torch.nn.functional.normalize(z, dim=1)
    pairs = unit @ unit.T
    want = (pairs.sum() - pairs.diagonal().sum()) / (50 * 49)
    assert mean_similarity(z).item() == pytest.approx(want.item(), abs=1e-5)
    assert mean_similarity(torch.ones(5, 3)).item() == pytest.approx(1)
    assert mean_similarity(torch.zeros(5, 3)) == 0
    assert abs(mean_similarity(gauss(3000, 16))) < 0.01
    assert cosine(z, 3 * z).item() == pytest.approx(1) and cosine(z, -z).item() == pytest.approx(-1)
    assert cosine(torch.zeros(2, 4, 8), gauss(2, 4, 8)) == 0


def test_teacher_distance_is_relative_to_the_student():
    teacher, student = torch.nn.Linear(5, 4), torch.nn.Linear(5, 4)
    a, b = list(teacher.parameters()), list(student.parameters())
    flat_a, flat_b = (torch.cat([p.flatten() for p in m]) for m in (a, b))
    assert teacher_distance(a, b).item() == pytest.approx(((flat_a - flat_b).norm() / flat_b.norm()).item(), rel=1e-5)
    assert teacher_distance(b, b) == 0 and not teacher_distance(a, b).requires_grad
    assert teacher_distance([p.bfloat16() for p in b], b) < 0.01
    with pytest.raises(ValueError, match="same tensors"):
        teacher_distance(a, b[:1])
    with pytest.raises(ValueError, match="same tensors"):
        teacher_distance([], [])


@pytest.mark.parametrize(
    "measure", [feature_std, relative_spread, spectrum, rankme, mean_similarity, rounding_variance]
)
def test_half_precision_is_measured_in_float32_and_wrong_shapes_are_refused(measure):
    assert measure(gauss(20, 4).bfloat16()).dtype == torch.float32
    for bad in (torch.zeros(4), torch.zeros(1, 4), torch.zeros(2, 3, 4)):
        with pytest.raises(ValueError, match=r"z must be \(N, D\) with at least two samples"):
            measure(bad)
    with pytest.raises(ValueError, match="samples must be at least 2"):
        noise_floor(1, 4, 1.0)
