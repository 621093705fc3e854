"""The networks on clips: positions, kept tubelets, levels, and equality with transformers' VJEPA2Model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from openjepa.nn import ClipPredictor, ClipViT, EncoderConfig, build_clip_encoder, build_encoder
from openjepa.nn.clip_block import ClipAttention
from openjepa.nn.clip_vit import TubeletEmbed
from openjepa.nn.position3d import coordinates, rescaled, resize_3d, sincos_3d, turn_3d, turn_pairs
from openjepa.nn.vit import Size

SHAPE = Size(48, 3, 2)  # heads of 24: 4 features per angle axis pair, none left over; see HEADS for leftovers
VARIANTS = {
    "v1": {"pos": "sincos"},
    "v2": {"pos": "rope-tiled"},
    "v2.1": {"pos": "rope", "levels": (0, 2), "picture_patch": True},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def vit(request) -> ClipViT:
    return build(**request.param)


def build(**changes) -> ClipViT:
    torch.manual_seed(0)
    return ClipViT(SHAPE, **({"patch": 4, "tubelet": 2, "size": 16, "frames": 4} | changes)).eval()


def some(batch: int, tokens: int, count: int) -> torch.Tensor:
    return torch.rand(batch, tokens).argsort(1)[:, :count]


def gather(tokens: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return tokens.gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[-1]))


# ---- positions ----


def test_table_by_hand():
    """One entry of each axis by the formula; the last axis is cut where three axes are more than the width."""
    table, half = sincos_3d(20, (3, 2, 5)), 4  # 2 ceil(20 / 6) = 8 features an axis, the last loses four
    t, row, column = 2, 1, 3
    token = table[(t * 2 + row) * 5 + column].double()
    f = 10000.0 ** (-torch.arange(half).double() / half)
    want = torch.cat([(t * f).sin(), (t * f).cos(), (row * f).sin(), (row * f).cos(), (column * f).sin()])
    torch.testing.assert_close(token, want, atol=1e-7, rtol=0)


@pytest.mark.parametrize("new", [(2, 3, 4), (4, 3, 4), (2, 6, 2), (1, 5, 7)])
def test_table_resized_is_the_interpolated_function(new):
    """On a slow feature, linear in position, resizing keeps the value at the middle of the clip."""
    table = coordinates((2, 3, 4))[None]
    got = resize_3d(table, (2, 3, 4), new)
    assert got.shape == (1, new[0] * new[1] * new[2], 3)
    torch.testing.assert_close(got.mean(1), table.mean(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dim", [24, 64, 88, 32, 80])
@pytest.mark.parametrize("form", ["tiled", "interleaved"])
def test_turn_by_hand(dim, form):
    """Features 2 j and 2 j + 1 of every axis, written out; what is left over is untouched."""
    place, half = torch.tensor([[2.0, 3.0, 5.0]]), dim // 6
    x = torch.randn(1, 1, dim)
    got, want = turn_pairs(x, turn_3d(dim, place, form))[0, 0], x[0, 0].clone()
    for axis in range(3):
        for j in range(half):
            a, b = 2 * half * axis + 2 * j, 2 * half * axis + 2 * j + 1
            ia, ib = (j, j) if form == "interleaved" else (2 * j % half, (2 * j + 1) % half)
            pa, pb = (place[0, axis] * 10000 ** (-i / half) for i in (ia, ib))
            want[a] = x[0, 0, a] * pa.cos() - x[0, 0, b] * pa.sin()
            want[b] = x[0, 0, b] * pb.cos() + x[0, 0, a] * pb.sin()
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert torch.equal(got[6 * half :], x[0, 0, 6 * half :])


def test_interleaved_is_a_rotation_and_tiled_is_not():
    """Scores of rotated q and k depend on the distance only, and lengths stay: true of 2.1, not of 2."""
    q, k, place = torch.randn(24), torch.randn(24), torch.tensor([[1.0, 2.0, 3.0], [4.0, 2.0, 1.0]])

    def score(form, shift):
        turn = turn_3d(24, place + shift, form)
        a, b = turn_pairs(torch.stack([q, k])[None], turn)[0]
        return a @ b

    shift = torch.tensor([3.0, 1.0, 2.0])
    torch.testing.assert_close(score("interleaved", shift), score("interleaved", 0), atol=1e-4, rtol=1e-4)
    assert (score("tiled", shift) - score("tiled", 0)).abs() > 1e-2
    x = torch.randn(1, 5, 24)
    turned = turn_pairs(x, turn_3d(24, torch.randn(5, 3) * 9, "interleaved"))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5, rtol=1e-5)


def test_rescaled_spans_sixteen():
    for grid in ((2, 16, 16), (3, 24, 8), (1, 1, 5)):
        place = rescaled(coordinates(grid), grid)
        want = torch.tensor([grid[0] - 1, 15.0 if grid[1] > 1 else 0.0, 15.0])
        torch.testing.assert_close(place[-1], want)
    assert torch.equal(rescaled(coordinates((2, 16, 16)), (2, 16, 16)), coordinates((2, 16, 16)))


def test_angles_stay_float32_under_autocast():
    want = turn_3d(24, coordinates((40, 2, 2)), "tiled")
    with torch.autocast("cpu", torch.bfloat16):
        got = turn_3d(24, coordinates((40, 2, 2)), "tiled")
    assert got.cos.dtype == torch.float32 and torch.equal(got.cos, want.cos) and torch.equal(got.sin, want.sin)


# ---- encoder ----


def test_tubelets_equal_the_convolution():
    embed, x = TubeletEmbed(3, 16, patch=4, tubelet=2), torch.randn(2, 6, 3, 8, 12)
    want = embed.proj(x.transpose(1, 2)).flatten(2).transpose(1, 2)  # token order: time, row, column
    torch.testing.assert_close(embed(x), want, atol=1e-5, rtol=1e-5)
    keep = some(2, 18, 7)
    torch.testing.assert_close(embed(x, keep), gather(want, keep), atol=1e-5, rtol=1e-5)


def test_keeping_all_in_another_order_changes_only_the_order(vit):
    x, keep = torch.randn(2, 4, 3, 16, 16), some(2, 32, 32)
    torch.testing.assert_close(vit(x, keep), gather(vit(x), keep), atol=1e-5, rtol=1e-5)


def test_a_dropped_tubelet_is_never_read(vit):
    x, keep = torch.randn(1, 4, 3, 16, 16), torch.tensor([[0, 1, 4, 5]])  # time 0, rows and columns 0 and 1
    noisy = x.clone()
    noisy[:, 2:], noisy[..., 8:, :], noisy[..., 8:] = float("nan"), float("nan"), float("nan")
    assert torch.equal(vit(x, keep), vit(noisy, keep))


def test_kept_tokens_know_their_place(vit):
    """Where tokens do not mix, a kept one equals its twin; and the same tubelet at other places gives other tokens."""
    for block in vit.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    x, keep = torch.randn(2, 4, 3, 16, 16), some(2, 32, 9)
    torch.testing.assert_close(vit(x, keep), gather(vit(x), keep), atol=1e-5, rtol=1e-5)


def test_positions_matter_in_every_axis(vit):
    x = torch.randn(1, 4, 3, 16, 16)
    order = torch.arange(32).view(2, 4, 4)
    for axis, shift, dims in ((0, 2, 1), (1, 8, -2), (2, 8, -1)):
        moved = vit(x.roll(shift, dims))
        back = order.roll(-shift // (2 if axis == 0 else 4), axis).flatten()
        assert (moved[:, back] - vit(x)).abs().max() > 1e-4, axis


def test_other_lengths_and_aspect_ratios(vit):
    for t, h, w in ((8, 16, 16), (2, 16, 16), (4, 24, 8), (6, 8, 32)):
        x = torch.randn(2, t, 3, h, w)
        tokens, n = vit(x), t // 2 * (h // 4) * (w // 4)
        assert tokens.shape == (2, n, 48) and tokens.isfinite().all()
        keep = some(2, n, n)
        torch.testing.assert_close(vit(x, keep), gather(tokens, keep), atol=1e-5, rtol=1e-5)


def test_one_frame(vit):
    """A picture is a frame that fills a tubelet; 2.1 has a projection and a learned vector for it."""
    x = torch.randn(2, 3, 16, 16)
    one = vit(x)
    assert one.shape == (2, 16, 48) and torch.equal(one, vit(x[:, None]))
    twice = vit(x[:, None].expand(-1, 2, -1, -1, -1))
    if vit.patch_embed_img is None:
        torch.testing.assert_close(one, twice)
    else:
        assert (one - twice).abs().max() > 1e-3
        with torch.no_grad():
            vit.patch_embed_img.proj.weight.copy_(vit.patch_embed.proj.weight.sum(2, keepdim=True))
            vit.img_mod_embed.copy_(vit.video_mod_embed)
        torch.testing.assert_close(vit(x), twice, atol=1e-5, rtol=1e-5)


def test_every_level_has_its_own_norm():
    vit, x = build(**VARIANTS["v2.1"]), torch.randn(2, 4, 3, 16, 16)
    deep, keep = vit(x, deep=True), some(2, 32, 5)
    assert deep.shape == (2, 32, 96) and torch.equal(deep[..., 48:], vit(x))
    with torch.no_grad():
        vit.norms_block[0].bias.add_(3)
    torch.testing.assert_close(vit(x, deep=True)[..., :48], deep[..., :48] + 3)
    assert torch.equal(vit(x), deep[..., 48:])
    first, last = vit.layers(x, [0, -1])
    assert torch.equal(first, vit(x, deep=True)[..., :48]) and torch.equal(last, vit(x))
    assert vit(x, keep, deep=True).shape == (2, 5, 96)


def test_without_levels_deep_is_forward():
    vit, x = build(pos="rope"), torch.randn(1, 4, 3, 16, 16)
    assert torch.equal(vit(x, deep=True), vit(x)) and torch.equal(vit.layers(x, [-1])[0], vit(x))


def test_recomputing_blocks_changes_no_gradient(vit):
    x, keep = torch.randn(2, 4, 3, 16, 16), some(2, 32, 9)
    grads = []
    for vit.checkpoint in (False, True):
        vit.zero_grad()
        vit(x, keep).square().sum().backward()
        grads.append([p.grad.clone() for p in vit.blocks.parameters()])
    for a, b in zip(*grads, strict=True):
        assert a.abs().sum() > 0
        torch.testing.assert_close(a, b)


def test_one_graph():
    vit, x, keep = build(pos="rope-tiled"), torch.randn(2, 4, 3, 16, 16), some(2, 32, 5)
    compiled = torch.compile(vit, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, keep), vit(x, keep))


def test_settings():
    cfg = EncoderConfig.model_validate({"name": "vit_nano/8", "pos": "rope", "levels": 3, "picture_patch": True})
    vit = build_clip_encoder(cfg, size=32, frames=8, channels=1)
    assert vit.grid == (4, 4, 4) and vit.levels == (1, 3, 5) and vit.patch_embed_img is not None
    with pytest.raises(ValueError, match="tubelet must be left at 2"):
        build_encoder({"name": "vit_nano", "tubelet": 4}, size=32)
    with pytest.raises(ValueError, match="for an encoder of pictures"):
        build_encoder({"name": "vit_nano", "pos": "rope-tiled"}, size=32)
    with pytest.raises(ValueError, match="vision transformer for clips"):
        build_clip_encoder("resnet18", size=32)
    with pytest.raises(ValueError, match="cls must be left"):
        build_clip_encoder({"name": "vit_nano", "cls": True}, size=32)


@pytest.mark.parametrize("shape", [(2, 3, 3, 16, 16), (2, 4, 1, 16, 16), (2, 4, 3, 15, 16), (3, 16)])
def test_clips_that_do_not_fit(shape, vit):
    with pytest.raises(ValueError, match="clips must be"):
        vit(torch.zeros(shape))


# ---- predictor ----


def predictor(**changes) -> ClipPredictor:
    torch.manual_seed(0)
    net = ClipPredictor(48, (2, 4, 4), **({"width": 24, "depth": 2, "heads": 2} | changes)).eval()
    for token in net.mask_tokens:
        torch.nn.init.normal_(token)
    return net


@pytest.mark.parametrize("pos", ["sincos", "rope-tiled", "rope"])
def test_order_of_tokens_does_not_matter(pos):
    """Why nothing is sorted: any order of context and targets gives the same predictions, in that order."""
    net, context, index = predictor(pos=pos), torch.randn(2, 10, 48), some(2, 32, 16)
    seen, hidden = index[:, :10], index[:, 10:]
    want = net(context, seen, hidden)
    a, b = torch.randperm(10), torch.randperm(6)
    torch.testing.assert_close(net(context[:, a], seen[:, a], hidden[:, b]), want[:, b], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pos", ["sincos", "rope-tiled", "rope"])
def test_sorted_and_unsorted_as_published_gives_the_same_numbers(pos):
    """The published way, written out: concatenate, sort by position, run, sort back, keep the targets."""
    net, context, index = predictor(pos=pos), torch.randn(2, 10, 48), some(2, 32, 16)
    x = torch.cat([net.predictor_embed(context), net.mask_tokens[0].expand(2, 6, -1)], 1)
    place = coordinates((2, 4, 4))
    order = index.argsort(1)
    x, sorted_index = gather(x, order), index.gather(1, order)
    turn = None
    if pos == "sincos":
        x = x + sincos_3d(24, (2, 4, 4))[sorted_index]
    elif pos == "rope":
        turn = turn_3d(12, rescaled(place, (2, 4, 4)), "interleaved").of(sorted_index)
    else:
        turn = turn_3d(12, place, "tiled").of(sorted_index)
    for block in net.predictor_blocks:
        x = block(x, turn)
    want = net.predictor_proj(net.predictor_norm(gather(x, order.argsort(1))[:, 10:]))
    torch.testing.assert_close(net(context, index[:, :10], index[:, 10:]), want, atol=1e-5, rtol=1e-5)


def test_mask_token_is_chosen():
    net, context, index = predictor(mask_tokens=3), torch.randn(1, 4, 48), some(1, 32, 8)
    outs = [net(context, index[:, :4], index[:, 4:], mask_token=i) for i in range(3)]
    assert (outs[0] - outs[1]).abs().max() > 1e-3 and (outs[1] - outs[2]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="mask_token must be between 0 and 2, got 3"):
        net(context, index[:, :4], index[:, 4:], mask_token=3)


def test_dense_output_of_all_levels():
    net = predictor(pos="rope", levels=4, context_out=True, modalities=True, out=20)
    context, index = torch.randn(2, 5, 192), some(2, 32, 8)
    targets, seen = net(context, index[:, :5], index[:, 5:])
    assert targets.shape == (2, 3, 80) and seen.shape == (2, 5, 80)
    assert not torch.equal(targets, net(context, index[:, :5], index[:, 5:], picture=True)[0])
    assert [n for n, _ in net.predictor_embed.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize("pos", ["sincos", "rope-tiled", "rope"])
def test_predictions_on_another_grid(pos):
    net, context = predictor(pos=pos), torch.randn(1, 4, 48)
    index = some(1, 3 * 5 * 2, 9)
    out = net(context, index[:, :4], index[:, 4:], grid=(3, 5, 2))
    assert out.shape == (1, 5, 48) and out.isfinite().all()


def test_last_block_for_the_first_tokens_only():
    attn, x, turn = ClipAttention(24, 2), torch.randn(2, 7, 24), turn_3d(12, torch.randn(7, 3), "tiled")
    torch.testing.assert_close(attn(x, turn, first=3), attn(x, turn)[:, :3], atol=1e-6, rtol=1e-6)


# ---- transformers' VJEPA2Model ----


@pytest.fixture(scope="module")
def theirs():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.VJEPA2Config(
        patch_size=4, crop_size=16, frames_per_clip=4, tubelet_size=2, hidden_size=48, num_attention_heads=2,
        num_hidden_layers=3, pred_hidden_size=56, pred_num_attention_heads=2, pred_num_hidden_layers=2,
        pred_num_mask_tokens=3, attn_implementation="eager",
    )  # fmt: skip
    model = transformers.VJEPA2Model(config).eval()
    for p in model.parameters():  # no zeros and ones that hide a mistake
        torch.nn.init.normal_(p, std=0.1)
    return model


def renamed(state: dict, blocks: str, top: dict[str, str]) -> dict:
    """Our names for theirs: written out here once more, without the loader's own tables."""
    ours = {}
    for name, x in state.items():
        for a, b in top.items():
            if name.startswith(a):
                ours[b + name[len(a) :]] = x
        if name.startswith("layer.") and ".attention.query." in name:
            kind = name.rpartition(".")[2]
            base = name.partition(".attention.")[0]
            qkv = torch.cat([state[f"{base}.attention.{part}.{kind}"] for part in ("query", "key", "value")])
            ours[f"{blocks}.{base.split('.')[1]}.attn.qkv.{kind}"] = qkv
        elif name.startswith("layer.") and not any(f".{part}." in name for part in ("key", "value")):
            ours[name.replace("layer.", f"{blocks}.", 1).replace("attention.proj", "attn.proj")] = x
    return ours


