"""The command line as a person meets it: help at once, mistakes in one line, the right exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openjepa.app.cli import main
from openjepa.app.guard import guarded

VERBS = [
    ["train"],
    ["probe"],
    ["embed"],
    ["look"],
    ["compare"],
    ["export"],
    ["data", "check"],
    ["list"],
    ["info"],
    ["demo"],
]
HEAVY = {"torch", "numpy", "PIL", "pandas", "sklearn", "transformers", "pyarrow"}


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `openjepa WORDS`, in this process."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.mark.parametrize("verb", [[], *VERBS, ["train", "lejepa"], ["train", "digits-lejepa"]], ids=" ".join)
def test_help_needs_nothing_heavy(verb: list[str]) -> None:
    code = (
        "import sys\nfrom openjepa.app.cli import main\n"
        f"try: main({[*verb, '--help']!r})\n"
        f"finally: sys.stderr.write(' '.join({sorted(HEAVY)!r} and sorted({HEAVY!r} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "help imported heavy libraries"
    assert "Usage: openjepa" in done.stdout


def test_help_is_quick() -> None:
    """Under half a second of processor time: on a machine that does nothing else this is the time one waits."""
    spent = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "openjepa", "train", "lejepa", "--help"], capture_output=True, check=True)
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(spent) < 0.5


def test_help_of_a_method_lists_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "train", "lejepa", "--help")
    assert code == 0
    for name in (
        "method.lam",
        "method.encoder.name",
        "method.global_views.count",
        "optim.lr",
        "data.path",
        "budget.steps",
    ):
        assert f"  {name} " in out
    code, out, _ = call(capsys, "train", "--help")
    assert "lejepa" in out and "digits-lejepa" in out and "method.lam" not in out


MISTAKES = {
    "unknown verb": (["trian"], "trian"),
    "unknown option": (["train", "lejepa", "--resum", "x"], "--resum"),
    "no method": (["train"], "must be given a method"),
    "no data": (["train", "lejepa"], "data must be given"),
    "unknown method": (["train", "lejpa", "data=digits"], "Did you mean 'lejepa'"),
    "unknown preset": (["train", "digits-lejpa"], "Did you mean 'digits-lejepa'"),
    "unknown key": (["train", "lejepa", "data=digits", "optim.lrr=1"], "optim: unknown key 'lrr'. Did you mean 'lr'"),
    "unknown group": (["train", "lejepa", "data=digits", "optm.lr=1"], "unknown key 'optm'. Did you mean 'optim'"),
    "unknown method key": (["train", "lejepa", "data=digits", "method.lamb=1"], "Did you mean 'lam'"),
    "unknown encoder": (["train", "lejepa", "data=digits", "method.encoder=resnet8"], "Did you mean 'resnet18'"),
    "bad number": (["train", "lejepa", "data=digits", "batch_size=many"], "batch_size: "),
    "out of range": (["train", "lejepa", "data=digits", "method.lam=2"], "method.lam: "),
    "bad choice": (["train", "lejepa", "data=digits", "precision=fp8"], "precision: "),
    "two budgets": (["train", "lejepa", "data=digits", "budget.steps=1", "budget.epochs=1"], "one of steps, epochs"),
    "not key=value": (["train", "lejepa", "digits"], "must be key=value, got 'digits'"),
    "missing config": (["train", "lejepa", "--config", "none.yaml", "data=digits"], "config file must exist"),
    "missing data": (["train", "lejepa", "data=no/such/folder"], "data must exist"),
    "resume nothing": (["train", "--resume", "no/run"], "resume must name the folder of a run"),
    "resume and name": (["train", "lejepa", "--resume", "no/run"], "must be given alone"),
    "tiny method": (["train", "lejepa", "--tiny", "data=digits"], "tiny must go with a preset"),
    "probe nothing": (["probe"], "must be given a run folder"),
    "probe no run": (["probe", "no/run"], "must be a folder with a config.yaml"),
    "probe unknown key": (["probe", "no/run", "kind=knn"], "Did you mean 'kinds'"),
    "compare nothing": (["compare"], "must be given"),
    "export nowhere": (["export", "no/run"], "to: field required"),
    "export format": (["export", "no/run", "--to", "x", "--format", "tf"], "format: "),
    "look no run": (["look", "no/run"], "must be a folder with a config.yaml"),
    "check nothing": (["data", "check", "no/such/folder"], "data must exist"),
    "list what": (["list", "method"], "Did you mean 'methods'"),
    "info of nothing": (["info", "no/run"], "no/run"),
}


@pytest.mark.parametrize("case", sorted(MISTAKES))
def test_mistakes_are_one_line_and_exit_code_2(
    case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, said = MISTAKES[case]
    code, out, err = call(capsys, *words)
    assert code == 2, err
    assert said in err
    assert err.startswith("openjepa: ") and err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == [], "a mistake leaves nothing behind"


def test_a_folder_with_something_in_it_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    code, _, err = call(capsys, "train", "digits-lejepa", "--tiny", f"out={tmp_path}")
    assert code == 2 and "new or empty folder" in err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="Did you mean 'lejepa'"):
        main(["train", "lejpa", "data=digits", "--debug"])


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    from openjepa.train.failure import Diverged

    def stop(error: BaseException):  # type: ignore[no-untyped-def]
        def command() -> None:
            raise error

        return guarded(command, debug=False)

    assert stop(Diverged("the loss became nan at step 3.\nDo less.")) == 1
    assert stop(KeyboardInterrupt()) == 130
    assert stop(ZeroDivisionError("division by zero")) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "openjepa: the loss became nan at step 3. Do less."
    assert "--debug" in err[2] and len(err) == 3


def test_print_config_round_trip(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["train", "digits-lejepa", "seed=5", "method.lam=0.07", f"out={tmp_path / 'run'}", "--print-config"]
    code, first, _ = call(capsys, *words)
    assert code == 0 and "lam: 0.07" in first and "projector_out: 32" in first
    (tmp_path / "config.yaml").write_text(first)
    code, second, _ = call(
        capsys, "train", "--config", str(tmp_path / "config.yaml"), f"out={tmp_path / 'run'}", "--print-config"
    )
    assert second == first
    assert not (tmp_path / "run").exists()


def test_list_and_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "list", "methods", "--json")
    assert code == 0 and {"lejepa", "ijepa"} <= json.loads(out)["methods"].keys()
    code, out, _ = call(capsys, "list")
    assert code == 0 and all(kind in out for kind in ("methods", "presets", "encoders", "sources", "probes", "formats"))


def test_module_and_command_are_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "openjepa", "list", "methods"], capture_output=True, text=True, check=True
    )
    assert "lejepa" in done.stdout
    command = Path(sys.executable).with_name("openjepa")
    if command.exists():
        again = subprocess.run([command, "list", "methods"], capture_output=True, text=True, check=True, env=os.environ)
        assert again.stdout == done.stdout
