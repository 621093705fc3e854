"""Exports: our own folder, transformers' layout and ONNX all give the numbers of the encoder they came from."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openjepa.interop import EXPORTS, Card, Model, load
from tests.interop.interop_toys import checkpoint, config, network

CARD = Card(
    name="Shapes, small",
    data="drawn shapes (Apache-2.0)",
    evaluated_on="drawn shapes, test",
    metrics=[{"name": "knn (weighted)", "accuracy": 0.5, "low": 0.4, "high": 0.6, "n": 100, "settings": {}}],
    notes="Not for medical use.",
)  # fmt: skip
X = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load(checkpoint(tmp_path / "c", {"encoder": network(seed=1), "teacher": network(seed=2)}))


def test_own_folder_round_trip(model: Model, tmp_path: Path):
    out = EXPORTS["openjepa"](model, tmp_path / "out", card=CARD)
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = load(out)
    assert again.weights == "teacher" and again.preprocess == model.preprocess
    assert torch.equal(again.encode(X).tokens, model.encode(X).tokens)
    assert torch.equal(load(out / "model.safetensors").encode(X).pooled, model.encode(X).pooled)
    third = load(EXPORTS["openjepa"](again, tmp_path / "third"))
    assert third.config == again.config


def test_card_tells_what_a_stranger_must_know(model: Model, tmp_path: Path):
    text = (EXPORTS["openjepa"](model, tmp_path / "out", card=CARD) / "README.md").read_text()
    import yaml

    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "apache-2.0" and head["library_name"] == "openjepa"
    for fact in ("Shapes, small", "drawn shapes (Apache-2.0)", "| knn (weighted) | 50.0 % | 40.0 to 60.0 % |",
                 "Not for medical use.", "vit_micro/4", "teacher", "ijepa", "openjepa 0.1.0"):  # fmt: skip
        assert fact in text, fact
    bare = (EXPORTS["openjepa"](model, tmp_path / "bare") / "README.md").read_text()
    assert "Nothing was measured." in bare and "shapes:10" in bare


def test_nothing_is_overwritten_or_left_half(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").write_text("mine")
    for name in ("openjepa", "hf"):
        with pytest.raises(ValueError, match="new or empty folder"):
            EXPORTS[name](model, tmp_path / "full")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(sys.modules["openjepa.interop.export"], "save_file", fail)
    with pytest.raises(OSError, match="full"):
        EXPORTS["openjepa"](model, tmp_path / "half")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "full"]


def test_transformers_opens_it_with_equal_numbers(model: Model, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    out = EXPORTS["hf"](model, tmp_path / "hf", card=CARD)
    theirs, info = transformers.AutoModel.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        got = theirs.eval()(pixel_values=X).last_hidden_state
    torch.testing.assert_close(got, model.encode(X).tokens, atol=1e-5, rtol=1e-5)
    assert "library_name: transformers" in (out / "README.md").read_text()


def test_transformers_prepares_pictures_as_we_do(model: Model, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    out = EXPORTS["hf"](model, tmp_path / "hf")
    settings = json.loads((out / "preprocessor_config.json").read_text())
    make = getattr(transformers, "BitImageProcessorPil", None) or transformers.BitImageProcessor
    processor = make(**{k: v for k, v in settings.items() if k != "image_processor_type"})
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    got = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(got, model.preprocess(Image.fromarray(pixels)), atol=1e-4, rtol=0)


def test_we_open_the_layout_of_transformers(model: Model, tmp_path: Path):
    out = EXPORTS["hf"](model, tmp_path / "hf")
    again = load(out)
    assert torch.equal(again.encode(X).tokens, model.encode(X).tokens)
    assert again.preprocess == model.preprocess


def test_what_has_no_layout_in_transformers_is_refused(tmp_path: Path):
    conv = load(checkpoint(tmp_path / "c", {"encoder": network("resnet18")}, config("resnet18")))
    with pytest.raises(ValueError, match="must be a ViT"):
        EXPORTS["hf"](conv, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("name", ["vit_micro/4", "resnet18"])
def test_onnx_gives_the_same_numbers_at_any_batch(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = load(checkpoint(tmp_path / "c", {"encoder": network(name)}, config(name)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = EXPORTS["onnx"](model, tmp_path / "encoder.onnx", card=CARD)
    assert "torchvision" not in "".join(capfd.readouterr())
    assert [p.name for p in tmp_path.glob("*onnx*")] == ["encoder.onnx"]
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 16, 16)
        tokens, pooled = session.run(["tokens", "pooled"], {"pictures": x.numpy()})
        want = model.encode(x)
        for got, ours in ((tokens, want.tokens), (pooled, want.pooled)):
            assert torch.from_numpy(got).sub(ours).abs().max() < 1e-4 * ours.abs().max()
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["preprocess"])["size"] == 16 and facts["licence"] == "Apache-2.0"


def test_onnx_wants_its_ending(model: Model, tmp_path: Path):
    with pytest.raises(ValueError, match=r"end in \.onnx"):
        EXPORTS["onnx"](model, tmp_path / "encoder")
