"""Windows: cut where they should be, equally likely, a function of the step alone, and normalised at the door."""

import threading

import numpy as np
import pytest
import torch

from openjepa.config import Window
from openjepa.data.episodes import About, EpisodeConfig, Episodes, Scale, WindowStream
from openjepa.data.episodes.scale import measure

CFG = EpisodeConfig(path="here", held_out=0.25)


def episodes(lengths=(7, 12, 5, 9, 20, 3, 8, 11), pictures=False, discrete=None):
    """Every number tells its episode and its step: observation [e, t], action [e, t] of two numbers."""
    lengths = np.array(lengths)
    offsets = np.cumsum(lengths) - lengths
    e = np.repeat(np.arange(len(lengths)), lengths)
    t = np.arange(lengths.sum()) - np.repeat(offsets, lengths)
    obs = np.stack([e, t], 1).astype(np.float32)
    if pictures:
        obs = np.broadcast_to(obs[:, None, None, :].astype(np.uint8), (len(obs), 4, 6, 2)).copy()
        obs[:, 0, 1] = 255  # so that rows and columns can be told apart
    action = (t % 3)[:, None].astype(np.float32) if discrete else np.stack([10 * e, 10 * t], 1).astype(np.float32)
    state = np.stack([e, t, e + t], 1).astype(np.float64)
    names = [str(i) for i in range(len(lengths))]
    about = About(variables=("e", "t", "sum"), discrete=discrete)
    return Episodes("npz", "here", obs, action, state, offsets, lengths, names, about)


def stream(window, cfg=CFG, e=None, **kwargs):
    return WindowStream(e or episodes(), window, cfg=cfg, **{"batch_size": 64, "seed": 3, **kwargs})


def in_world_units(s, batch):
    obs = batch.obs * torch.tensor(s.scale.obs_std) + torch.tensor(s.scale.obs_mean)
    return obs.round().numpy(), s.scale.world_action(batch.action).round().numpy(), batch.state.numpy()


@pytest.mark.parametrize(("steps", "skip"), [(2, 1), (3, 2), (4, 3)])
def test_windows_are_whole_stretches_of_training_episodes(steps, skip):
    s = stream(Window(steps=steps, skip=skip), batch_size=4096)
    obs, action, state = in_world_units(s, next(s.batches()))
    s.close()
    e, t = obs[..., 0], obs[..., 1]
    assert (e == e[:, :1]).all() and (np.diff(t, axis=1) == skip).all()
    np.testing.assert_array_equal(state, np.stack([e, t, e + t], -1))
    assert action.shape == (4096, steps - 1, skip, 2)  # action j of gap i was taken at frame t_i + j
    np.testing.assert_array_equal(action[..., 1], 10 * (t[:, :-1, None] + np.arange(skip)))
    np.testing.assert_array_equal(action[..., 0], np.broadcast_to(10 * e[:, :-1, None], action[..., 0].shape))
    lengths = episodes().lengths
    assert (t[:, -1] < lengths[e[:, 0].astype(int)]).all()
    assert not set(e[:, 0].astype(int)) & set(s.split.held)
    fit = {(int(i), a) for i in s.split.train for a in range(lengths[i] - (steps - 1) * skip)}
    seen = set(zip(e[:, 0].astype(int).tolist(), t[:, 0].astype(int).tolist(), strict=True))
    assert seen == fit and len(s.cuts) == len(fit)  # every window can be drawn, and no other


def test_every_window_is_equally_likely():
    s = stream(Window(steps=3), batch_size=512)
    counts = np.bincount(np.concatenate([s.numbers(step) for step in range(200)]), minlength=len(s.cuts))
    expected = counts.sum() / len(counts)
    chi2 = ((counts - expected) ** 2 / expected).sum()
    k = len(counts) - 1
    assert abs(chi2 - k) < 5 * (2 * k) ** 0.5


def test_a_step_is_a_function_of_its_number():
    s = stream(Window(steps=4), batch_size=16, accumulate=2)
    running = s.batches()
    first = [next(running) for _ in range(8)]
    again = s.batches(start_step=2)  # ends the first
    for batch in first[4:]:
        other = next(again)
        assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))
    assert not torch.equal(first[0].index, first[1].index)
    assert not torch.equal(stream(Window(steps=4), seed=4).cut(np.arange(3)).index, first[0].index[:3])
    s.close()


def test_ranks_share_one_draw():
    one = stream(Window(steps=3), batch_size=32, accumulate=2)
    two = [stream(Window(steps=3), batch_size=32, accumulate=2, rank=r, world=2) for r in range(2)]
    for step in range(3):
        for micro in range(2):
            parts = np.concatenate([s.numbers(step, micro) for s in two])
            np.testing.assert_array_equal(parts, one.numbers(step, micro))


