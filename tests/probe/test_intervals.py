"""Intervals against scipy, known closed forms, and how often they really cover."""

from __future__ import annotations

import math

import pytest
import torch

from openjepa.probe import bootstrap, paired, t_interval, wilson
from openjepa.probe.intervals import t_quantile

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (4580, 10_000), (999, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy(correct: int, n: int, level: float):
    want = scipy_stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    assert wilson(correct, n, level=level) == pytest.approx((want.low, want.high), abs=1e-12)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 9, 10, 30, 101, 1000])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_t_quantile_equals_scipy(df: int, level: float):
    assert t_quantile(level, df) == pytest.approx(scipy_stats.t.ppf((1 + level) / 2, df), rel=1e-9)


def test_t_interval():
    values = [0.71, 0.75, 0.69, 0.8]
    want = scipy_stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=scipy_stats.sem(values))
    assert t_interval(values) == pytest.approx(tuple(want))
    assert t_interval([0.4]) == (0.4, 0.4)
    assert t_interval([0.4, 0.4, 0.4]) == pytest.approx((0.4, 0.4))


def test_wilson_covers_as_often_as_it_says():
    n, p = 100, 0.9
    chance = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    inside = [wilson(k, n).low <= p <= wilson(k, n).high for k in range(n + 1)]
    assert 0.93 < sum(c for c, i in zip(chance, inside, strict=True) if i) < 0.98


def test_bootstrap_of_a_share_is_near_its_normal_interval():
    scores = (torch.arange(1000) < 700).float()
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert bootstrap(scores) == pytest.approx((0.7 - half, 0.7 + half), abs=0.004)
    assert bootstrap(scores, seed=1) == bootstrap(scores, seed=1, chunk=1000)  # memory does not change the draw
    assert bootstrap(scores, seed=1) != bootstrap(scores, seed=2)


def test_paired_is_narrower_where_two_probes_agree():
    g = torch.Generator().manual_seed(0)
    a = torch.rand(2000, generator=g) < 0.7
    b = a.clone()
    b[:40] = ~b[:40]  # they differ on 40 pictures
    low, high = paired(a, b)
    alone = wilson(int(a.sum()), 2000)
    assert low <= float(a.double().mean() - b.double().mean()) <= high
    assert (high - low) < 0.5 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="same pictures"):
        paired(a, b[:10])


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson(11, 10)
    with pytest.raises(ValueError, match="at least one"):
        t_interval([])
