"""Pages that a step has freed stay with the process."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from openjepa.train.memory import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_blocks_are_used_again_without_asking_the_kernel() -> None:
    assert keep_freed_memory()
    for _ in range(30):  # the heap grows a few times before holes of the right size are there
        torch.ones(1 << 22)  # 16 MiB, above every default threshold
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(1 << 22)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 5 * 4096 / 4  # mapped anew: 4,096 each
