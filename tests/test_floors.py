"""The house stands: imports go down only, and nothing heavy or broken is needed to import it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINT = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())"]
OPTIONAL = ("torchvision", "timm", "transformers", "datasets", "sklearn", "pyarrow", "webdataset", "matplotlib",
            "wandb", "onnx", "onnxscript", "onnxruntime", "pandas", "scipy", "tensorboard", "h5py", "av",
            "gymnasium", "gymnasium_robotics", "gym_pusht", "mujoco", "pygame", "pymunk", "cv2")  # fmt: skip


def run(*command: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=240)


def test_imports_go_down_only(tmp_path: Path) -> None:
    pytest.importorskip("importlinter", reason="install openjepa[test]")
    done = run(*LINT, "--cache-dir", str(tmp_path))
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"  # names the offending import, line by line
    assert "3 kept, 0 broken" in done.stdout


def test_an_import_that_looks_up_is_named(tmp_path: Path) -> None:
    """The check above can fail: the same contracts on a copy of the house with one wrong import in the ground floor."""
    pytest.importorskip("importlinter", reason="install openjepa[test]")
    for source in (ROOT / "openjepa").rglob("*.py"):
        copy = tmp_path / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / "openjepa/core/wrong.py").write_text("from openjepa.train.run import RunConfig\n")
    done = run(*LINT, "--no-cache", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "openjepa.core.wrong -> openjepa.train.run" in done.stdout


def test_import_openjepa_brings_no_torch() -> None:
    code = "import sys, openjepa, openjepa.app.cli; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "numpy", "PIL", *OPTIONAL} & set(eval(done.stdout))


def test_every_room_opens_without_the_optional_libraries(tmp_path: Path) -> None:
    """A broken torchvision is common where other libraries pulled one in; here each optional library is broken."""
    for name in OPTIONAL:
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name} was imported, and it is broken here')\n")
    code = """
        import importlib, pkgutil, sys, openjepa
        modules = [m.name for m in pkgutil.walk_packages(openjepa.__path__, "openjepa.") if "__main__" not in m.name]
        for name in modules:
            importlib.import_module(name)
        print(len(modules), openjepa.train, openjepa.Run, openjepa.JEPAConfig().image_size)
    """
    done = run(sys.executable, "-c", textwrap.dedent(code), PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[0]) > 30
