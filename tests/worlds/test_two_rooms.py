"""Two Rooms: the published geometry, what walls do, pictures that show the state, and policies that use the door."""

from __future__ import annotations

import numpy as np
import pytest

from openjepa.worlds import make_policy, make_world
from openjepa.worlds.rooms_motion import hashed_normal
from openjepa.worlds.two_rooms import TwoRooms


def world(**settings: object) -> TwoRooms:
    return make_world("two-rooms", **settings)  # type: ignore[return-value]


def state(x: float, y: float, wall_x: float = 32, door_y: float = 18) -> np.ndarray:
    return np.array([[x, y, wall_x, door_y]], float)


def go(w: TwoRooms, s: np.ndarray, *actions: tuple[float, float]) -> np.ndarray:
    for a in actions:
        s = w.step(s, np.array([a], float))
    return s[0, :2]


def test_published_picture_pixel_by_pixel() -> None:
    """Against a drawing by the published rule: pixels with |x - wall| <= 1 but |y - door| > 4; lines at 4 and 60."""
    w = world()
    s = np.array([[20.3, 33.7, 32, 18], [50.0, 10.0, 20, 54], [8, 58, 44, 10]])
    y, x = np.mgrid[0:65, 0:65]
    for row, picture in zip(s, w.observe(s), strict=True):
        wall = (np.abs(x - row[2]) <= 1) & (np.abs(y - row[3]) > 4)
        wall |= (x == 4) | (x == 60) | (y == 4) | (y == 60)
        assert np.array_equal(picture[..., 1], 255 * wall)
        dot = 255 * np.exp(-((x - row[0]) ** 2 + (y - row[1]) ** 2) / (2 * 1.3**2))
        assert np.abs(picture[..., 0] - np.floor(dot + 1e-6)).max() == 0


@pytest.mark.parametrize("size", [33, 65, 97, 193])
def test_pictures_show_where_the_state_says(size: int) -> None:
    w = world(size=size)
    s = w.reset(50, np.random.default_rng(0))
    pictures = w.observe(s).astype(float)
    assert pictures.shape == (50, *w.obs) == (50, size, size, 2)
    dot, k = pictures[..., 0], (size - 1) / 64
    p, mass = np.arange(size), dot.sum((1, 2))
    x, y = (dot.sum(1) * p).sum(-1) / mass, (dot.sum(2) * p).sum(-1) / mass
    assert np.abs(np.stack([x, y], -1) - s[:, :2]).max() < 0.15
    inner = pictures[:, int(6 * k) : int(58 * k), int(14 * k) : int(50 * k), 1]  # without the border
    column = inner.max(1)
    middle = (column * np.arange(column.shape[1])).sum(-1) / column.sum(-1) + int(14 * k)
    assert np.abs(middle - s[:, 2]).max() < 0.05
    opening = inner.sum(2).argmin(1) + int(6 * k)  # some row of the door
    assert (np.abs(opening - s[:, 3]) <= 4 * k + 1).all()


def test_pictures_from_the_table_equal_those_drawn_one_by_one() -> None:
    w = world(size=33)
    s = w.reset(30, np.random.default_rng(0))
    moved = s + np.array([0, 0, 1e-9, 0])  # off the grid of the table
    difference = w.observe(s).astype(int) - w.observe(moved).astype(int)
    assert np.abs(difference).max() <= 1


def test_door_is_passable_and_wall_is_not() -> None:
    w = world()
    right = [(2.0, 0.0)] * 5
    assert go(w, state(26, 18), *right) == pytest.approx([36, 18])  # through the door
    assert go(w, state(26, 21.9), *right) == pytest.approx([36, 21.9])  # along its edge
    assert go(w, state(26, 22.1), *right) == pytest.approx([31, 22.1])  # stopped at the near face
    assert go(w, state(38, 40), *[(-2.0, 0.0)] * 5) == pytest.approx([33, 40])
    assert go(w, state(32, 18), *[(0.0, 2.0)] * 5) == pytest.approx([32, 22])  # inside the door its edges stop


