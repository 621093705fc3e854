"""Episodes on disk: whole or not there; split by episode; every fault named, and nothing lost."""

import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from openjepa.data.episodes import About, EpisodeConfig, Writer, open_episodes, split
from openjepa.data.episodes.folder import damaged
from openjepa.data.episodes.splitting import place


def draw(i, frames=None, size=3):
    g = np.random.default_rng(i)
    frames = frames or int(g.integers(4, 9))
    return g.normal(size=(frames, size)).astype(np.float32), g.normal(size=(frames - 1, 2)), g.normal(size=(frames, 4))


def write(out, count=12, about=None, **made):
    with Writer(out, about, made=made) as w:
        for i in range(count):
            w.add(*draw(i))
    return out


def open_(path, **settings):
    return open_episodes(EpisodeConfig(path=str(path), **settings))


def test_what_is_written_is_read(tmp_path):
    about = About(variables=tuple("abcd"), low=(-1.0, -2.0), high=(1.0, 2.0), policy="random", seed=3, dt=0.1)
    e = open_(write(tmp_path / "eps", about=about))
    assert len(e) == 12 and e.about == about and not e.bad
    for i in range(12):
        obs, action, state = draw(i)
        np.testing.assert_array_equal(e[i].obs, obs)
        np.testing.assert_array_equal(e[i].action[:-1], action.astype(np.float32))
        assert not e[i].action[-1].any()
        np.testing.assert_array_equal(e[i].state, state)
    raw = np.load(tmp_path / "eps" / "obs.npy", mmap_mode="r")  # plain files, for anybody's numpy
    assert raw.shape == (e.frames, 3) and raw.dtype == np.float32
    assert not list(tmp_path.glob("*.part"))


def test_pictures_are_read_in_any_layout(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    with Writer(tmp_path / "eps") as w:
        w.add(x)
        w.add(x.transpose(0, 3, 1, 2))
        w.add(x.astype(np.float64) / 255)
    e = open_(tmp_path / "eps")
    assert e.pictures and e.action.shape == (15, 0) and all(np.array_equal(e[i].obs, x) for i in range(3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda o, a, s: (o, a[:-1], s), "5 actions|[0-9]+ actions for [0-9]+ observations"),
        (lambda o, a, s: (o, a, s[:-1]), "states for"),
        (lambda o, a, s: (np.where(o > 0, np.nan, o), a, s), "observations are not finite"),
        (lambda o, a, s: (o, a * np.inf, s), "actions are not finite"),
        (lambda o, a, s: (o[:1], a[:0], s[:1]), "at least 2"),
        (lambda o, a, s: (o.astype(str), a, s), "not numbers"),
        (lambda o, a, s: ([[1.0], [1.0, 2.0]], a, s), "ragged"),
        (lambda o, a, s: (o[:, :2], a, s), r"observations of shape \(2,\), \(3,\) in the others"),
    ],
)
def test_a_writer_refuses_what_is_not_sound(tmp_path, change, said):
    w = Writer(tmp_path / "eps")
    w.add(*draw(0))
    with pytest.raises(ValueError, match=said):
        w.add(*change(*draw(1)))
    w.add(*draw(2))
    w.close()
    assert len(open_(tmp_path / "eps")) == 2


def test_a_failing_writer_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), Writer(tmp_path / "eps") as w:
        w.add(*draw(0))
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="at least one episode"):
        Writer(tmp_path / "eps").close()


def slow_writer(out, ready):
    with Writer(out, made={"seed": 1}) as w:
        for i in range(1000):
            w.add(*draw(i))
            if i == 7:
                w.commit()
                ready.set()
            if i > 7:
                time.sleep(0.002)


