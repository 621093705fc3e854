"""What was measured of a world model, as tables of words: for a terminal and for a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HORIZONS = (1, 2, 5, 10, 25, 50, 100)
LISTENS = 1.05  # wrong actions must make a future this much worse before the model is said to use them
Table = tuple[list[str], list[list[str]]]  # head and rows; the first column is a name


def horizons(last: int) -> list[int]:
    """The steps that are shown, the last one among them.

    >>> horizons(60), horizons(100)[-1], horizons(1)
    ([1, 2, 5, 10, 25, 50, 60], 100, [1])
    """
    return sorted({*(h for h in HORIZONS if h <= last), last})


def measured_on(result: Mapping[str, Any]) -> str:
    """One line: which run, on what."""
    of = f" of {result['world']}" if result["world"] else ""
    seconds = result["seconds_per_step"]
    step = f"; a step is {result['skip']} of the world's" if result["skip"] > 1 else ""
    step += f", {seconds:.3g} s" if seconds and step else f"; a step is {seconds:.3g} s" if seconds else ""
    return f"{result['run']}{of}, measured on {result['held_out_episodes']} episodes that it never saw{step}"


def reads(result: Mapping[str, Any]) -> Table:
    """How much of each variable a linear probe finds in z."""
    rows = [[v["name"], number(v["r2"], 3), ends(v, 3)] for v in result["variables"]]
    return ["read from z", "R2", "95 % interval"], rows


def drifts(result: Mapping[str, Any]) -> Table:
    """Errors at some horizons as shares of the spread: through the probe and in z."""
    drift, head, columns = result["drift"], ["steps ahead"], []
    for key, title in (("model", "model"), ("copy_last", "copy last"), ("constant_velocity", "constant velocity")):
        if "all" in drift:
            columns.append(drift["all"][key])
            head += [title, "95 %"] if key == "model" else [title]
    for key, title in (("model", "in z: model"), ("copy_last", "in z: copy last")):
        columns.append(drift["latent"][key])
        head.append(title)
    rows = []
    for h in horizons(drift["steps"][-1]):
        cells = [str(h)]
        for i, c in enumerate(columns):
            cells.append(number(c["value"][h - 1]))
            cells += [ends(at(c, h - 1))] if i == 0 and "all" in drift else []
        rows.append(cells)
    if "all" in drift:  # how well the probe reads a frame that was seen
        rows.insert(0, ["0 (the probe)", number(drift["all"]["probe"]["value"]), ends(drift["all"]["probe"])])
        rows[0] += ["-"] * (len(head) - len(rows[0]))
    return head, rows


def units(result: Mapping[str, Any]) -> Table:
    """The model's root mean square errors at some horizons, in each variable's own unit."""
    drift = result["drift"]
    shown = horizons(drift["steps"][-1])
    rows = [
        [name, number(v["spread"]), number(v["probe"]["value"]), *(number(v["model"]["value"][h - 1]) for h in shown)]
        for name, v in drift.get("variables", {}).items()
    ]
    return ["in its own units", "spread", "probe", *(f"+{h}" for h in shown)], rows


def energies(result: Mapping[str, Any]) -> Table:
    """How far the energy of imagined states is off, at some horizons; no rows where the world has none."""
    found = result.get("energy")
    if found is None:
        return [], []
    shown = horizons(found["steps"][-1])
    rows = [["typical error", number(found["probe"]["value"])], ["gained or lost", "-"], ["copy last", "-"]]
    for row, key in zip(rows, ("model", "drift", "copy_last"), strict=True):
        row += [number(found[key]["value"][h - 1]) for h in shown]
    return ["energy, share of its mean", "probe", *(f"+{h}" for h in shown)], rows


def about_actions(result: Mapping[str, Any]) -> str:
    """Whether actions matter, in one sentence."""
    found, drift = result["actions"], result["drift"]
    if not drift["latent"]["spread"]:
        return "The latent is the same everywhere: the model has collapsed, and nothing can be said of its actions."
    if found is None:
        return "Actions were not checked: nobody acts in this world, or there are too few held-out episodes to swap."
    step = believed(drift["latent"]["model"]["value"])
    row = at(found["shuffled"]["latent"], step - 1)
    if row["value"] is None or row["low"] is None or row["high"] is None:
        return "Actions could not be checked: the errors are zero or without bound."
    verdict = "The actions matter" if row["low"] > LISTENS else "It cannot be told whether the actions matter"
    verdict = "The model hardly looks at the actions" if row["high"] < LISTENS else verdict
    steps = "1 step" if step == 1 else f"{step} steps"
    line = f"{verdict}: {steps} ahead its error in z is {times(row)} as large with the actions of another episode"
    if "zero" in found:
        line += f", and {times(at(found['zero']['latent'], step - 1))} with no action"
    return line + "."


def believed(errors: Sequence[float | None], most: int = 10) -> int:
    """The farthest of the first steps at which the error in z is still below its spread, and at least 1: beyond it
    wrong actions cannot make a future much worse.

    >>> believed([0.1, 0.5, 1.5, 0.9, 1.2]), believed([2.0, 2.0]), believed([0.0] * 40)
    (4, 1, 10)
    """
    return max([1, *(k for k, e in enumerate(errors[:most], 1) if e is not None and e < 1)])


def times(row: Mapping[str, Any]) -> str:
    """
    >>> times({"value": 2.04, "low": 1.9, "high": 2.2})
    '2.04 [1.9, 2.2] times'
    """
    return f"{number(row['value'])} {ends(row)} times".replace("  ", " ")


def at(curve: Mapping[str, Sequence[Any]], i: int) -> dict[str, Any]:
    """One point of a curve with its interval."""
    return {key: curve[key][i] for key in ("value", "low", "high")}


def number(value: float | None, decimals: int | None = None) -> str:
    """
    >>> number(0.12345), number(0.9999, 3), number(None)
    ('0.123', '1.000', '-')
    """
    if value is None:
        return "-"
    return f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}"


def ends(row: Mapping[str, Any], decimals: int | None = None) -> str:
    if row["low"] is None or row["high"] is None:
        return ""
    return f"[{number(row['low'], decimals)}, {number(row['high'], decimals)}]"
