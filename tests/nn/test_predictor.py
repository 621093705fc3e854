"""The masked predictor: both forms against slow references, and blocks that do not see each other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from openjepa.nn import MaskedPredictor

DIM, GRID, K, M, KT, B = 20, (4, 5), 6, 3, 4, 2


def make(share: bool, depth: int = 3) -> MaskedPredictor:
    p = MaskedPredictor(DIM, GRID, width=16, depth=depth, heads=2, share_context=share)
    with torch.no_grad():  # away from the small initial weights, so that attention really mixes
        for w in p.parameters():
            w.add_(torch.randn_like(w) * 0.2)
    return p


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    context_index = torch.rand(B, 20).argsort(1)[:, :K].sort(1).values
    target_index = torch.stack([torch.rand(B, 20).argsort(1)[:, :KT].sort(1).values for _ in range(M)], 1)
    return torch.randn(B, K, DIM), context_index, target_index


def slow(p: MaskedPredictor, context, context_index, target_index) -> torch.Tensor:
    """One picture and one block at a time. Every attention is a full one with an explicit mask of who reads whom."""
    out = torch.empty(*target_index.shape, DIM)
    for b in range(len(context)):
        for m in range(target_index.shape[1]):
            k, kt = context.shape[1], target_index.shape[2]
            x = torch.cat(
                [
                    p.embed(context[b]) + p.pos_embed[0, context_index[b]],
                    p.mask_token[0] + p.pos_embed[0, target_index[b, m]],
                ]
            )
            reads = torch.ones(k + kt, k + kt, dtype=torch.bool)
            if p.share_context:
                reads[:k, k:] = False  # the context does not read mask tokens
            for block in p.blocks:
                q, key, v = block.attn.qkv(block.norm1(x)).view(k + kt, 3, 2, 8).permute(1, 2, 0, 3)
                score = (q @ key.transpose(1, 2) / 8**0.5).masked_fill(~reads, -torch.inf)
                x = x + block.attn.proj((score.softmax(-1) @ v).transpose(0, 1).reshape(k + kt, 16))
                x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
            out[b, m] = p.proj(p.norm(x[k:]))
    return out


@pytest.mark.parametrize("share", [False, True], ids=["published", "shared"])
@pytest.mark.parametrize("depth", [1, 3])
def test_equals_the_slow_form(share, depth, batch):
    p = make(share, depth)
    torch.testing.assert_close(p(*batch), slow(p, *batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("share", [False, True], ids=["published", "shared"])
def test_gradients_equal_the_slow_form(share, batch):
    p, weight = make(share), torch.randn(B, M, KT, DIM)
    batch[0].requires_grad_()
    inputs = [batch[0], *p.parameters()]
    got = torch.autograd.grad((p(*batch) * weight).sum(), inputs)
    want = torch.autograd.grad((slow(p, *batch) * weight).sum(), inputs)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", [False, True], ids=["published", "shared"])
def test_blocks_do_not_see_each_other(share, batch):
    p, (context, context_index, target_index) = make(share), batch
    before = p(context, context_index, target_index)
    moved = target_index.clone()
    moved[:, 1] = (moved[:, 1] + 7) % 20
    after = p(context, context_index, moved)
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.allclose(before[:, 1], after[:, 1])
    alone = p(context, context_index, target_index[:, 2:])
    torch.testing.assert_close(alone[:, 0], before[:, 2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("share", [False, True], ids=["published", "shared"])
def test_no_gradient_between_blocks(share, batch):
    """The derivative of block 0's prediction by positions in the other blocks is exactly 0, by its own it is not."""
    p, (context, context_index, _) = make(share), batch
    target_index = torch.arange(12).view(1, 3, 4).expand(B, -1, -1)
    context_index = torch.arange(12, 18).expand(B, -1)  # apart from all targets
    p.pos_embed.requires_grad_()
    p(context, context_index, target_index)[:, 0].square().sum().backward()
    felt = p.pos_embed.grad[0].abs().sum(1)
    assert (felt[:4] > 0).all() and (felt[12:18] > 0).all() and not felt[4:12].any()


def test_shared_context_does_not_read_mask_tokens(batch):
    """In the published form it does: a difference that shows from the second layer on."""
    published, shared = make(False, 2), make(True, 2)
    shared.load_state_dict(published.state_dict())
    assert not torch.allclose(published(*batch), shared(*batch), atol=1e-4)
    one, same = make(False, 1), make(True, 1)  # with one layer nobody reads what the context has read
    same.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(*batch), same(*batch))


@pytest.mark.parametrize("share", [False, True], ids=["published", "shared"])
def test_every_parameter_learns_and_checkpointing_changes_no_number(share, batch):
    p, found = MaskedPredictor(DIM, GRID, width=16, depth=2, heads=2, share_context=share), []
    for flag in (False, True):
        p.checkpoint = flag
        p.zero_grad()
        (p(*batch) * torch.linspace(-1, 1, DIM)).sum().backward()
        found.append([w.grad.clone() for w in p.parameters()])
    assert all(g.abs().sum() > 0 for g in found[0])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("share", [False, True], ids=["published", "shared"])
def test_bfloat16_and_one_graph(share, batch):
    p = MaskedPredictor(DIM, GRID, width=16, depth=2, heads=2, share_context=share)
    compiled = torch.compile(p, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*batch), p(*batch))
    with torch.autocast("cpu", torch.bfloat16):
        out = p(*batch)
    assert out.isfinite().all()
    torch.testing.assert_close(out.float(), p(*batch), atol=0.02, rtol=0.1)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        MaskedPredictor(DIM, GRID, width=16, depth=0, heads=2)
    with pytest.raises(ValueError, match="width 16 and 3 heads"):
        MaskedPredictor(DIM, GRID, width=16, depth=1, heads=3)