def test_a_dot_slides_along_walls_and_into_corners() -> None:
    w = world()
    assert go(w, state(30, 40), (2.0, 1.0)) == pytest.approx([31, 41])
    assert go(w, state(59, 59), (2.0, 1.0)) == pytest.approx([60, 60])
    assert go(w, state(59, 59), (1.0, 2.0), (-1.0, 0.5)) == pytest.approx([59, 60])
    # slides down the face until the door opens, and then goes through
    assert go(w, state(31, 13), *[(1.0, 2.0)] * 2)[0] > 31


def test_no_step_ever_ends_in_a_wall_or_crosses_one() -> None:
    """Random walkers near the wall, with every rule of collision: free at all times."""
    for settings in ({}, {"collisions": "freeze"}, {"paper_exact": True}, {"size": 33}):
        w = world(**settings)
        rng = np.random.default_rng(0)
        s = w.reset(400, rng)
        for _ in range(150):
            before, s = s, w.step(s, rng.uniform(-1, 1, (400, 2)) * w.high)
            x, y = s[:, 0], s[:, 1]
            walls = w.walls(s)
            tiny = 1e-9
            assert (x >= walls.low - tiny).all() and (x <= walls.high + tiny).all()
            assert (y >= walls.low - tiny).all() and (y <= walls.high + tiny).all()
            in_wall = (x > walls.left + tiny) & (x < walls.right - tiny)
            outside_door = (y < walls.bottom - tiny) | (y > walls.top + tiny)
            # thrown back from the edge of the door, a dot of the published rule may come to lie in the wall
            assert settings.get("paper_exact") or not (in_wall & outside_door).any()
            crossed = (before[:, 0] <= walls.left) & (x >= walls.right) | (before[:, 0] >= walls.right) & (
                x <= walls.left
            )
            if not settings.get("paper_exact"):
                assert (np.abs(y[crossed] - s[crossed, 3]) <= w.door + w.high[0]).all()


def test_slide_against_tiny_steps() -> None:
    """The same motion in a thousand small pieces, each component refused on its own where it would enter a wall."""
    w = world()
    rng = np.random.default_rng(0)
    s = w.reset(2000, rng)
    s[:, 0] = s[:, 2] + rng.uniform(-3, 3, 2000)
    s[:, 1] = s[:, 3] + rng.uniform(-7, 7, 2000)
    walls = w.walls(s)

    def solid(p: np.ndarray) -> np.ndarray:
        x, y = p.T
        return (x > walls.left) & (x < walls.right) & ((y < walls.bottom) | (y > walls.top))

    keep = ~solid(s[:, :2])
    a = rng.uniform(-1, 1, (2000, 2)) * w.high / np.sqrt(2)
    p = s[:, :2].copy()
    for _ in range(1000):
        for axis in (0, 1):
            q = p.copy()
            q[:, axis] += a[:, axis] / 1000
            p = np.where(solid(q)[:, None], p, q)
    gap = np.abs(w.step(s, a)[:, :2] - p).max(-1)
    hit = np.abs(p - s[:, :2] - a).max(-1) > 1e-6
    assert (hit & keep).sum() > 100
    # where the path grazes a corner the pieces may decide otherwise
    assert (gap[keep] < 0.01).mean() > 0.98


def test_actions_are_shortened_to_the_longest() -> None:
    w = world()
    assert np.hypot(*(go(w, state(20, 40), (30.0, 40.0)) - [20, 40])) == pytest.approx(2.45)
    assert np.allclose(go(w, state(20, 40), (0.3, -0.4)), [20.3, 39.6])
    assert np.hypot(*(go(world(paper_exact=True), state(20, 40), (3.0, 4.0)) - [20, 40])) == pytest.approx(5)


def test_published_collisions() -> None:
    frozen = world(collisions="freeze")
    assert go(frozen, state(30, 40), (2.0, 1.0)) == pytest.approx([30, 40])
    assert go(frozen, state(30, 40), (0.5, 1.0)) == pytest.approx([30.5, 41])
    exact = world(paper_exact=True)
    assert exact.collisions == "bounce"
    rng = np.random.default_rng(0)
    n = 4000
    s = np.repeat(state(30.5, 40), n, 0)
    s[:, 1] += rng.uniform(-10, 10, n)
    after = exact.step(s, np.tile([2.0, 0.0], (n, 1)))
    assert (after[:, 0] <= 31 - 1e-9).all()
    thrown = 31 - after[:, 0]
    assert thrown.mean() == pytest.approx(0.5 * np.sqrt(2 / np.pi), rel=0.05)  # mean of a half normal
    assert (after[:, 1] - s[:, 1]).std() == pytest.approx(0.5, rel=0.05)
    assert np.array_equal(after, exact.step(s, np.tile([2.0, 0.0], (n, 1))))
    corner = exact.step(np.repeat(state(59.9, 59.8), n, 0), rng.uniform(0.5, 1.5, (n, 2)))
    assert corner[:, :2].max() < 60  # and never on the border or beyond


