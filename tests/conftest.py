"""What every test gets: one thread, fixed seeds, a home folder of its own, and real data where there is some."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: many small tests are slower on many threads
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Home and cache folders of the session, for this process and for the ones it starts."""
    home = tmp_path_factory.mktemp("home")
    patch = pytest.MonkeyPatch()
    patch.setenv("HOME", str(home))
    patch.setenv("USERPROFILE", str(home))
    patch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    patch.setenv("HF_HOME", str(home / ".cache" / "huggingface"))
    yield home
    patch.undo()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The library takes generators as arguments; tests that build modules with torch's own initialisers need this."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real data sets: $OPENJEPA_DATA, or shared/data beside the checkout."""
    path = Path(os.environ.get("OPENJEPA_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set OPENJEPA_DATA")
    return path
