"""Protocols, pairs, evaluation and films: what a planning number rests on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from openjepa.plan import run_protocol
from openjepa.plan.evaluate import CONTROLS, Result, evaluate, tune
from openjepa.plan.film import frames, save_film
from openjepa.plan.protocol import Manifest, Protocol, draw_pairs, load_protocol, planner_config, protocols
from openjepa.plan.receding import Still, drive
from openjepa.worlds.base import World
from tests.plan.plane import PREPROCESS, Exact, Plane

SMALL = {
    "name": "plane", "world": {"name": "plane"}, "episodes": 12, "budget": 16, "success": "end",
    "cost": {"over": "sum"}, "planner": {"name": "cem", "horizon": 6, "samples": 64, "elites": 8, "iterations": 5},
    "tune": {"first": 0, "count": 50}, "report": {"first": 100, "count": 50},
}  # fmt: skip


def protocol(**changes) -> Protocol:
    return Protocol.model_validate(SMALL | changes)


def test_the_toy_is_a_world():
    assert isinstance(Plane(), World)


@pytest.mark.parametrize("name", protocols())
def test_shipped_protocols(name: str):
    p = load_protocol(name)
    assert p.name == name and p.about and p.episodes >= 200 and not set(p.tune.all) & set(p.report.all)
    assert p.search().name in ("cem", "icem", "mppi") and p.hash == load_protocol(name).hash
    assert p.takes(p.skip) == p.take <= p.search().horizon


HASHES = {
    "one-room": "2 15f729376ab5d263",
    "pendulum": "1 5a2377639c2e18c7",
    "point-mass": "1 e1ce8df71da7e2e9",
    "pointmaze": "1 1b97fba95f79e193",
    "pusht": "1 82b5ed9fb07fec63",
    "reacher-lewm": "2 a29c9415f434ec49",
    "two-rooms-fixed": "1 03310bd07858f8c5",
    "two-rooms-lewm": "1 af8b5d71cbb48cc8",
    "two-rooms-published": "1 debbb8e8f4218dcc",
    "two-rooms-published-fixed": "1 9365d4fa0950e8ed",
    "two-rooms-random": "4 23abc302f7d8a1f7",
}


def test_shipped_protocols_do_not_change_unnoticed():
    """A protocol that changes gets a new version, and a new line here."""
    found = {n: f"{load_protocol(n).version} {load_protocol(n).hash}" for n in protocols()}
    assert {n: found.get(n) for n in HASHES} == HASHES
    assert all(found[n].startswith("1 ") for n in set(found) - set(HASHES)), "a new one begins at version 1"


def test_published_settings():
    p = load_protocol("two-rooms-published")
    assert p.world["size"] == 65 and p.budget == 200 and p.cost.over == "sum" and p.success == "end" and p.ball
    for name in ("two-rooms-lewm", "reacher-lewm"):
        p, cem = load_protocol(name), load_protocol(name).search()
        assert (p.ahead, p.budget, p.skip, p.pairs) == (25, 50, 5, "held_out")
        assert (cem.samples, cem.iterations, cem.elites, cem.horizon) == (300, 30, 30, 5)
        one = p.search(skip=1)
        assert one.horizon == 25 and p.takes(1) == 25, "a model of single steps looks as far ahead"


def test_protocols_that_fool_themselves_are_refused(tmp_path):
    with pytest.raises(ValueError, match="different seeds"):
        protocol(tune={"first": 90, "count": 20})
    with pytest.raises(ValueError, match="a seed for each"):
        protocol(episodes=60)
    with pytest.raises(ValueError, match="ahead must be given"):
        protocol(pairs="held_out")
    with pytest.raises(ValueError, match="Did you mean 'cem'"):
        protocol(planner={"name": "cme"})
    with pytest.raises(ValueError, match="Did you mean 'two-rooms-lewm'"):
        load_protocol("two-room-lewm")
    with pytest.raises(ValueError, match="protocol must exist"):
        load_protocol(tmp_path / "no.json")
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(SMALL))
    assert load_protocol(path).hash == protocol().hash != protocol(budget=17).hash


def test_pairs_by_seed():
    p, world = protocol(), Plane()
    pairs = draw_pairs(p, world)
    assert len(pairs) == 12 and pairs.origin[0] == "seed 100" and not world.reached(pairs.starts, pairs.goals).any()
    more = draw_pairs(p, world, episodes=50)
    assert np.array_equal(more.starts[:12], pairs.starts) and np.array_equal(more.goals[:12], pairs.goals)
    other = draw_pairs(p, world, split="tune")
    assert not (other.starts[:, None, 0] == more.starts[None, :, 0]).any(), "other pairs for tuning"
    assert draw_pairs(p, world).hash == pairs.hash != other.hash
    back = Manifest.from_dict(json.loads(json.dumps(pairs.as_dict())))
    assert back.hash == pairs.hash and np.array_equal(back.starts, pairs.starts)
    changed = pairs.as_dict()
    changed["goals"][3][0] += 1e-9
    with pytest.raises(ValueError, match="changed after saving"):
        Manifest.from_dict(changed)
    with pytest.raises(ValueError, match="episodes must be between"):
        draw_pairs(p, world, episodes=51)


def test_no_start_is_solved():
    close = Plane(far=0.6)  # most goals are within reach at the start
    pairs = draw_pairs(protocol(), close, episodes=50)
    assert pairs.refused > 20 and not close.reached(pairs.starts, pairs.goals).any()
    with pytest.raises(ValueError, match="solved at the start"):
        draw_pairs(protocol(), Plane(far=0.1))


def test_held_out_pairs():
    world, rng = Plane(), np.random.default_rng(0)
    walks = {f"walk{i}": np.cumsum(rng.uniform(-1, 1, (n, 3)), 0) for i, n in enumerate((40, 9, 30))}
    p = protocol(pairs="held_out", ahead=10)
    pairs = draw_pairs(p, world, held_out=walks)
    for start, goal, origin in zip(pairs.starts, pairs.goals, pairs.origin, strict=True):
        name, step = origin.split("episode ")[1].split(", step ")
        assert np.array_equal(start, walks[name][int(step)]) and np.array_equal(goal, walks[name][int(step) + 10])
        assert name != "walk1", "too short"
    assert len({o.split(": ")[1] for o in pairs.origin}) == 12, "no pair twice"
    with pytest.raises(ValueError, match="held_out must hold episodes for"):
        draw_pairs(p, world)
    with pytest.raises(ValueError, match="longer than 10"):
        draw_pairs(p, world, held_out={"walk1": walks["walk1"]})


def test_evaluation_beside_its_controls():
    told = []
    result = evaluate(Exact(), Plane(), protocol(), preprocess=PREPROCESS, tell=told.append)
    rows = result.values["rows"]
    assert told == ["model", *CONTROLS] and set(rows) == set(told)
    assert rows["model"]["end"]["count"] == 12 and rows["simulator"]["end"]["count"] == 12
    assert rows["zero"]["any"]["count"] == 0 and rows["goal_is_start"]["end"]["count"] == 0
    assert rows["random"]["end"]["count"] <= 3
    low, high = rows["model"]["end"]["low"], rows["model"]["end"]["high"]
    assert 0.7 < low < 0.8 and high == 1.0, "Wilson's interval of 12 in 12"
    steps = rows["model"]["steps"]
    assert 1 <= steps["median"] <= steps["p90"] <= 16 and steps["held_after"] == 1.0 and rows["zero"]["steps"] is None
    seconds = rows["model"]["seconds"]
    assert seconds["plans_per_episode"] == 16 and seconds["together"] == 12 and seconds["plan_alone"] > 0
    assert seconds["per_episode"] >= 16 * seconds["per_plan"] * (1 - 1e-6), "looking at the world comes on top"
    again = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert again["manifest"]["hash"] == result.manifest.hash and again["protocol"]["hash"] == protocol().hash
    table = result.table()
    assert "100.0 [75.8, 100.0]" in table and "true simulator" in table and len(table.splitlines()) == 7


def test_the_same_seed_gives_the_same_numbers_and_a_subset_the_same_episodes():
    whole = evaluate(Exact(), Plane(), protocol(), preprocess=PREPROCESS, controls=())
    again = evaluate(Exact(), Plane(), protocol(), preprocess=PREPROCESS, controls=())
    part = evaluate(Exact(), Plane(), protocol(), preprocess=PREPROCESS, controls=(), episodes=5)
    assert np.array_equal(whole.drives["model"].states, again.drives["model"].states)
    assert np.allclose(whole.drives["model"].states[:5], part.drives["model"].states, atol=1e-4)


def test_the_ceiling_may_be_measured_on_fewer_and_not_where_states_cannot_be_set():
    world = Plane()
    result = evaluate(Exact(), world, protocol(), preprocess=PREPROCESS, controls=("simulator",), ceiling_episodes=4)
    assert result.values["rows"]["simulator"]["n"] == 4 and result.values["rows"]["model"]["n"] == 12
    assert "(n = 4)" in result.table()
    world.settable = False
    assert list(evaluate(Exact(), world, protocol(), preprocess=PREPROCESS).values["rows"]) == [
        "model", "random", "zero", "goal_is_start",
    ]  # fmt: skip


def test_a_wrong_model_fails():
    """The negative control: a model whose actions do nothing plans nothing."""

    class Deaf(Exact):
        def step(self, z, action):
            return z + 0 * action.sum(-1, keepdim=True)

    rows = evaluate(Deaf(), Plane(), protocol(), preprocess=PREPROCESS, controls=()).values["rows"]
    assert rows["model"]["end"]["count"] <= 3


def test_any_time_and_end_differ_when_a_goal_is_passed():
    class Passing:
        sees = "nothing"

        def act(self, rows, seen):
            return np.ones((len(rows), 1, 2))

    world = Plane()
    starts = np.array([[0.0, 0.0, 0.0], [5.0, 5.0, 0.0]])
    done = drive(world, starts, np.array([[3.0, 3.0, 0.0], [0.0, 0.0, 0.0]]), Passing(), budget=8)
    from openjepa.plan.evaluate import summary

    row = summary(done, Passing())
    assert row["any"]["count"] == 1 and row["end"]["count"] == 0 and row["steps"]["median"] == 3
    assert row["steps"]["held_after"] == pytest.approx(1 / 6)


def test_tuning_uses_other_pairs_and_picks_the_better_planner():
    good = {"name": "cem", "horizon": 6, "samples": 64, "elites": 8, "iterations": 5}
    bad = {"name": "shooting", "horizon": 2, "samples": 1}
    chosen, tried = tune(Exact(), Plane(), protocol(), [bad, good], PREPROCESS, episodes=8)
    assert chosen == planner_config(good) and len(tried) == 2
    assert tried[0]["row"]["end"]["count"] < tried[1]["row"]["end"]["count"] == 8
    by_simulator, _ = tune(None, Plane(), protocol(), [bad, good], episodes=4)
    assert by_simulator == chosen


def test_errors():
    with pytest.raises(ValueError, match="preprocess must be given"):
        evaluate(Exact(), Plane(), protocol())
    with pytest.raises(ValueError, match="world must be 'planet'"):
        evaluate(None, Plane(), protocol(world={"name": "planet"}))
    with pytest.raises(ValueError, match="controls must be among"):
        evaluate(None, Plane(), protocol(), controls=("oracle",))


def test_one_call_does_everything(tmp_path):
    result = run_protocol(Exact(), PREPROCESS, Plane(), protocol(), out=tmp_path / "plan", films=2, controls=("zero",))
    folder = tmp_path / "plan"
    files = result.values["files"]
    assert sorted(files) == sorted(p.name for p in folder.iterdir())
    assert {"model_000.gif", "model_001.gif", "result.json", "pairs.json", "protocol.json"} == set(files)
    assert Manifest.from_dict(json.loads((folder / "pairs.json").read_text())).hash == result.manifest.hash
    assert load_protocol(folder / "protocol.json").hash == result.values["protocol"]["hash"]
    with Image.open(folder / "model_000.gif") as film:
        assert film.n_frames == 17 and film.size[0] > 2 * film.size[1] - 10


def test_films(tmp_path):
    world = Plane()
    starts, goals = np.zeros((1, 3)), np.array([[0.2, 0.0, 0.0]])
    film = frames(world, drive(world, starts, goals, Still(world), budget=5), goals, 0, size=64)
    assert film.shape == (6, 70, 144, 3) and (film[:, 0, 0] == (60, 170, 80)).all(), "green: reached"
    away = frames(world, drive(world, starts, goals + 3, Still(world), budget=5), goals + 3, 0, size=64)
    assert (away[:, 0, 0] == (200, 200, 200)).all()
    assert np.array_equal(film[0, 3:67, 3:67], world.draw(starts, 64)[0])
    assert np.array_equal(film[3, 3:67, 77:141], world.draw(goals, 64)[0])
    with pytest.raises(ValueError, match=r"end in \.gif or \.mp4"):
        save_film(film, tmp_path / "a.avi")
    with pytest.raises(ValueError, match="film must be uint8"):
        save_film(film.astype(float), tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())
    av = pytest.importorskip("av")
    path = save_film(film, tmp_path / "a.mp4", rate=10, hold=0.5)
    with av.open(str(path)) as box:
        seen = [x.to_ndarray(format="rgb24") for x in box.decode(video=0)]
    assert len(seen) == 11 and np.abs(seen[0].astype(int) - film[0]).mean() < 8


def test_settings_without_a_name_change_the_planner_of_the_protocol() -> None:
    protocol = load_protocol("one-room")
    usual = protocol.search(skip=3)
    assert protocol.search({"samples": 50}, skip=3) == usual.override({"samples": 50})
    assert protocol.search({"name": "mppi", "samples": 9}, skip=3).model_dump()["name"] == "mppi"


def test_an_interrupted_evaluation_keeps_the_rows_that_are_done(tmp_path):
    class Stopped(Plane):
        def step(self, states, actions):
            if self.stepped > 3 * 12 * 16:  # in the fourth row
                raise KeyboardInterrupt
            return super().step(states, actions)

    folder = tmp_path / "plan"
    with pytest.raises(KeyboardInterrupt, match="keeps planner on the model; random policy; zero action"):
        run_protocol(Exact(), PREPROCESS, Stopped(), protocol(), out=folder, film="gif")
    kept = json.loads((folder / "result.json").read_text())
    whole = evaluate(Exact(), Plane(), protocol(), preprocess=PREPROCESS)
    assert kept["complete"] is False and whole.values["complete"] is True
    assert list(kept["rows"]) == ["model", "random", "zero"] and kept["wanted"] == list(whole.values["rows"])
    assert kept["rows"]["model"]["end"] == whole.values["rows"]["model"]["end"]
    assert sorted(kept["files"]) == sorted(p.name for p in folder.iterdir()) and "model_000.gif" in kept["files"]
    told = Result(kept, whole.manifest, {}).table()
    assert "Not measured, interrupted: planner, told that the start is the goal; planner on the true sim" in told
    with pytest.raises(KeyboardInterrupt, match="no row was finished"):
        run_protocol(Exact(), PREPROCESS, Stopped(), protocol(episodes=40), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