def test_encoder_equals_transformers(theirs):
    vit = build(pos="rope-tiled")
    names = {"embeddings.patch_embeddings.": "patch_embed.", "layernorm.": "norm."}
    vit.load_state_dict(renamed(theirs.encoder.state_dict(), "blocks", names))
    with torch.no_grad():
        for frames in (4, 8, 2):
            x = torch.randn(2, frames, 3, 16, 16)
            want = theirs.encoder(pixel_values_videos=x).last_hidden_state
            torch.testing.assert_close(vit(x), want, atol=1e-5, rtol=1e-5)
        x = torch.randn(2, 1, 3, 16, 16)
        torch.testing.assert_close(vit(x), theirs.encoder(x).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_encoder_equals_transformers_on_wide_clips(theirs):
    """Theirs takes rows and columns from config.crop_size; told the true width of one row, it must agree with ours."""
    vit = build(pos="rope-tiled")
    names = {"embeddings.patch_embeddings.": "patch_embed.", "layernorm.": "norm."}
    vit.load_state_dict(renamed(theirs.encoder.state_dict(), "blocks", names))
    t, h, w = (c.long() for c in coordinates((2, 2, 6)).unbind(1))
    for layer in theirs.encoder.layer:
        layer.attention.get_position_ids = lambda x, masks=None: (t, h, w)
    try:
        with torch.no_grad():
            x = torch.randn(2, 4, 3, 8, 24)
            torch.testing.assert_close(vit(x), theirs.encoder(x).last_hidden_state, atol=1e-5, rtol=1e-5)
    finally:
        for layer in theirs.encoder.layer:
            del layer.attention.get_position_ids


def test_predictor_equals_transformers(theirs):
    net = ClipPredictor(48, (2, 4, 4), width=56, depth=2, heads=2, pos="rope-tiled", mask_tokens=3)
    names = {
        "embeddings.predictor_embeddings.": "predictor_embed.",
        "layernorm.": "predictor_norm.",
        "proj.": "predictor_proj.",
    }
    state = renamed(theirs.predictor.state_dict(), "predictor_blocks", names)
    tokens = theirs.predictor.embeddings.mask_tokens
    net.load_state_dict(state | {f"mask_tokens.{i}": tokens[i] for i in range(3)})
    x, index = torch.randn(2, 32, 48), some(2, 32, 20)
    with torch.no_grad():
        want = theirs.predictor(x, context_mask=[index[:, :12]], target_mask=[index[:, 12:]]).last_hidden_state
        got = net(gather(x, index[:, :12]), index[:, :12], index[:, 12:], mask_token=1)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_scores_are_scaled_by_the_root_of_the_head_width():
    attn, x = ClipAttention(12, heads=2), torch.randn(1, 4, 12)
    q, k, v = F.linear(x, attn.qkv.weight, attn.qkv.bias).view(1, 4, 3, 2, 6).permute(2, 0, 3, 1, 4)
    want = torch.softmax(q @ k.transpose(-1, -2) / 6**0.5, -1) @ v
    torch.testing.assert_close(attn(x), attn.proj(want.transpose(1, 2).flatten(2)), atol=1e-6, rtol=1e-6)
