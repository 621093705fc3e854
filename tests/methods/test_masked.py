"""Masked latent prediction: what its masks hide stays hidden, clips work like pictures, regularisers do their work."""

import pytest
import torch

from openjepa.config import parse
from openjepa.core.types import Clock, Pictures
from openjepa.methods import METHODS, total
from openjepa.methods.masked import MaskedConfig, MaskedJEPA

ENCODER = {"name": "vit_nano/4", "width": 32, "depth": 2, "heads": 2}
SIZE = 16
CLIP = {"frames": 4, "temporal_depth": 1}


def make(seed: int = 0, **changes: object) -> MaskedJEPA:
    torch.manual_seed(seed)
    cfg = MaskedConfig.model_validate(
        {"encoder": ENCODER, "predictor_width": 16, "predictor_depth": 1, "ema": (0.9, 1.0), **changes}
    )
    return MaskedJEPA(cfg, size=SIZE)


def batch_of(method: MaskedJEPA, batch: int = 6, seed: int = 0) -> Pictures:
    """Waves that drift from frame to frame: (V, B, T * 3, H, W)."""
    g = torch.Generator().manual_seed(seed)
    t, v = method.cfg.frames, method.cfg.crops
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    phase, speed = torch.rand(v, batch, 1, 3, 1, 1, generator=g) * 6, torch.rand(1, batch, 1, 3, 1, 1, generator=g)
    time = torch.arange(t).view(1, 1, t, 1, 1, 1)
    angle = torch.rand(1, batch, 1, 1, 1, 1, generator=g)
    waves = torch.sin(x * angle + y * (1 - angle) + phase + speed * time)  # (V, B, T, 3, H, W)
    return Pictures((waves.flatten(2, 3),), torch.arange(batch), torch.full((batch,), -1))


@pytest.mark.parametrize("masking", ["block", "random"])
def test_the_context_never_sees_what_is_hidden(masking: str) -> None:
    """Change the pixels of every token outside the context: the context tokens stay, bit for bit."""
    method = make(masking=masking).eval()
    images = batch_of(method).views[0][0]
    index = method.masks(images, Clock()).context
    kept = torch.zeros(len(images), 16).scatter_(1, index, 1.0).view(-1, 1, 4, 4)
    pixels = kept.repeat_interleave(4, 2).repeat_interleave(4, 3)
    noise = images * pixels + 7 * torch.randn_like(images) * (1 - pixels)
    with torch.no_grad():
        assert torch.equal(method.context(images, index), method.context(noise, index))


def test_the_context_never_sees_the_future() -> None:
    method = make(masking="temporal", predict_horizon=2, **CLIP).eval()
    clips = batch_of(method).views[0][0]
    masks = method.masks(clips, Clock())
    assert masks.context.shape == (6, 2 * 16) and masks.targets.shape == (6, 2, 16)
    later = clips.clone()
    later[:, 2 * 3 :] += 5
    with torch.no_grad():
        assert torch.equal(method.context(clips, masks.context), method.context(later, masks.context))
        assert not torch.allclose(method.targets(clips), method.targets(later))


@pytest.mark.parametrize("masking", ["block", "random"])
def test_clips_hide_the_same_places_in_every_frame(masking: str) -> None:
    method = make(masking=masking, **CLIP)
    masks = method.masks(batch_of(method).views[0][0], Clock(step=2))
    place = masks.context.unflatten(1, (4, -1)) - torch.arange(4)[:, None] * 16
    assert (place == place[:, :1]).all() and place.min() >= 0 and place.max() < 16


def test_kept_tokens_of_clips_are_the_right_ones() -> None:
    """With nothing mixed between places, a kept token equals the token of its own patch, frame by frame."""
    method = make(masking="random", **CLIP).eval()
    clips = batch_of(method).views[0][0]
    index = method.masks(clips, Clock()).context  # (B, T * K)
    seen = []
    method.encoder.register_forward_hook(
        lambda module, args, kwargs, out: seen.append(kwargs["keep"]), with_kwargs=True
    )
    with torch.no_grad():
        method.context(clips, index)
    frames = torch.arange(4)[None, :, None].expand(len(clips), -1, index.shape[1] // 4)
    assert torch.equal((seen[0].unflatten(0, (len(clips), 4)) + frames * 16).flatten(1), index)


@pytest.mark.parametrize(
    "changes",
    [
        {"masking": "block", "variance": 0},
        {"masking": "block", "blocks": 2, "mask_ratio": 0.5},
        {"masking": "random"},
        {"invariance": 1.0, "crops": 2},
        {"masking": "temporal", "consistency": 0.5, **CLIP},
        {"masking": "random", "invariance": 0.5, "consistency": 0.5, "crops": 3, **CLIP},
        {"masking": "block", **CLIP},
    ],
)
def test_every_form_trains(changes: dict) -> None:
    """Terms are those that are weighted, every trainable parameter learns, no teacher does, and the loss falls."""
    method = make(**changes)
    batch = batch_of(method)
    terms, seen = method.losses(batch, Clock(total=30))
    expected = {"predict", "variance"} | {name for name in ("invariance", "consistency") if name in changes}
    expected -= {name for name in expected if changes.get(name) == 0}
    assert terms.keys() == method.weights.keys() == expected
    assert seen["prediction"].shape == seen["target"].shape and not any(x.requires_grad for x in seen.values())
    total(terms, method.weights).backward()
    assert [n for n, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())] == []
    assert all(p.grad is None for n, p in method.named_parameters() if "teacher" in n)
    opt = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for i in range(40):
        method.train()
        terms, _ = method.losses(batch, Clock(i, 40))
        loss = total(terms, method.weights)
        opt.zero_grad()
        loss.backward()
        opt.step()
        method.after_step(Clock(i, 40))
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


