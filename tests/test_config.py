"""Groups of settings over the defaults of the field they are for."""

from __future__ import annotations

import pytest

from openjepa.config import ClipView, Config
from openjepa.methods.lejepa import LeJEPAConfig
from openjepa.methods.lewm import LeWMConfig
from openjepa.train.run import Budget


def test_what_is_given_of_a_group_changes_the_default_group() -> None:
    cfg = LeWMConfig.model_validate({"window": {"steps": 8}})
    assert (cfg.window.steps, cfg.window.skip) == (8, 5)
    assert LeWMConfig.model_validate({"window": 8}).window == cfg.window
    assert LeWMConfig.model_validate({"encoder": {"depth": 4}}).encoder.name == "vit_tiny/14"
    assert not LeWMConfig.model_validate({"encoder": "convnet_lean"}).encoder.cls, "another network starts afresh"
    views = LeJEPAConfig.model_validate({"global_views": {"rotate": 30}, "local_views": {"count": 1}})
    assert (views.global_views.count, views.global_views.grey, views.global_views.rotate) == (2, 0.2, 30)
    assert views.local_views is not None and (views.local_views.count, views.local_views.scale) == (1, (0.05, 0.3))
    assert LeJEPAConfig.model_validate({"local_views": None}).local_views is None


def test_of_fields_that_exclude_each_other_the_one_given_replaces_the_defaults() -> None:
    class Films(Config):
        clip: ClipView = ClipView(frames=8, stride=4)
        other: Budget = Budget(epochs=100)

    assert Films.model_validate({"clip": {"fps": 5}}).clip == ClipView(frames=8, fps=5)
    assert Films.model_validate({"other": {"steps": 5}}).other == Budget(steps=5)
    assert Films.model_validate({"clip": {"frames": 4}}).clip == ClipView(frames=4, stride=4)
    with pytest.raises(ValueError, match="Give one of the two"):
        Films.model_validate({"clip": {"fps": 5, "stride": 2}})


def test_a_saved_config_read_again_is_the_same_whatever_the_defaults_are() -> None:
    cfg = LeJEPAConfig.model_validate({"global_views": {"grey": 0.0, "count": 3}, "local_views": None})
    assert LeJEPAConfig.model_validate(cfg.model_dump(mode="json")) == cfg
