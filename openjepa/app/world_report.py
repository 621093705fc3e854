"""The part of a report that is about a world model: what it knows, what it imagines, what it reaches.

Everything is read from the files of a run folder; what is missing names the command that makes it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.app import world_text
from openjepa.app.charts import Axis, Series, chart
from openjepa.app.gallery import strip
from openjepa.app.sections import missing, section
from openjepa.app.world_map import scatter

LARGEST_FILM = 8_000_000  # bytes; a larger one stays in its folder, and the page says where
KINDS = (".gif", ".mp4")  # of films; the .mp4 is shown where there are both, it is smaller
CHARTS = 6  # variables that get a chart of their own


@dataclass(frozen=True)
class WorldParts:
    """What a run folder holds of a world model.

    measured  eval/world.json; pictures: the arrays of eval/world.npz
    plans     (name, result.json, films) of every folder of plan/; a film is (name, bytes), None where it is too large
    """

    measured: Mapping[str, Any] | None = None
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    plans: Sequence[tuple[str, Mapping[str, Any], Sequence[tuple[str, bytes | None]]]] = ()


def read_world(folder: str | Path) -> WorldParts:
    """The parts that are there; a run that was never probed or planned with has none."""
    folder = Path(folder)
    file, arrays = folder / "eval" / "world.json", folder / "eval" / "world.npz"
    measured = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    pictures: dict[str, np.ndarray] = {}
    if measured is not None and arrays.exists():
        with np.load(arrays) as found:
            pictures = {name: found[name] for name in found.files}
    plans = []
    for result in sorted((folder / "plan").glob("*/result.json")):
        values = json.loads(result.read_text(encoding="utf-8"))
        found = [f for f in films_of(result.parent, values) if f.exists()]
        films = [f for f in found if f.suffix == ".mp4" or f.with_suffix(".mp4") not in found]
        shown = [(f.name, f.read_bytes() if f.stat().st_size <= LARGEST_FILM else None) for f in films]
        plans.append((result.parent.name, values, shown))
    return WorldParts(measured, pictures, plans)


def films_of(folder: Path, result: Mapping[str, Any]) -> list[Path]:
    """The films that belong to a result: a folder that was written to twice can hold others, of an earlier plan."""
    names = result.get("files", [f.name for f in folder.iterdir()])
    return sorted(folder / name for name in names if Path(name).suffix in KINDS)


def imagines(parts: WorldParts, folder: str) -> str:
    """What z holds, how imagined futures drift, whether actions matter, pictures of both."""
    if parts.measured is None:
        return section("What it imagines", missing("It was not measured yet.", f"openjepa probe {folder}"))
    found, body = parts.measured, []
    body.append(f'<p class="lead">{escape(world_text.measured_on(found))}.</p>')
    body.append(f"<p><b>{escape(found['about_actions'])}</b></p>")
    body.append(drift_charts(found["drift"]))
    head, rows = world_text.reads(found)
    if rows:
        body.append("<h3>What a linear probe reads from z</h3>" + table(head, rows))
    body.append("<h3>How far imagined futures lead away</h3>" + table(*world_text.drifts(found)))
    head, rows = world_text.units(found)
    if rows:
        body.append("<h3>The same in each variable's own unit</h3>" + table(head, rows))
    body += [energy(found), decoded(parts.pictures, found), latent(parts.pictures)]
    return section("What it imagines", "".join(body))


def drift_charts(drift: Mapping[str, Any]) -> str:
    """Errors against steps, beside the guesses that need no model; first of all variables, then of each."""
    steps, out = drift["steps"], []
    names = (("model", "model"), ("copy_last", "copy last"), ("constant_velocity", "constant velocity"))

    def lines(curves: Mapping[str, Any]) -> list[Series]:
        return [
            Series(title, steps, curves[key]["value"], colour=i + 1, dashed=i > 0)
            for i, (key, title) in enumerate(names)
            if key in curves
        ]

    def drawn(curves: Mapping[str, Any], title: str, label: str, note: str) -> str:
        figure = chart(lines(curves), title=title, x=Axis("steps ahead"), y=Axis(label, log=True))
        return figure.replace("</figure>", f'<p class="note">{escape(note)}</p></figure>')

    if "all" in drift:
        note = "Read by the probe, over the spread of each variable; 1 is what guessing the mean state errs by."
        out.append(drawn(drift["all"], "Error of all variables", "share of the spread", note))
    note = "Distance of the imagined z from the z of what happened, over the spread of z."
    out.append(drawn(drift["latent"], "Error in z", "share of the spread", note))
    for name, v in list(drift.get("variables", {}).items())[:CHARTS]:
        note = f"In its own unit. Its spread is {world_text.number(v['spread'])}; reading it from a true z errs by "
        note += f"{world_text.number(v['probe']['value'])}."
        out.append(drawn(v, f"Error of {name}", "root mean square", note))
    return f'<div class="charts">{"".join(out)}</div>'


def energy(found: Mapping[str, Any]) -> str:
    """How far the energy of imagined states is off, for worlds that have one."""
    head, rows = world_text.energies(found)
    if not rows:
        return ""
    lead = (
        "The energy of the state that the probe reads from what was imagined, against the true one, as a share of its "
        "mean size; medians over rollouts. Where nothing drives the world, its energy is kept: a copy then errs by 0."
    )
    curves, steps = found["energy"], found["energy"]["steps"]
    line = Series("model", steps, curves["model"]["value"], colour=1)
    figure = chart([line], title="Error of the energy", x=Axis("steps ahead"), y=Axis("share of its mean", log=True))
    return f'<h3>Energy</h3><p class="lead">{lead}</p><div class="charts">{figure}</div>{table(head, rows)}'


def decoded(pictures: Mapping[str, np.ndarray], found: Mapping[str, Any]) -> str:
    """True against imagined frames."""
    if "imagined" not in pictures:
        return ""
    captions = ["start", *(f"+{k}" for k in pictures["ahead"][1:])]
    rows = []
    titles = (("true", "What happened"), ("decoded", "What its z holds of it"), ("imagined", "What it imagined"))
    for n in range(len(pictures["imagined"])):
        rows += [strip(title, pictures[key][n], captions) for key, title in titles]
    lead = (
        "A decoder, trained afterwards on frozen z, draws what the model imagines from the first frame and the actions "
        f"alone. It finds {world_text.number(found['decoder_r2'], 3)} of the variance of other pixels (R2)."
    )
    return f'<h3>True against imagined</h3><p class="lead">{lead}</p>{"".join(rows)}'


def latent(pictures: Mapping[str, np.ndarray]) -> str:
    """The two main directions of z, coloured by each variable."""
    if "pca" not in pictures or not len(pictures["names"]):
        return ""
    names, values = pictures["names"], pictures["values"]
    maps = [scatter(pictures["pca"], values[:, i], str(name)) for i, name in enumerate(names[:CHARTS])]
    share = float(pictures["share"].sum())
    lead = f"The two directions in which z varies most, {share:.0%} of its variance. From low (blue) to high (orange)."
    return f'<h3>The latent</h3><p class="lead">{lead}</p><div class="charts">{"".join(maps)}</div>'


def reaches(parts: WorldParts, folder: str) -> str:
    """The tables and films of every protocol that it was measured under."""
    title = "What it reaches by planning"
    if not parts.plans:
        return section(title, missing("No plan was made yet.", f"openjepa plan {folder}"))
    return section(title, "".join(plan(folder, *found) for found in parts.plans))


ROWS = {
    "model": "planner on the model", "simulator": "planner on the true simulator",
    "goal_is_start": "planner, told that the start is the goal", "zero": "zero action", "random": "random policy",
}  # fmt: skip


def plan(folder: str, name: str, result: Mapping[str, Any], films: Sequence[tuple[str, bytes | None]]) -> str:
    shown = "".join(film(folder, name, *one) for one in films)
    shown = f'<div class="charts">{shown}</div>' if shown else ""
    if result.get("kind") == "one":
        return f"<h3>{escape(name)}</h3><p>{escape(result['about'])}</p>{shown}"
    head = ["", "any time", "95 %", "at the end", "95 %", "n"]
    rows = []
    for key, row in result["rows"].items():
        shares = [x for k in ("any", "end") for x in (percent(row[k]["rate"]), percents(row[k]))]
        rows.append([ROWS.get(key, key), *shares, str(row["n"])])
    about = f"<h3>{escape(name)}, {result['split']} pairs {escape(result['manifest']['hash'])}</h3>"
    rule = result.get("protocol", {}).get("about", "")
    about += f'<p class="lead">{escape(rule)}</p>' if rule else ""
    about += "".join(f'<p class="lead">{escape(note)}</p>' for note in result.get("notes", ()))
    if left := [ROWS.get(k, k) for k in result.get("wanted", ()) if k not in result["rows"]]:
        about += f'<p class="lead">Interrupted before these were measured: {escape("; ".join(left))}.</p>'
    return about + table(head, rows) + shown


def film(folder: str, protocol: str, name: str, data: bytes | None) -> str:
    """A GIF or MP4 inside the page."""
    if data is None:
        return f'<div class="missing">A film too large for the page: {escape(f"{folder}/plan/{protocol}/{name}")}</div>'
    text = base64.b64encode(data).decode()
    if name.endswith(".mp4"):
        source = f'<video controls loop muted autoplay playsinline src="data:video/mp4;base64,{text}"></video>'
        return f'<figure class="chart"><figcaption>{escape(name)}</figcaption>{source}</figure>'
    address = "data:image/gif;base64," + text
    return f'<figure class="chart"><figcaption>{escape(name)}</figcaption><img alt="film" src="{address}"></figure>'


def percent(x: float) -> str:
    return f"{100 * x:.1f} %"


def percents(row: Mapping[str, float]) -> str:
    return f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Names to the left, numbers to the right, intervals small."""
    kinds = ["", *("ci" if "95 %" in h else "num" for h in head[1:])]
    top = "".join(f'<th class="{k}">{escape(h)}</th>' for h, k in zip(head, kinds, strict=True))
    lines = []
    for row in rows:
        cells = "".join(f'<td class="{k}">{escape(c)}</td>' for c, k in zip(row, kinds, strict=True))
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><tr>{top}</tr>{"".join(lines)}</table></div>'