def test_variance_and_agreement_have_their_known_values() -> None:
    method = make(variance=1.0, invariance=1.0, consistency=1.0, crops=2, masking="random", **CLIP)
    with torch.no_grad():  # a constant encoder: no spread, perfect agreement
        for p in method.temporal.norm.parameters():
            p.zero_()
    terms, _ = method.losses(batch_of(method), Clock())
    assert float(terms["variance"].detach()) == pytest.approx(0.99, abs=1e-6)  # 1 - sqrt(1e-4)
    assert terms["invariance"] == 0 and terms["consistency"] == 0


def test_the_teachers_follow() -> None:
    method = make(masking="temporal", ema=(0.5, 0.5), **CLIP)
    with torch.no_grad():
        for p in (*method.encoder.parameters(), *method.temporal.parameters()):
            p.add_(1.0)
    before = [p.clone() for p in (*method.teacher.parameters(), *method.temporal_teacher.parameters())]
    method.after_step(Clock(0, 10))
    after = (*method.teacher.parameters(), *method.temporal_teacher.parameters())
    students = (*method.encoder.parameters(), *method.temporal.parameters())
    assert all(torch.allclose(a, (b + s) / 2) for a, b, s in zip(after, before, students, strict=True))


def test_encode_takes_clips_and_single_pictures() -> None:
    method = make(masking="temporal", **CLIP).eval()
    with torch.no_grad():
        assert method.encode(torch.randn(2, 12, SIZE, SIZE)).shape == (2, 4 * 16, 32)
        assert method.encode(torch.randn(2, 3, SIZE, SIZE)).shape == (2, 16, 32)


def test_two_ranks_see_the_rows_of_one_process() -> None:
    method = make(masking="random", crops=2, invariance=1.0, variance=0.0)
    batch = batch_of(method, batch=4)
    _, whole = method.losses(batch, Clock(step=3))
    parts = []
    for r in range(2):
        part = Pictures((batch.views[0][:, 2 * r : 2 * r + 2],), batch.index[2 * r : 2 * r + 2], batch.label[:2])
        parts.append(method.losses(part, Clock(step=3, rank=r, world=2))[1])
    for name in ("context_index", "target_index", "z", "prediction"):
        assert torch.allclose(torch.cat([p[name] for p in parts]), whole[name], atol=1e-5)


def fit_of_clips(**changes: object) -> tuple[float, float, float]:
    """After 80 steps on drifting waves: error against the clip's own future, against another clip's, target spread."""
    method = make(masking="temporal", **CLIP, **changes)
    opt = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    for i in range(80):
        terms, _ = method.losses(batch_of(method, 12, seed=i), Clock(i, 80))
        opt.zero_grad()
        total(terms, method.weights).backward()
        opt.step()
        method.after_step(Clock(i, 80))
    _, seen = method.eval().losses(batch_of(method, 32, seed=1000), Clock())
    errors = [(seen["prediction"] - x).square().mean() for x in (seen["target"], seen["target"].roll(1, 0))]
    return float(errors[0]), float(errors[1]), float(seen["target"].var(0).mean())


def test_the_future_of_a_clip_is_predicted_better_than_that_of_another() -> None:
    own, other, spread = fit_of_clips()
    assert own < 0.5 * other and spread > 0.3


def test_without_variance_and_with_a_fast_teacher_the_features_collapse() -> None:
    """The negative control: the loss is excellent, and the features say nothing about the clip."""
    own, other, spread = fit_of_clips(variance=0.0)
    assert own < 0.05 and own > 0.95 * other and spread < 0.02


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"masking": "temporal"}, "frames must be more than predict_horizon"),
        ({"masking": "temporal", "frames": 2, "predict_horizon": 2}, "frames must be more than predict_horizon"),
        ({"consistency": 1.0}, "consistency must be 0"),
        ({"consistency": 1.0, "masking": "temporal", "frames": 2}, "consistency must be 0"),
        ({"frames": 2, "crop": {"grey": 0.2}}, "crop must leave colours alone"),
        ({"invariance": 1.0}, "crops must be 2 or more"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"masking": "tubes"}, "masking"),
        ({"mask_ration": 0.5}, "Did you mean 'mask_ratio'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(MaskedConfig, changes)


def test_convolutions_and_wrong_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="must be able to run on the kept patches only"):
        MaskedJEPA(MaskedConfig(encoder={"name": "resnet18"}), size=32)
    with pytest.raises(ValueError, match="clips must have 4 frames of 3 channels, got 6"):
        make(**CLIP).encode(torch.zeros(1, 6, 16, 16))


def test_it_is_in_the_table() -> None:
    assert METHODS["masked"] is MaskedJEPA
