"""What the verbs return, as plain lines for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openjepa.app import world_text


def pairs(result: Any, indent: str = "") -> str:
    """Nested values as indented lines; of several sentences, each has its own.

    >>> print(pairs({"step": 5, "encoder": {"name": "vit"}, "bad": [], "advice": ["Do this.", "Leave that."]}))
    step     5
    encoder
      name  vit
    bad      none
    advice   Do this.
             Leave that.
    """
    if not isinstance(result, Mapping):
        return f"{indent}{value(result)}"
    width = max((len(str(k)) for k in result), default=0)
    lines = []
    for key, item in result.items():
        if isinstance(item, Mapping) and item:
            lines += [f"{indent}{key}", pairs(item, indent + "  ")]
        else:
            begin = f"{indent}{str(key).ljust(width)}  "
            lines.append(begin + (f"\n{' ' * len(begin)}".join(item) if sentences(item) else value(item)))
    return "\n".join(lines)


def sentences(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and all(isinstance(i, str) and i.endswith(".") for i in item)


def value(item: Any) -> str:
    """
    >>> value(0.123456), value(None), value([1, 2])
    ('0.1235', '-', '1, 2')
    """
    if item is None or item == "":
        return "-"
    if isinstance(item, float):
        return f"{item:.4g}"
    if isinstance(item, Mapping):
        return "none" if not item else ", ".join(f"{k} {value(v)}" for k, v in item.items())
    if isinstance(item, Sequence) and not isinstance(item, str):
        return ", ".join(value(i) for i in item) if item else "none"
    return str(item)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right.

    >>> print(grid(["", "linear"], [["runs/a", ".912"], ["pixels", ".4"]]))
            linear
    runs/a    .912
    pixels      .4
    """
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    out = []
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]
        out.append("  ".join(cells).rstrip())
    return "\n".join(out)


def listing(result: Mapping[str, Mapping[str, str]]) -> str:
    parts = []
    for kind, names in result.items():
        width = max((len(n) for n in names), default=0)
        lines = [f"  {n.ljust(width)}  {about}".rstrip() for n, about in names.items()]
        parts.append("\n".join([kind, *lines]))
    return "\n\n".join(parts)


def scores(result: Mapping[str, Any]) -> str:
    """What a probe measured: one line per number."""
    if result.get("kind") == "world":
        return world(result)
    rows = [[row["name"], *_score(row)] for row in result["scores"]]
    about = f"{result['run']} on {result['data']}, measured on {result['test']}"
    head = "accuracy" if all("accuracy" in row for row in result["scores"]) else "value"
    return "\n".join([about, "", grid(["probe", head, "95 % interval"], rows), "", f"Saved: {result['file']}"])


def world(result: Mapping[str, Any]) -> str:
    """What a world model knows: what z holds, how far it drifts, whether actions matter."""
    parts = [world_text.measured_on(result)]
    tables = (world_text.reads, world_text.drifts, world_text.units, world_text.energies)
    for head, rows in (make(result) for make in tables):
        if rows:
            parts.append(grid(head, rows))
    return "\n\n".join([*parts, result["about_actions"], f"Saved: {result['file']}"])


def table(result: Mapping[str, Any]) -> str:
    """What was compared: one line per probe, one column per subject."""
    subjects = result["table"]
    names = list(dict.fromkeys(name for rows in subjects.values() for name in rows))
    lines = []
    for name in names:
        cells = (_score(rows[name]) if name in rows else ("-", "") for rows in subjects.values())
        lines.append([name, *(" ".join(cell).strip() for cell in cells)])
    about = f"{result['data']}, measured on {result['test']}; 95 % intervals"
    return "\n".join([about, "", grid(["probe", *subjects], lines)])


def _score(row: Mapping[str, Any]) -> tuple[str, str]:
    """
    >>> _score({"accuracy": 0.5, "low": 0.25, "high": 0.75}), _score({"r2": 0.5, "low": 0.25, "high": 0.75})
    (('50.0 %', '[25.0, 75.0]'), ('0.500', '[0.250, 0.750]'))
    """
    if "accuracy" not in row:  # R2, RMSE: no share
        return f"{row.get('r2', row.get('value')):.3f}", f"[{row['low']:.3f}, {row['high']:.3f}]"
    return f"{100 * row['accuracy']:.1f} %", f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def verdict(found: Mapping[str, Any]) -> str:
    """The verdict, its evidence and advice.

    >>> print(verdict({"name": "collapsed", "step": 20, "evidence": ["Spread is 0."], "advice": ["Raise `lam`."]}))
    Verdict: collapsed (first seen at step 20)
      - Spread is 0.
      > Raise `lam`.
    """
    since = "" if found["step"] is None else f" (first seen at step {found['step']})"
    marks = [f"  - {e}" for e in found["evidence"]] + [f"  > {a}" for a in found["advice"]]
    return "\n".join([f"Verdict: {found['name']}{since}", *marks])


def trained(result: Mapping[str, Any]) -> str:
    numbers = {k: v for k, v in result.items() if k not in ("verdict", "run")}
    return "\n".join([f"Run: {result['run']}", pairs(numbers), verdict(result["verdict"])])


def looked(result: Mapping[str, Any]) -> str:
    return "\n".join([verdict(result["verdict"]), f"Report: {result['report']}"])


def demonstrated(result: Mapping[str, Any]) -> str:
    """The result for a person."""
    shots = next(iter(result["table"].values()))
    head = ["accuracy on 450 unseen digits, by labels per class", *shots]
    rows = [[name, *(" ".join(_score(r)) for r in row.values())] for name, row in result["table"].items()]
    verdicts = []
    for name, v in result["verdicts"].items():
        first = f": {v['evidence'][0]}" if v["evidence"] else ""
        since = "" if v["step"] is None else f" (seen at step {v['step']})"
        verdicts.append(f"{name} is {v['name']}{since}{first}")
    world = result["world"]
    end = [
        f"Training took {result['minutes_training']:.1f} minutes, and {world['seconds_training']:.0f} s for the world.",
        f"Report: {result['report']} and {world['report']}; film: {world['film']}",
    ]
    return "\n".join([grid(head, rows), "", *verdicts, "", world["about"], world["table"], "", *end])


def collected(result: Mapping[str, Any]) -> str:
    rest = {k: v for k, v in result.items() if k != "out"}
    return "\n".join([pairs(rest), f"Episodes: {result['out']}"])


def planned(result: Mapping[str, Any]) -> str:
    """The table of an evaluation, and where the rest is; of one episode, what became of it."""
    files = ", ".join(result["files"])
    lines = [] if "table" not in result else [result["table"]]
    lines += [result["remark"]] if "remark" in result else []
    lines += [result["about"]] if "about" in result else []
    lines += [f"No film: {result['no_film']}"] if "no_film" in result else []
    lines.append(f"Written to {result['out']}: {files}")
    return "\n".join([*lines, *([f"Report: {result['report']}"] if "report" in result else [])])


RENDER: dict[str, Callable[[Any], str]] = {
    "train": trained,
    "probe": scores,
    "compare": table,
    "look": looked,
    "demo": demonstrated,
    "collect": collected,
    "plan": planned,
    "list": listing,
}
