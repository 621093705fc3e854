"""The guide to the probes runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openjepa.probe import PROBES

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/probes.md"


def test_snippets_run(capsys: pytest.CaptureFixture[str]):
    snippets = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, str(GUIDE), "exec"), {})
    assert re.search(r"^knn: \d+\.\d % \[", capsys.readouterr().out, flags=re.M)


def test_every_probe_is_described():
    text = GUIDE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in PROBES)
