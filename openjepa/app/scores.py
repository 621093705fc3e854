"""The table of what a run is worth: every score that the files in eval/ hold, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from openjepa.app.charts import short
from openjepa.app.sections import missing, section


def probes(results: Mapping[str, Any], folder: str) -> str:
    """Every number found in eval/*.json that has an interval or is called a score, as a table."""
    rows = [row for name, content in results.items() for row in _scores(name, content)]
    if not rows:
        return section(
            "What it is worth", missing("Nothing was measured yet.", f"openjepa probe {folder} data=LABELLED")
        )
    body = "".join(_row(*row) for row in rows)
    head = '<tr><th>probe</th><th class="num">value</th><th>95 % interval</th><th></th></tr>'
    return section("What it is worth", f'<div class="scroll"><table>{head}{body}</table></div>')


SCORES = ("accuracy", "value", "mean", "score", "top1", "r2")
BOUNDS = (("low", "high"), ("lower", "upper"), ("ci_low", "ci_high"))


def _scores(name: str, content: Any) -> list[tuple[str, float, float | None, float | None]]:
    """(name, value, low, high) of every entry that holds a score, however deep it lies."""
    if isinstance(content, Mapping):
        label = next(
            (str(content[k]) for k in ("label", "name", "probe", "features") if isinstance(content.get(k), str)), ""
        )
        parts = content.get("parts")
        if isinstance(parts, list) and parts:
            return _scores(name, parts)
        value = next((content[k] for k in SCORES if _number(content.get(k))), None)
        if value is not None:
            low, high = _bounds(content)
            return [(" ".join(dict.fromkeys(f"{name} {label}".split())), float(value), low, high)]
        return [row for key, sub in content.items() for row in _scores(f"{name} {key}", sub)]
    if isinstance(content, list) and not all(_number(v) for v in content):
        return [row for sub in content for row in _scores(name, sub)]
    return []


def _bounds(content: Mapping[str, Any]) -> tuple[float | None, float | None]:
    for low, high in BOUNDS:
        if _number(content.get(low)) and _number(content.get(high)):
            return float(content[low]), float(content[high])
    pair: Any = next((content[k] for k in ("interval", "ci") if isinstance(content.get(k), list | tuple)), None)
    return (float(pair[0]), float(pair[1])) if pair and len(pair) == 2 else (None, None)


def _number(v: Any) -> bool:
    return isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)


def _row(name: str, value: float, low: float | None, high: float | None) -> str:
    cells = f'<td class="num">{_percent(value)}</td><td class="ci">{_interval(low, high)}</td>'
    return f"<tr><td>{escape(name)}</td>{cells}<td>{_bar(value, low, high)}</td></tr>"


def _percent(v: float) -> str:
    return f"{v:.1%}" if -1 <= v <= 1 else short(v)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_percent(low)} to {_percent(high)}"


def _bar(v: float, low: float | None, high: float | None) -> str:
    if not 0 <= v <= 1:
        return ""
    ends = "".join(f'<u style="left:{100 * min(1, max(0, e)):.1f}%"></u>' for e in (low, high) if e is not None)
    return f'<span class="bar"><i style="width:{100 * v:.1f}%"></i>{ends}</span>'
