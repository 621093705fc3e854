"""The help tables are those of the schema."""

from __future__ import annotations

from openjepa.app import fields
from openjepa.train.run import RunConfig


def test_packaged_tables_are_fresh() -> None:
    assert fields.read() == fields.collect(), "run make docs (python -m openjepa.app.fields)"


def test_every_field_of_a_run_is_shown_with_its_default() -> None:
    rows = {row["name"]: row for row in fields.read()["train"]["fields"]}
    assert set(RunConfig.model_fields) - {"method"} <= rows.keys()
    assert rows["optim.lr"]["default"] == str(RunConfig.model_fields["optim"].default.lr)
    assert rows["data.path"]["default"] == "required"
    assert rows["budget.epochs"]["default"] == "100"


def test_defaults_in_place_are_shown() -> None:
    """A group's default may differ from the default of its class: what help shows is what one gets."""
    rows = {row["name"]: row for row in fields.read()["methods"]["lejepa"]["fields"]}
    assert rows["method.local_views.count"]["default"] == "6"
    assert rows["method.encoder.name"]["default"] == "resnet18"
