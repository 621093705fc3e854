"""Exact physics: closed forms, conserved quantities, time run backwards, and two half steps against one."""

from __future__ import annotations

import numpy as np
import pytest

from openjepa.worlds import make_world
from openjepa.worlds.physics.flight import fall, push, reflect
from openjepa.worlds.physics.orbit import kepler
from openjepa.worlds.physics.pendulum import wrap

EXACT = {
    "bouncing-ball": {},
    "bouncing-ball with gravity": {"gravity": 2.0},
    "bouncing-balls": {"balls": 4},
    "billiards": {"balls": 4},
    "pendulum": {},
    "spring": {},
    "spring in 2-D": {"dims": 2},
    "orbit": {},
}


def build(case: str, **changes: object):  # type: ignore[no-untyped-def]
    return make_world(case.split(" ")[0], **{**EXACT[case], **changes})


def nothing(world, n: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.zeros((n, world.action))


def gap(world, a: np.ndarray, b: np.ndarray) -> float:  # type: ignore[no-untyped-def]
    d = a - b
    if world.name == "pendulum":
        d[:, 0] = wrap(d[:, 0])
    return float(np.abs(d).max())


def backwards(world, states: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    flipped = states.copy()
    for i, name in enumerate(world.names):
        if name.startswith(("v", "omega")):
            flipped[:, i] *= -1
    return flipped


@pytest.mark.parametrize("case", EXACT)
def test_energy_is_kept_over_a_thousand_steps(case: str) -> None:
    world = build(case)
    start = states = world.reset(64, np.random.default_rng(0))
    for _ in range(1000):
        states = world.step(states, nothing(world, 64))
    assert np.abs(states - start).max() > 0.1
    scale = np.abs(world.energy(start)).mean()
    assert np.abs(world.energy(states) - world.energy(start)).max() < 1e-10 * scale


@pytest.mark.parametrize("case", EXACT)
def test_time_run_backwards_returns_to_the_start(case: str) -> None:
    world = build(case)
    start = states = world.reset(64, np.random.default_rng(1))
    for _ in range(20):
        states = world.step(states, nothing(world, 64))
    states = backwards(world, states)
    for _ in range(20):
        states = world.step(states, nothing(world, 64))
    # billiards multiplies rounding by about ten per collision: it must be right, and cannot be sharp
    assert gap(world, backwards(world, states), start) < (1e-5 if case == "billiards" else 1e-9)


@pytest.mark.parametrize("case", EXACT)
def test_two_steps_equal_one_of_twice_the_time(case: str) -> None:
    world = build(case)
    twice = build(case, dt=2 * world.dt)
    states = world.reset(64, np.random.default_rng(2))
    once = world.step(world.step(states, nothing(world, 64)), nothing(world, 64))
    assert gap(world, once, twice.step(states, nothing(world, 64))) < 1e-10


@pytest.mark.parametrize(("name", "settings"), [("pendulum", {"torque": 3.0}), ("spring", {"force": 2.0, "dims": 2}),
                                                ("point-mass", {"force": 4.0})])  # fmt: skip
def test_a_held_action_composes_too(name: str, settings: dict[str, object]) -> None:
    world = make_world(name, **settings)
    twice = make_world(name, dt=2 * world.dt, **settings)
    rng = np.random.default_rng(3)
    states, actions = world.reset(200, rng), rng.uniform(world.low, world.high, (200, world.action))
    once = world.step(world.step(states, actions), actions)
    assert gap(world, once, twice.step(states, actions)) < 1e-9


def test_reflection_against_small_steps_that_bounce() -> None:
    rng = np.random.default_rng(0)
    x, v = rng.uniform(0, 1, 50), rng.uniform(-3, 3, 50)
    y, w = x.copy(), v.copy()
    for _ in range(4000):
        y += w * 1e-3
        w = np.where((y < 0) & (w < 0) | (y > 1) & (w > 0), -w, w)
        y = np.where(y < 0, -y, np.where(y > 1, 2 - y, y))
    got_x, got_v = reflect(x, v, 0.0, 1.0, 4.0)
    assert np.abs(got_x - y).max() < 1e-9
    assert np.array_equal(got_v, w)


@pytest.mark.parametrize("g", [0.5, 5.0])
def test_fall_against_small_steps(g: float) -> None:
    """Both kinds of flight occur: those that reach the ceiling and those that turn before it."""
    rng = np.random.default_rng(0)
    y, v = rng.uniform(0.2, 1.2, 100), rng.uniform(-2, 2, 100)
    high = v * v / 2 + g * (y - 0.2) > g * 1.0
    assert high.any() and not high.all()
    p, u, dt = y.copy(), v.copy(), 1e-4
    for _ in range(10_000):
        p, u = p + u * dt - g * dt * dt / 2, u - g * dt
        u = np.where((p < 0.2) & (u < 0) | (p > 1.2) & (u > 0), -u, u)
        p = np.where(p < 0.2, 0.4 - p, np.where(p > 1.2, 2.4 - p, p))
    got_y, got_v = fall(y, v, 0.2, 1.2, g, 1.0)
    assert np.abs(got_y - p).max() < 5e-3
    assert np.median(np.abs(np.abs(got_v) - np.abs(u))) < 1e-3


def test_a_ball_at_rest_on_the_floor_stays() -> None:
    y, v = fall(np.zeros(1), np.zeros(1), 0.0, 1.0, 9.81, 0.1)
    assert (y[0], v[0]) == (0, 0)


def test_push_against_small_steps_that_stop_at_walls() -> None:
    rng = np.random.default_rng(0)
    x, v, a = rng.uniform(0, 1, 300), rng.uniform(-2, 2, 300), rng.uniform(-3, 3, 300)
    a[:20], x[20:30], v[30:40] = 0, 0, 0
    p, u, dt = x.copy(), v.copy(), 1e-4
    for _ in range(10_000):
        p, u = p + u * dt + a * dt * dt / 2, u + a * dt
        out = (p <= 0) & (u < 0) | (p >= 1) & (u > 0)
        p, u = np.clip(p, 0, 1), np.where(out, 0, u)
    got_x, got_v = push(x, v, a, 0.0, 1.0, 1.0)
    assert np.abs(got_x - p).max() < 1e-3
    assert np.median(np.abs(got_v - u)) < 1e-3
    assert ((got_x >= 0) & (got_x <= 1)).all()


def test_two_billiard_balls_meet_as_the_book_says() -> None:
    """Head on, velocities are exchanged (and a wall follows). Hit 45 degrees off centre, they part at a right angle."""
    world = make_world("billiards", balls=2, radius=0.1, dt=0.5)
    rest = np.zeros((1, 0))
    after = world.step(np.array([[0.3, 0.5, 1.0, 0.0, 0.7, 0.5, 0.0, 0.0]]), rest)
    assert np.allclose(after, [[0.5, 0.5, 0.0, 0.0, 0.8, 0.5, -1.0, 0.0]], atol=1e-12)
    b = 0.2 * np.sin(np.pi / 4)
    glance = world.step(np.array([[0.2, 0.4, 1.0, 0.0, 0.55, 0.4 + b, 0.0, 0.0]]), rest).reshape(2, 4)
    assert abs(glance[0, 2:] @ glance[1, 2:]) < 1e-12
    assert np.linalg.norm(glance[:, 2:], axis=-1) == pytest.approx([np.sqrt(0.5)] * 2)


def test_momentum_is_kept_in_collisions_and_balls_never_overlap() -> None:
    """Between walls far away only pairs meet: total momentum stays; in a crowded box no two balls come too near."""
    world = make_world("billiards", balls=6, size=100.0, radius=0.5, speed=1.0, dt=1.0)
    rng = np.random.default_rng(0)
    angle = np.arange(6) * np.pi / 3 + rng.uniform(-0.1, 0.1, (50, 6))
    place = 50 + 4 * np.stack([np.cos(angle), np.sin(angle)], -1)
    states = world.join(place, 0.25 * (50 - place))
    before = world.split(states)[1]
    for _ in range(20):
        states = world.step(states, np.zeros((50, 0)))
    after = world.split(states)[1]
    assert np.abs(after - before).max() > 0.5
    assert np.abs(after.sum(1) - before.sum(1)).max() < 1e-12

    world = make_world("billiards", balls=8, radius=0.1)
    states = world.reset(50, rng)
    for _ in range(100):
        states = world.step(states, np.zeros((50, 0)))
        p, _ = world.split(states)
        gaps = np.linalg.norm(p[:, world.i] - p[:, world.j], axis=-1)
        assert gaps.min() > 0.2 - 1e-9
        assert p.min() > 0.1 - 1e-12 and p.max() < 0.9 + 1e-12


def test_small_swings_of_the_pendulum_are_harmonic_and_large_ones_slow_as_the_elliptic_integral_says() -> None:
    world = make_world("pendulum", dt=0.05)
    for amplitude, terms in ((1e-3, 1), (2.0, None)):
        # the period by the arithmetic-geometric mean: T = 2 pi sqrt(l / g) / agm(1, cos(amplitude / 2))
        a, b = 1.0, np.cos(amplitude / 2)
        for _ in range(20):
            a, b = (a + b) / 2, np.sqrt(a * b)
        period = 2 * np.pi * np.sqrt(1 / 9.81) / a
        world = make_world("pendulum", dt=period / 40)
        states = np.array([[amplitude, 0.0]])
        for _ in range(40):
            states = world.step(states, np.zeros((1, 0)))
        assert np.abs(states - [[amplitude, 0.0]]).max() < 1e-9
        if terms:
            assert period == pytest.approx(2 * np.pi / np.sqrt(9.81), rel=1e-6)


def test_spring_with_a_constant_force_swings_about_its_new_rest() -> None:
    world = make_world("spring", force=2.0, stiffness=4.0, dt=np.pi / 2)  # w = 2: half a turn per step
    states = world.step(np.array([[0.0, 0.0]]), np.array([[2.0]]))
    assert np.allclose(states, [[1.0, 0.0]], atol=1e-12)  # twice f / k


def test_orbit_after_one_period_and_keplers_equation() -> None:
    a = 0.8
    period = 2 * np.pi * np.sqrt(a**3)
    world = make_world("orbit", dt=period / 7, axis=(a, a))
    start = states = world.reset(100, np.random.default_rng(0))
    for _ in range(7):
        states = world.step(states, np.zeros((100, 0)))
    assert np.abs(states - start).max() < 1e-11
    assert np.abs(world.angular_momentum(states) - world.angular_momentum(start)).max() < 1e-12

    e, mean = np.meshgrid(np.linspace(0, 0.999, 60), np.linspace(0, 6.28, 61))
    anomaly = kepler(mean.ravel(), np.zeros(mean.size), e.ravel())  # from the pericentre: M = E - e sin E
    assert np.abs(anomaly - e.ravel() * np.sin(anomaly) - mean.ravel()).max() < 1e-14


def test_orbit_against_a_fine_leapfrog() -> None:
    world = make_world("orbit", dt=0.5)
    states = world.reset(20, np.random.default_rng(0))
    r, v, h = states[:, :2].copy(), states[:, 2:].copy(), 0.5 / 20_000
    for _ in range(20_000):
        r += h / 2 * v
        v -= h * r / np.linalg.norm(r, axis=-1, keepdims=True) ** 3
        r += h / 2 * v
    assert np.abs(world.step(states, np.zeros((20, 0))) - np.concatenate([r, v], -1)).max() < 1e-6


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="bound"):
        make_world("orbit").step(np.array([[1.0, 0.0, 0.0, 2.0]]), np.zeros((1, 0)))
    with pytest.raises(ValueError, match="radius must be below"):
        make_world("bouncing-ball", radius=0.6)
    with pytest.raises(ValueError, match="fewer or smaller"):
        make_world("billiards", balls=16, radius=0.12)
