"""The tables of settings that `--help` shows, kept as `fields.json` beside this file: help then needs no torch.

`make docs` writes the file anew (`python -m openjepa.app.fields`), and a test fails when it is out of date.
"""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from openjepa.config import nearest

if TYPE_CHECKING:
    from openjepa.config import Config

FILE = Path(__file__).with_name("fields.json")
Row = dict[str, str]  # name, type, default, help
OTHER_DATA = {"windows": "episodes", "clips": "clips"}  # what a method eats -> its settings of data; else pictures


def collect() -> dict[str, Any]:
    """Everything that help shows, from the schema itself."""
    from openjepa.app.clip_measuring import OWN
    from openjepa.app.dense_measuring import ABOUT
    from openjepa.app.requests import REQUESTS
    from openjepa.data.clips.config import ClipConfig
    from openjepa.data.episodes.config import EpisodeConfig
    from openjepa.interop import EXPORTS
    from openjepa.methods import METHODS
    from openjepa.nn import ENCODERS
    from openjepa.plan import PLANNERS
    from openjepa.plan.protocol import load_protocol, protocols
    from openjepa.presets import PRESETS
    from openjepa.probe import PROBES
    from openjepa.train.run import RunConfig
    from openjepa.worlds import POLICIES, WORLDS

    return {
        "train": describe(RunConfig),
        "verbs": {name: describe(cls, depth=0) for name, cls in REQUESTS.items()},
        "methods": {
            name: {
                "what": first_line(sys.modules[cls.__module__].__doc__),
                "eats": cls.eats,
                **describe(cls.Config, "method."),
            }
            for name, cls in METHODS.items()
        },
        "presets": {name: first_line(make.__doc__) for name, make in PRESETS.items()},
        "worlds": {name: world_line(place) for name, place in WORLDS.items()},
        "policies": {name: class_line(place) for name, place in POLICIES.items()},
        "planners": {name: first_line(planner.config.__doc__) for name, planner in PLANNERS.items()},
        "protocols": {name: load_protocol(name).about for name in protocols()},
        "episodes": describe(EpisodeConfig, "data."),
        "clips": describe(ClipConfig, "data."),
        "encoders": sorted(ENCODERS),
        "probes": {name: first_line(probe.__doc__) for name, probe in PROBES.items()} | OWN | ABOUT,
        "formats": {name: first_line(fn.__doc__) for name, fn in EXPORTS.items()},
    }


def class_line(place: str) -> str:
    """The first line about a class that a table names as "module:Class"."""
    module, _, name = place.partition(":")
    return first_line(getattr(importlib.import_module(module), name).__doc__)


def world_line(place: str) -> str:
    """The first line about a world, and the policies that it has beside those of all worlds."""
    from openjepa.worlds import POLICIES, scripted_policies

    module, _, name = place.partition(":")
    own = ", ".join(p for p in scripted_policies(getattr(importlib.import_module(module), name)) if p not in POLICIES)
    return f"{class_line(place)} Policies of its own: {own}." if own else class_line(place)


def first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def describe(cls: type[Config], above: str = "", *, depth: int = 1) -> dict[str, Any]:
    """A config class as plain data: what it is, and one row per setting with its dotted name, groups `depth` deep."""
    return {"about": " ".join((cls.__doc__ or "").split()), "fields": list(rows(cls, above, depth))}


def rows(cls: type[Config], above: str, depth: int) -> Iterator[Row]:
    for name, field in cls.model_fields.items():
        if above + name in ("method", "method.name"):
            continue
        group = config_class(field.annotation)
        default = "required" if field.is_required() else plain(field.default)
        yield {
            "name": above + name,
            "type": type_name(field.annotation),
            "default": default if group is None or field.default is None else "",
            "help": field.description or (first_sentence(group.__doc__) if group else ""),
        }
        if group is not None and depth > 0:
            yield from changed(rows(group, f"{above}{name}.", depth - 1), field.default)


def changed(below: Iterator[Row], default: Any) -> Iterator[Row]:
    """The rows of a group with the defaults that it has in this place."""
    from openjepa.config import Config

    for row in below:
        name = row["name"].rpartition(".")[2]
        known = isinstance(default, Config) and name in type(default).model_fields
        yield {**row, "default": plain(getattr(default, name))} if known and row["default"] != "" else row


