"""Probes of clips: frame by frame, order and speed, trajectories, and the pictures of features over time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from openjepa.nn import build_encoder
from openjepa.probe import Features, Labelled, linear
from openjepa.probe.arrow import at_speeds, in_order
from openjepa.probe.clips import PerFrame, by_time, pooled_frames, steps_of
from openjepa.probe.films import pca_films, shown_clips, side_by_side
from openjepa.probe.trajectory import trajectory


def moving(n: int, frames: int, seed: int, size: int = 8) -> tuple[Tensor, Tensor]:
    """A dot of one pixel that walks to the right at one pixel a frame from a random column; clips and columns."""
    g = torch.Generator().manual_seed(seed)
    start = torch.randint(0, size, (n,), generator=g)
    column = (start[:, None] + torch.arange(frames)) % size  # (n, T)
    row = torch.randint(0, size, (n,), generator=g)
    clips = torch.zeros(n, frames, 1, size, size)
    clips[torch.arange(n)[:, None], torch.arange(frames), 0, row[:, None], column] = 1
    return clips, torch.stack([column, row[:, None].expand_as(column)], -1).float()


def batches(clips: Tensor, first: int = 0):
    index = torch.arange(first, first + len(clips))
    return lambda: list(zip(clips.split(16), torch.zeros(len(clips)).split(16), index.split(16), strict=True))


def test_per_frame_equals_the_encoder_on_each_frame():
    torch.manual_seed(0)
    encoder = build_encoder("vit_micro/4", size=8, channels=1)
    clips = torch.randn(3, 5, 1, 8, 8)
    found = by_time(PerFrame(encoder)(clips), 5)
    for t in range(5):
        torch.testing.assert_close(found[:, t], encoder(clips[:, t]))


def test_per_frame_leaves_prefix_tokens_out():
    encoder = build_encoder("vit_micro/4", size=8, channels=1)
    with_cls = build_encoder({"name": "vit_micro/4", "cls": True}, size=8, channels=1)  # type: ignore[arg-type]
    clips = torch.randn(2, 3, 1, 8, 8)
    assert PerFrame(with_cls)(clips).shape == PerFrame(encoder)(clips).shape == (2, 12, 96)
    with pytest.raises(ValueError, match="clips must be"):
        PerFrame(encoder)(clips[:, 0])


def test_time_steps():
    assert steps_of(4, 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="multiple"):
        steps_of(5, 2)
    tokens = torch.arange(12.0).view(1, 6, 2)
    assert pooled_frames(tokens, 3)[0, 0].tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="one of mean"):
        pooled_frames(tokens, 3, how="middle")


@pytest.mark.parametrize("against", ["shuffled", "reversed"])
def test_order_is_the_same_at_every_pass_and_about_half(against: str):
    clips, _ = moving(200, 6, 0)
    asked = in_order(batches(clips), against=against, seed=3)
    once, twice = list(asked()), list(asked())
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(once, twice, strict=True))
    label = torch.cat([b[1] for b in once])
    assert 0.35 < float(label.float().mean()) < 0.65
    found = torch.cat([b[0] for b in once])
    assert torch.equal(found[label == 1], clips[label == 1])  # untouched
    assert not (found[label == 0] == clips[label == 0]).flatten(1).all(1).any()  # disturbed
    assert torch.equal(found.sum(1), clips.sum(1))  # no frame is lost or doubled


def test_motion_tells_order_and_a_still_encoder_does_not():
    """Differences of neighbouring frames know the order; the mean over time cannot."""
    (train, _), (test, _) = moving(240, 6, 1), moving(120, 6, 2)

    def sides(encoder) -> tuple[Labelled, Labelled]:
        a, b = (in_order(batches(c, i), against="reversed") for c, i in ((train, 0), (test, 1000)))
        return Labelled(encoder, a), Labelled(encoder, b)

    def change(clips: Tensor) -> Tensor:  # correlation of each frame with the next one shifted by one pixel
        return (clips[:, :-1].roll(1, -1) * clips[:, 1:]).flatten(2).sum(2)

    assert linear(*sides(change)).accuracy > 0.95
    low, high = linear(*sides(lambda c: c.mean(1).flatten(1))).interval
    assert low < 0.5 < high


def test_speed_is_read_off_displacements():
    (train, _), (test, _) = moving(120, 13, 1, size=16), moving(60, 13, 2, size=16)

    def displacement(clips: Tensor) -> Tensor:
        at = clips.flatten(2).argmax(2) % 16
        return torch.nn.functional.one_hot((at[:, 1] - at[:, 0]) % 16, 16).float()

    a, b = (at_speeds(batches(c, i), frames=4) for c, i in ((train, 0), (test, 500)))
    assert linear(Labelled(displacement, a), Labelled(displacement, b)).accuracy == 1.0
    assert next(a())[0].shape == (16, 4, 1, 16, 16)
    with pytest.raises(ValueError, match="13 frames"):
        next(at_speeds(batches(train[:, :12]), frames=4)())
    with pytest.raises(ValueError, match="different"):
        at_speeds(batches(train), frames=4, strides=(2, 2))


def test_trajectory_knows_what_is_there_and_not_what_is_not():
    clips, where = moving(300, 6, 0)
    columns = clips.sum(-2).flatten(2)  # (B, T, 8): one hot
    nothing = torch.randn(300, 6, 8, generator=torch.Generator().manual_seed(5))
    told = trajectory(columns[:200], where[:200], columns[200:], where[200:], times=6, names=("x", "y"))
    assert told.r2[0] > 0.999 and abs(told.r2[1]) < 0.1
    assert len(told.steps) == 6 and all(step[0] > 0.99 for step in told.steps)
    low, high = told.intervals[0]
    assert low <= told.r2[0] <= high
    assert [row["name"] for row in told.rows()] == ["x (R2)", "y (R2)"]
    blind = trajectory(nothing[:200], where[:200], nothing[200:], where[200:], times=6)
    assert all(abs(v) < 0.1 for v in blind.r2)


def test_trajectory_of_tubelets_asks_for_the_mean_of_their_frames():
    z = torch.randn(80, 3, 5)
    where = torch.stack([z[..., :1] - 1, z[..., :1] + 1], 2).flatten(1, 2)  # two frames around each step
    assert trajectory(z[:50], where[:50], z[50:], where[50:], times=3).r2[0] > 0.999
    with pytest.raises(ValueError, match="multiple"):
        trajectory(z[:50], where[:50, :5], z[50:], where[50:], times=3)


def test_intervals_of_a_trajectory_draw_whole_clips():
    """Frames of a clip that all tell the same thing must not make the interval narrower."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(120, 1, 2, generator=g)
    y = z[..., :1] + torch.randn(120, 1, 1, generator=g)
    one = trajectory(z[:60], y[:60], z[60:], y[60:], times=1)
    many = trajectory(
        z[:60].repeat(1, 9, 1), y[:60].repeat(1, 9, 1), z[60:].repeat(1, 9, 1), y[60:].repeat(1, 9, 1), times=9
    )
    widths = [high - low for (low, high) in (one.intervals[0], many.intervals[0])]
    assert widths[1] > 0.8 * widths[0]


def test_films_share_colours_over_time():
    tokens = torch.zeros(1, 4, 2, 2, 6)
    for t in range(4):
        tokens[0, t, t % 2, t // 2, 0] = 1.0  # one patch that moves
    films = pca_films(tokens.view(1, 16, 6), (4, 2, 2))
    spots = torch.stack([films[0, t, :, t % 2, t // 2] for t in range(4)])
    assert (spots == spots[0]).all() and films.shape == (1, 4, 3, 2, 2)
    shown = shown_clips(torch.zeros(1, 8, 1, 2, 2), torch.tensor([0.5]), torch.tensor([0.5]))
    joined = side_by_side(shown, films)
    assert torch.equal(joined[0, 2, :, :, -2:], films[0, 1]) and torch.equal(joined[0, 3, :, :, -2:], films[0, 1])


def test_clip_features_pass_through_the_probes_of_pictures():
    clips, where = moving(64, 4, 0)
    labels = (where[:, 0, 1] > 3).long()
    data = Features(clips.flatten(1), labels, torch.arange(64))
    assert linear(data, data).accuracy > 0.95