def test_noise_from_a_hash_is_normal_and_depends_on_every_bit() -> None:
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, 65, (20_000, 6))
    z = hashed_normal(rows, 0)
    assert np.abs(z.mean(0)).max() < 0.03 and np.abs(z.std(0) - 1).max() < 0.03
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.03
    near = rows.copy()
    near[:, 3] = np.nextafter(near[:, 3], 100)
    assert abs(np.corrcoef(z[:, 0], hashed_normal(near, 0)[:, 0])[0, 1]) < 0.03
    assert np.array_equal(hashed_normal(np.array([[0.0]]), 1), hashed_normal(np.array([[-0.0]]), 1))


@pytest.mark.parametrize("size", [33, 65])
def test_starts_goals_and_success(size: int) -> None:
    w = world(size=size)
    k = (size - 1) / 64
    s = w.reset(2000, np.random.default_rng(0))
    g = w.goals(s, np.random.default_rng(1))
    assert ((s[:, 0] < s[:, 2]) != (g[:, 0] < g[:, 2])).all()
    assert np.array_equal(s[:, 2:], g[:, 2:])
    assert set(np.unique(s[:, 2] / k)) == set(range(20, 45)) and set(np.unique(s[:, 3] / k)) == set(range(10, 55))
    assert not w.reached(s, g).any()
    near = s.copy()
    near[:, 0] += 4.4 * k
    far = s.copy()
    far[:, 1] += 4.6 * k
    assert w.reached(s, near).all() and not w.reached(s, far).any()
    fixed = world(size=size, wall="fixed").reset(5, np.random.default_rng(0))
    assert (fixed[:, 2:] == np.array([32, 18]) * k).all()


def test_smaller_pictures_are_the_same_world() -> None:
    big, small = world(size=65), world(size=33)
    rng = np.random.default_rng(0)
    s = big.reset(300, rng)
    a = rng.uniform(-1, 1, (300, 2)) * big.high
    half = s / 2
    for _ in range(30):
        s, half = big.step(s, a), small.step(half, a / 2)
    assert np.allclose(s / 2, half, atol=1e-9)


def test_shortest_path() -> None:
    w = world()
    a, b = state(20, 50), state(44, 50)
    round_corners = np.hypot(11, 28) * 2 + 2  # to (31, 22), to (33, 22), down again
    assert w.path(a, b)[0] == pytest.approx(round_corners)
    assert w.path(state(20, 18), state(44, 18))[0] == pytest.approx(24)
    assert w.path(state(20, 50), state(25, 10))[0] == pytest.approx(np.hypot(5, 40))
    assert w.path(state(32, 18), state(34, 50))[0] == pytest.approx(np.hypot(1, 4) + np.hypot(1, 28))
    # by hand against a search over both mouths of the door
    rng = np.random.default_rng(0)
    s = w.reset(200, rng)
    g = w.goals(s, rng)
    ys = np.linspace(-4, 4, 161)
    for row, goal, got in zip(s, g, w.path(s, g), strict=True):
        left = np.stack([np.full(161, row[2] - 1), row[3] + ys], -1)
        right = left + np.array([2, 0])
        a, b = (row, goal) if row[0] < goal[0] else (goal, row)
        total = (
            np.linalg.norm(left - a[:2], axis=-1)[:, None]
            + np.linalg.norm(left[:, None] - right[None], axis=-1)
            + np.linalg.norm(right - b[:2], axis=-1)[None]
        )
        assert got == pytest.approx(total.min(), abs=5e-3)
    assert (w.path(s, g) >= w.distance(s, g) - 1e-9).all()
    assert np.allclose(w.path(s, g), w.path(g, s))


