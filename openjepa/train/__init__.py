"""The one loop: a frozen config in, a run folder out. It knows observers only as callables.

The names below are looked up when they are first used, because `openjepa.train.run` must be importable without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openjepa.lazy import lookup

if TYPE_CHECKING:
    from openjepa.train.failure import RunFailed
    from openjepa.train.loop import Observer, fit
    from openjepa.train.whole import execute

_HOMES = {"execute": "whole", "RunFailed": "failure", "Observer": "loop", "fit": "loop"}

__all__ = ["Observer", "RunFailed", "execute", "fit"]

__getattr__ = lookup(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