def config_class(annotation: Any) -> Any:
    """The config class in an annotation such as `View | None`, or None."""
    from openjepa.config import Config

    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Config) and kind is not Config:
            return kind
    return None


def first_sentence(text: str | None) -> str:
    return " ".join((text or "").split()).partition(". ")[0].rstrip(".")


def plain(value: Any) -> str:
    """A default as one would type it.

    >>> plain((3 / 4, 4 / 3)), plain(None), plain(True), plain("auto")
    ('[0.75, 1.333]', 'null', 'true', 'auto')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(plain(v) for v in value)}]"
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    return ""  # a group: its settings follow


def type_name(annotation: Any) -> str:
    """
    >>> type_name(Literal["a", "b"]), type_name(int | None), type_name(tuple[float, float])
    ('a|b', 'int|null', '[float, float]')
    """
    if annotation is type(None):
        return "null"
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "|".join(str(a) for a in args)
    if origin is tuple:
        return "[" + ", ".join("..." if a is ... else type_name(a) for a in args) + "]"
    if args and (origin is Union or "Union" in type(annotation).__name__):
        return "|".join(dict.fromkeys(type_name(a) for a in args))
    if config_class(annotation) is not None:
        return "group"
    return getattr(annotation, "__name__", str(annotation))


def write() -> Path:
    FILE.write_text(json.dumps(collect(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return FILE


def read() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def train_help(name: str | None) -> str:
    """The settings of `openjepa train NAME`; without a name, what every run has."""
    known = read()
    method = known["methods"].get(name or "")
    if name is not None and name in known["presets"]:
        from openjepa.presets import preset

        chosen = preset(name)["method"]["name"]
        return f"{known['presets'][name]}\n\nA preset of method {chosen}.\n\n{train_help(chosen)}"
    if name is not None and method is None:
        both = [*known["methods"], *known["presets"]]
        raise ValueError(f"train must name a method or a preset, got {name!r}. {nearest(name, both)}")
    parts = []
    if method:
        parts.append(
            f"{method['what']}\n\nSettings of {name}\n\n{paragraph(method['about'])}\n\n{table(method['fields'])}"
        )
    own = known["train"]["fields"]
    if method and method["eats"] in OTHER_DATA:
        own = with_data(own, known[OTHER_DATA[method["eats"]]])
    parts.append(f"Settings of every run\n\n{table(own)}")
    if not method:
        names = "\n".join(f"  {k:12}  {v['what']}" for k, v in known["methods"].items())
        parts.append(f"Methods (openjepa train METHOD --help lists the settings of one)\n\n{names}")
        parts.append("Presets\n\n" + "\n".join(f"  {k:20}  {v}" for k, v in known["presets"].items()))
    return "\n\n".join(parts)


def with_data(own: list[Row], data: dict[str, Any]) -> list[Row]:
    """The settings of every run with those of `data` in place of those of pictures."""
    what = first_sentence(data["about"])
    before = [{**row, "help": what} for row in own if row["name"] == "data"]
    rest = [row for row in own if row["name"] != "data" and not row["name"].startswith("data.")]
    return [*before, *data["fields"], *({**row, "help": what} if row["name"] == "probe.data" else row for row in rest)]


def verb_help(verb: str) -> str:
    """The settings of a verb."""
    known = read()["verbs"][verb]
    return f"{paragraph(known['about'])}\n\nSettings (key=value)\n\n{table(known['fields'])}"


def paragraph(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="  "))


def table(fields: list[Row]) -> str:
    """Name, type, default and meaning in columns.

    >>> print(table([{"name": "seed", "type": "int", "default": "0", "help": "of everything"}]))
      seed  int  0  of everything
    """
    columns = ("name", "type", "default")
    widths = [min(30, max(len(row[c]) for row in fields)) for c in columns]
    lines = []
    for row in fields:
        cells = [row[c].ljust(w) for c, w in zip(columns, widths, strict=True)]
        lines.append("  " + "  ".join([*cells, row["help"]]).rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    print(write())
