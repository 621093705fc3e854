"""How a measurement is kept: numbers together with the machine, the date, the commit and the library versions.

Every benchmark calls `save` once. A number without these four is not a result.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


def hardware() -> dict:
    """The processor, its cores, memory and accelerators, as far as this process may use them."""
    return {
        "cpu": _cpu_name(),
        "cores": _cores(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.machine()}",
    }


def software() -> dict:
    """Versions that decide speed and numerics."""
    return {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}


def save(name: str, results: dict, *, device: str = "cpu") -> Path:
    """Write `results` to benchmarks/results/<name>_<device>_<date>.json and return the path.

    name     of the benchmark, a word such as "sigreg"
    results  anything JSON can hold; `save` adds hardware, software, date, commit and whether the tree was clean
    device   "cpu" or "cuda": part of the file name, because the two are never compared in one table

    A second run on the same day replaces the first. The file is written whole or not at all.
    """
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"name must be letters, digits, - and _, got {name!r}.")
    record = {
        "benchmark": name,
        "device": device,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "openjepa", "benchmarks/*.py")),
        "hardware": hardware(),
        "software": software(),
        "results": results,
    }
    path = RESULTS / f"{name}_{device}_{date.today().isoformat()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    part.replace(path)
    return path


def _git(*words: str) -> str:
    """The output of a git command here, or "unknown" outside a checkout."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _cpu_name() -> str:
    """The processor's own name: platform.processor() is empty or "x86_64" on most Linux machines."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores this process may run on, which a container may have made fewer than the machine has."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
