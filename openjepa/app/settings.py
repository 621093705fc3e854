"""From what a person gave to the settings of a run: preset, config file, keywords and `key=value`, in this order.

The later wins, field by field. The command line and the Python verbs both end here, so they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openjepa.config import merge, nearest, nest, parse, read_yaml
from openjepa.presets import PRESETS, preset, tiny

if TYPE_CHECKING:
    from openjepa.train.run import RunConfig

Settings = dict[str, Any]


def settings(
    name: str | None,
    *,
    config: str | Path | None = None,
    keywords: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    small: bool = False,
) -> Settings:
    """Nested settings for `RunConfig`, not yet checked.

    name       of a preset or of a method; None takes the method from `config` or `overrides`
    config     a YAML file, such as the config.yaml of another run; its `out` is left behind
    keywords   nested groups, as given to `openjepa.train`; None stands for "not given"
    overrides  dotted `key=value` strings, as on the command line
    small      the tiny variant of a preset: seconds instead of minutes

    >>> settings("lejepa", keywords={"data": "digits"}, overrides=["optim.lr=3e-4"])
    {'method': {'name': 'lejepa'}, 'data': 'digits', 'optim': {'lr': 0.0003}}
    """
    if small and name not in PRESETS:
        raise ValueError(f"tiny must go with a preset, got {name!r}. Presets: {', '.join(PRESETS)}.")
    base: Settings = {}
    if name in PRESETS:
        base = tiny(str(name)) if small else preset(str(name))
    if config is not None:
        base = layer(base, {k: v for k, v in read_yaml(config).items() if k != "out"})
    if name is not None and name not in PRESETS:
        method = base.get("method")
        same = isinstance(method, Mapping) and method.get("name") == name
        base["method"] = method if same else {"name": name}  # settings of another method mean nothing here
    base = layer(base, {k: v for k, v in (keywords or {}).items() if v is not None})
    base = layer(base, nest(overrides))
    if "method" not in base:
        raise ValueError("train must be given a method, a preset or a config, got none. Do openjepa list methods.")
    return base


def resolve(
    name: str | None = None,
    *,
    config: str | Path | None = None,
    resume: str | Path | None = None,
    keywords: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    tiny: bool = False,
) -> RunConfig:
    """The checked settings of a run from all that was given; what `--print-config` prints."""
    from openjepa.methods import METHODS
    from openjepa.train.run import RunConfig

    if name is not None and name not in PRESETS and name not in METHODS:
        raise ValueError(f"train must name a method or a preset, got {name!r}. {nearest(name, [*METHODS, *PRESETS])}")
    given = {k: v for k, v in (keywords or {}).items() if v is not None}
    if resume is None:
        nested = settings(name, config=config, keywords=given, overrides=overrides, small=tiny)
        if nested.get("data") is None:
            raise ValueError("data must be given, got none. Do data=FOLDER, or data=digits to try something out.")
        if nested.get("out") is None:
            nested["out"] = free_folder(str(name or nested["method"]["name"]))
        return parse(RunConfig, nested)
    if name is not None or config is not None or tiny:
        raise ValueError("resume must be given alone or with settings, got a name, --config or --tiny beside it.")
    file = Path(resume) / "config.yaml"
    if not file.is_file():
        raise ValueError(f"resume must name the folder of a run, got {resume} without config.yaml. Check the path.")
    nested = settings(None, config=file, keywords={k: v for k, v in given.items() if k != "out"}, overrides=overrides)
    return parse(RunConfig, {**nested, "out": str(resume)})


def free_folder(name: str) -> str:
    """runs/NAME, or the first runs/NAME-2, runs/NAME-3 ... that does not exist."""
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return str(path)


def layer(base: Settings, changes: Mapping[str, Any]) -> Settings:
    """`changes` over `base`. Naming one kind of budget clears the others: they exclude each other.

    >>> layer({"budget": {"steps": None, "epochs": 100}}, {"budget": {"steps": 5}})
    {'budget': {'steps': 5, 'epochs': None, 'minutes': None}}
    """
    budget = changes.get("budget")
    if isinstance(budget, Mapping) and any(budget.get(k) is not None for k in ("steps", "epochs", "minutes")):
        cleared = {"steps": None, "epochs": None, "minutes": None, **budget}
        changes = {**changes, "budget": cleared}
    return merge(base, changes)
