"""The transformer on kept patches, and what each part adds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from openjepa.nn import EncoderConfig, build_encoder
from openjepa.nn.position import sincos
from openjepa.nn.vit import PatchEmbed, Size, ViT

VARIANTS = {
    "plain": {},
    "rope": {"pos": "rope"},
    "cls+registers": {"cls": True, "registers": 2},
    "rope+cls+registers": {"pos": "rope", "cls": True, "registers": 2},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def vit(request) -> ViT:
    return ViT(Size(32, 2, 2), patch=4, size=16, **request.param).eval()


def some(batch: int, tokens: int, count: int) -> torch.Tensor:
    """Sorted token indices, different for every picture."""
    return torch.rand(batch, tokens).argsort(1)[:, :count].sort(1).values


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_patches_equal_the_convolution(layout):
    embed, x = PatchEmbed(3, 16, patch=4), torch.randn(2, 3, 8, 12).contiguous(memory_format=layout)
    want = embed.proj(x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(x), want, atol=1e-5, rtol=1e-5)
    keep = some(2, 6, 4)
    torch.testing.assert_close(
        embed(x, keep), want.gather(1, keep[:, :, None].expand(-1, -1, 16)), atol=1e-5, rtol=1e-5
    )


def test_keeping_all_changes_nothing(vit):
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(vit(x, keep=torch.arange(16).expand(3, -1)), vit(x), atol=1e-5, rtol=1e-5)


def test_kept_tokens_are_the_tokens_of_the_whole_where_nothing_mixes(vit):
    """With the attention's output projection at 0 tokens do not mix, so a kept one must equal its twin."""
    for block in vit.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    x, keep = torch.randn(3, 3, 16, 16), some(3, 16, 7)
    whole = vit(x)[:, vit.prefix :]
    torch.testing.assert_close(
        vit(x, keep)[:, vit.prefix :], whole.gather(1, keep[:, :, None].expand(-1, -1, 32)), atol=1e-5, rtol=1e-5
    )


def test_a_dropped_patch_is_never_read(vit):
    x, keep = torch.randn(1, 3, 16, 16), torch.tensor([[0, 1, 4]])
    noisy = x.clone()
    noisy[:, :, 8:] = torch.randn(1, 3, 8, 16)  # rows 2 and 3 of the patches
    noisy[:, :, :, 8:] = float("nan")
    assert torch.equal(vit(x, keep), vit(noisy, keep))


def test_order_of_kept_tokens_does_not_matter(vit):
    x, keep = torch.randn(2, 3, 16, 16), some(2, 16, 6)
    order = torch.randperm(6)
    p = vit.prefix
    torch.testing.assert_close(vit(x, keep[:, order])[:, p:], vit(x, keep)[:, p:][:, order], atol=1e-5, rtol=1e-5)


def test_positions_matter(vit):
    """The same patch content at other places gives other tokens."""
    x = torch.randn(1, 3, 4, 4).repeat(1, 1, 4, 4)  # sixteen equal patches
    tokens = vit(x + 0.1 * torch.randn(1, 3, 1, 1))[:, vit.prefix :]
    y = torch.randn(1, 3, 16, 16)
    swapped = torch.cat([y[:, :, 8:], y[:, :, :8]], dim=2)
    moved = vit(swapped)[:, vit.prefix :].roll(8, dims=1)
    assert not torch.allclose(moved, vit(y)[:, vit.prefix :], atol=1e-4)
    if not vit.rope:
        assert (tokens[0, 0] - tokens[0, 5]).abs().max() > 1e-3


def test_position_table_is_fixed_and_saved():
    vit = ViT(Size(32, 1, 2), patch=4, size=16)
    assert torch.equal(vit.state_dict()["pos_embed"], sincos(32, (4, 4))[None])
    assert "pos_embed" not in dict(vit.named_parameters())


def test_prefix_tokens_come_first_and_are_trained():
    vit = ViT(Size(32, 2, 2), patch=4, size=16, cls=True, registers=3)
    tokens = vit(torch.randn(2, 3, 16, 16))
    assert vit.prefix == 4 and tokens.shape == (2, 20, 32)
    tokens[:, 4:].square().sum().backward()  # through attention: patches read the prefix
    assert (vit.prefix_tokens.grad.abs().sum(-1) > 0).all()


def test_first_block_by_hand():
    """One block written out: the equation of the paper, with torch's own primitives."""
    vit = ViT(Size(32, 1, 4), patch=4, size=16)
    x = torch.randn(2, 3, 16, 16)
    t = vit.patch_embed.proj(x).flatten(2).transpose(1, 2) + vit.pos_embed
    b = vit.blocks[0]
    h = F.layer_norm(t, (32,), b.norm1.weight, b.norm1.bias, 1e-6)
    q, k, v = (h @ b.attn.qkv.weight.T + b.attn.qkv.bias).split(32, dim=-1)
    heads = []
    for i in range(4):
        qi, ki, vi = (m[:, :, 8 * i : 8 * i + 8] for m in (q, k, v))
        heads.append(torch.softmax(qi @ ki.transpose(1, 2) / 8**0.5, -1) @ vi)
    t = t + torch.cat(heads, -1) @ b.attn.proj.weight.T + b.attn.proj.bias
    h = F.layer_norm(t, (32,), b.norm2.weight, b.norm2.bias, 1e-6) @ b.mlp.fc1.weight.T + b.mlp.fc1.bias
    h = 0.5 * h * (1 + torch.erf(h / 2**0.5))
    t = t + h @ b.mlp.fc2.weight.T + b.mlp.fc2.bias
    torch.testing.assert_close(vit(x), F.layer_norm(t, (32,), eps=1e-6), atol=1e-5, rtol=1e-5)


def test_initialisation():
    """Truncated normal of std 0.02 in every block, no rescale with depth; zero biases."""
    vit = build_encoder(EncoderConfig(name="vit_tiny/4", depth=6), size=16)
    for name, p in vit.blocks.named_parameters():
        if p.dim() > 1:
            assert abs(p.std().item() / 0.02 - 1) < 0.03 and p.abs().max() < 0.11, name
        elif name.endswith("bias"):
            assert not p.any()


def test_drop_path_rises_with_depth_and_acts_in_training_only():
    vit = ViT(Size(32, 3, 2), patch=4, size=16, drop_path=0.4)
    assert [b.drop_path.p for b in vit.blocks] == [0.0, 0.2, 0.4]
    x = torch.randn(8, 3, 16, 16)
    assert not torch.equal(vit(x), vit(x))
    assert torch.equal(vit.eval()(x), vit(x))


def test_compiles_without_breaks():
    """One graph, with and without `keep`: nothing in the forward pass depends on the data."""
    vit = ViT(Size(32, 2, 2), patch=4, size=16, pos="rope", registers=1).eval()
    x, keep = torch.randn(2, 3, 16, 16), some(2, 16, 5)
    compiled = torch.compile(vit, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), vit(x))
    torch.testing.assert_close(compiled(x, keep), vit(x, keep))
