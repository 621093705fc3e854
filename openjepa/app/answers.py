"""What answers each verb: a subject and checked settings in, plain values out. Command and Python both end here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from openjepa.app.requests import REQUESTS
from openjepa.app.runs import Run
from openjepa.config import nest, parse
from openjepa.lazy import lookup

ON_RUNS = {"probe": "measuring:probe_run", "embed": "embedding:embed_run", "look": "looking:look_at",
           "export": "exporting:export_run", "plan": "planning:plan_run"}  # fmt: skip
ON_OTHERS = {"compare": "measuring:compare_items", "collect": "collecting:collect_world", "info": "checking:about",
             "demo": "demo:show"}  # fmt: skip

_function = lookup(__name__, {verb: f"openjepa.app.{home}" for verb, home in (ON_RUNS | ON_OTHERS).items()})


def answer(verb: str, subject: Any, given: Mapping[str, Any] | Iterable[str]) -> dict[str, Any]:
    """Do it. `subject` is a run, several items, a world, a path, or () for nothing; `given` a group or `key=value`s."""
    asked = request(verb, given)
    return _function(verb)(as_run(subject) if verb in ON_RUNS else subject, asked)


def request(verb: str, given: Mapping[str, Any] | Iterable[str]) -> Any:
    """The checked settings of a verb; None stands for "not given"."""
    if isinstance(given, Mapping):
        given = {k: v for k, v in given.items() if v is not None}
    return parse(REQUESTS[verb], nest(given))


def as_run(run: str | Path | Run) -> Run:
    return run if isinstance(run, Run) else Run(run)
