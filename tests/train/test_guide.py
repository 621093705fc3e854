"""The training guide does what it says."""

import json
import re
from pathlib import Path

import pytest

from openjepa.train import folder

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "training.md").read_text(encoding="utf-8")


def test_its_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.S)
    here: dict = {"__name__": "guide"}
    exec(code, here)
    rows = [json.loads(line) for line in (tmp_path / "runs" / "line" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["probe/slope"] == pytest.approx(3.0, abs=0.1) and rows[-1]["loss"] < 0.05 * rows[0]["loss"]
    named = re.search(r"one row per line: (.*?),\n", GUIDE)
    assert named and {n for n in named[1].split(", ") if "..." not in n} <= rows[-1].keys()


def test_the_settings_that_may_differ_are_those_of_the_code():
    sentence = re.search(r"Only what changes no result may differ:(.*?)\. To train", GUIDE, re.S)
    assert sentence and set(re.findall(r"`([\w.]+)`", sentence[1])) == folder.FREE
