"""What is special to V-JEPA 1 and 2, and to 2.1, and to predicting the future."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from openjepa.config import parse, scalar
from openjepa.core.compare import whiten_tokens
from openjepa.core.tokens import take
from openjepa.core.tubes import distance
from openjepa.core.types import Clips, Clock
from openjepa.methods import METHODS, Method, total
from openjepa.methods.future import FutureConfig
from openjepa.methods.vjepa import VJEPA, VJEPAConfig
from openjepa.methods.vjepa21 import VJEPA21Config
from openjepa.nn import ClipPredictor, build_encoder
from tests.methods.test_contract import CLIP, batch_for, make, step, trainable
from tests.methods.toy_clips import drifting

NAMES = pytest.mark.parametrize("name", ["vjepa", "vjepa21", "future"])


def clips_of(method: Method, batch: int = 4, kind: int = 0, seed: int = 0) -> Clips:
    found = batch_for(method, seed, batch, kind)
    assert isinstance(found, Clips)
    return found


def pixels_of(method: Method, index: torch.Tensor, clips: torch.Tensor) -> torch.Tensor:
    """1 where a pixel of the clips (B, T, C, H, W) belongs to one of the tokens `index` (B, K)."""
    t, h, w = method.encoder.grid_of(clips)
    mask = torch.zeros(len(clips), t * h * w).scatter_(1, index, 1.0).view(-1, t, 1, h, w)
    tubelet, patch = clips.shape[1] // t, clips.shape[3] // h
    return mask.repeat_interleave(tubelet, 1).repeat_interleave(patch, 3).repeat_interleave(patch, 4)


@NAMES
def test_the_context_never_sees_what_is_hidden(name: str) -> None:
    """Change every pixel outside the context: the context's tokens and the prediction stay, bit for bit."""
    method = make(name).eval()
    batch = clips_of(method)
    _, seen = method.losses(batch, Clock())
    keep = pixels_of(method, seen["context_index"], method.clips(batch))
    other = batch.view * keep + 7 * torch.randn_like(batch.view) * (1 - keep)
    _, after = method.losses(batch._replace(view=other), Clock())
    assert torch.equal(seen["z"], after["z"]) and torch.equal(seen["prediction"], after["prediction"])
    assert not torch.allclose(seen["target"], after["target"], atol=1e-2)


def test_the_loss_is_the_mean_l1_over_the_kinds_of_masks() -> None:
    method = make("vjepa").eval()
    batch = clips_of(method)
    with torch.no_grad():
        terms, _ = method.losses(batch, Clock(step=3))
        clips = batch.view[0]
        whole = whiten_tokens(method.teacher(clips))
        errors = []
        for number, masks in enumerate(method.draw(method.cfg.masks, clips, Clock(step=3), False)):
            z = method.encoder(clips, keep=masks.context)
            p = method.predictor(z, masks.context, masks.targets[:, 0], number)
            errors.append((p - take(whole, masks.targets[:, 0])).abs().mean())
    assert terms["predict"] == pytest.approx(float(sum(errors) / 2), rel=1e-5)
    assert len(method.predictor.mask_tokens) == 2 and set(method.weights) == {"predict"}


def test_several_clips_and_several_masks_of_a_video_lie_side_by_side() -> None:
    """Row b V count + ... of every tensor belongs to video b: the pass for all equals a pass for each."""
    method = make("vjepa", views=[{"frames": 4, "count": 2}], masks=[{"count": 3}]).eval()
    batch = clips_of(method, batch=2)
    assert batch.view.shape[:2] == (2, 2)
    with torch.no_grad():
        _, seen = method.losses(batch, Clock())
    assert seen["z"].shape[0] == 2 * 2 * 3
    for row in range(12):
        video, view = row // 6, row // 3 % 2
        with torch.no_grad():
            z = method.encoder(batch.view[view, video][None], keep=seen["context_index"][row][None])
        assert torch.allclose(z[0], seen["z"][row], atol=1e-5)
    masks = seen["context_index"].unflatten(0, (4, 3))
    assert not torch.equal(masks[:, 0], masks[:, 1])


def test_the_mask_token_is_that_of_the_mask_or_of_the_view() -> None:
    views = [{"frames": 4}, {"frames": 8}]
    for of, used in (("mask", [[0, 1], [0, 1]]), ("view", [[0], [1]])):
        for kind in range(2):
            method = make("vjepa", views=views, token_of=of, mask_tokens=3)
            terms, _ = method.losses(clips_of(method, kind=kind), Clock())
            total(terms, method.weights).backward()
            found = [i for i, p in enumerate(method.predictor.mask_tokens) if p.grad.any()]
            assert found == used[kind] and len(method.predictor.mask_tokens) == 3
            assert all(p.grad is not None for p in trainable(method))


