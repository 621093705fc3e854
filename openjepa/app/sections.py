"""The parts of a report, each a function from plain data to markup. A part without data says what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import yaml

from openjepa.app.charts import Axis, Series, chart, short, spark
from openjepa.probe.symptoms import with_start
from openjepa.probe.verdict import Verdict

Rows = Sequence[Mapping[str, float]]

TONE = {"healthy": "good", "too early to say": "wait", "collapsing": "warn"}  # every other verdict is "bad"
POINTS = 400  # a line is thinned to about this many points: a screen shows no more


def header(title: str, config: Mapping[str, Any], env: Mapping[str, Any], history: Rows) -> str:
    """Title and one line of facts."""
    method, data = _sub(config, "method"), _sub(config, "data")
    encoder = method.get("encoder")
    encoder = encoder.get("name") if isinstance(encoder, Mapping) else encoder
    steps = f"{history[-1].get('step', 0):,.0f} steps" if history else "no steps yet"
    last = history[-1].get("time") if history else None
    facts = [method.get("name"), encoder, data.get("path"), steps, duration(last) if last else None, env.get("date")]
    line = "".join(f"<span>{escape(str(f))}</span>" for f in facts if f)
    return f'<div class="brand">OpenJEPA run report</div><h1>{escape(title)}</h1><p class="meta">{line}</p>'


def verdicts(runs: Sequence[tuple[str, Verdict]]) -> str:
    """The banner, or several side by side."""
    return '<div class="side">' + "".join(_banner(v, title if len(runs) > 1 else "") for title, v in runs) + "</div>"


def _banner(v: Verdict, title: str) -> str:
    of = f'<div class="of">{escape(title)}</div>' if title else ""
    since = f'<p class="since">First seen at step {v.step:,.0f}.</p>' if v.step is not None else ""
    advice = f'<p class="do">What to change</p>{_bullets(v.advice)}' if v.advice else ""
    name = f'<b class="name">{escape(v.name)}</b>'
    return (
        f'<section class="verdict {TONE.get(v.name, "bad")}">{of}{name}{since}{_bullets(v.evidence)}{advice}</section>'
    )


def _bullets(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{code(line)}</li>" for line in lines) + "</ul>" if lines else ""


def code(text: str) -> str:
    """Escaped, with `backticks` as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


CARDS = (
    ("loss", "Loss", "a proxy: judge by the rest"),
    ("health/spread", "Spread", "of features over pictures; 0 is collapse"),
    ("health/projected_std", "Projected size", "behind the projector; 1 is asked"),
    ("health/rank", "Rank", "directions above the noise floor"),
    ("health/knn", "kNN accuracy", "frozen features, nearest neighbours"),
    ("images_per_s", "Pictures per second", "while training"),
    ("windows_per_s", "Windows per second", "while training"),
)


def cards(history: Rows) -> str:
    """The last value of the numbers that matter, each with its course in small."""
    out: list[str] = []
    for key, name, note in CARDS:
        _, values = series(history, key)
        if values:
            last = f"{values[-1]:.1%}" if key == "health/knn" else short(values[-1])
            line = spark(values[-POINTS:], colour=len(out) % 6 + 1)
            parts = f'<div class="k">{name}</div><div class="v">{last}</div>{line}<div class="n">{note}</div>'
            out.append(f'<div class="card">{parts}</div>')
    return f'<div class="cards">{"".join(out)}</div>' if out else ""


def beside(runs: Sequence[tuple[str, Rows]]) -> str:
    """Two or more runs in the same axes."""
    wanted = (
        (
            "health/spread",
            "Spread of features over pictures",
            Axis(low=0),
            "0 is collapse: all pictures look the same.",
        ),
        (
            "health/projected_std",
            "Size of the projected features",
            Axis(low=0, high=1),
            "Behind the projector; 1 is asked.",
        ),
        ("health/rank", "Rank above the noise floor", Axis(low=0), "How many directions the features really use."),
        ("health/knn", "kNN accuracy", Axis(low=0), "Labels are used to report, never to train."),
        ("loss", "Loss", Axis(), "A lower loss is not a better run: a collapsed one can have the lowest."),
    )
    out = []
    for key, title, axis, note in wanted:
        looks = [
            (name, with_start([r for r in rows if "health/spread" in r]) if "/" in key else rows) for name, rows in runs
        ]
        lines = [Series(name, *_thin(series(rows, key)), colour=i % 6 + 1) for i, (name, rows) in enumerate(looks)]
        out.append(_noted(chart([s for s in lines if s.x], title=title, y=axis), note))
    body = "".join(out)
    return f'<h2>Side by side</h2><div class="charts two">{body}</div>' if body else ""


