"""Being asked to stop: the step in hand is finished and saved first."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

import torch
import torch.distributed as dist

from openjepa.core.dist import is_distributed

AGREE = 10  # processes compare notes every so many steps: one tiny exchange


class Signals:
    """Notes SIGTERM and SIGINT while in use. A second one acts at once, as if this were not here."""

    def __init__(self) -> None:
        self.asked: int = 0
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        if os.getpid() != self._pid:  # a forked loader worker inherits this handler, but has no step to finish
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.asked = number

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def stop_at(self, step: int, device: torch.device) -> int:
        """The signal to stop for at this step, or 0: the same answer on every process."""
        if not is_distributed():
            return self.asked
        if step % AGREE:
            return 0
        box = torch.tensor(self.asked, device=device)
        dist.all_reduce(box, op=dist.ReduceOp.MAX)
        return int(box)
