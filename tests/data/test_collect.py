"""Collecting: the same bytes for the same settings, interrupted or not; and what is stored is what happened."""

import numpy as np
import pytest

from openjepa.data import collect as collecting
from openjepa.data.collect import collect, drawn
from openjepa.data.episodes import EpisodeConfig, open_episodes
from openjepa.worlds import make_world


class Walk:
    """A point that goes where it is told, and says so as a tiny picture or as numbers."""

    name, names, action, discrete, dt = "walk", ("x", "y"), 2, None, 0.5
    low, high, obs = np.array([-1.0, -1.0]), np.array([1.0, 1.0]), (2,)

    def __init__(self, leaves_at=np.inf):
        self.leaves_at = leaves_at

    def reset(self, n, rng):
        return rng.normal(size=(n, 2))

    def goals(self, states, rng):
        return states + 1

    def step(self, states, actions):
        after = states + actions
        return np.where(np.abs(after) > self.leaves_at, np.nan, after)

    def observe(self, states):
        return 2 * states

    def draw(self, states, size=128):
        return np.zeros((len(states), size, size, 3), np.uint8)

    def distance(self, states, goals):
        return np.abs(states - goals).sum(1)

    def reached(self, states, goals):
        return self.distance(states, goals) < 0.1


class Shove:
    def act(self, states, rng):
        return rng.uniform(-1, 1, (len(states), 2))


class Ending(Walk):
    """Over once it has gone far; then it stands still."""

    names = ("x", "y", "ended")

    def reset(self, n, rng):
        return np.concatenate([super().reset(n, rng), np.zeros((n, 1))], 1)

    def step(self, states, actions):
        after = states[:, :2] + actions * (states[:, 2:] == 0)
        return np.concatenate([after, (np.abs(after).max(1, keepdims=True) > 2).astype(float)], 1)

    def observe(self, states):
        return 2 * states[:, :2]


def files(path):
    return {f.name: f.read_bytes() for f in path.iterdir()}


def test_what_is_stored_is_what_happened(tmp_path):
    e = collect(Walk(), Shove(), episodes=5, steps=7, out=tmp_path / "eps", seed=1)
    assert len(e) == 5 and e.lengths.tolist() == [8] * 5
    assert e.about.world == {"name": "walk"} and e.about.policy == "Shove" and e.about.seed == 1
    assert (e.about.low, e.about.high, e.variables) == ((-1.0, -1.0), (1.0, 1.0), ("x", "y"))
    for episode in e:
        np.testing.assert_array_equal(episode.obs, (2 * episode.state).astype(np.float32))
        np.testing.assert_allclose(episode.state[:-1] + episode.action[:-1], episode.state[1:], rtol=1e-14)
        assert np.abs(episode.action[:-1]).max() <= 1 and not episode.action[-1].any()


def test_the_stored_actions_give_the_stored_states_again(tmp_path):
    world = make_world("point-mass")
    e = collect(world, "random", episodes=3, steps=20, out=tmp_path / "eps")
    states = np.stack([x.state[0] for x in e])
    for t in range(20):
        states = world.step(states, np.stack([x.action[t] for x in e]))
        np.testing.assert_allclose(states, np.stack([x.state[t + 1] for x in e]), rtol=1e-12, atol=1e-12)


def test_interrupted_and_gone_on_with_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "TOGETHER", 4)
    told = []
    settings = {"episodes": 10, "steps": 3, "seed": 5}
    collect(Walk(), Shove(), out=tmp_path / "a", progress=lambda *x: told.append(x), **settings)
    assert told == [(4, 10), (8, 10), (10, 10)]

    def stop(done, of):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(Walk(), Shove(), out=tmp_path / "b", progress=stop, **settings)
    assert not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="unfinished collection of other settings"):
        collect(Walk(), Shove(), out=tmp_path / "b", **{**settings, "seed": 6})
    again = []
    collect(Walk(), Shove(), out=tmp_path / "b", progress=lambda *x: again.append(x), **settings)
    assert again == [(10, 10)] and files(tmp_path / "a") == files(tmp_path / "b")
    with pytest.raises(ValueError, match="new or empty folder"):
        collect(Walk(), Shove(), out=tmp_path / "b", **settings)
    other = collect(Walk(), Shove(), out=tmp_path / "c", **{**settings, "seed": 6})
    assert other.hash != open_episodes(EpisodeConfig(path=str(tmp_path / "a"))).hash


def test_policies_that_remember_begin_anew_with_every_chunk(tmp_path, monkeypatch):
    """An expert of Two Rooms has goals behind the walls of its own episodes; and the last chunk may be smaller."""
    monkeypatch.setattr(collecting, "TOGETHER", 4)
    e = collect({"name": "two-rooms", "observe": "state"}, "door", episodes=10, steps=60, out=tmp_path / "eps")
    crossed = [np.diff(episode.state[:, 0] > episode.state[:, 2]).sum() for episode in e]
    assert len(crossed) == 10 and min(crossed) >= 2


def test_episodes_end_where_their_world_ends_them(tmp_path):
    e = collect(Ending(), Shove(), episodes=20, steps=30, out=tmp_path / "eps", seed=1)
    assert e.lengths.min() < 31
    for episode in e:
        assert not episode.state[1:-1, 2].any() and not episode.action[-1].any()
        assert episode.state[-1, 2] == 1 or len(episode.obs) == 31
        np.testing.assert_allclose(episode.state[:-1, :2] + episode.action[:-1], episode.state[1:, :2], rtol=1e-12)


def test_a_world_that_leaves_the_numbers_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"walk must stay finite, got episode \d+, whose states are not finite"):
        collect(Walk(leaves_at=3.0), Shove(), episodes=4, steps=60, out=tmp_path / "eps")
    assert not (tmp_path / "eps").exists()


def test_a_world_is_drawn_the_same_in_memory_and_through_the_cache(tmp_path, monkeypatch):
    cfg = EpisodeConfig(path="pendulum", episodes=6, steps=9, seed=2, cache_dir=str(tmp_path))
    here = open_episodes(cfg)
    assert here.kind == "world" and not any(tmp_path.iterdir())
    monkeypatch.setattr(collecting, "MEMORY", 0)
    kept = drawn(cfg)
    np.testing.assert_array_equal(here.obs, kept.obs)
    np.testing.assert_array_equal(here.state, kept.state)
    assert here.about == kept.about and len(list((tmp_path / "episodes").iterdir())) == 1
    drawn(cfg)
    drawn(cfg.model_copy(update={"seed": 3}))
    assert len(list((tmp_path / "episodes").iterdir())) == 2
    assert here.about.world["name"] == "pendulum" and make_world(here.about.world).name == "pendulum"


def test_names_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'pendulum'"):
        collect("pendulun", episodes=1, steps=1, out=tmp_path / "a")
    with pytest.raises(ValueError, match=r"which is not there. Worlds: .*pendulum"):
        open_episodes(EpisodeConfig(path="pendulun"))
    with pytest.raises(ValueError, match="policy must be"):
        collect("pendulum", "expertt", episodes=1, steps=1, out=tmp_path / "a")
    assert not (tmp_path / "a.part").exists()
