"""Early convolutions that respect masks."""

from __future__ import annotations

import pytest
import torch

from openjepa.interop.hf import to_hf_ijepa
from openjepa.nn import build_encoder
from openjepa.nn.stem import ConvStem


def encoder(**settings):
    return build_encoder({"name": "vit_micro/4", "stem": "conv", **settings}, size=16)


def test_a_kept_token_depends_on_kept_patches_only() -> None:
    vit, keep = encoder().eval(), torch.tensor([[0, 1, 5, 10]])
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    vit(x, keep=keep).square().sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum(1).view(4, 4, 4, 4).sum((1, 3)).flatten() > 0  # per patch
    assert seen.nonzero().flatten().tolist() == keep[0].tolist()


def test_what_is_hidden_may_be_anything() -> None:
    vit, keep, x = encoder().eval(), torch.tensor([[0, 1, 4]]), torch.randn(1, 3, 16, 16)
    other = x.clone()
    other[:, :, 8:] = float("nan")
    assert torch.equal(vit(x, keep=keep), vit(other, keep=keep))


def test_keeping_everything_changes_nothing_and_neighbours_are_seen() -> None:
    vit, x = encoder(pos="rope").eval(), torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(vit(x, keep=torch.arange(16).expand(2, -1)), vit(x), atol=1e-5, rtol=1e-5)
    stem, other = ConvStem(3, 32, patch=4), x.clone()
    stem.start()
    other[:, :, :, 3] += 1.0  # the last column of the first patches reaches the ones beside them
    changed = (stem(x) - stem(other)).abs().amax((0, 2)).view(4, 4) > 1e-4
    assert changed[:, :2].all() and not changed[:, 2:].any()


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_tokens_start_at_unit_size_whatever_the_patch(patch: int) -> None:
    torch.manual_seed(0)
    stem = ConvStem(3, 128, patch)
    stem.start()
    assert 0.7 < stem(torch.randn(16, 3, 32, 32)).std().item() < 1.3


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="patch must be a power of two"):
        build_encoder({"name": "vit_micro/6", "stem": "conv"}, size=24)
    with pytest.raises(ValueError, match="stem must be 'auto' or 'conv'"):
        build_encoder({"name": "vit_micro/4", "stem": "small"}, size=16)
    with pytest.raises(ValueError, match="stem must be 'auto', 'small' or 'large'"):
        build_encoder({"name": "resnet18", "stem": "conv"}, size=32)
    with pytest.raises(ValueError, match="plain patch projection"):
        to_hf_ijepa(encoder().state_dict())
