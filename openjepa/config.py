"""The one schema: every setting of the library is a field of a frozen, strict `Config`.

Python keywords, the YAML file, `key=value` on the command line, `--help` and the saved `config.yaml` all go through
the classes below, so there is one set of names and one set of checks. This file imports no torch: help stays instant.

A config class is written in the file of the thing it configures. Unknown keys are refused with the nearest known name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Config(BaseModel):
    """Base of all settings: frozen, unknown keys refused, defaults checked too.

    `shorthand` names the field that a bare value stands for: with `shorthand = "name"`, `encoder="vit_tiny/8"` means
    `encoder={"name": "vit_tiny/8"}`, on the command line, in YAML and in Python alike.

    Where a field's default is a group, what is given changes that group: with `window = Window(steps=4, skip=5)`,
    `window.steps=8` keeps skip 5. A group of another `name` starts afresh, and of the fields in `exclusive`, of which
    only one may be given, the default's goes when one is.

    >>> class Optim(Config):
    ...     shorthand: ClassVar[str] = "lr"
    ...     lr: float = 1e-3
    >>> Optim.model_validate(0.1).lr
    0.1
    >>> Optim(lrr=0.1)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    pydantic_core._pydantic_core.ValidationError: ... unknown key 'lrr'. Did you mean 'lr'?
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, arbitrary_types_allowed=True)
    shorthand: ClassVar[str | None] = None
    exclusive: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, cls) or data is None:
            return {} if data is None else data
        if isinstance(data, BaseModel):
            return data
        if not isinstance(data, Mapping):
            if cls.shorthand is None:
                raise ValueError(f"must be a group of settings ({', '.join(cls.model_fields)}), got {data!r}")
            return {cls.shorthand: data}
        data = dict(data)
        if BARE in data:  # a bare value that later had single fields set on top of it
            if cls.shorthand is None:
                raise ValueError(f"must be a group of settings ({', '.join(cls.model_fields)}), got {data[BARE]!r}")
            data.setdefault(cls.shorthand, data.pop(BARE))
        for key in data:
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {key!r}. {nearest(str(key), cls.model_fields)}")
        defaults = {key: cls.model_fields[key].default for key in data}
        return {k: upon(defaults[k], v) if isinstance(defaults[k], Config) else v for k, v in data.items()}

    def override(self, changes: Mapping[str, Any] | Iterable[str]) -> Self:
        """A copy with some fields changed and all checked; `changes` is nested, dotted, or `key=value` strings."""
        return type(self).model_validate(merge(self.model_dump(), nest(changes)))

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


BARE = ""  # the key under which `merge` keeps a bare value when fields are set below it


def upon(default: Config, given: Any) -> Any:
    """What is given for a field, completed by what the field's default sets beside it.

    >>> upon(Window(steps=4, skip=5), {"steps": 8}), upon(Window(steps=4, skip=5), None)
    ({'skip': 5, 'steps': 8}, None)
    """
    if given is None or isinstance(given, BaseModel):
        return given
    if not isinstance(given, Mapping):
        given = {BARE: given}
    given = dict(given)
    if BARE in given:
        if default.shorthand is None:
            return given
        given.setdefault(default.shorthand, given.pop(BARE))
    if given.get("name") not in (None, getattr(default, "name", None)):
        return given
    settled = default.exclusive if any(key in given for key in default.exclusive) else ()
    kept = {k: getattr(default, k) for k in sorted(default.model_fields_set) if k not in settled}
    return {**kept, **{k: upon(kept[k], v) if isinstance(kept.get(k), Config) else v for k, v in given.items()}}


class Window(Config):
    """How windows are cut from episodes.

    steps  observations per window
    skip   world steps from one observation to the next; their actions are joined into one, (skip x A) numbers
    """

    shorthand: ClassVar[str] = "steps"
    steps: int = Field(2, ge=2)
    skip: int = Field(1, ge=1)


class View(Config):
    """One kind of random view of a picture: how many, how large, and what is done to it.

    Declared by a method, carried out by the data wing. `size=None` means the size of the run's pictures. Crops take an
    area share from `scale` and an aspect ratio (log-uniform) from `ratio`, resampled with an antialiased `filter` equal
    to Pillow's. The colour steps are probabilities (`flip`, `jitter_p`, `grey`, `blur`, `solarize`) and the strengths
    (brightness, contrast, saturation, hue) of `jitter`; `rotate` is in degrees, for pictures that may be seen tilted.
    """

    count: int = Field(1, ge=1)
    size: int | None = Field(None, ge=4)
    scale: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    filter: Literal["bicubic", "bilinear"] = "bicubic"
    flip: float = Field(0.0, ge=0, le=1)
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = Field(0.8, ge=0, le=1)
    grey: float = Field(0.0, ge=0, le=1)
    blur: float = Field(0.0, ge=0, le=1)
    solarize: float = Field(0.0, ge=0, le=1)
    rotate: float = Field(0.0, ge=0, le=180, description="turned by up to so many degrees either way")


