"""Every family from a file in its published layout: what it is told to be, and each rule of its numbers by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from openjepa.interop import load
from openjepa.interop.layouts import LAYOUTS
from openjepa.interop.layouts.loading import about
from openjepa.interop.layouts.shapes import HEADS, HEADS_V2
from openjepa.nn.position3d import coordinates, turn_3d
from tests.interop.layouts import published as p

FAMILIES = {
    "I-JEPA": (p.ijepa, "teacher"),
    "V-JEPA": (p.vjepa, "teacher"),
    "V-JEPA 2": (p.vjepa2, "teacher"),
    "V-JEPA 2.1": (p.vjepa21, "teacher"),
    "V-JEPA 2-AC": (p.vjepa2_ac, "encoder"),
    "LeWM": (p.lewm, "encoder"),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def open_(what: dict, tmp_path: Path, **more):
    return load(p.saved(what, tmp_path), **({"heads": p.HEADS_ASKED} | more))


def bare(group: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix("module.").removeprefix("backbone."): v for k, v in group.items()}


# ---- what it is told to be ----


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("file", ["a.pt", "b.pth.tar", "no-suffix"])
def test_told_by_content(name, file, tmp_path):
    write, weights = FAMILIES[name]
    model = load(p.saved(write(), tmp_path, file), heads=p.HEADS_ASKED)
    assert (model.family, model.weights) == (name, weights) and not model.encoder.training
    assert model.licence and model.size and model.preprocess.mean == (0.485, 0.456, 0.406)
    found = about(tmp_path / file)
    assert found["family"] == name and found["licence"] == model.licence and found["notes"] == list(model.notes)
    part = "world" if name == "LeWM" else "encoder"
    want = sum(x.numel() for x in (model.parts[part] if name == "LeWM" else model.encoder).parameters())
    assert found["parameters"][part] == want


def test_every_family_of_the_table_is_tested():
    others = {"V-JEPA classifier", "V-JEPA 2 classifier", "I-JEPA of transformers", "V-JEPA 2 of transformers"}
    assert set(FAMILIES) | others == set(LAYOUTS)


@pytest.mark.parametrize("name", ["I-JEPA", "V-JEPA", "V-JEPA 2"])
def test_which_encoder(name, tmp_path):
    """The target by default; both hold the tensors of their own group."""
    what = FAMILIES[name][0]()
    for weights, group in (("auto", "target_encoder"), ("teacher", "target_encoder"), ("encoder", "encoder")):
        state, model = bare(what[group]), open_(what, tmp_path, weights=weights)
        assert torch.equal(model.encoder.blocks[1].mlp.fc2.weight, state["blocks.1.mlp.fc2.weight"])
        assert model.weights == ("encoder" if group == "encoder" else "teacher")
    if name == "V-JEPA 2":
        assert model.ignored == {
            "encoder.pos_embed": "a stale table: positions are rotary",
            "predictor.predictor_pos_embed": "a stale table: positions are rotary",
        }


def test_stale_tables_tell_the_resolution(tmp_path):
    assert open_(p.vjepa2(), tmp_path).preprocess.size == 384
    model = open_(p.vjepa2(stale=False), tmp_path)
    assert model.preprocess.size == 256 and any("256 is assumed" in n for n in model.notes)
    assert open_(p.vjepa2(stale=False), tmp_path, size=128, frames=8).encoder.grid == (4, 8, 8)


def test_preprocessing(tmp_path):
    """The short side to 256 / 224 of the crop, the centre cut out: published evaluations; stride or rate of frames."""
    v1, v2 = open_(p.vjepa(), tmp_path).preprocess, open_(p.vjepa2(), tmp_path).preprocess
    assert (v1.size, v1.frames, v1.stride, v1.fps, v1.still) == (8, 16, 4, None, 16)
    assert (v2.frames, v2.stride, v2.fps, v2.still) == (64, None, 4.0, 1)
    assert v2.short == 256 / 224 and v2.resample == "bilinear"
    from PIL import Image

    picture = Image.effect_noise((900, 600), 50).convert("RGB")
    want = picture.resize((657, 438), Image.Resampling.BILINEAR).crop((136, 27, 136 + 384, 27 + 384))
    got = v2(picture)
    pixels = torch.from_numpy(np.array(want)).permute(2, 0, 1)
    torch.testing.assert_close(got, v2.normalise(pixels))


def test_bare_states(tmp_path):
    """An encoder alone: no family for a table that may be stale or not; named, it opens, with nobody's licence."""
    state = p.vit(3, 2, 4, 4, tokens=32)
    path = p.saved(state, tmp_path, "model.safetensors")
    with pytest.raises(ValueError, match=r"must tell V-JEPA from V-JEPA 2.*family='V-JEPA 2'"):
        load(path, heads=2)
    v1, v2 = load(path, heads=2, family="V-JEPA"), load(path, heads=2, family="V-JEPA 2")
    assert v1.encoder.pos == "sincos" and v2.encoder.pos == "rope-tiled" and "pos_embed" in v2.ignored
    assert v1.licence.startswith("that of whoever trained it")
    assert load(p.saved({"state_dict": state, "epoch": 3}, tmp_path), heads=2, family="V-JEPA").family == "V-JEPA"
    compiled = {f"module._orig_mod.backbone.{k}": v for k, v in state.items()}
    assert load(p.saved(compiled, tmp_path), heads=2, family="V-JEPA").family == "V-JEPA"


