"""Our ViT is pinned to an independent implementation: `transformers`' IJepaModel with the same random weights."""

from __future__ import annotations

import json
import re

import pytest
import torch

from openjepa.interop.hf import from_hf_ijepa, hf_ijepa_config, to_hf_ijepa
from openjepa.nn import build_encoder
from openjepa.nn.vit import Size, ViT

transformers = pytest.importorskip("transformers")


def theirs(patch: int, size: int, channels: int = 3):
    """A small IJepaModel whose weights are all random: norms and biases too, and a position table that is no sine."""
    config = transformers.IJepaConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=160, image_size=size,
        patch_size=patch, num_channels=channels, layer_norm_eps=1e-6,
    )  # fmt: skip
    model = transformers.IJepaModel(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return model


def ours(patch: int, size: int, channels: int = 3) -> ViT:
    return ViT(Size(48, 3, 4, 160 / 48), patch=patch, size=size, channels=channels)


def as_v4(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of transformers 4, written out here a second time on purpose."""
    renames = [
        (r"^layers\.", "encoder.layer."), (r"attention\.q_proj", "attention.attention.query"),
        (r"attention\.k_proj", "attention.attention.key"), (r"attention\.v_proj", "attention.attention.value"),
        (r"attention\.o_proj", "attention.output.dense"), (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
    ]  # fmt: skip
    out = {}
    for key, value in state.items():
        for old, new in renames:
            key = re.sub(old, new, key)
        out[key] = value
    return out


@pytest.mark.parametrize(("patch", "size", "channels"), [(4, 16, 3), (8, 32, 1), (7, 42, 3)])
def test_equals_transformers(patch, size, channels):
    model, vit = theirs(patch, size, channels), ours(patch, size, channels)
    vit.load_state_dict(from_hf_ijepa(model.state_dict()))
    x = torch.randn(3, channels, size, size)
    with torch.no_grad():
        got, want = vit(x), model(pixel_values=x).last_hidden_state
    assert want.std() > 0.1
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_equals_transformers_at_another_size():
    model, vit = theirs(4, 16), ours(4, 16)
    vit.load_state_dict(from_hf_ijepa(model.state_dict()))
    x = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        want = model(pixel_values=x, interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(vit(x), want, atol=1e-5, rtol=1e-5)


def test_gradients_equal_transformers():
    model, vit = theirs(4, 16), ours(4, 16)
    vit.load_state_dict(from_hf_ijepa(model.state_dict()))
    x, weight = torch.randn(2, 3, 16, 16), torch.randn(2, 16, 48)
    (vit(x) * weight).sum().backward()
    (model(pixel_values=x).last_hidden_state * weight).sum().backward()
    grads = from_hf_ijepa({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    for name, p in vit.named_parameters():
        torch.testing.assert_close(p.grad, grads[name], atol=1e-4, rtol=1e-4)


def test_both_key_styles_and_prefix_give_the_same_state():
    state = theirs(4, 16).state_dict()
    a, b = from_hf_ijepa(state), from_hf_ijepa({f"ijepa.{k}": v for k, v in as_v4(state).items()})
    assert a.keys() == b.keys() == ours(4, 16).state_dict().keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("names", ["v4", "v5"])
def test_round_trip(names):
    state = ours(4, 16).state_dict()
    there = to_hf_ijepa(state, names)
    native = theirs(4, 16).state_dict()
    assert set(there) == set(as_v4(native) if names == "v4" else native)
    back = from_hf_ijepa(there)
    assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) for k in state)


def test_exported_folder_opens_with_automodel(tmp_path):
    from safetensors.torch import save_file

    vit = build_encoder("vit_micro/4", size=16)
    state = to_hf_ijepa(vit.state_dict())
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(hf_ijepa_config(vit.state_dict(), heads=3)))
    model, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(pixel_values=x).last_hidden_state, vit(x), atol=1e-5, rtol=1e-5)


def test_strange_states_are_refused():
    state = theirs(4, 16).state_dict()
    with pytest.raises(ValueError, match=r"unknown.*decoder"):
        from_hf_ijepa(state | {"decoder.weight": torch.zeros(1)})
    del state["layers.1.attention.k_proj.bias"]
    with pytest.raises(ValueError, match=r"missing for \['blocks.1.attn.qkv.bias'\]"):
        from_hf_ijepa(state)
    rope = ViT(Size(48, 1, 4), patch=4, size=16, pos="rope")
    with pytest.raises(ValueError, match="rotary"):
        to_hf_ijepa(rope.state_dict())
    with pytest.raises(ValueError, match="prefix tokens"):
        to_hf_ijepa(ViT(Size(48, 1, 4), patch=4, size=16, registers=2).state_dict())
    with pytest.raises(ValueError, match="ViT"):
        to_hf_ijepa({"pos_embed": torch.zeros(1, 4, 4), "stem.weight": torch.zeros(1)})
