"""What the verbs return, as plain lines for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def pairs(result: Any, indent: str = "") -> str:
    """Nested values as indented lines.

    >>> print(pairs({"step": 5, "encoder": {"name": "vit"}, "bad": []}))
    step     5
    encoder
      name  vit
    bad      none
    """
    if not isinstance(result, Mapping):
        return f"{indent}{value(result)}"
    width = max((len(str(k)) for k in result), default=0)
    lines = []
    for key, item in result.items():
        if isinstance(item, Mapping) and item:
            lines += [f"{indent}{key}", pairs(item, indent + "  ")]
        else:
            lines.append(f"{indent}{str(key).ljust(width)}  {value(item)}")
    return "\n".join(lines)


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
        width = max(len(n) for n in names)
        lines = [f"  {n.ljust(width)}  {about}".rstrip() for n, about in names.items()]
        parts.append("\n".join([kind, *lines]))
    return "\n\n".join(parts)


RENDER: dict[str, Callable[[Any], str]] = {
    "list": listing,
}