def crossings(policy: str, steps: int = 90) -> np.ndarray:
    """Whether the dot changes rooms at each step: (steps, n)."""
    w = world()
    rng = np.random.default_rng(0)
    s = w.reset(200, rng)
    p = make_policy(policy, w)
    sides = [s[:, 0] > s[:, 2]]
    for _ in range(steps):
        s = w.step(s, p.act(s, rng))
        sides.append(s[:, 0] > s[:, 2])
    return np.diff(np.stack(sides), axis=0)


def test_windows_of_the_door_policy_are_rich_in_crossings() -> None:
    def share(c: np.ndarray) -> float:
        return float(np.mean([c[i : i + 16].any(0) for i in range(len(c) - 15)]))

    assert share(crossings("walk")) < 0.1
    assert share(crossings("expert")) > 0.35
    assert share(crossings("door")) > 0.7
    assert 0.3 < share(crossings("mixed")) < 0.6
    assert 0.3 < crossings("mixed").any(0).mean() < 0.8
    assert crossings("rounds").any(0).mean() > crossings("mixed").any(0).mean() + 0.1  # more worlds seen on both sides


def test_who_runs_straight_leans_on_the_wall() -> None:
    def stopped(policy: str) -> float:
        """Share of the steps that a wall cuts short by half or more."""
        w, rng = world(), np.random.default_rng(0)
        s, p, share = w.reset(200, rng), make_policy(policy, w), []
        for _ in range(60):
            a = p.act(s, rng)
            after = w.step(s, a)
            share.append(np.linalg.norm(after - s, axis=-1) < 0.5 * np.linalg.norm(a, axis=-1))
            s = after
        return float(np.mean(share))

    assert stopped("straight") > 0.2 and stopped("expert") < 0.02
    assert stopped("bumps") > 1.5 * stopped("rounds")
    assert crossings("bumps").any(0).mean() > 0.6


def test_flank_keeps_near_the_wall_on_both_sides_of_it() -> None:
    def along(policy: str) -> tuple[float, float]:
        """Share of the steps within 9 px of the wall, not by the door; share of the worlds that saw both sides so."""
        w, rng = world(), np.random.default_rng(0)
        s, p, seen = w.reset(200, rng), make_policy(policy, w), []
        for _ in range(100):
            s = w.step(s, p.act(s, rng))
            near = (np.abs(s[:, 0] - s[:, 2]) < 9 * w.unit) & (np.abs(s[:, 1] - s[:, 3]) > 8 * w.unit)
            seen.append(near * np.sign(s[:, 0] - s[:, 2]))
        both = np.stack(seen)
        return float((both != 0).mean()), float(((both > 0).any(0) & (both < 0).any(0)).mean())

    (flank, both), (expert, few) = along("flank"), along("expert")
    assert flank > 1.5 * expert and both > few + 0.2, (flank, both, expert, few)


def test_the_expert_reaches_given_goals_and_stays() -> None:
    w = world()
    rng = np.random.default_rng(0)
    s = w.reset(200, rng)
    g = w.goals(s, rng)
    expert = make_policy("expert", w).aim(g)  # type: ignore[attr-defined]
    for _ in range(60):
        s = w.step(s, expert.act(s, rng))
    assert w.reached(s, g).all()


def test_the_walk_is_the_published_one() -> None:
    w = world()
    rng = np.random.default_rng(0)
    p, s = make_policy("walk", w), w.reset(3000, rng)
    a, b = p.act(s, rng), p.act(s, rng)
    length = np.linalg.norm(a, axis=-1)
    assert length.min() >= 0.2 and length.max() <= 1.8
    assert length.mean() == pytest.approx(1.0, abs=0.02) and length.std() == pytest.approx(0.3534, abs=0.02)
    turn = np.angle(np.exp(1j * (np.arctan2(b[:, 1], b[:, 0]) - np.arctan2(a[:, 1], a[:, 0]))))
    assert np.cos(turn).mean() == pytest.approx(0.8934, abs=0.01)  # I1(5) / I0(5)


def test_errors() -> None:
    with pytest.raises(ValueError, match="wall_width must be odd"):
        world(wall_width=4)
    with pytest.raises(ValueError, match=r"\(dx, dy\)"):
        world().step(state(20, 20), np.zeros((1, 3)))
