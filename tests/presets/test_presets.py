"""Every preset is a valid run, and its tiny variant trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from openjepa.app.settings import resolve
from openjepa.app.training import start
from openjepa.methods import METHODS
from openjepa.presets import PRESETS, preset, tiny


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_a_whole_run(name: str) -> None:
    run = resolve(name, keywords={"out": "runs/x"})
    assert run.method.name == preset(name)["method"]["name"]  # type: ignore[attr-defined]
    eats = "window" if METHODS[run.method.name].eats == "windows" else "views"  # type: ignore[attr-defined]
    assert getattr(run.method, eats)
    assert run.override(run.model_dump()) == run  # what is saved says it all


@pytest.mark.parametrize("name", ["digits-ijepa", "digits-collapse", "cifar10-ijepa-cpu", "cifar10-lejepa-cpu"])
def test_a_tiny_run_trains(name: str, tmp_path: Path) -> None:
    size = {} if name.startswith("digits") else {"path": "shapes", "split": None}
    keywords = {"out": str(tmp_path / "run"), "data": size, "log": {"tensorboard": False}, "device": "cpu"}
    run = start(resolve(name, keywords=keywords, overrides=["budget.steps=4", "log.look=4"], tiny=True))
    assert run.metrics()[-1]["step"] == 4
    assert run.load().encoder.dim > 0


def test_tiny_changes_neither_method_nor_source() -> None:
    for name in PRESETS:
        small, full = tiny(name), preset(name)
        assert small["method"] == full["method"]
        assert small["data"]["path"] == full["data"]["path"]


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'digits-lejepa'"):
        preset("digit-lejepa")
