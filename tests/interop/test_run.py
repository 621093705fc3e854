"""A run that was really trained opens with the features its method gives, and comes back out of every export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from openjepa.data import evaluation
from openjepa.interop import EXPORTS, load
from openjepa.train import execute
from openjepa.train.run import RunConfig

SMALL = {"encoder": "vit_micro/4", "predictor_width": 32, "predictor_depth": 1}
PROJECTED = {"encoder": "convnet_tiny", "slices": 8, "projector_hidden": 16, "projector_out": 8}
METHODS = {"ijepa": SMALL, "lejepa": PROJECTED}


@pytest.mark.parametrize("name", METHODS)
def test_features_of_a_run(name: str, tmp_path: Path):
    run = RunConfig.model_validate(
        {
            "method": {"name": name, **METHODS[name]}, "data": {"path": "shapes:64", "size": 16, "workers": 0},
            "out": str(tmp_path / "run"), "budget": {"steps": 2}, "batch_size": 16, "device": "cpu",
            "precision": "fp32",
        }
    )  # fmt: skip
    seen = []
    execute(run, observers=lambda method, source: seen.append((method, source)) or [])
    method, source = seen[0]
    pictures, _, _ = next(iter(evaluation(source)))
    model = load(tmp_path / "run")
    with torch.no_grad():
        want = method.eval().encode(pictures)
    assert torch.equal(model.encode(pictures).tokens, want)
    assert model.weights == ("teacher" if name == "ijepa" else "encoder")
    assert (model.preprocess.size, model.preprocess.mean) == (16, tuple(source.mean))
    again = load(EXPORTS["openjepa"](model, tmp_path / "out"))
    assert torch.equal(again.encode(pictures).tokens, want)
    if name == "ijepa":
        assert torch.equal(load(EXPORTS["hf"](model, tmp_path / "hf")).encode(pictures).tokens, want)
