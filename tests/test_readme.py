"""What the reader runs is what is tested: README, CONTRIBUTING and the walkthrough, at a size of seconds."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import openjepa
from openjepa.app.cli import main

ROOT = Path(__file__).resolve().parent.parent
TINY = (
    "batch_size=16 budget.steps=4 precision=fp32 device=cpu log.tensorboard=false log.look=4 probe.limit=64 "
    "method.encoder.name=convnet_tiny method.slices=32 method.projector_hidden=32 method.projector_out=8 "
    "method.global_views.size=16 method.local_views.size=8"
)
TINY_CLIPS = (
    "batch_size=4 budget.steps=2 device=cpu log.tensorboard=false data.size=64 data.workers=0 "
    "method.encoder.name=vit_micro/8 method.predictor_width=48 method.predictor_depth=1"
)
TINY_WORLD = "batch_size=16 budget.steps=2 device=cpu log.tensorboard=false"
TINY_PLAN = "episodes=2 planner.name=shooting planner.samples=8 planner.horizon=3"


def blocks(file: str, language: str) -> list[str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def block_after(file: str, mark: str) -> str:
    text = (ROOT / file).read_text(encoding="utf-8")
    found = re.search(rf"<!-- {mark} -->\n```python\n(.*?)^```", text, flags=re.M | re.S)
    assert found, f"{file} has no block marked {mark}"
    return found[1]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with photos/ and labelled/: two classes that differ in the direction of their stripes."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for i in range(160):
        wave = 127 + 90 * np.sin(np.arange(16) / 2 + draw.uniform(0, 6))
        grey = np.tile(wave, (16, 1)) + draw.normal(0, 12, (16, 16))
        picture = Image.fromarray((grey if i % 2 else grey.T).clip(0, 255).astype(np.uint8))
        for folder in ("photos", f"labelled/{'upright' if i % 2 else 'flat'}"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / folder / f"{i:03}.png")
    return tmp_path


@pytest.fixture
def videos(pictures: Path) -> Path:
    """videos/ beside them: a bright square that moves to the right, at another height in each."""
    (pictures / "videos").mkdir()
    for i in range(8):
        frames = np.full((12, 32, 32), 40, np.uint8)
        for t, frame in enumerate(frames):
            frame[3 * i : 3 * i + 6, 2 * t : 2 * t + 6] = 220
        first, *rest = map(Image.fromarray, frames)
        first.save(pictures / f"videos/{i}.gif", save_all=True, append_images=rest, duration=100)
    return pictures / "videos"


def test_readme_commands(pictures: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line for block in blocks("README.md", "bash") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in commands]
    ours = [w[1:] for w in words if w and w[0] == "openjepa"]
    assert len(ours) >= 10
    assert {w[0] for w in words if w} <= {"openjepa", "make", "pip"}
    for command in ours:
        if command[0] == "train" and "--help" not in command and "--resume" not in command:
            world = {"data=eps/", "data=swings/"} & set(command)
            tiny = TINY_WORLD if world else TINY if "--config" not in command else "budget.steps=2"
            command = [*command, *shlex.split(TINY_CLIPS if "data=videos/" in command else tiny)]
        elif command[:2] == ["collect", "gym:Pendulum-v1"]:
            command = [*command, "episodes=24", "steps=80"]
        elif command[0] == "plan":
            command = [*command, *TINY_PLAN.split()]
        with pytest.raises(SystemExit) as stop:
            main(command)
        out, err = capsys.readouterr()
        assert stop.value.code == 0, f"openjepa {shlex.join(command)}\n{out}{err}"
        assert out, f"openjepa {shlex.join(command)} said nothing"
    assert (pictures / "runs/a/report.html").stat().st_size > 10_000
    assert np.load(pictures / "z.npz")["z"].shape[0] == 160
    assert json.loads((pictures / "exported/config.json").read_text())
    assert np.load(pictures / "clips.npz")["z"].shape[0] == len(list(videos.iterdir()))
    assert json.loads((pictures / "hf/config.json").read_text())["model_type"] == "vjepa2"
    assert (pictures / "runs/w/plan/one-room/model_000.gif").stat().st_size > 1000
    assert (pictures / "runs/s/plan/gym-Pendulum-v1/model_000.gif").stat().st_size > 1000
    assert "model_000.gif" in (pictures / "runs/s/report.html").read_text(encoding="utf-8")


def test_readme_targets_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    for file in ("README.md", "CONTRIBUTING.md"):
        used = re.findall(r"(?:`|^ *|\t)make ([a-z]+)", (ROOT / file).read_text(), flags=re.M)
        assert used and set(used) <= set(targets), file


def test_readme_python(pictures: Path) -> None:
    """The snippet itself, with a smaller run put in its place."""
    (snippet,) = blocks("README.md", "python")
    small = f"overrides={TINY.split()!r})"
    assert 'out="runs/a")' in snippet
    here: dict[str, object] = {}
    exec(snippet.replace('out="runs/a")', f'out="runs/a", {small}'), here)
    z = here["z"]
    assert isinstance(z, np.ndarray) and z.shape[0] == 160 and np.isfinite(z).all()
    assert list((pictures / "runs/a/eval").glob("*.json"))


def test_readme_links() -> None:
    for file in ("README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))):
        text = (ROOT / file).read_text(encoding="utf-8")
        prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.M | re.S)
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", prose):
            assert ((ROOT / file).parent / link).exists(), f"{file} links to {link}"


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The method of CONTRIBUTING, as the module it would be."""
    module = types.ModuleType("openjepa.methods.twin")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    source = block_after("CONTRIBUTING.md", "imports") + "\n" + block_after("CONTRIBUTING.md", "method")
    exec(source, module.__dict__)
    return module


