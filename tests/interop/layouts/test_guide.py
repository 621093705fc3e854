"""The guide names every family with its licence, and shows only what works."""

from __future__ import annotations

import re
from inspect import signature
from pathlib import Path

from openjepa.interop import load
from openjepa.interop.layouts import LAYOUTS

GUIDE = (Path(__file__).resolve().parents[3] / "docs/guides/checkpoints.md").read_text(encoding="utf-8")


def test_every_family_and_its_licence():
    rows = dict(re.findall(r"^\| ([^|]+?) \|.*\| ([^|]+?) \|$", GUIDE, re.M))
    for layout in LAYOUTS.values():
        assert rows[layout.name] == layout.licence


def test_only_settings_that_exist():
    used = set(re.findall(r"`(\w+)=", GUIDE)) | set(re.findall(r"load\([^)]*?, (\w+)=", GUIDE))
    assert used and used <= set(signature(load).parameters)