class ClipView(View):
    """One kind of random clip of a video: a `View` whose box, flip and colours are the same for every frame.

    frames  per clip; 1 is a picture
    stride  frames of the file from one frame of the clip to the next; or
    fps     frames of the clip per second of the file, whatever the file's own rate is
    share   how often a step is made of this kind, relative to the method's other kinds
    """

    exclusive: ClassVar[tuple[str, ...]] = ("stride", "fps")
    frames: int = Field(16, ge=1)
    stride: int | None = Field(None, ge=1)
    fps: float | None = Field(None, gt=0)
    share: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        if self.stride is not None and self.fps is not None:
            raise ValueError(f"stride must be left out when fps is {self.fps}, got {self.stride}. Give one of the two.")
        return self


USUAL_CLIP = ClipView(frames=16, stride=4)  # what methods on clips take where nothing is said, as V-JEPA does


def nearest(name: str, known: Iterable[str]) -> str:
    """'Did you mean ...?' for a misspelt name, or the list of names when none is near.

    >>> nearest("lejpa", ["ijepa", "lejepa"])
    "Did you mean 'lejepa'?"
    """
    known = [str(k) for k in known]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."


def explain(error: ValidationError) -> str:
    """One line for a person: every field that is wrong, with its dotted name, what it must be and what it got."""
    lines = []
    for e in error.errors():
        where = ".".join(str(p) for p in e["loc"] if p != "")
        text = e["msg"].removeprefix("Value error, ")
        if e["type"] != "value_error":
            text = f"{text[:1].lower()}{text[1:]}, got {e.get('input')!r}"
        lines.append(f"{where}: {text}" if where else text)
    return "; ".join(lines)


def parse(cls: type[Config], data: Any) -> Any:
    """`cls` from plain data, or a one-line `ValueError`."""
    try:
        return cls.model_validate(data)
    except ValidationError as e:
        raise ValueError(explain(e)) from None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, group by group.

    >>> merge({"data": "photos/", "seed": 0}, {"data": {"limit": 5}})
    {'data': {'': 'photos/', 'limit': 5}, 'seed': 0}

    A bare value begins its group anew, with or without fields beside it:

    >>> merge({"data": {"path": "photos/", "limit": 3}}, {"data": {"": "mine/", "seed": 5}})
    {'data': {'': 'mine/', 'seed': 5}}
    """
    out = dict(base)
    for key, value in changes.items():
        if isinstance(value, Mapping):
            below = None if BARE in value else out.get(key)
            if below is None:
                below = {}
            elif not isinstance(below, Mapping):
                below = {BARE: below}
            out[key] = merge(below, value)
        else:
            out[key] = value
    return out


def nest(changes: Mapping[str, Any] | Iterable[str]) -> dict[str, Any]:
    """Dotted names or `key=value` strings as a nested dict; values read as YAML.

    >>> nest(["method.depth=6", "optim.lr=3e-4", "data=photos/"])
    {'data': 'photos/', 'method': {'depth': 6}, 'optim': {'lr': 0.0003}}

    The order is free: a bare value is laid below the fields of its group, wherever it stands.

    >>> nest(["data.limit=5", "data=photos/"])
    {'data': {'': 'photos/', 'limit': 5}}
    """
    pairs: Iterable[tuple[str, Any]]
    if isinstance(changes, Mapping):
        pairs = changes.items()
    else:
        pairs = (_split(item) for item in changes)
    out: dict[str, Any] = {}
    for name, value in sorted(pairs, key=lambda pair: str(pair[0]).count(".")):
        for part in reversed(str(name).split(".")):
            value = {part: value}
        out = merge(out, value)
    return out


def _split(item: str) -> tuple[str, Any]:
    name, equals, text = item.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"overrides must be key=value, got {item!r}. Write for example optim.lr=3e-4.")
    return name.strip(), scalar(text)


def scalar(text: str) -> Any:
    """A value as YAML reads it, except that 3e-4 is a number (YAML 1.1 wants 3.0e-4)."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value) if any(c.isdigit() for c in value) else value
        except ValueError:
            return value
    return value


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of settings; a one-line `ValueError` when it is not one."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"config file must exist, got {path}. Check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as e:
        raise ValueError(f"{path} must be a YAML file of settings, got: {str(e).splitlines()[0]}.") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold settings as 'key: value' lines, got {type(data).__name__}.")
    return data
