"""Folders of transformers in both key styles: equal numbers to 1e-5, classifier and predictor included."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from openjepa.interop import load
from openjepa.interop.layouts.loading import about
from tests.interop.layouts import published as p

transformers = pytest.importorskip("transformers")


def random(model):
    torch.manual_seed(3)
    with torch.no_grad():
        for x in model.parameters():
            x.copy_(0.15 * torch.randn_like(x) + (1.0 if x.dim() == 1 else 0.0))
    return model.eval()


def vjepa2(cls=None, **more):
    config = transformers.VJEPA2Config(
        patch_size=4, crop_size=16, frames_per_clip=4, tubelet_size=2, hidden_size=24, num_attention_heads=2,
        num_hidden_layers=2, pred_hidden_size=36, pred_num_attention_heads=2, pred_num_hidden_layers=2,
        pred_num_mask_tokens=3, num_pooler_layers=2, num_labels=5, mlp_ratio=2.5, attn_implementation="eager", **more,
    )  # fmt: skip
    return random((cls or transformers.VJEPA2Model)(config))


def ijepa(**more):
    config = transformers.IJepaConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=60, image_size=16, patch_size=4,
        **more,
    )  # fmt: skip
    return random(transformers.IJepaModel(config, add_pooling_layer=False))


def as_v4(key: str) -> str:
    for old, new in (
        (r"^layers\.", "encoder.layer."), (r"attention\.q_proj", "attention.attention.query"),
        (r"attention\.k_proj", "attention.attention.key"), (r"attention\.v_proj", "attention.attention.value"),
        (r"attention\.o_proj", "attention.output.dense"), (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
    ):  # fmt: skip
        key = re.sub(old, new, key)
    return key


@pytest.mark.parametrize("prefix", ["", "ijepa."])
@pytest.mark.parametrize("style", ["v4", "v5"])
def test_ijepa(prefix, style, tmp_path):
    model = ijepa()
    folder = p.transformers_folder(model, tmp_path / "a")
    state = {prefix + (as_v4(k) if style == "v4" else k): v for k, v in model.state_dict().items()}
    if prefix:
        state |= {"classifier.weight": torch.zeros(2, 24), "classifier.bias": torch.zeros(2)}
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 16, "width": 16}, "resample": 2}
        )
    )
    ours = load(folder)
    assert ours.family == "I-JEPA of transformers" and f"names of transformers {style[1]}" in ours.notes
    assert ours.weights == "encoder" and list(ours.ignored) == (
        ["classifier.bias", "classifier.weight"] if prefix else []
    )
    assert (ours.preprocess.mean, ours.preprocess.fit, ours.preprocess.resample) == ((0.5,) * 3, "squash", "bilinear")
    for size in (16, 24):
        x = torch.randn(2, 3, size, size)
        with torch.no_grad():
            want = model(x, interpolate_pos_encoding=size != 16).last_hidden_state
        torch.testing.assert_close(ours.encode(x).tokens, want, atol=1e-5, rtol=1e-5)
    alone = load(folder / "model.safetensors")  # its config.json lies beside it
    assert torch.equal(alone.encode(x).tokens, ours.encode(x).tokens)


@pytest.mark.parametrize("config", [True, False])
@pytest.mark.parametrize("prefix", ["", "vjepa2."])
def test_vjepa2(prefix, config, tmp_path):
    model = vjepa2()
    folder = p.transformers_folder(model, tmp_path / "a", prefix, config)
    told = {} if config else {"heads": p.HEADS_ASKED, "size": 16, "frames": 4}
    ours = load(folder if config else folder / "model.safetensors", **told)
    assert ours.family == "V-JEPA 2 of transformers" and ours.encoder.grid == (2, 4, 4)
    assert (ours.preprocess.size, ours.preprocess.frames) == (16, 4)
    x, index = torch.randn(2, 4, 3, 16, 16), torch.rand(2, 32).argsort(1)
    seen, hidden = index[:, :20], index[:, 20:]
    with torch.no_grad():
        theirs = model(x, context_mask=[seen], target_mask=[hidden])
        got = ours.encode(x)
        torch.testing.assert_close(got.tokens, theirs.last_hidden_state, atol=1e-5, rtol=1e-5)
        context = got.tokens.gather(1, seen[:, :, None].expand(-1, -1, 24))
        guess = ours.part("predictor")(context, seen, hidden, mask_token=1)
    torch.testing.assert_close(guess, theirs.predictor_output.last_hidden_state, atol=1e-5, rtol=1e-5)


def test_vjepa2_classifier(tmp_path):
    """Encoder, pooler of two blocks and a query, Linear: equal scores."""
    model = vjepa2(transformers.VJEPA2ForVideoClassification)
    folder = p.transformers_folder(model, tmp_path / "a")
    ours, x = load(folder), torch.randn(2, 4, 3, 16, 16)
    with torch.no_grad():
        want = model(x).logits
    torch.testing.assert_close(ours.classify(x), want, atol=1e-5, rtol=1e-5)
    assert want.std() > 0.05 and sorted(ours.parts) == ["classifier", "predictor"]
    assert about(folder)["parameters"]["classifier"] == sum(
        q.numel() for m in (model.pooler, model.classifier) for q in m.parameters()
    )


def test_in_several_files(tmp_path):
    """What an index lists is put together; a part that is gone or double is named."""
    model = vjepa2()
    folder = p.transformers_folder(model, tmp_path / "a")
    state = load_file(folder / "model.safetensors")
    keys = list(state)
    names = ["model-1.safetensors", "model-2.safetensors"]
    where = {k: names[i > 9] for i, k in enumerate(keys)}
    for name in names:
        save_file({k: state[k] for k in keys if where[k] == name}, folder / name)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    x = torch.randn(1, 4, 3, 16, 16)
    with torch.no_grad():
        want = model(x, skip_predictor=True).last_hidden_state
    torch.testing.assert_close(load(folder).encode(x).tokens, want, atol=1e-5, rtol=1e-5)
    save_file(state, folder / names[1])
    with pytest.raises(ValueError, match="every tensor once"):
        load(folder)
    (folder / names[1]).unlink()
    with pytest.raises(ValueError, match=r"must hold model-2\.safetensors, which its index lists"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_act": "relu"}, "hidden_act in the config.json .* must be 'gelu', got 'relu'"),
        ({"qkv_bias": False}, "qkv_bias .* must be True, got False"),
        ({"num_hidden_layers": 3}, r"missing: encoder\.layer\.2\.norm1\.weight"),
        ({"pred_num_mask_tokens": 4}, r"predictor: missing: mask_tokens\.3"),
        ({"num_attention_heads": 5}, "must divide its width 24, got 5"),
    ],
)
def test_settings_and_weights_that_do_not_belong_together(change, says, tmp_path):
    folder = p.transformers_folder(vjepa2(), tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=says) as e:
        load(folder)
    assert "\n" not in str(e.value)


def test_layer_norm_eps_is_theirs(tmp_path):
    model = vjepa2(layer_norm_eps=1e-2)
    ours, x = load(p.transformers_folder(model, tmp_path / "a")), torch.randn(1, 4, 3, 16, 16)
    with torch.no_grad():
        want = model(x, skip_predictor=True).last_hidden_state
    torch.testing.assert_close(ours.encode(x).tokens, want, atol=1e-5, rtol=1e-5)