def test_longer_and_larger_clips_than_the_positions_were_built_for() -> None:
    for pos in ("sincos", "rope", "rope-tiled"):
        method = make("vjepa", encoder=CLIP["encoder"] | {"pos": pos})
        batch = Clips(torch.randn(1, 2, 8, 3, 24, 24), 0, torch.arange(2), torch.full((2,), -1))
        terms, seen = method.losses(batch, Clock())
        assert torch.isfinite(terms["predict"]) and int(seen["target_index"].max()) > 2 * 16


def test_variance_is_the_published_shortfall_of_the_spread_of_predictions() -> None:
    method = make("vjepa", variance=0.5).eval()
    terms, _ = method.losses(clips_of(method), Clock())
    assert method.weights == {"predict": 1.0, "variance": 0.5} and 0 < terms["variance"] < 1
    with torch.no_grad():
        for p in method.predictor.predictor_proj.parameters():
            p.zero_()
    terms, _ = method.losses(clips_of(method), Clock())
    assert float(terms["variance"].detach()) == pytest.approx(0.99, abs=1e-6)  # 1 - sqrt(1e-4)


@NAMES
def test_sigreg_and_agreement_are_there_on_request(name: str) -> None:
    views = [{"frames": 4, "count": 2}]
    method = make(name, sigreg=0.1, agree=0.5, projector_out=8, views=views)
    terms, _ = method.losses(clips_of(method, batch=6), Clock())
    assert terms["agree"] > 0 and terms["sigreg"] > 0 and method.weights["agree"] == 0.5
    total(terms, method.weights).backward()
    assert all(p.grad is not None and p.grad.any() for p in method.projector.parameters())


@NAMES
def test_two_ranks_see_the_rows_of_one_process(name: str) -> None:
    method = make(name, views=[{"frames": 4, "count": 2}])
    batch = clips_of(method, batch=4)
    _, whole = method.losses(batch, Clock(step=3))
    parts = []
    for r in range(2):
        rows = slice(2 * r, 2 * r + 2)
        part = Clips(batch.view[:, rows], 0, batch.index[rows], batch.label[rows])
        parts.append(method.losses(part, Clock(step=3, rank=r, world=2))[1])
    for key in ("context_index", "target_index", "z", "prediction"):
        assert torch.allclose(torch.cat([p[key] for p in parts]), whole[key], atol=1e-5), key


# V-JEPA 2.1


def test_context_is_weighted_by_distance_and_lambda() -> None:
    method = make("vjepa21", context_clip=0.5, context_picture=0.25, masks=[{}]).eval()
    for kind, weight in ((0, 0.5), (1, 0.25)):
        batch = clips_of(method, kind=kind)
        clips, grid = batch.view[0], method.encoder.grid_of(batch.view[0])
        with torch.no_grad():
            terms, seen = method.losses(batch, Clock(1, 2))
            hidden, index = seen["target_index"][:, 0], seen["context_index"]
            z = method.encoder(clips, keep=index, deep=True)
            there, here = method.predictor(z, index, hidden, 0, grid=grid, picture=kind == 1)
            aim = take(method.targets(clips), index)
            near = distance(hidden, grid).gather(1, index)
        assert near.min() >= 1
        expected = weight * ((here - aim).abs().mean(-1) / near.sqrt()).mean()
        assert terms["context"] == pytest.approx(float(expected), rel=1e-5)
        assert torch.allclose(there, seen["prediction"])


def test_every_level_of_the_target_is_normed_by_itself() -> None:
    method = make("vjepa21").eval()
    batch = clips_of(method)
    levels = method.targets(batch.view[0]).unflatten(-1, (2, 32))
    assert torch.allclose(levels.mean(-1), torch.zeros(4, 32, 2), atol=1e-5)
    deep = method.teacher.layers(batch.view[0], [0, 1])
    assert torch.allclose(levels[..., 0, :], whiten_tokens(deep[0]), atol=1e-5)
    assert torch.equal(method.encode(batch.view[0]), deep[1])


def test_lambda_rises_in_a_line_and_stays() -> None:
    method = make("vjepa21", context_from=0.1, context_full=0.3, context_clip=2.0)
    at = [method.dense(Clock(s, 100), False) for s in (0, 10, 20, 30, 99)]
    assert at == pytest.approx([0.0, 0.0, 1.0, 2.0, 2.0])
    cfg = VJEPA21Config()
    assert (cfg.context_from * 135_000, cfg.context_full * 135_000) == pytest.approx((15_000, 30_000))


