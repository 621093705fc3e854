"""Verdicts on histories whose disease is known by construction."""

import math

import pytest

from openjepa.probe.symptoms import LIMITS, RULES
from openjepa.probe.verdict import Verdict, alarm_step, first_alarm, verdict

HEALTHY = {
    "health/std": 0.4,
    "health/spread": 0.4,
    "health/rank": 20.0,
    "health/weight_rms": 0.05,
    "health/border_share": 0.3,
    "health/input_std": 0.9,
    "health/input_correlation": 0.8,
    "health/top_share": 0.2,
    "health/unexplained": 0.5,
}


def history(looks: int = 10, **course):
    """Rows every 10 steps; `course` maps a number (with _ for /) to a function of t in [0, 1]."""
    rows = []
    for i in range(looks):
        t = i / max(1, looks - 1)
        row = {"step": 10 * i, "progress": t, "loss": 0.5 - 0.2 * t, "lr": 1e-3, **HEALTHY}
        row |= {key.replace("health_", "health/"): f(t) for key, f in course.items()}
        rows.append(row)
    return rows


def test_healthy():
    v = verdict(history(health_spread=lambda t: 0.2 + 0.3 * t))
    assert v.name == "healthy" and not v.alarm and v.step is None and not v.advice
    assert "0.5" in v.evidence[0] and "0.2" in v.evidence[0]


def test_features_of_colour_alone_are_mentioned_without_alarm():
    v = verdict(history(health_trivial_r2=lambda t: 0.97))
    assert v.name == "healthy" and "97%" in v.evidence[-1]


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_too_early(looks):
    v = verdict(history(looks))
    assert v.name == "too early to say" and not v.alarm


def test_collapsed_and_when():
    rows = history(40, health_spread=lambda t: 0.4 * math.exp(-8 * t), loss=lambda t: 0.5 * math.exp(-8 * t))
    v = verdict(rows)
    assert v.name == "collapsed"
    assert any("loss fell" in e for e in v.evidence)
    assert any("method." in a for a in v.advice)
    assert 0 < v.step < rows[-1]["step"] / 2
    assert verdict(rows[:8]).name == "collapsing"  # it says so on the way down


def test_a_dip_that_recovers_ends_healthy_and_its_alarm_is_taken_back():
    rows = history(21, health_spread=lambda t: 0.4 * (0.3 + 2.8 * (t - 0.5) ** 2))
    assert first_alarm(rows) is not None
    assert verdict(rows).name == "healthy"
    assert alarm_step(rows) is None


def test_one_odd_look_is_no_disease():
    rows = history(12)
    rows[7]["health/spread"] = 1e-5
    rows[9]["health/weight_rms"] = 50.0
    assert all(not verdict(rows[:n]).alarm for n in range(13))


def test_projected_features_that_do_not_grow():
    """LeJEPA without SIGReg: the projector's output becomes a point while the encoder's features still differ."""
    course = {"health_sigreg": lambda t: 200.0, "health_projected_std": lambda t: 0.02}
    assert verdict(history(**course)).name == "collapsed"
    assert any("method.lam" in a for a in verdict(history(**course)).advice)
    course["health_projected_std"] = lambda t: 0.01 + 0.9 * t  # on its way up from a small start
    assert all(not verdict(history(20, **course)[:n]).alarm for n in range(21))


def test_dimensional_collapse_needs_spread():
    v = verdict(history(health_rank=lambda t: 20 - 18 * t))
    assert v.name == "dimensionally collapsed"
    assert any("spread" in e.lower() for e in v.evidence)
    assert verdict(history(health_projected_rank=lambda t: 1.2)).name == "dimensionally collapsed"
    both = {"health_rank": lambda t: 20 - 18 * t, "health_spread": lambda t: 0.4 * math.exp(-12 * t)}
    assert verdict(history(**both)).name == "collapsed"  # the graver one


def test_rank_that_rises_does_not_hide_a_collapse():
    rows = history(health_spread=lambda t: 0.4 * math.exp(-12 * t), health_rank=lambda t: 20 + 100 * t)
    assert verdict(rows).name == "collapsed"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_is_seen_at_once(value):
    rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": value}]
    v = verdict(rows)
    assert v.name == "diverging" and v.step == 2
    assert any("optim.lr" in a for a in v.advice)


def test_weights_rewritten_at_a_huge_rate():
    rows = history(health_weight_rms=lambda t: 0.05 * (1 + 5 * t), lr=lambda t: 0.3)
    assert verdict(rows).name == "diverging"
    slow = history(health_weight_rms=lambda t: 0.05 * (1 + 3 * t), lr=lambda t: 1e-3)
    assert verdict(slow).name == "healthy"  # long runs grow their weights at a sane rate


def test_a_loss_that_rises_while_features_gain_is_healthy():
    rising = {"loss": lambda t: 0.1 + 0.5 * t}
    assert verdict(history(20, **rising, health_spread=lambda t: 0.2 + 0.4 * t)).name == "healthy"
    assert verdict(history(20, **rising, health_spread=lambda t: 0.4)).name == "diverging"


def test_shortcut_at_the_border():
    v = verdict(history(health_border_share=lambda t: 0.35 + 0.6 * t))
    assert v.name == "learning shortcuts"
    assert any("crop" in a for a in v.advice)
    assert (
        verdict(history(health_border_share=lambda t: 0.9 - 0.2 * t)).name == "healthy"
    )  # it turns away from the frame


def test_noise_and_identical_pictures_are_named():
    v = verdict(history(health_input_correlation=lambda t: 0.01))
    assert v.name == "learning shortcuts" and "noise" in v.evidence[0]
    v = verdict(history(health_spread=lambda t: 0.0, health_input_std=lambda t: 0.0))
    assert v.name == "collapsed" and any("hardly differ" in e for e in v.evidence)
    assert v.advice == ["Check the data with `openjepa data check`: the pictures are all alike."]


def test_start_values_count_as_the_first_look():
    rows = history(10, health_spread=lambda t: 0.05)[1:]
    assert verdict(rows).name == "healthy"
    rows[0]["start/health/spread"] = 0.5
    assert verdict(rows).name == "collapsed"


def test_rows_without_health_and_rows_with_gaps_do_not_break_it():
    rows = history(10)
    for row in rows[::2]:
        row.pop("health/rank")
    rows.insert(3, {"step": 25, "loss": 0.4})
    rows.append({"note": "resumed"})
    assert verdict(rows).name == "healthy"
    assert verdict([]).name == "too early to say"


def test_verdict_is_plain_data_and_prints():
    v = Verdict("collapsed", ["a"], ["b"], 7)
    assert v.as_dict() == {"name": "collapsed", "evidence": ["a"], "advice": ["b"], "step": 7}
    assert str(v) == "collapsed (first seen at step 7)\n  - a\n  > b"


def test_every_limit_has_a_reason_and_every_alarm_a_rule():
    assert all(len(limit.why) > 20 and limit.value > 0 for limit in LIMITS.values())
    assert {name for name, _ in RULES} == {
        "diverging", "collapsed", "collapsing", "dimensionally collapsed", "learning shortcuts",
    }  # fmt: skip
