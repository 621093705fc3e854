"""What a run was made with: written to `env.json`, never sent anywhere."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from openjepa.core.dist import world_size


def environment(device: torch.device) -> dict[str, Any]:
    """Python, torch, machine, commit and installed packages, as plain values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "openjepa": version(),
        "git": commit(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cuda": torch.version.cuda,
        "processes": world_size(),
        "packages": packages(),
    }


def version() -> str:
    try:
        return metadata.version("openjepa")
    except metadata.PackageNotFoundError:  # run from a bare checkout
        return "0"


def packages() -> list[str]:
    """As `pip freeze` would list them."""
    found = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    return [f"{name}=={found[name]}" for name in sorted(found, key=str.lower)]


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the checkout this package is run from, "+" added when files differ from it; else None."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        sha = _git(root, "rev-parse", "HEAD")
        return f"{sha}+" if _git(root, "status", "--porcelain", "--untracked-files=no") else sha
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