def test_pictures_have_a_path_of_their_own() -> None:
    """A step of pictures moves the projection and vectors of pictures, a step of clips those of clips; none waits."""
    own = ("patch_embed_img.", "img_mod_embed")
    for kind, moved, still in ((0, ("patch_embed.", "video_mod_embed"), own), (1, own, ("patch_embed.", "video_mod"))):
        method = make("vjepa21")
        terms, _ = method.losses(clips_of(method, kind=kind), Clock())
        total(terms, method.weights).backward()
        for part in (method.encoder, method.predictor):
            for name, p in part.named_parameters():
                assert p.grad is not None, name
                if name.startswith(moved):
                    assert p.grad.any(), name
                if name.startswith(still):
                    assert not p.grad.any(), name


# the future


def test_the_future_follows_the_past_that_is_seen() -> None:
    method = make("future", views=[{"frames": 12}], horizon=2, past=3)
    _, seen = method.losses(clips_of(method), Clock())
    assert seen["context_index"].tolist() == [list(range(3 * 16))] * 4
    assert seen["target_index"].shape == (4, 2, 16) and int(seen["target_index"].min()) == 3 * 16
    assert seen["prediction"].shape == (4, 2, 16, 32)


def test_the_future_of_a_clip_is_predicted_better_than_that_of_another() -> None:
    """After 80 steps, on clips never seen; and the features still differ from clip to clip."""
    method = make("future", views=[{"frames": 6}], ema=(0.99, 1.0), sigreg=0.02, predictor_depth=2)
    opt = torch.optim.AdamW(trainable(method), lr=5e-3)
    for i in range(80):
        step(method, opt, drifting(method.cfg.views, 12, i, 16), Clock(i, 80))
    _, seen = method.eval().losses(drifting(method.cfg.views, 32, 1000, 16), Clock())
    own, other = ((seen["prediction"] - x).abs().mean() for x in (seen["target"], seen["target"].roll(1, 0)))
    assert own < 0.8 * other and seen["target"].var(0).mean() > 0.3, (own, other)


# settings


@pytest.mark.parametrize(
    ("config", "changes", "says"),
    [
        (VJEPAConfig, {"views": []}, "views must name"),
        (VJEPAConfig, {"views": [{"frames": 5}]}, "frames of a view must be 1 or a multiple"),
        (VJEPAConfig, {"views": [{"frames": 4, "fps": 4, "stride": 2}]}, "stride must be left out"),
        (VJEPAConfig, {"agree": 0.5}, "agree must be 0 without sigreg"),
        (VJEPAConfig, {"mask": []}, "Did you mean 'masks'"),
        (VJEPA21Config, {"mask_tokens": 1}, "mask_tokens must be at least"),
        (VJEPA21Config, {"context_from": 0.5, "context_full": 0.2}, "context_full must not be before"),
        (FutureConfig, {"views": [{"frames": 4}], "horizon": 2}, "at least 3 tubelets"),
        (FutureConfig, {"views": [{"frames": 1}]}, "at least 2 tubelets"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: type, changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(config, changes)


def test_an_encoder_of_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="encoder must be a ClipViT"):
        VJEPA(VJEPAConfig(), size=32, encoder=build_encoder("vit_micro/4", size=16))


def test_published_sizes() -> None:
    """The predictors of V-JEPA ("22 M" for ViT-L) and the settings that the papers name."""
    cfg = VJEPAConfig()
    with torch.device("meta"):
        net = ClipPredictor(
            1024, (8, 14, 14), width=cfg.predictor_width, depth=cfg.predictor_depth, heads=16, mask_tokens=cfg.tokens
        )
    assert 21e6 < sum(p.numel() for p in net.parameters()) < 23e6
    assert [(m.blocks, m.scale) for m in cfg.masks] == [(8, (0.15, 0.15)), (2, (0.7, 0.7))]


@pytest.mark.parametrize("config", [VJEPAConfig, VJEPA21Config])
def test_a_grid_too_small_for_the_masks_names_the_setting_and_one_that_works(config: type) -> None:
    method: Any = METHODS[config.model_fields["name"].default]
    small = {"encoder": {"name": "vit_micro/16", "pos": "rope"}, "predictor_width": 16, "predictor_heads": 2}
    views = {"views": [{"frames": 8}], "predictor_depth": 1}
    with pytest.raises(ValueError, match=r"method.masks must suit frames of 2 x 2 patches") as refused:
        method(config.model_validate(small | views), size=32)
    masks = scalar(str(refused.value).split("method.masks=")[1].split(", finer")[0])
    assert len(masks) == 2
    method(config.model_validate(small | views | {"masks": masks}), size=32)
