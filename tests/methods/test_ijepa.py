"""What is special to I-JEPA."""

from __future__ import annotations

import pytest
import torch

from openjepa.core.types import Clock
from openjepa.methods import METHODS
from tests.methods.test_contract import SIZE, make, pictures, spread, step, trainable


def test_a_convolution_is_refused_with_the_reason() -> None:
    cls = METHODS["ijepa"]
    with pytest.raises(ValueError, match="slides over the hidden patches"):
        cls(cls.Config(encoder="resnet18"), size=32)  # type: ignore[call-arg]


def test_context_and_targets_share_no_token() -> None:
    method = make("ijepa")
    _, seen = method.losses(pictures(method), Clock(3, 10))
    for context, target in zip(seen["context_index"], seen["target_index"], strict=True):
        assert not set(context.tolist()) & set(target.flatten().tolist())


def test_the_loss_does_not_depend_on_pixels_hidden_from_both_context_and_target() -> None:
    method = make("ijepa").eval()
    batch, clock = pictures(method), Clock(5, 10)
    _, seen = method.losses(batch, clock)
    z = seen["z"]
    hidden = torch.ones(len(z), 16, dtype=torch.bool).scatter_(1, seen["context_index"], False)
    mask = hidden.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    changed = batch._replace(views=(torch.where(mask, torch.zeros(()), batch.views[0][0])[None],))
    _, seen2 = method.losses(changed, clock)
    assert torch.allclose(z, seen2["z"], atol=1e-6)  # the encoder sees the kept patches only
    assert not torch.allclose(seen["target"], seen2["target"], atol=1e-2)  # the teacher sees them all


def test_the_teacher_follows_at_the_scheduled_rate() -> None:
    method = make("ijepa", ema=(0.5, 1.0))
    before = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    method.after_step(Clock(5, 10))  # halfway: 0.75
    for old, new in zip(before, method.teacher.parameters(), strict=True):
        assert torch.allclose(new, old + 0.25, atol=1e-6)


@pytest.mark.parametrize("share", [False, True])
def test_targets_are_layer_normed_and_detached(share: bool) -> None:
    method = make("ijepa", share_context=share)
    _, seen = method.losses(pictures(method), Clock(0, 10))
    t = seen["target"]
    assert t.shape[:2] == (12, 4) and seen["prediction"].shape == t.shape
    assert torch.allclose(t.mean(-1), torch.zeros(t.shape[:-1]), atol=1e-4)


def test_without_a_teacher_that_lags_and_without_norm_it_collapses() -> None:
    """The disease: the target moves with the student and may shrink, so a constant is the best answer."""
    method = make("ijepa", ema=(0.0, 0.0))
    raw = lambda images: method.teacher(images)[:, method.teacher.prefix :]  # noqa: E731  no layer norm, gradient kept
    method.targets = raw  # type: ignore[method-assign]
    method.teacher.requires_grad_(True)
    opt = torch.optim.AdamW(trainable(method), lr=3e-3)
    before = spread(method)
    for i in range(100):
        step(method, opt, pictures(method, seed=i), Clock(i, 100))
    assert spread(method) < 0.1 * before


def test_picture_size_is_free_as_long_as_patches_fit() -> None:
    method = make("ijepa")
    assert method.encode(torch.randn(2, 3, SIZE * 2, SIZE * 2)).shape == (2, 64, 32)


def test_several_contexts_share_one_pass_of_the_teacher() -> None:
    method = make("ijepa", contexts=3).eval()
    calls = []
    method.teacher.register_forward_pre_hook(lambda *_: calls.append(1))
    kept = method.teacher.layers
    method.teacher.layers = lambda x, i: (calls.append(len(x)), kept(x, i))[1]  # type: ignore[method-assign,assignment]
    _, seen = method.losses(pictures(method), Clock(0, 10))
    assert calls == [12]
    assert len(seen["context_index"]) == 36 and seen["prediction"].shape[0] == 36
    one = method.targets(pictures(method).views[0][0])
    from openjepa.core.tokens import take

    assert torch.allclose(seen["target"], take(one.repeat_interleave(3, 0), seen["target_index"]))


def test_sigreg_is_off_as_published_and_one_more_term_on_request() -> None:
    assert make("ijepa").weights == {"predict": 1.0}
    method = make("ijepa", sigreg=0.02, contexts=2)
    terms, _ = method.losses(pictures(method), Clock(0, 10))
    assert terms.keys() == method.weights.keys() == {"predict", "agree", "sigreg"}


@pytest.mark.parametrize(("pos", "std", "keeps"), [("sincos", 0.02, False), ("rope", None, True)])
def test_positions_that_drown_the_content_are_what_remains(pos: str, std: float | None, keeps: bool) -> None:
    """The published start on small patches: tokens come to tell where they are. See docs/design/0002-ijepa-small.md."""
    method = make("ijepa", encoder={"name": "vit_nano/4", "width": 32, "depth": 2, "heads": 2, "pos": pos})
    if std is not None:
        for net in (method.encoder, method.teacher):
            torch.nn.init.trunc_normal_(
                net.patch_embed.proj.weight, std=std, generator=torch.Generator().manual_seed(0)
            )
    opt = torch.optim.AdamW(trainable(method), lr=1e-3)
    before = spread(method)
    for i in range(100):
        step(method, opt, pictures(method, seed=i), Clock(i, 100))
    assert (spread(method) > 0.5 * before) == keeps


def test_the_projector_stands_between_the_contexts_and_what_regularises_them() -> None:
    method = make("ijepa", sigreg=0.05, agree=1.0, contexts=2, projector_out=8, projector_hidden=16)
    assert method.projector.last.out_features == 8
    z = torch.randn(12, 3, method.encoder.dim, requires_grad=True)
    terms = method.beyond_the_paper(z, 6, Clock())
    (terms["agree"] + terms["sigreg"]).backward()
    assert z.grad is not None and bool(z.grad.abs().sum() > 0)
    assert not hasattr(make("ijepa", projector_out=8), "projector")  # nothing to project for