def learning(history: Rows) -> str:
    """Loss, its terms, the rate, the gradient."""
    if not history:
        return section("Learning", missing("There are no metrics yet.", "openjepa train METHOD data=FOLDER out=RUN"))
    terms = sorted({key for row in history for key in row if key.startswith("terms/")})
    out = [
        _plot(history, ["loss"], "Loss", Axis(), "A proxy. It may rise in a healthy run, as the target gains variance.")
    ]
    for key in terms if len(terms) > 1 else []:
        values = [v for v in series(history, key)[1] if math.isfinite(v)]
        log = bool(values) and min(values) > 0 and max(values) > 30 * min(values)
        out.append(_plot(history, [key], f"Term: {key.removeprefix('terms/')}", Axis(log=log), "Before its weight."))
    out.append(_plot(history, ["lr"], "Learning rate", Axis(low=0), ""))
    out.append(_plot(history, ["grad_norm"], "Gradient norm", Axis(log=True), ""))
    return section("Learning", f'<div class="charts">{"".join(out)}</div>')


class Panel(NamedTuple):
    """One small chart: which numbers it draws, and the sentence below it."""

    keys: tuple[str, ...]
    title: str
    axis: Axis
    note: str


HEALTH = (
    Panel(
        ("health/spread", "health/view_spread"),
        "Spread",
        Axis(low=0, high=1),
        "Distance of pictures from their mean, as a share of the features' length. 0: every picture looks the same.",
    ),
    Panel(
        ("health/rank", "health/effective_rank", "health/axes"),
        "Rank",
        Axis(low=0),
        "Directions in use. Without a noise floor this can rise under collapse, so read it with the spread.",
    ),
    Panel(
        ("health/sigreg", "health/sigreg_floor"),
        "SIGReg",
        Axis(log=True),
        "Distance of the projected features from a Gaussian; the floor is what a perfect Gaussian scores.",
    ),
    Panel(("health/projected_std",), "Size of the projected features", Axis(low=0, high=1), "SIGReg wants 1."),
    Panel(
        ("health/unexplained", "health/unexplained_position"),
        "What the prediction leaves unexplained",
        Axis(low=0, high=1),
        "Error over that of always predicting the mean (of the position). Near 1: the context told it nothing.",
    ),
    Panel(
        ("health/prediction_cosine", "health/mean_cosine"),
        "Cosines",
        Axis(high=1),
        "Prediction with its target; and two different pictures with each other, which should stay below 1.",
    ),
    Panel(
        ("health/knn", "health/knn_pixels"),
        "kNN accuracy",
        Axis(low=0),
        "Nearest neighbours in frozen features, and in raw pixels. Labels only report.",
    ),
    Panel(
        ("health/border_share", "health/trivial_r2", "health/content_share"),
        "Shortcuts",
        Axis(low=0, high=1),
        "Share owed to the outer frame; to colour and contrast; share of token variance that is about the picture.",
    ),
    Panel(("health/teacher_distance",), "Teacher distance", Axis(low=0), "Weights of teacher and encoder, relative."),
    Panel(("health/weight_rms",), "Size of the weights", Axis(log=True), "Root mean square over the encoder."),
)


def health(history: Rows) -> str:
    """Everything the observer measured, in small charts with a sentence each."""
    looks = with_start([row for row in history if "health/spread" in row])
    out = [_plot(looks, p.keys, p.title, p.axis, p.note, dots=True) for p in HEALTH]
    if not any(out):
        return section("Health", missing("This run was not looked at.", "openjepa train ... log.look=100"))
    lead = "Measured on the same pictures at every look, without augmentation. The first point is the random start."
    return section("Health", f'<p class="lead">{lead}</p><div class="charts">{"".join(out)}</div>')


