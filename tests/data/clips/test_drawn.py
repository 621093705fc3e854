"""Drawn clips and the truth about them."""

import numpy as np
import pytest

from openjepa.data.clips import open_clips
from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.moving_mnist import DIGIT, ROOM, SIDE, STEP, MovingMnist


@pytest.fixture(scope="module")
def glyphs() -> np.ndarray:
    """Ten 28x28 glyphs, each a full square of its own grey level: where they are can be read off the picture."""
    return np.stack([np.full((DIGIT, DIGIT), 20 + 20 * k, dtype=np.uint8) for k in range(10)])


@pytest.fixture(scope="module")
def reel(glyphs) -> MovingMnist:
    return MovingMnist(glyphs, np.arange(10), 500, "train", frames=20, channels=1)


def test_digits_are_where_the_truth_says(reel):
    rows, numbers = np.arange(40), np.arange(20)[None].repeat(40, 0)
    clips, truth = reel.take(rows, numbers)[:, :, 0], reel.factors(rows, numbers)
    for n in range(40):
        for t in (0, 7, 19):
            drawn = np.zeros((SIDE, SIDE), dtype=np.uint8)
            for k in range(2):
                x, y = (truth["position"][n, t, k] - DIGIT / 2).astype(int)
                level = 20 + 20 * truth["digit"][n, t, k]
                drawn[y : y + DIGIT, x : x + DIGIT] = np.maximum(drawn[y : y + DIGIT, x : x + DIGIT], level)
            assert np.array_equal(clips[n, t], drawn)


def test_motion_is_straight_between_walls_at_the_stated_speed(reel):
    rows, numbers = np.arange(200), np.arange(20)[None].repeat(200, 0)
    place, direction = reel.walk(rows, numbers)
    assert place.min() >= 0 and place.max() <= 1
    assert np.allclose(np.hypot(direction[..., 0], direction[..., 1]), 1)
    step = np.diff(place, axis=1)
    inside = ((place > 0) & (place < 1)).all(-1)
    free = inside[:, 1:] & inside[:, :-1]
    assert np.allclose(step[free], STEP * direction[:, :-1][free]) and free.mean() > 0.6
    wall = (place[:, 1:] <= 0) | (place[:, 1:] >= 1)
    assert (np.sign(direction[:, 1:][wall]) == -np.sign(direction[:, :-1][wall])).all() and wall.mean() > 0.02
    speed = np.hypot(*np.moveaxis(reel.factors(rows, numbers)["velocity"], -1, 0))
    assert np.allclose(speed, STEP * ROOM)


def test_starts_and_directions_are_uniform(reel):
    place, direction = reel.walk(np.arange(500), np.zeros((500, 1), dtype=np.int64))
    angle = np.arctan2(direction[..., 0], direction[..., 1])
    assert abs(np.cos(angle).mean()) < 0.1 and abs(np.sin(angle).mean()) < 0.1
    assert abs(place.mean() - 0.5) < 0.05
    counts = np.bincount(reel.digits(np.arange(500)).reshape(-1), minlength=10)
    assert counts.min() > 60 and counts.max() < 140


def test_a_clip_depends_on_its_position_and_split_alone(glyphs, reel):
    other = MovingMnist(glyphs, np.arange(10), 9, "train", frames=20, channels=3)
    some = other.take(np.array([4]), np.array([[3, 9]]))
    assert some.shape == (1, 2, 3, 64, 64)
    assert np.array_equal(some[:, :, 0], reel.take(np.array([4]), np.arange(20)[None])[:, [3, 9], 0])
    test = MovingMnist(glyphs, np.arange(10), 9, "test", frames=20, channels=1)
    assert not np.array_equal(test.take(np.array([4]), np.array([[3]])), reel.take(np.array([4]), np.array([[3]])))


def test_moving_mnist_from_an_array_file(tmp_path):
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "digits.npz", train_images=draw.integers(0, 255, (50, 28, 28), dtype=np.uint8),
             train_labels=np.arange(50) % 10)  # fmt: skip
    source = open_clips(ClipConfig(path=f"moving-mnist:{tmp_path}/digits.npz:30", channels=1))
    assert len(source) == 30 and source.size == 64 and len(source.classes) == 55
    digits = source.factors(np.arange(30), np.zeros((30, 1), dtype=np.int64))["digit"][:, 0]
    assert [source.classes[k] for k in source.labels] == [f"{min(d)}+{max(d)}" for d in digits]
    kept = open_clips(ClipConfig(path=f"moving-mnist:{tmp_path}/digits.npz:30", channels=1, limit=5))
    picked = [int(name) for name in kept.names]
    assert np.array_equal(kept.factors(np.arange(5), np.zeros((5, 1), dtype=np.int64))["digit"][:, 0], digits[picked])


def test_moving_mnist_without_digits_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 9, 9), dtype=np.uint8))
    with pytest.raises(ValueError, match="28x28 digits with labels"):
        open_clips(ClipConfig(path=f"moving-mnist:{tmp_path}/a.npy"))
    with pytest.raises(ValueError, match="must name the MNIST files"):
        open_clips(ClipConfig(path="moving-mnist"))


def test_bouncing_shapes_are_where_the_truth_says():
    source = open_clips(ClipConfig(path="bouncing-shapes:40", size=64, channels=1))
    rows, numbers = np.arange(40), np.arange(20)[None].repeat(40, 0)
    clips, truth = source.together.take(rows, numbers)[:, :, 0] > 60, source.factors(rows, numbers)
    for n in range(40):
        for t in (0, 10, 19):
            y, x = np.nonzero(clips[n, t])
            places, radius = truth["position"][n, t], truth["radius"][n, t] * 64
            near = np.hypot(x[:, None] + 0.5 - places[:, 0], y[:, None] + 0.5 - places[:, 1]) < 1.5 * radius + 1
            assert near.any(1).all()  # nothing bright far from both
    assert truth["position"].min() > 0 and truth["position"].max() < 64
    step = np.diff(truth["position"], axis=1)
    same = np.isclose(truth["velocity"][:, :-1], truth["velocity"][:, 1:])
    assert np.allclose(step[same], truth["velocity"][:, :-1][same], atol=1e-6) and 0.7 < same.mean() < 1
