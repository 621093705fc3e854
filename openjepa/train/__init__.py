"""The one loop: a frozen config in, a run folder out. It knows observers only as callables.

The names below are looked up when they are first used, because `openjepa.train.run` must be importable without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openjepa.train.failure import RunFailed
    from openjepa.train.loop import Observer, fit
    from openjepa.train.whole import execute

_HOMES = {"execute": "whole", "RunFailed": "failure", "Observer": "loop", "fit": "loop"}

__all__ = ["Observer", "RunFailed", "execute", "fit"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