def spectrum(history: Rows, *, lines: int = 5) -> str:
    """Eigenvalues of the features' covariance at several steps, both axes logarithmic."""
    looks = with_start([row for row in history if "spectrum/1" in row])
    if not looks:
        return ""
    picked = sorted({round(i * (len(looks) - 1) / max(1, lines - 1)) for i in range(lines)})
    drawn = []
    for place, i in enumerate(picked):
        values = {int(k.removeprefix("spectrum/")): v for k, v in looks[i].items() if k.startswith("spectrum/")}
        ranks = sorted(values)
        name = f"step {looks[i]['step']:,.0f}"
        drawn.append(Series(name, ranks, [values[r] for r in ranks], colour=place % 6 + 1, dashed=place == 0))
    highest = max(max(s.y) for s in drawn)
    axis = Axis("share of the features' energy", log=True)
    if highest > 0:  # thirty decades of rounding noise would flatten all that matters
        drawn = [
            Series(s.name, s.x, [v if v > 1e-9 * highest else math.nan for v in s.y], s.colour, s.dashed) for s in drawn
        ]
    body = chart(drawn, title="Eigenvalues, largest first", x=Axis("rank of the eigenvalue", log=True), y=axis)
    note = "A long, slowly falling line uses many directions. A cliff: dimensional collapse; a sinking line: collapse."
    return section("Spectrum of the features", f'<div class="charts two">{_noted(body, note)}</div>')


def settings(config: Mapping[str, Any], env: Mapping[str, Any], files: Sequence[tuple[str, int]]) -> str:
    """What was run, where, and what it left behind."""
    out = [
        _details("Configuration", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True) if config else ""),
        _details("Environment", yaml.safe_dump(dict(env), sort_keys=False, allow_unicode=True) if env else ""),
        _details("Files", "\n".join(f"{_bytes(size):>10}  {name}" for name, size in files)),
    ]
    return section("How to run it again", "".join(out))


def footer(env: Mapping[str, Any]) -> str:
    version = env.get("openjepa") or env.get("version") or ""
    return f"<footer>Written by OpenJEPA {escape(str(version))}. One file, nothing fetched from elsewhere.</footer>"


def series(history: Rows, key: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the rows that have `key`."""
    pairs = [(row.get("step", i), row[key]) for i, row in enumerate(history) if _is_value(row.get(key))]
    return [float(s) for s, _ in pairs], [float(v) for _, v in pairs]


def _is_value(v: Any) -> bool:
    return isinstance(v, int | float) and not isinstance(v, bool)


def _thin(line: tuple[list[float], list[float]]) -> tuple[list[float], list[float]]:
    """Means over neighbouring points, so that a long run draws a readable line of at most POINTS points."""
    x, y = line
    if len(x) <= POINTS:
        return x, y
    n = math.ceil(len(x) / POINTS)
    groups = [slice(i, i + n) for i in range(0, len(x), n)]
    return [sum(x[g]) / len(x[g]) for g in groups], [sum(y[g]) / len(y[g]) for g in groups]


def _plot(history: Rows, keys: Sequence[str], title: str, axis: Axis, note: str, *, dots: bool = False) -> str:
    lines = []
    for key in keys:
        x, y = _thin(series(history, key))
        floor = key.endswith(("_floor", "_pixels"))
        name = key.rsplit("/", 1)[-1].replace("_", " ")
        if x:
            lines.append(Series(name, x, y, dashed=floor, dots=dots and len(x) <= 60 and not floor))
    return _noted(chart(lines, title=title, y=axis), note)


def _noted(figure: str, note: str) -> str:
    return figure.replace("</figure>", f'<p class="note">{code(note)}</p></figure>') if figure and note else figure


def section(title: str, body: str) -> str:
    """A heading and what is below it; nothing when there is nothing."""
    return f"<h2>{title}</h2>{body}" if body else ""


def missing(what: str, command: str) -> str:
    """What is not there, and the command that makes it."""
    return f'<div class="missing">{what} Do <code>{escape(command)}</code>.</div>'


def _details(title: str, text: str) -> str:
    body = f"<pre>{escape(text)}</pre>" if text else "<pre>not recorded</pre>"
    return f"<details><summary>{title}</summary>{body}</details>"


def duration(seconds: float) -> str:
    """
    >>> duration(75), duration(4000), duration(9.4)
    ('1 min 15 s', '1 h 6 min', '9 s')
    """
    s = round(seconds)
    if s >= 3600:
        return f"{s // 3600} h {s % 3600 // 60} min"
    return f"{s // 60} min {s % 60} s" if s >= 60 else f"{s} s"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _sub(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}
