"""Encoders of clips out of the house: own folder, transformers' VJEPA2Model, ONNX, the Hub (a mocked one)."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from openjepa.interop import EXPORTS, Model, load
from openjepa.interop.sharing import from_pretrained, push_to_hub, save_pretrained
from openjepa.nn import ClipPredictor, ClipViT, EncoderConfig, build_clip_encoder
from tests.interop.interop_toys import checkpoint, config

PREPROCESS = {
    "kind": "clips", "frames": 4, "stride": 2, "fps": None, "size": 16, "channels": 3, "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.2], "resample": "bicubic",
}  # fmt: skip
X = torch.randn(3, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def stirred(module: Any) -> Any:
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return module.eval()


def run(folder: Path, *, predictor: bool = False, seed: int = 0, **changes: Any) -> Model:
    """A checkpoint of a run on clips, opened; `changes` of the encoder's settings."""
    settings = {"name": "vit_micro/4", "pos": "rope-tiled", **changes}
    torch.manual_seed(seed)
    parts: dict[str, nn.Module] = {"encoder": stirred(build_clip_encoder(settings, size=16, frames=4))}  # type: ignore[arg-type]
    if predictor:
        made = ClipPredictor(96, (2, 4, 4), width=24, depth=2, heads=2, pos="rope-tiled", mask_tokens=2)
        parts["predictor"] = stirred(made)
    encoder = EncoderConfig(**settings).model_dump(mode="json")  # type: ignore[arg-type]
    told = config(encoder=encoder, preprocess=PREPROCESS, method={"name": "vjepa", "predictor_heads": 2})
    return load(checkpoint(folder, parts, told), weights="encoder")  # type: ignore[arg-type]


def test_own_folder_round_trip(tmp_path: Path):
    model = run(tmp_path / "c", pos="sincos")
    out = EXPORTS["openjepa"](model, tmp_path / "out")
    again = load(out)
    assert isinstance(again.encoder, ClipViT) and again.preprocess == model.preprocess
    assert torch.equal(again.encode(X).tokens, model.encode(X).tokens)
    text = (out / "README.md").read_text()
    assert "4 frames at stride 2, 16 x 16" in text and "clip.mp4" in text and "pipeline_tag: feature-extraction" in text


