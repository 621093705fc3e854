"""Features: which layer, which pooling, in which order; and nothing about the encoder is changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from openjepa.nn import build_encoder
from openjepa.nn.encoder import Encoder
from openjepa.probe import Features, Labelled, features
from openjepa.probe.features import known, pooled, with_tokens

X = torch.randn(10, 3, 16, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(10) % 3
BATCHES = [(X[i : i + 4], Y[i : i + 4], torch.arange(10)[i : i + 4]) for i in range(0, 10, 4)]


@pytest.fixture(scope="module")
def vit() -> Encoder:
    torch.manual_seed(0)
    return build_encoder({"name": "vit_micro/4", "cls": True, "registers": 2}, size=16)


def tokens_of(encoder: Encoder, layers: list[int]) -> list[torch.Tensor]:
    with torch.no_grad():
        return encoder.eval().layers(X, layers)


def test_order_labels_and_type(vit: Encoder):
    found = features(vit, BATCHES)
    assert found.z.shape == (10, 96) and found.z.dtype == torch.float32
    assert torch.equal(found.labels, Y) and torch.equal(found.index, torch.arange(10))
    assert not found.z.requires_grad and not found.z.is_inference()  # a probe may differentiate through it


def test_poolings(vit: Encoder):
    tokens = tokens_of(vit, [-1])[0]
    patches = tokens[:, 3:]
    want = {
        "mean": patches.mean(1), "max": patches.amax(1), "cls": tokens[:, 0], "flatten": patches.flatten(1),
        "mean+cls": torch.cat([patches.mean(1), tokens[:, 0]], 1), "tokens": patches,
    }  # fmt: skip
    for name, z in want.items():
        torch.testing.assert_close(features(vit, BATCHES, pooling=name).z, z, atol=1e-5, rtol=1e-5)


def test_layers_side_by_side_or_averaged(vit: Encoder):
    each = [t[:, 3:].mean(1) for t in tokens_of(vit, [-4, -3, -2, -1])]
    got = features(vit, BATCHES, layers=(-4, -3, -2, -1))
    torch.testing.assert_close(got.z, torch.cat(each, 1), atol=1e-5, rtol=1e-5)
    got = features(vit, BATCHES, layers=(-4, -3, -2, -1), combine="mean")
    torch.testing.assert_close(got.z, torch.stack(each).mean(0), atol=1e-5, rtol=1e-5)
    assert torch.equal(features(vit, BATCHES, layers=(-1,)).z, features(vit, BATCHES).z)


def test_conv_stages_join_but_do_not_average():
    net = build_encoder("resnet18", size=16)
    n = len(net.blocks)
    assert features(net, BATCHES, layers=(0, n - 1)).z.shape[1] == 64 + 512
    with pytest.raises(ValueError, match="equally wide"):
        features(net, BATCHES, layers=(0, n - 1), combine="mean")


def test_modes_and_statistics_are_left_alone():
    net = build_encoder("resnet18", size=16).train()
    frozen = next(m for m in net.modules() if isinstance(m, nn.BatchNorm1d))
    frozen.eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    features(net, BATCHES)
    assert net.training and not frozen.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())

    def fail():
        yield BATCHES[0]
        raise RuntimeError("disk gone")

    with pytest.raises(RuntimeError):
        features(net, fail())
    assert net.training


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x).flatten(2).transpose(1, 2)


def test_a_bound_method_is_evaluated_in_evaluation_mode():
    holder = Holder().train()
    want = X.flatten(2).mean(2)
    torch.testing.assert_close(features(holder.encode, BATCHES).z, want)  # no dropout
    assert holder.drop.training


def test_plain_vectors_and_what_they_cannot_do():
    flat = features(lambda x: x.flatten(1), BATCHES)
    assert torch.equal(flat.z, X.flatten(1))
    with pytest.raises(ValueError, match="Only an Encoder has layers"):
        features(lambda x: x.flatten(1), BATCHES, layers=(-1,))
    with pytest.raises(ValueError, match="class token"):
        features(lambda x: x.flatten(1), BATCHES, pooling="cls")
    with pytest.raises(ValueError, match=r"\(B, N, D\) or \(B, D\), got \(4, 3, 16, 16\)"):
        features(lambda x: x, BATCHES)
    for bad in ("average", "mean+flatten", ""):
        with pytest.raises(ValueError, match="pooling must be"):
            features(lambda x: x.flatten(1), BATCHES, pooling=bad)
    with pytest.raises(ValueError, match="at least one batch"):
        features(lambda x: x.flatten(1), [])


def test_labelled_computes_once():
    calls = []

    def encoder(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return x.flatten(2).transpose(1, 2)

    data = Labelled(encoder, lambda: BATCHES)
    assert pooled(data).z.shape == (10, 3) and pooled(data).z is pooled(data).z
    assert calls == [4, 4, 2]
    assert with_tokens(data).z.shape == (10, 256, 3) and len(calls) == 6


def test_unlabelled_rows_are_left_out_and_nan_refused():
    z = torch.randn(4, 2)
    found = known(Features(z, torch.tensor([0, -1, 1, -1]), torch.arange(4)))
    assert found.index.tolist() == [0, 2]
    with pytest.raises(ValueError, match="finite"):
        known(Features(z / 0 * 0, torch.zeros(4, dtype=torch.int64), torch.arange(4)))
