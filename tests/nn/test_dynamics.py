"""Networks of world models: known answers, and what may see what (by gradient)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from openjepa.core.types import Space
from openjepa.nn import EncoderConfig, build_encoder
from openjepa.nn.causal import ActionTransformer, FrameTransformer, MaskedAttention, MaskedBlock, frame_causal
from openjepa.nn.layers import Attention
from openjepa.nn.state import GRUStep, HorizonEmbedding, MLPStep, StateEncoder, StretchEmbedding, mlp
from openjepa.nn.vector import VectorHead, build_observer

SMALL = {"depth": 2, "heads": 2, "head_dim": 8, "mlp": 32}


def opened(net: nn.Module) -> nn.Module:
    """With every parameter away from zero, so that adaptive norms let their branches through."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def reach(out: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """(T, T) bool: does output time i depend on input time j? Axis 1 is time in both."""
    rows = []
    for i in range(out.shape[1]):
        (g,) = torch.autograd.grad(out[:, i].sum(), source, retain_graph=True)
        rows.append(g.abs().transpose(0, 1).flatten(1).sum(1) > 0)
    return torch.stack(rows)


def test_action_transformer_looks_back_only() -> None:
    net = opened(ActionTransformer(16, 4, history=5, **SMALL))
    z, a = torch.randn(2, 5, 16, requires_grad=True), torch.randn(2, 5, 4, requires_grad=True)
    out = net(z, a).square()
    causal = torch.ones(5, 5).tril().bool()
    assert torch.equal(reach(out, z), causal) and torch.equal(reach(out, a), causal)


def test_frame_transformer_looks_back_only_and_at_all_of_its_own_frame() -> None:
    net = opened(FrameTransformer(16, 3, history=4, **SMALL))
    x = torch.randn(2, 4, 3, 16, requires_grad=True)
    out = net(x).square()
    assert torch.equal(reach(out, x), torch.ones(4, 4).tril().bool())
    assert torch.equal(reach(out.flatten(1, 2), x), torch.ones(4, 4).tril().bool().repeat_interleave(3, 0))
    with pytest.raises(ValueError, match="at most 4 of 3"):
        net(torch.zeros(2, 5, 3, 16))


def test_frame_causal() -> None:
    mask = frame_causal(3, 2)
    assert torch.equal(mask, torch.ones(3, 3).tril().bool().repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert torch.equal(frame_causal(4, 1), torch.ones(4, 4).tril().bool())


def test_adaptive_block_starts_as_the_identity_and_a_condition_moves_it_once_open() -> None:
    block = MaskedBlock(16, 2, 8, 32, cond=4)
    x, c = torch.randn(2, 3, 16), torch.randn(2, 3, 4)
    assert torch.equal(block(x, cond=c), x)
    opened(block)
    assert not torch.allclose(block(x, cond=c), block(x, cond=c + 1))


def test_masked_attention_is_attention_where_nothing_is_masked() -> None:
    ours, other = MaskedAttention(16, 4, 4), Attention(16, 4)
    other.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 16)
    assert torch.allclose(ours(x, torch.ones(5, 5, dtype=torch.bool)), other(x), atol=1e-6)


def test_prefixes_of_a_causal_network_do_not_depend_on_what_follows() -> None:
    net = opened(ActionTransformer(16, 4, history=5, **SMALL))
    z, a = torch.randn(2, 5, 16), torch.randn(2, 5, 4)
    for t in range(1, 5):
        assert torch.allclose(net(z[:, :t], a[:, :t]), net(z, a)[:, :t], atol=1e-5)


def test_gru_step_is_torchs_gru() -> None:
    net = GRUStep(8, 3)
    gru = nn.GRU(3, 8, batch_first=True)
    gru.load_state_dict({f"{k}_l0": v for k, v in net.cell.state_dict().items()})
    z, actions = torch.randn(4, 8), torch.randn(4, 6, 3)
    whole, _ = gru(actions, z[None])
    for k in range(6):
        z = net(z, actions[:, k])
        assert torch.allclose(z, whole[:, k], atol=1e-6)


def test_mlp_step_without_change_copies() -> None:
    net = MLPStep(8, 2, width=16)
    nn.init.zeros_(net.net[-1].weight)
    nn.init.zeros_(net.net[-1].bias)
    z, a = torch.randn(4, 8), torch.randn(4, 2)
    assert torch.equal(net(z, a), z)
    net.residual = False
    assert not net(z, a).any()


def test_stretches_are_told_apart_by_order_and_padded_with_zeros() -> None:
    net = StretchEmbedding(2, longest=4, dim=8)
    a = torch.randn(3, 2, 2)
    assert torch.equal(net(a), net(torch.cat([a, torch.zeros(3, 2, 2)], 1)))
    assert not torch.allclose(net(a), net(a.flip(1)))


def test_horizon_table_refuses_what_it_never_saw() -> None:
    with pytest.raises(ValueError, match="trained horizons"):
        HorizonEmbedding((1, 4), "table")(2)
    with pytest.raises(ValueError, match="linear, table or sinusoidal"):
        HorizonEmbedding((1, 4), "rotary")
    with pytest.raises(ValueError, match="layers"):
        mlp(2, 2, 2, layers=0)


def test_state_encoder_cannot_see_what_is_hidden() -> None:
    net = StateEncoder(3, 8)
    x = torch.randn(5, 3, requires_grad=True)
    hidden = torch.tensor([False, True, False]).expand(5, 3)
    (g,) = torch.autograd.grad(net(x, hidden).square().sum(), x)
    assert (g[:, 1] == 0).all() and (g[:, [0, 2]] != 0).all()


@pytest.mark.parametrize("name", ["impala", "convnet_lean", "convnet_tiny", "vit_micro/5"])
@pytest.mark.parametrize("pooling", ["flatten", "mean"])
def test_vectors_from_any_encoder(name: str, pooling: str) -> None:
    for space, obs in ((Space(obs=(2, 65, 65)), torch.randn(3, 2, 65, 65)), (Space(obs=(7,)), torch.randn(3, 7))):
        encoder = build_observer(EncoderConfig(name=name), space)
        assert VectorHead(encoder, dim=12, pooling=pooling)(encoder(obs)).shape == (3, 12)


def test_flatten_keeps_the_place() -> None:
    x = torch.zeros(2, 1, 32, 32)
    x[0, :, 4:8, 4:8] = x[1, :, 20:24, 20:24] = 1.0
    stem = nn.Conv2d(1, 4, 4, stride=4)
    encoder = build_observer(EncoderConfig(), Space(obs=(1, 32, 32)), encoder=stem)
    flat, mean = (VectorHead(encoder, dim=None, pooling=p)(encoder(x)) for p in ("flatten", "mean"))
    assert torch.allclose(mean[0], mean[1], atol=1e-6) and not torch.allclose(flat[0], flat[1])
    assert flat.shape == (2, 4 * 64)


def test_class_token() -> None:
    encoder = build_encoder(EncoderConfig(name="vit_micro/4", cls=True), size=16)
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(VectorHead(encoder, dim=None, pooling="cls")(encoder(x)), encoder(x)[:, 0])


def test_sixty_five_pixels() -> None:
    for name, grid, dim in (("impala", 9, 32), ("convnet_lean", 9, 64)):
        encoder = build_encoder(name, size=65, channels=2)
        assert encoder.grid == (grid, grid) and encoder.dim == dim
        assert encoder(torch.zeros(2, 2, 65, 65)).shape == (2, 81, dim)