def test_pictures_keep_their_axes_and_are_normalised():
    s = stream(Window(steps=2), e=episodes(pictures=True), batch_size=512)
    batch = next(s.batches())
    s.close()
    assert batch.obs.shape == (512, 2, 2, 4, 6) and batch.obs.is_contiguous() and batch.obs.dtype == torch.float32
    mean, std = (torch.tensor(x).view(2, 1, 1) for x in (s.scale.obs_mean, s.scale.obs_std))
    pixels = ((batch.obs * std + mean) * 255).round()
    assert (pixels[..., 0, 1] == 255).all()
    rest = pixels.clone()
    rest[..., 0, 1] = rest[..., 1, 0]
    np.testing.assert_array_equal(rest[..., 0, 0].numpy(), batch.state[..., :2].numpy())
    assert (rest == rest[..., :1, :1]).all()
    used = s.episodes.obs[s.episodes.keep(s.split.train).rows()] / 255.0
    np.testing.assert_allclose(s.scale.obs_mean, used.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(s.scale.obs_std, used.std((0, 1, 2)), rtol=1e-6)
    assert s.space.obs == (2, 4, 6) and s.space.names == ("e", "t", "sum") and s.space.pictures


def test_mapped_pictures_give_the_same_batches(tmp_path):
    e = episodes(pictures=True)
    np.save(tmp_path / "obs.npy", e.obs)
    mapped = np.load(tmp_path / "obs.npy", mmap_mode="r")
    from dataclasses import replace

    a, b = stream(Window(steps=3), e=e), stream(Window(steps=3), e=replace(e, obs=mapped))
    assert isinstance(b.episodes.obs, np.memmap)
    assert all(torch.equal(x, y) for x, y in zip(a.cut(np.arange(20)), b.cut(np.arange(20)), strict=True))


def test_scales_come_from_training_episodes_alone():
    e = episodes()
    s = stream(Window(steps=2))
    rows = e.keep(s.split.train).rows()
    used = np.concatenate([e[i].action[:-1] for i in s.split.train])
    np.testing.assert_allclose(s.scale.obs_mean, e.obs[rows].mean(0), rtol=1e-6)
    np.testing.assert_allclose(s.scale.obs_std, e.obs[rows].std(0), rtol=1e-6)
    np.testing.assert_allclose(s.scale.action_mean, used.mean(0), rtol=1e-6)
    np.testing.assert_allclose(s.scale.action_std, used.std(0), rtol=1e-6)
    batch = s.cut(np.arange(len(s.cuts)))
    assert batch.obs.mean().abs() < 0.3 and 0.7 < batch.obs.std() < 1.3
    assert Scale.from_dict({**s.scale.as_dict(), "more": 1}) == s.scale


def test_large_numbers_that_vary_little_keep_their_digits():
    e = episodes()
    e.obs[:, 0] = 1e6 + np.arange(len(e.obs)) % 2
    e.obs[:, 1] = 7.0
    scale = measure(e, np.arange(len(e)))
    assert abs(scale.obs_std[0] - 0.5) < 1e-3 and scale.obs_std[1] == 1.0 and scale.obs_mean[1] == 7.0


def test_discrete_actions_are_one_hot():
    s = stream(Window(steps=3, skip=2), e=episodes(discrete=3))
    batch = s.cut(np.arange(10))
    assert batch.action.shape == (10, 2, 6) and s.space.action == 6 and s.space.discrete == 3
    assert (batch.action.unflatten(-1, (2, 3)).sum(-1) == 1).all()
    t = batch.state[:, :-1, 1:2] + torch.arange(2)
    assert torch.equal(s.scale.world_action(batch.action)[..., 0], (t % 3).long())


def test_nobody_acts():
    from dataclasses import replace

    e = episodes()
    s = stream(Window(steps=3), e=replace(e, action=np.zeros((len(e.obs), 0), np.float32)))
    assert s.cut(np.arange(5)).action.shape == (5, 2, 0) and s.space.action == 0


def test_short_episodes_are_left_out_and_too_long_windows_refused():
    s = stream(Window(steps=10), cfg=CFG.model_copy(update={"held_out": 0.0}))
    assert len(s.cuts) == 3 + 11 + 2
    with pytest.raises(ValueError, match=r"window must fit .* \(41 frames\) and a longest episode of 20"):
        stream(Window(steps=21, skip=2))
    with pytest.raises(ValueError, match="multiple of accumulate"):
        stream(Window(steps=2), batch_size=10, accumulate=4)


def test_closing_ends_the_thread_and_errors_come_through(monkeypatch):
    before = threading.active_count()
    s = stream(Window(steps=2))
    next(s.batches())
    assert threading.active_count() == before + 1
    s.close()
    assert threading.active_count() == before

    def fail(numbers):
        raise MemoryError("no room")

    monkeypatch.setattr(s, "_cut", fail)
    with pytest.raises(MemoryError, match="no room"):
        next(s.batches())
    assert threading.active_count() == before


def test_a_sample_is_of_training_episodes():
    s = stream(Window(steps=2))
    x = s.sample(1000) * torch.tensor(s.scale.obs_std) + torch.tensor(s.scale.obs_mean)
    assert len(x) == episodes().lengths[s.split.train].sum()
    assert set(x[:, 0].round().int().tolist()) == set(s.split.train.tolist())
    assert torch.equal(s.sample(5, seed=1), s.sample(5, seed=1)) and len(s.sample(5)) == 5
