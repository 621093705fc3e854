"""What the C library does with memory that a step has freed."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt
LARGE = 1 << 30


def keep_freed_memory() -> bool:
    """Let the next step use what the last one freed; says whether the C library took the advice.

    By default glibc gives every freed block above some size back to the kernel, and a training step on the CPU then
    spends its time having the same pages mapped and zeroed again: 8 % of a LeJEPA step on small convolutions. Blocks up
    to 1 GiB now stay in the process, which never holds more than its own peak. Elsewhere than on glibc nothing happens.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGE)) and bool(mallopt(TRIM_THRESHOLD, LARGE))