@pytest.mark.parametrize("channels", [3, 1])
def test_transformers_gets_the_same_numbers(channels: int, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    encoder = stirred(
        build_clip_encoder({"name": "vit_micro/4", "pos": "rope-tiled"}, size=16, channels=channels, frames=4)  # type: ignore[arg-type]
    )
    told = {**PREPROCESS, "channels": channels, "mean": [0.5] * channels, "std": [0.2] * channels}
    settings = EncoderConfig(name="vit_micro/4", pos="rope-tiled").model_dump(mode="json")
    folder = checkpoint(tmp_path / "c", {"encoder": encoder}, config(encoder=settings, preprocess=told))
    out = EXPORTS["hf"](load(folder), tmp_path / "hf")
    theirs = transformers.AutoModel.from_pretrained(out).eval()
    assert type(theirs).__name__ == "VJEPA2Model"
    with torch.no_grad():
        for frames in (4, 2, 8):
            x = torch.randn(2, frames, channels, 16, 16)
            got = theirs(x, skip_predictor=True).last_hidden_state
            torch.testing.assert_close(got, encoder(x), atol=1e-5, rtol=1e-5)
    told_back = json.loads((out / "video_preprocessor_config.json").read_text())
    assert told_back["crop_size"] == {"height": 16, "width": 16} and len(told_back["image_mean"]) == channels


def test_the_predictor_goes_along(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    model = run(tmp_path / "c", predictor=True)
    out = EXPORTS["hf"](model, tmp_path / "hf")
    theirs, told = transformers.AutoModel.from_pretrained(out, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    predictor = ClipPredictor(96, (2, 4, 4), width=24, depth=2, heads=2, pos="rope-tiled", mask_tokens=2).eval()
    from openjepa.interop.files import read_weights

    predictor.load_state_dict(read_weights(model.source.parent / "predictor.safetensors"))  # type: ignore[union-attr]
    index = torch.stack([torch.randperm(32) for _ in range(3)])
    seen, hidden = index[:, :20], index[:, 20:]
    with torch.no_grad():
        z = model.encoder(X)
        got = theirs.eval()(X, context_mask=[seen], target_mask=[hidden]).predictor_output.last_hidden_state
        kept = z.gather(1, seen[..., None].expand(-1, -1, 96))
        torch.testing.assert_close(got, predictor(kept, seen, hidden, 1), atol=1e-5, rtol=1e-5)


def test_without_a_predictor_only_that_is_missing(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    out = EXPORTS["hf"](run(tmp_path / "c"), tmp_path / "hf")
    _, told = transformers.AutoModel.from_pretrained(out, output_loading_info=True)
    assert told["missing_keys"] and all(k.startswith("predictor.") for k in told["missing_keys"])
    assert not told["unexpected_keys"]


def test_what_we_wrote_for_transformers_opens_here(tmp_path: Path):
    model = run(tmp_path / "c", predictor=True)
    again = load(EXPORTS["hf"](model, tmp_path / "hf"))
    torch.testing.assert_close(again.encode(X).tokens, model.encode(X).tokens, atol=1e-6, rtol=1e-6)
    assert "predictor" in again.parts


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pos": "sincos"}, "sine-cosine positions"),
        ({"pos": "rope"}, "V-JEPA 2.1"),
        ({"levels": 2}, "2 levels"),
        ({"picture_patch": True}, "projection of single frames"),
    ],
)
def test_what_cannot_be_said_in_transformers_is_refused(changes: dict, why: str, tmp_path: Path):
    model = run(tmp_path / "c", **changes)
    with pytest.raises(ValueError, match=why) as found:
        EXPORTS["hf"](model, tmp_path / "hf")
    assert "our own format" in str(found.value) and not (tmp_path / "hf").exists()


@pytest.mark.parametrize("pos", ["sincos", "rope-tiled"])
def test_onnx_takes_any_number_of_clips(pos: str, tmp_path: Path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = run(tmp_path / "c", pos=pos)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = EXPORTS["onnx"](model, tmp_path / "clips.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["clips"]
    for batch in (1, 3, 5):
        x = torch.randn(batch, 4, 3, 16, 16)
        tokens, pooled = (torch.from_numpy(y) for y in session.run(None, {"clips": x.numpy()}))
        torch.testing.assert_close(tokens, model.encode(x).tokens, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(pooled, model.encode(x).pooled, atol=1e-4, rtol=1e-3)


class Hub:
    """What `push_to_hub` asks of huggingface_hub's HfApi; keeps what it was given."""

    def __init__(self) -> None:
        self.made: list[tuple] = []
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
        self.made.append((repo_id, private, exist_ok))
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        self.files = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}


def test_the_hub_is_sent_what_a_folder_would_hold(tmp_path: Path):
    model, hub = run(tmp_path / "c"), Hub()
    assert push_to_hub(model, "me/model", api=hub) == "https://hub/me/model"
    assert hub.made == [("me/model", True, True)]
    assert sorted(hub.files) == ["README.md", "config.json", "model.safetensors"]
    (tmp_path / "got").mkdir()
    for name, content in hub.files.items():
        (tmp_path / "got" / name).write_bytes(content)
    assert torch.equal(from_pretrained(tmp_path / "got").encode(X).tokens, model.encode(X).tokens)
    push_to_hub(model, "me/model", format="hf", api=hub)
    assert "video_preprocessor_config.json" in hub.files


def test_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    model = run(tmp_path / "c")
    folder, asked = save_pretrained(model, tmp_path / "saved"), []

    def fetched(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    assert torch.equal(from_pretrained("me/model", revision="v1").encode(X).tokens, model.encode(X).tokens)
    assert asked == [("me/model", "v1", ["*.json", "*.safetensors", "README.md"])]
    for name in ("nowhere", "a/b/c", "./x"):  # no address of the Hub: nothing is asked
        with pytest.raises(ValueError, match="owner/name"):
            from_pretrained(name)
    assert len(asked) == 1
    with pytest.raises(ValueError, match="format must be"):
        save_pretrained(model, tmp_path / "x", format="pickle")


def test_a_predictor_of_another_kind_stays_here(tmp_path: Path):
    """V-JEPA's sine-cosine predictor beside a rotary encoder cannot be said in transformers: it is left out."""
    model = run(tmp_path / "c")
    other = ClipPredictor(96, (2, 4, 4), width=24, depth=1, heads=2, pos="sincos")
    state: dict[str, Tensor] = {k: v.contiguous() for k, v in other.state_dict().items()}
    save_file(state, model.source.parent / "predictor.safetensors")  # type: ignore[union-attr]
    out = EXPORTS["hf"](model, tmp_path / "hf")
    assert "pred_hidden_size" not in json.loads((out / "config.json").read_text())
