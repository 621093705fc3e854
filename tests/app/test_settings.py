"""Settings end in one place: preset, file, keywords and overrides give the same run whichever way they come."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

import openjepa
from openjepa.app import verbs
from openjepa.app.requests import REQUESTS
from openjepa.app.runs import Run
from openjepa.app.settings import resolve, settings
from openjepa.train.run import RunConfig


def test_later_words_win() -> None:
    found = settings("digits-lejepa", keywords={"optim": {"lr": 0.5}, "seed": None}, overrides=["optim.lr=0.25"])
    assert found["optim"] == {"lr": 0.25, "weight_decay": found["optim"]["weight_decay"]}
    assert "seed" not in found


def test_naming_one_budget_clears_the_others() -> None:
    run = resolve("digits-lejepa", overrides=["budget.minutes=1"])
    assert (run.budget.steps, run.budget.epochs, run.budget.minutes) == (None, None, 1)


def test_a_config_keeps_its_method_settings_only_for_the_same_method(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"method": {"name": "lejepa", "lam": 0.5}, "data": "digits", "out": "runs/old"}))
    assert settings("lejepa", config=file)["method"]["lam"] == 0.5
    assert settings("ijepa", config=file)["method"] == {"name": "ijepa"}
    assert "out" not in settings("lejepa", config=file)


def test_python_and_overrides_give_the_same_config() -> None:
    by_keyword = resolve(
        None,
        keywords={
            "method": {"name": "lejepa", "lam": 0.1, "encoder": "vit_nano/4"},
            "data": {"path": "digits", "channels": 1},
            "out": "runs/x",
            "optim": {"lr": 3e-4, "betas": (0.9, 0.95)},
            "budget": {"steps": 7},
        },
    )
    words = [
        "method=lejepa",
        "method.lam=0.1",
        "method.encoder=vit_nano/4",
        "data=digits",
        "data.channels=1",
        "out=runs/x",
    ]
    words += ["optim.lr=3e-4", "optim.betas=[0.9, 0.95]", "budget.steps=7"]
    assert resolve(None, overrides=words) == by_keyword
    assert resolve("lejepa", overrides=words[1:]) == by_keyword


def test_printed_config_comes_back_the_same(tmp_path: Path) -> None:
    run = resolve("digits-lejepa", overrides=["seed=3", "out=runs/x", "method.lam=0.11"])
    file = tmp_path / "config.yaml"
    file.write_text(run.to_yaml())
    assert resolve(None, config=file, overrides=["out=runs/x"]) == run


@pytest.mark.parametrize("name", sorted(openjepa.PRESETS))
def test_every_preset_is_a_valid_run_and_so_is_its_tiny_variant(name: str) -> None:
    for small in (False, True):
        run = resolve(
            name, tiny=small, keywords={"data": None} if openjepa.PRESETS[name]().get("data") else {"data": "digits"}
        )
        assert isinstance(run, RunConfig)
    assert run.budget.steps is not None and run.budget.steps <= 20


def test_train_has_a_keyword_for_every_field_of_a_run() -> None:
    keywords = set(inspect.signature(verbs.train).parameters)
    assert set(RunConfig.model_fields) <= keywords


@pytest.mark.parametrize("verb", ["probe", "embed", "compare", "export", "demo", "look"])
def test_python_keywords_of_a_verb_are_fields_of_its_request(verb: str) -> None:
    given = set(inspect.signature(getattr(verbs, verb)).parameters) - {"run", "items"}
    assert given <= set(REQUESTS[verb].model_fields)
    method = getattr(Run, verb, None)
    if method is not None:
        assert set(inspect.signature(method).parameters) - {"self"} <= given


def test_rooms_that_share_a_name_with_a_verb_are_callable() -> None:
    import openjepa.probe.verdict
    import openjepa.train.run as module

    assert module.RunConfig is RunConfig
    assert callable(openjepa.train) and callable(openjepa.probe)
    assert inspect.signature(openjepa.train) == inspect.signature(verbs.train)
    with pytest.raises(ValueError, match="method"):
        openjepa.train()


@pytest.mark.parametrize("name", openjepa.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(openjepa, name) is not None
    assert name in dir(openjepa)


def test_no_other_public_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        openjepa.trian  # noqa: B018


def test_a_preset_on_data_of_ones_own_with_a_setting_of_it() -> None:
    """`data=mine/ data.held_out=0.3` once trained on the preset's own data, without a word."""
    run = resolve("world-states", overrides=["data=mine/", "data.held_out=0.3"])
    assert run.data.model_dump()["path"] == "mine/" and run.data.model_dump()["held_out"] == 0.3
    kept = resolve("world-states", overrides=["data.held_out=0.3"])
    assert kept.data.model_dump()["path"] == "point-mass"
