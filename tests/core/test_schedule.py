"""Known answers of the schedules."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openjepa.core.schedule import cosine, hold_then_fall, linear, stage, warm_up

share = st.floats(0, 1)
value = st.floats(-10, 10)


@pytest.mark.parametrize("shape", [linear, cosine])
@given(a=value, b=value)
def test_ends_are_exact_and_the_middle_is_the_mean(shape, a, b):
    assert shape(a, b, 0.0) == pytest.approx(a, abs=1e-12)
    assert shape(a, b, 1.0) == b
    assert shape(a, b, 0.5) == pytest.approx((a + b) / 2, abs=1e-9)
    assert shape(a, b, -3.0) == pytest.approx(a, abs=1e-12) and shape(a, b, 7.0) == b  # outside the run: held


@given(p=share, q=share)
def test_cosine_falls_and_stays_inside(p, q):
    low, high = sorted((p, q))
    assert 0.0 <= cosine(1.0, 0.0, high) <= cosine(1.0, 0.0, low) <= 1.0
    assert cosine(1.0, 0.0, p) + cosine(0.0, 1.0, p) == pytest.approx(1.0)  # falling and rising mirror each other


def test_cosine_quarter():
    assert cosine(1.0, 0.0, 0.25) == pytest.approx((2 + math.sqrt(2)) / 4)
    assert cosine(0.04, 0.4, 0.75) == pytest.approx(0.04 + 0.36 * (2 + math.sqrt(2)) / 4)


def test_teacher_momentum_reaches_exactly_one():
    assert linear(0.996, 1.0, 1.0) == 1.0


@pytest.mark.parametrize(("p", "want"), [(0, 2.0), (0.8, 2.0), (0.9, 1.25), (1.0, 0.5)])
def test_hold_then_fall(p, want):
    assert hold_then_fall(2.0, 0.5, p, cooldown=0.2) == pytest.approx(want)


def test_hold_then_fall_limits():
    assert hold_then_fall(1.0, 0.0, 1.0, cooldown=0.0) == 1.0
    assert hold_then_fall(1.0, 0.0, 0.3, cooldown=1.0) == pytest.approx(linear(1.0, 0.0, 0.3))


def test_warm_up():
    assert [warm_up(s, 10, start=0.1) for s in (0, 5, 10, 11)] == pytest.approx([0.1, 0.55, 1.0, 1.0])
    assert warm_up(0, 0) == 1.0


@given(st.integers(1, 400), st.lists(st.floats(0, 1), max_size=3))
def test_stages_cover_a_run_without_gap_or_overlap(total, shares):
    found = [stage(step, total, shares) for step in range(total)]
    assert all(begin <= step < end for step, (begin, end) in enumerate(found))
    kinds = sorted(set(found))
    assert kinds[0][0] == 0 and kinds[-1][1] == total
    assert all(a[1] == b[0] for a, b in itertools.pairwise(kinds))
    assert all(any(begin in (0, math.ceil(s * total - 1e-9)) for s in [0.0, *shares]) for begin, _ in kinds)