def test_a_killed_writer_leaves_nothing_that_looks_whole_and_can_be_gone_on_with(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=slow_writer, args=(tmp_path / "eps", ready))
    process.start()
    assert ready.wait(30)
    with pytest.raises(ValueError, match="got a process that writes it"):
        Writer(tmp_path / "eps", made={"seed": 1})
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "eps").exists()
    with pytest.raises(ValueError, match="was interrupted"):
        open_(tmp_path / "eps")
    with pytest.raises(ValueError, match="unfinished collection of other settings"):
        Writer(tmp_path / "eps", made={"seed": 2})
    with open(tmp_path / "eps.part" / "journal.jsonl", "ab") as journal:
        journal.write(b'{"lengths": [5, 5')  # as if killed while noting
    with Writer(tmp_path / "eps", made={"seed": 1}) as w:
        assert w.done == 8
        for i in range(8, 12):
            w.add(*draw(i))
    write(tmp_path / "whole", seed=1)
    for name in ("obs.npy", "action.npy", "state.npy", "episodes.json"):
        assert (tmp_path / "eps" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_out_that_is_taken_is_refused(tmp_path):
    write(tmp_path / "eps")
    with pytest.raises(ValueError, match="new or empty folder"):
        Writer(tmp_path / "eps")


def rewrite(path, **changes):
    facts = json.loads((path / "episodes.json").read_text())
    (path / "episodes.json").write_text(json.dumps({**facts, **changes}))


def resave(path, name, change):
    np.save(path / name, change(np.load(path / name)))


@pytest.mark.parametrize(
    ("hurt", "said"),
    [
        (lambda p: (p / "obs.npy").unlink(), "no obs.npy"),
        (lambda p: (p / "action.npy").unlink(), "no action.npy"),
        (lambda p: (p / "obs.npy").write_bytes((p / "obs.npy").read_bytes()[:200]), "obs.npy that cannot be read"),
        (lambda p: resave(p, "obs.npy", lambda x: x.astype(np.float64)), "obs.npy of type float64"),
        (lambda p: resave(p, "state.npy", lambda x: x[:-1]), r"state.npy of shape \(\d+, 4\) for \d+ frames"),
        (lambda p: rewrite(p, lengths=[5, 1]), "fewer than 2 frames"),
        (lambda p: rewrite(p, lengths=[]), "no episodes"),
        (lambda p: rewrite(p, names=["a"]), "1 names for 12 episodes"),
        (lambda p: rewrite(p, low=[0.0]), r"1 bounds \(low\) for actions of 2 numbers"),
        (lambda p: rewrite(p, format="openjepa-episodes/9"), "Update openjepa"),
        (lambda p: (p / "episodes.json").write_text("{"), "cannot be read"),
    ],
)
def test_a_folder_that_does_not_fit_together_is_refused(tmp_path, hurt, said):
    path = write(tmp_path / "eps")
    hurt(path)
    with pytest.raises(ValueError, match=said):
        open_(path)


def test_bad_episodes_are_named_and_left_out_by_choice(tmp_path):
    path = write(tmp_path / "eps")
    offsets = np.cumsum([0, *json.loads((path / "episodes.json").read_text())["lengths"]])
    action = np.load(path / "action.npy")
    action[offsets[4] + 1] = np.inf
    action[offsets[6] - 1] = np.nan  # the last row of episode 5, which is never used
    np.save(path / "action.npy", action)
    before = {f.name: f.read_bytes() for f in path.iterdir()}
    with pytest.raises(ValueError, match=r"1 bad of 12: 4 \(actions are not finite .* at step 1\)"):
        open_(path)
    e = open_(path, on_bad="skip")
    assert len(e) == 11 and [n for n, _ in e.bad] == ["4"] and "4" not in e.names
    np.testing.assert_array_equal(e[4].obs, draw(5)[0])  # the one after it
    assert before == {f.name: f.read_bytes() for f in path.iterdir()}


def test_bits_that_changed_are_found(tmp_path):
    path = write(tmp_path / "eps")
    assert damaged(path) == []
    content = bytearray((path / "obs.npy").read_bytes())
    content[128 + 12 * 6] ^= 1
    (path / "obs.npy").write_bytes(bytes(content))
    assert len(damaged(path)) == 1 and "checksum" in damaged(path)[0][1]


def test_adding_episodes_moves_none_across(tmp_path):
    few, many = (open_(write(tmp_path / str(n), n)) for n in (60, 200))
    cfg = EpisodeConfig(path="", held_out=0.2)
    a, b = split(few, cfg), split(many, cfg)
    assert set(a.names) == {n for n in b.names if int(n) < 60}
    assert not set(a.train) & set(a.held) and len(a.train) + len(a.held) == 60
    assert 0.1 < len(b.held) / 200 < 0.3
    assert a.hash != b.hash and a.hash == split(few, cfg).hash
    assert a.hash != split(few, cfg.model_copy(update={"split_seed": 1})).hash
    assert len(split(few, cfg.model_copy(update={"held_out": 0.0})).held) == 0
    with pytest.raises(ValueError, match="must leave episodes to learn from"):
        split(few, cfg.model_copy(update={"held_out": 0.9999999}))


def test_places_are_even():
    u = np.sort([place(0, str(i)) for i in range(2000)])
    assert np.abs(u - (np.arange(2000) + 0.5) / 2000).max() < 1.63 / 2000**0.5  # Kolmogorov's bound at 1 %


def test_a_limit_keeps_its_episodes_when_more_come(tmp_path):
    few, many = (open_(write(tmp_path / str(n), n), limit=5) for n in (20, 21))
    assert len(few) == 5 and len(set(few.names) & set(many.names)) >= 4


def test_states_can_be_what_is_seen(tmp_path):
    with Writer(tmp_path / "eps", About(variables=("x", "y"))) as w:
        w.add(np.zeros((4, 8, 8, 1), np.uint8), np.zeros((3, 1)), np.arange(8.0).reshape(4, 2))
    e = open_(tmp_path / "eps", obs="state")
    assert not e.pictures and e.obs.dtype == np.float32 and e.features == ("x", "y")
    write(tmp_path / "plain")
    with pytest.raises(ValueError, match="obs must be 'state'"):
        open_(tmp_path / "plain", obs="pictures")