def test_the_method_of_contributing_is_twelve_lines() -> None:
    body = block_after("CONTRIBUTING.md", "method").partition("class Twin(Method)")[2]
    assert len([line for line in body.splitlines()[1:] if line.strip()]) <= 12


def test_the_method_of_contributing_trains(
    twin: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(openjepa.METHODS, "twin", twin.Twin)
    small = ["batch_size=32", "budget.steps=30", "device=cpu", "log.every=1", "log.look=15", "probe.limit=100"]
    run = openjepa.train(
        {"name": "twin", "encoder": "convnet_tiny"},
        data={"path": "digits", "channels": 1},
        out=tmp_path / "twin",
        overrides=[*small, "log.tensorboard=false"],
    )
    losses = [row["loss"] for row in run.metrics()]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert {"terms/agree", "terms/variance", "terms/covariance", "health/spread"} <= run.metrics()[-1].keys()


def test_the_docstring_of_contributing_is_the_one_in_the_code() -> None:
    from openjepa.core.spread import variance

    shown = ast.parse(block_after("CONTRIBUTING.md", "docstring")).body[0]
    assert isinstance(shown, ast.FunctionDef)
    assert ast.get_docstring(shown) == __import__("inspect").getdoc(variance)
    assert torch.is_tensor(variance(torch.zeros(4, 2)))


def test_walkthrough_names_what_is_there() -> None:
    """Every `file.py` exists, and every `name` after a file is defined in it."""
    text = (ROOT / "docs/walkthrough.md").read_text(encoding="utf-8")
    files = re.findall(r"`(openjepa/[\w/]+\.py)`", text)
    assert len(set(files)) >= 10
    for file in files:
        assert (ROOT / file).is_file(), f"the walkthrough names {file}"
    named = re.findall(r"`([A-Za-z_][\w.]*)\(\)`[^`]{0,40}?`(openjepa/[\w/]+\.py)`", text)
    assert len(named) >= 15
    for name, file in named:
        assert defines(ROOT / file, name), f"the walkthrough names {name} in {file}"


def defines(file: Path, name: str) -> bool:
    """Whether a function `f`, a class `C` or a method `C.f` is defined in a file."""
    scope: list[ast.stmt] = ast.parse(file.read_text(encoding="utf-8")).body
    for part in name.split("."):
        found = [n for n in scope if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == part]
        if not found:
            return False
        scope = found[0].body
    return True


def test_defines_can_say_no() -> None:
    assert defines(ROOT / "openjepa/config.py", "Config.override")
    assert not defines(ROOT / "openjepa/config.py", "Config.overrule")