def test_published_widths_need_no_heads(tmp_path):
    """ViT-g, each tensor stored as one number: heads by its width; one block fewer is a torn file."""

    def grown(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
        sizes = {p.D: 1408, 3 * p.D: 3 * 1408}  # narrow MLPs, so that the check for nan takes no time
        big = {k: torch.full((1,), 0.5).expand([sizes.get(n, n) for n in v.shape]) for k, v in state.items()}
        first = {k: v for k, v in big.items() if k.startswith("blocks.0.")}
        return big | {k.replace(".0.", f".{i}.", 1): v for i in range(depth) for k, v in first.items()}

    path = p.saved(grown(p.vit(3, 2, 16, 16), 40), tmp_path)
    found = about(path)
    assert HEADS_V2[1408] == 22 and HEADS[1408] == 16
    assert found["size"].startswith("ViT-g/16") and 3.2e8 < found["parameters"]["encoder"] < 3.3e8
    path = p.saved(grown(p.vit(3, 2, 16, 16), 39), tmp_path)
    with pytest.raises(ValueError, match=r"must hold 40 blocks of the encoder, as published .*, got 39.*depth="):
        about(path)


# ---- rules of the numbers ----


def attend(x: Tensor, state: dict, at: str, heads: int, cos: Tensor, sin: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pre-norm block with turned q and k, from a published state by the equations of the paper."""
    d = x.shape[-1]
    h = F.layer_norm(x, (d,), state[f"{at}.norm1.weight"], state[f"{at}.norm1.bias"], 1e-6)
    qkv = h @ state[f"{at}.attn.qkv.weight"].T + state[f"{at}.attn.qkv.bias"]
    q, k, v = qkv.view(*x.shape[:2], 3, heads, d // heads).permute(2, 0, 3, 1, 4)

    def turned(y: Tensor) -> Tensor:
        partner = torch.stack([-y[..., 1::2], y[..., ::2]], -1).flatten(-2)
        return y * cos + partner * sin

    score = turned(q) @ turned(k).transpose(-1, -2) / (d // heads) ** 0.5
    score = score if mask is None else score.masked_fill(~mask, float("-inf"))
    out = (score.softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + out @ state[f"{at}.attn.proj.weight"].T + state[f"{at}.attn.proj.bias"]
    h = F.layer_norm(x, (d,), state[f"{at}.norm2.weight"], state[f"{at}.norm2.bias"], 1e-6)
    h = F.gelu(h @ state[f"{at}.mlp.fc1.weight"].T + state[f"{at}.mlp.fc1.bias"])
    return x + h @ state[f"{at}.mlp.fc2.weight"].T + state[f"{at}.mlp.fc2.bias"]


def angles(place: Tensor, dim: int, form: str) -> tuple[Tensor, Tensor]:
    """cos and sin of whole heads: tiled [f0 .. fn, f0 .. fn] in V-JEPA 2, repeated f0 f0 f1 f1 .. in 2.1."""
    c = 2 * ((dim // 3) // 2)
    f = 10000.0 ** (-torch.arange(c // 2) / (c / 2))
    parts = [place[:, i, None] * f for i in range(3)]
    parts = [torch.cat([a, a], 1) if form == "tiled" else a.repeat_interleave(2, 1) for a in parts]
    whole = torch.cat([*parts, torch.zeros(len(place), dim - 3 * c)], 1)
    return whole.cos(), whole.sin()


def conv(state: dict, x: Tensor, name: str = "patch_embed") -> Tensor:
    """(B, T, C, H, W) through the published Conv3d: tokens in the order time, row, column."""
    kernel = state[f"{name}.proj.weight"]
    out = F.conv3d(x.transpose(1, 2), kernel, state[f"{name}.proj.bias"], stride=kernel.shape[2:])
    return out.flatten(2).transpose(1, 2)


def test_vjepa_encoder_by_hand(tmp_path):
    """Conv3d, the stored table in the order time, row, column, blocks, layer norm."""
    what = p.vjepa()
    state, model = bare(what["target_encoder"]), open_(what, tmp_path)
    x, none = torch.randn(2, 16, 3, 8, 8), torch.zeros(32, p.D // p.HEADS)
    h = conv(state, x) + state["pos_embed"]
    for i in range(p.DEPTH):
        h = attend(h, state, f"blocks.{i}", p.HEADS, none.cos(), none)
    want = F.layer_norm(h, (p.D,), state["norm.weight"], state["norm.bias"], 1e-6)
    torch.testing.assert_close(model.encode(x).tokens, want, atol=1e-5, rtol=1e-5)


def test_vjepa_positions_are_interpolated(tmp_path):
    """Trilinear from 8 x 2 x 2 to the grid of the clip, wide or long: Meta's rule for the stored table."""
    what = p.vjepa()
    state, model = bare(what["target_encoder"]), open_(what, tmp_path)
    for block in model.encoder.blocks:  # each token alone
        torch.nn.init.zeros_(block.attn.proj.weight)
    for t, h, w in ((16, 8, 16), (8, 8, 8), (32, 12, 8)):
        grid = (t // 2, h // 4, w // 4)
        table = state["pos_embed"].view(1, 8, 2, 2, p.D).permute(0, 4, 1, 2, 3)
        scale = (grid[0] / 8, grid[1] / 2, grid[2] / 2)
        table = F.interpolate(table, scale_factor=scale, mode="trilinear").flatten(2).transpose(1, 2)
        x = torch.randn(1, t, 3, h, w)
        got, _ = model.encoder.embed(x, None)
        torch.testing.assert_close(got, conv(state, x) + table, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(2, 4), (3, 3)])
def test_vjepa2_encoder_by_hand(size, tmp_path):
    """Tiled angles of true rows and columns, also where a clip is not square."""
    what = p.vjepa2()
    state, model = bare(what["target_encoder"]), open_(what, tmp_path)
    x = torch.randn(2, 4, 3, 16 * size[0], 16 * size[1])
    h, turn = conv(state, x), angles(coordinates((2, *size)), 12, "tiled")
    for i in range(p.DEPTH):
        h = attend(h, state, f"blocks.{i}", p.HEADS, *turn)
    want = F.layer_norm(h, (p.D,), state["norm.weight"], state["norm.bias"], 1e-6)
    torch.testing.assert_close(model.encode(x).tokens, want, atol=1e-5, rtol=1e-5)


def test_vjepa21_encoder_by_hand(tmp_path):
    """Rows and columns stretched to 0 .. 15, interleaved angles, the clip's vector, each level its own norm."""
    what = p.vjepa21()
    state, model = bare(what["target_encoder"]), open_(what, tmp_path)
    assert model.encoder.levels == (0, 1, 2, 3) and model.encoder.grid == (32, 24, 24)
    for x, name, told in (
        (torch.randn(1, 4, 3, 48, 32), "patch_embed", "video_mod_embed"),
        (torch.randn(1, 1, 3, 48, 32), "patch_embed_img", "img_mod_embed"),
    ):
        h = conv(state, x, name) + state[told]
        place = coordinates((max(1, x.shape[1] // 2), 3, 2)) * torch.tensor([1.0, 15 / 2, 15 / 1])
        levels = []
        for i in range(4):
            h = attend(h, state, f"blocks.{i}", p.HEADS, *angles(place, 12, "interleaved"))
            own = state[f"norms_block.{i}.weight"], state[f"norms_block.{i}.bias"]
            levels.append(F.layer_norm(h, (p.D,), *own, 1e-6))
        with torch.no_grad():
            torch.testing.assert_close(model.encoder(x, deep=True), torch.cat(levels, -1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(x).tokens, levels[-1], atol=1e-5, rtol=1e-5)


def predicted(state: dict, context: Tensor, seen: Tensor, hidden: Tensor, token: int, place: Tensor, form: str):
    """The published way: mask token, concatenate, sort by position, blocks, sort back; (targets, context)."""
    if "predictor_embed.weight" in state:
        c = context @ state["predictor_embed.weight"].T + state["predictor_embed.bias"]
    else:
        c = F.gelu(context @ state["predictor_embed.0.weight"].T + state["predictor_embed.0.bias"])
        c = c @ state["predictor_embed.2.weight"].T + state["predictor_embed.2.bias"]
    x = torch.cat([c, state[f"mask_tokens.{token}"].expand(len(c), hidden.shape[1], -1)], 1)
    x = x + state.get("video_mod_embed", 0)
    index = torch.cat([seen, hidden], 1)
    order = index.argsort(1)
    x = torch.stack([row[o] for row, o in zip(x, order, strict=True)])
    turns = [angles(place[i[o]], p.W // 2, form) for i, o in zip(index, order, strict=True)]
    cos, sin = (torch.stack(part)[:, None] for part in zip(*turns, strict=True))
    for i in range(p.PRED_DEPTH):
        x = attend(x, state, f"predictor_blocks.{i}", 2, cos, sin)
    x = F.layer_norm(x, (p.W,), state["predictor_norm.weight"], state["predictor_norm.bias"], 1e-6)
    x = torch.stack([row[o.argsort()] for row, o in zip(x, order, strict=True)])
    return x.split([seen.shape[1], hidden.shape[1]], 1)[::-1]


@pytest.mark.parametrize("token", [0, 1, 9])
def test_vjepa2_predictor_by_hand(token, tmp_path):
    what = p.vjepa2()
    state, model = bare(what["predictor"]), open_(what, tmp_path)
    index = torch.rand(2, 32 * 24 * 24).argsort(1)[:, :9]
    seen, hidden, context = index[:, :5], index[:, 5:], torch.randn(2, 5, p.D)
    want, _ = predicted(state, context, seen, hidden, token, coordinates((32, 24, 24)), "tiled")
    want = want @ state["predictor_proj.weight"].T + state["predictor_proj.bias"]
    with torch.no_grad():
        got = model.part("predictor")(context, seen, hidden, mask_token=token)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("levels", [1, 4])
def test_vjepa21_predictor_by_hand(levels, tmp_path):
    """Four levels in and out, or a student's one level in and a teacher's width out; context predicted too."""
    what = p.vjepa21(levels)
    state, model = bare(what["predictor"]), open_(what, tmp_path)
    index = torch.rand(2, 32 * 24 * 24).argsort(1)[:, :9]
    seen, hidden, context = index[:, :5], index[:, 5:], torch.randn(2, 5, levels * p.D)
    place = coordinates((32, 24, 24)) * torch.tensor([1.0, 15 / 23, 15 / 23])
    want = predicted(state, context, seen, hidden, 2, place, "interleaved")
    with torch.no_grad():
        got = model.part("predictor")(context, seen, hidden, mask_token=2)
    for y, x, name in zip(got, want, ("predictor_proj", "predictor_proj_context"), strict=True):
        torch.testing.assert_close(y, x @ state[f"{name}.weight"].T + state[f"{name}.bias"], atol=1e-5, rtol=1e-5)


def test_ijepa_predictor_by_hand(tmp_path):
    """A block of targets at a time behind the context, the stored table added, its own heads."""
    what = p.ijepa()
    state, model = bare(what["predictor"]), open_(what, tmp_path)
    index = torch.rand(1, 16).argsort(1)[:, :9]
    seen, hidden, context = index[:, :5], index[:, 5:], torch.randn(1, 5, p.D)
    table, none = state["predictor_pos_embed"][0], torch.zeros(9, p.W // 2)
    x = context @ state["predictor_embed.weight"].T + state["predictor_embed.bias"] + table[seen]
    x = torch.cat([x, state["mask_token"] + table[hidden]], 1)
    for i in range(p.PRED_DEPTH):
        x = attend(x, state, f"predictor_blocks.{i}", 2, none.cos(), none)
    x = F.layer_norm(x[:, 5:], (p.W,), state["predictor_norm.weight"], state["predictor_norm.bias"], 1e-6)
    want = x @ state["predictor_proj.weight"].T + state["predictor_proj.bias"]
    with torch.no_grad():
        got = model.part("predictor")(context, seen, hidden[:, None])[:, 0]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("camera", [False, True])
def test_vjepa2_ac_predictor_by_hand(camera, tmp_path):
    """[action, state, (camera), patches] a frame; conditions turn by time alone; frames see themselves and the past."""
    what = p.vjepa2_ac()
    state, model = bare(what["predictor"]), open_(what, tmp_path, size=32)
    assert model.ignored == {"encoder.pos_embed": "a stale table: positions are rotary"}
    z, told = torch.randn(2, 3, 4, p.D), [torch.randn(2, 3, n) for n in (7, 7, 6)][: 2 + camera]
    front = len(told)
    tokens = [
        (x @ state[f"{name}_encoder.weight"].T + state[f"{name}_encoder.bias"])[:, :, None]
        for name, x in zip(("action", "state", "extrinsics"), told, strict=False)
    ]
    tokens.append(z @ state["predictor_embed.weight"].T + state["predictor_embed.bias"])
    x = torch.cat(tokens, 2).flatten(1, 2)
    cos, sin = angles(coordinates((3, 2, 2)), p.W // 2, "tiled")
    c = 2 * ((p.W // 2 // 3) // 2)
    time_cos, time_sin = angles(coordinates((3, 1, 1)), p.W // 2, "tiled")
    time_cos[:, c:], time_sin[:, c:] = 1.0, 0.0  # the rest of a condition's head is not turned
    cos = torch.cat([time_cos[:, None].expand(-1, front, -1), cos.view(3, 4, -1)], 1).flatten(0, 1)
    sin = torch.cat([time_sin[:, None].expand(-1, front, -1), sin.view(3, 4, -1)], 1).flatten(0, 1)
    mask = torch.block_diag(*[torch.ones(front + 4, front + 4)] * 3).bool()
    mask |= torch.ones(3, 3).tril(-1).repeat_interleave(front + 4, 0).repeat_interleave(front + 4, 1).bool()
    for i in range(p.PRED_DEPTH):
        x = attend(x, state, f"predictor_blocks.{i}", 2, cos, sin, mask)
    x = x.view(2, 3, front + 4, p.W)[:, :, front:]
    x = F.layer_norm(x, (p.W,), state["predictor_norm.weight"], state["predictor_norm.bias"], 1e-6)
    want = x @ state["predictor_proj.weight"].T + state["predictor_proj.bias"]
    with torch.no_grad():
        got = model.part("predictor")(z, *told)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_vjepa2_ac_sees_no_later_frame_and_scales_places(tmp_path):
    net = open_(p.vjepa2_ac(), tmp_path, size=32).part("predictor")
    z, a, s = torch.randn(1, 3, 4, p.D), torch.randn(1, 3, 7), torch.randn(1, 3, 7)
    with torch.no_grad():
        first = net(z, a, s)[:, :1]
        z[:, 1:], a[:, 1:] = 9.0, 9.0
        torch.testing.assert_close(net(z, a, s)[:, :1], first)
        assert torch.equal(net.turn(2, (2, 2), 2).cos, net.turn(2, (2, 2), 2).cos)
        wide, home = net.turn(1, (4, 4), 2), net.turn(1, (2, 2), 2)
    torch.testing.assert_close(wide.cos[2 + 10], home.cos[2 + 3])  # row 2 of 4 is row 1 of 2


@pytest.mark.parametrize("depth", [0, 3])
def test_classifiers_by_hand(depth, tmp_path):
    """Blocks on the tokens, then a query that is not normed and an attention without output projection."""
    what = p.vjepa2(stale=False)
    probe = p.saved(p.classifier(depth, 2), tmp_path, "probe.pt")
    model = load(p.saved(what, tmp_path), heads=p.HEADS_ASKED, classifier=probe)
    given = torch.load(probe, weights_only=True)
    state = bare(given["classifier"] if depth == 0 else given["classifiers"][0])
    x = torch.randn(2, 4, 3, 32, 32)
    tokens, none = model.encode(x).tokens, torch.zeros(8, p.D // 2)
    for i in range(depth):
        tokens = attend(tokens, state, f"pooler.blocks.{i}", p.HEADS, none.cos(), none)
    at = "pooler.cross_attention_block"
    h = F.layer_norm(tokens, (p.D,), state[f"{at}.norm1.weight"], state[f"{at}.norm1.bias"], 1e-5)
    k, v = (
        (h @ state[f"{at}.xattn.kv.weight"].T + state[f"{at}.xattn.kv.bias"])
        .view(2, 8, 2, 2, 12)
        .permute(2, 0, 3, 1, 4)
    )
    q = state["pooler.query_tokens"] @ state[f"{at}.xattn.q.weight"].T + state[f"{at}.xattn.q.bias"]
    q = q.view(1, 1, 2, 12).transpose(1, 2)
    out = (q @ k.transpose(-1, -2) / 12**0.5).softmax(-1) @ v
    y = state["pooler.query_tokens"] + out.transpose(1, 2).flatten(2)
    h = F.layer_norm(y, (p.D,), state[f"{at}.norm2.weight"], state[f"{at}.norm2.bias"], 1e-5)
    h = F.gelu(h @ state[f"{at}.mlp.fc1.weight"].T + state[f"{at}.mlp.fc1.bias"])
    y = y + h @ state[f"{at}.mlp.fc2.weight"].T + state[f"{at}.mlp.fc2.bias"]
    want = (y @ state["linear.weight"].T + state["linear.bias"])[:, 0]
    # blocks of the published poolers have layer norms of 1e-5 too
    torch.testing.assert_close(model.classify(x), want, atol=1e-4, rtol=1e-4)
    said = about(probe)
    assert said["family"] == ("V-JEPA classifier" if depth == 0 else "V-JEPA 2 classifier")
    if depth == 0:
        assert all("never applies" in why for why in said["ignored"].values()) and len(said["ignored"]) == 2
    else:
        assert said["not taken"] == ["classifiers[1]"]
    with pytest.raises(ValueError, match=r"must hold an encoder, got a V-JEPA.* classifier alone"):
        load(probe, heads=p.HEADS_ASKED)


@pytest.mark.parametrize("names", ["v4", "v5"])
def test_lewm(names, tmp_path):
    """Class token and its position first; the world dreams. The transformer equals transformers' ViTModel."""
    transformers = pytest.importorskip("transformers")
    state = p.lewm(names)
    model = load(p.saved(state, tmp_path), heads=p.HEADS_ASKED)
    config = transformers.ViTConfig(
        hidden_size=p.D, num_hidden_layers=p.DEPTH, num_attention_heads=p.HEADS, intermediate_size=p.HIDDEN,
        image_size=16, patch_size=4,
    )  # fmt: skip
    vit = transformers.ViTModel(config, add_pooling_layer=False).eval()
    theirs = {k.removeprefix("encoder."): v for k, v in p.lewm("v5").items() if k.startswith("encoder.")}
    mine = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    vit.load_state_dict(dict(zip(theirs, mine.values(), strict=True)))
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        want = vit(x).last_hidden_state
        torch.testing.assert_close(model.encoder(x), want, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode(x).pooled, want[:, 0], atol=1e-5, rtol=1e-5)
        world = model.part("world")
        h = want[:, 0] @ state["projector.net.0.weight"].T + state["projector.net.0.bias"]
        h = F.batch_norm(h, *(state[f"projector.net.1.{n}"] for n in ("running_mean", "running_var", "weight", "bias")))
        z = F.gelu(h) @ state["projector.net.3.weight"].T + state["projector.net.3.bias"]
        torch.testing.assert_close(world.encode(x), z, atol=1e-5, rtol=1e-5)
        a = torch.randn(2, 4, 10)
        dream = world.unroll(z, a)
        torch.testing.assert_close(dream[:, 0], world.step(z, a[:, 0]), atol=1e-5, rtol=1e-5)
    assert dream.shape == (2, 4, p.D) and world.history == 3 and model.pooling == "cls"


def test_published_size_of_lewm(tmp_path):
    """Sizes of methods.md (ViT-tiny/14 at 224, 6 layers of 16 heads of 64): 303 tensors and 18 million numbers."""
    swap = {p.D: 192, 3 * p.D: 576, 6 * p.D: 1152, 4 * p.D: 768, p.HIDDEN: 768, 40: 2048, 50: 2048, 128: 1024}
    swap[384] = 3072
    state = {}
    for key, value in p.lewm().items():
        shape = [swap.get(n, n) for n in value.shape]
        if "patch_embeddings.projection.weight" in key:
            shape = [192, 3, 14, 14]
        if "position_embeddings" in key:
            shape = [1, 257, 192]
        state[key] = torch.zeros((), dtype=value.dtype).expand(shape)
    for kind, count in (("encoder.encoder.layer.", 12), ("predictor.transformer.layers.", 6)):
        one = {k: v for k, v in state.items() if k.startswith(f"{kind}0.")}
        state |= {k.replace(f"{kind}0.", f"{kind}{i}."): v for i in range(count) for k, v in one.items()}
    assert len(state) == 303
    found = about(p.saved(state, tmp_path))
    assert found["size"] == "ViT-Ti/14 at 224" and 17e6 < found["parameters"]["world"] < 19e6


def test_turn_of_heads_with_leftovers():
    """A head of 88 (ViT-g, I-JEPA's heads) turns 28 features an axis and leaves 4; of 64, 20 and 4."""
    for dim, c in ((88, 28), (64, 20), (80, 26), (32, 10)):
        turn = turn_3d(dim, torch.full((1, 3), 3.0), "tiled")
        assert (turn.sin[0] != 0).sum() == 3 * c
