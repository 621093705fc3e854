"""Weights for other programs: one function per format."""

from __future__ import annotations
