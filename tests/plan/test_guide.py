"""The Python of the guide runs; the verbs and names in it are real."""

from __future__ import annotations

import re
from pathlib import Path

from openjepa.app.names import list_names

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "planning.md"


def test_the_python_runs_and_finds_the_goal() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    scope: dict = {}
    exec(code, scope)
    assert scope["plan"].actions.shape == (1, 4, 2) and scope["plan"].cost.item() < 0.05


def test_what_it_lists_is_there() -> None:
    assert {"point-mass", "two-rooms"} <= list_names("worlds")["worlds"].keys()
    assert {"cem", "mppi"} <= list_names("planners")["planners"].keys()
    assert "two-rooms-published" in list_names("protocols")["protocols"]
