"""Weights for other programs: one function per format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FORMATS: dict[str, Callable[..., Any]] = {}
