"""What every method must do, at a size that takes a second."""

from __future__ import annotations

import copy

import pytest
import torch

from openjepa.core.types import Clips, Clock, Pictures, Windows
from openjepa.methods import METHODS, Method, total
from tests.methods.toy_clips import drifting
from tests.methods.toy_windows import OSCILLATOR, dot, dots, oscillator

SIZE, BATCH = 16, 12
CLIP = {
    "encoder": {"name": "vit_nano/4", "width": 32, "depth": 2, "heads": 2, "pos": "rope"}, "views": [{"frames": 4}],
    "predictor_width": 32, "predictor_depth": 1, "predictor_heads": 2, "ema": (0.9, 0.95),
}  # fmt: skip
TUBES = {"masks": [{}, {"blocks": 2, "scale": (0.5, 0.5)}]}
TINY = {
    "ijepa": {"encoder": {"name": "vit_nano/4", "width": 32, "depth": 2, "heads": 2, "pos": "rope"},
              "predictor_width": 32,
              "predictor_depth": 1, "ema": (0.9, 0.95)},
    "lejepa": {"encoder": {"name": "vit_nano/4", "width": 32, "depth": 2, "heads": 2}, "projector_hidden": 64,
               "projector_out": 16, "slices": 64, "lam": 0.1, "global_views": {"count": 2},
               "local_views": {"count": 2, "size": 8, "scale": (0.1, 0.4)}},
    "dino_wm": {"encoder": {"name": "vit_nano/4", "width": 32, "depth": 2, "heads": 2}, "history": 2, "window": 4,
                "depth": 1, "heads": 2, "head_dim": 8, "mlp": 32},
    "lewm": {"encoder": {"name": "vit_nano/4", "width": 32, "depth": 2, "heads": 2, "cls": True}, "dim": 16,
             "projector_hidden": 64, "window": 4, "depth": 1, "heads": 2, "head_dim": 8, "mlp": 32,
             "action_hidden": 16, "slices": 64},
    "masked": {"encoder": {"name": "vit_nano/4", "width": 32, "depth": 2, "heads": 2}},
    "pldm": {"encoder": "convnet_lean", "dim": 32, "window": 5, "unroll": 4, "inverse_width": 32},
    "future": CLIP,
    "vjepa": CLIP | TUBES,
    "vjepa21": CLIP | TUBES | {"encoder": CLIP["encoder"] | {"levels": 2, "picture_patch": True}, "mask_tokens": 2,
                               "views": [{"frames": 4}, {"frames": 1}], "context_from": 0, "context_full": 0},
    "state": {"dim": 16, "width": 32, "prior_width": 8},
    "vjepa2_ac": {"encoder": {"name": "vit_nano/4", "width": 32, "depth": 2, "heads": 2}, "window": 4, "width": 32,
                  "depth": 1, "heads": 2},
}  # fmt: skip
SPACES = {"state": OSCILLATOR}  # the other window methods see the dot
FIXED = {"dino_wm", "future", "pldm", "vjepa2_ac"}  # a step of these draws nothing but dropout
FROZEN = {"dino_wm", "vjepa2_ac"}  # the encoder is given, so that z cannot collapse and is no business of the loss


def make(name: str, seed: int = 0, **changes: object) -> Method:
    torch.manual_seed(seed)
    cls = METHODS[name]
    cfg = cls.Config.model_validate({**TINY[name], **changes})
    if cls.eats == "windows":
        return cls(cfg, space=SPACES.get(name, dots(SIZE)))  # type: ignore[call-arg]
    return cls(cfg, size=SIZE)  # type: ignore[call-arg]


def batch_for(method: Method, seed: int = 0, batch: int = BATCH, kind: int = 0) -> Pictures | Clips | Windows:
    if method.eats == "pictures":
        return pictures(method, seed, batch)
    if method.eats == "clips":
        return drifting(method.cfg.views, batch, seed, SIZE, kind=kind)
    steps = method.cfg.window.steps
    return oscillator(batch, steps, seed) if method.cfg.name == "state" else dot(batch, steps, seed, SIZE)


def pictures(method: Method, seed: int = 0, batch: int = BATCH) -> Pictures:
    """Smooth random pictures with some content in common between views: low-frequency waves, two phases per view."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(batch, 3, 4, 4, generator=g)
    views = []
    for v in method.cfg.views:
        size = v.size or SIZE
        x = torch.nn.functional.interpolate(base, size=(size, size), mode="bicubic")
        views.append(x + 0.3 * torch.randn(v.count, batch, 3, size, size, generator=g))
    return Pictures(tuple(views), torch.arange(batch), torch.full((batch,), -1))


def step(method: Method, opt: torch.optim.Optimizer, batch: Pictures | Clips | Windows, clock: Clock) -> float:
    method.train()
    terms, _ = method(batch, clock)
    loss = total(terms, method.weights)
    opt.zero_grad()
    loss.backward()
    opt.step()
    method.after_step(clock)
    return float(loss.detach())


def trainable(method: Method) -> list[torch.Tensor]:
    return [p for p in method.parameters() if p.requires_grad]


@pytest.fixture(params=sorted(METHODS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_terms_equal_weights_and_are_finite_scalars(name: str) -> None:
    method = make(name)
    terms, seen = method.losses(batch_for(method), Clock(total=10))
    assert terms.keys() == method.weights.keys()
    assert all(t.shape == () and torch.isfinite(t) for t in terms.values())
    assert {"z", "prediction", "target"} <= seen.keys()
    assert not any(x.requires_grad for x in seen.values())


def test_a_term_without_a_weight_raises(name: str) -> None:
    method = make(name)
    terms, _ = method.losses(batch_for(method), Clock(total=10))
    with pytest.raises(ValueError, match="loss terms must be"):
        total({**terms, "extra": torch.tensor(0.0)}, method.weights)


def test_gradients_reach_every_trainable_parameter_and_never_the_teacher(name: str) -> None:
    method = make(name)
    if method.eats == "windows":  # adaptive norms start at zero: the first steps open what lies behind their gates
        opt = torch.optim.AdamW(trainable(method), lr=1e-3)
        for i in range(3):
            step(method, opt, batch_for(method), Clock(i, 10))
        opt.zero_grad()
    for kind in range(len(method.cfg.views) if method.eats == "clips" else 1):
        terms, _ = method.losses(batch_for(method, kind=kind), Clock(total=10))
        total(terms, method.weights).backward()
    silent = [n for n, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    # a bias in front of a normalisation over the batch is cancelled by it: its gradient is zero up to rounding
    assert silent == []
    assert all(p.grad is None for n, p in method.named_parameters() if n.startswith("teacher."))


def test_same_seed_same_numbers_and_the_step_matters(name: str) -> None:
    runs = []
    for _ in range(2):
        method = make(name)
        opt = torch.optim.AdamW(trainable(method), lr=1e-3)
        runs.append([step(method, opt, batch_for(method), Clock(i, 3)) for i in range(3)])
    assert runs[0] == runs[1]
    if name in FIXED:
        return
    method = make(name)
    a, b = (method.losses(batch_for(method), Clock(i, 3))[0] for i in (0, 1))
    assert any(a[k] != b[k] for k in a)


def test_thirty_steps_on_one_batch_lower_the_loss(name: str) -> None:
    method = make(name)
    # on clips a prediction that knows nothing already has an L1 of 0.8 to normed tokens, and gets away from it slowly
    opt = torch.optim.AdamW(trainable(method), lr=1e-2 if method.eats == "clips" else 3e-3)
    losses = [step(method, opt, batch_for(method), Clock(0, 30)) for _ in range(30)]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_state_round_trips(name: str) -> None:
    method, other = make(name, seed=0), make(name, seed=1)
    opt = torch.optim.AdamW(trainable(method), lr=1e-3)
    step(method, opt, batch_for(method), Clock(0, 3))
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    a, b = (m.losses(batch_for(method), Clock(1, 3))[0] for m in (method.eval(), other.eval()))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_encode_gives_tokens_without_prefix(name: str) -> None:
    method = make(name).eval()
    if method.eats == "windows":
        pytest.skip("see test_dynamics")
    with torch.no_grad():
        z = method.encode(torch.randn(3, 3, SIZE, SIZE))
    assert z.shape == (3, 16, 32)


def test_features_do_not_collapse_in_a_hundred_steps(name: str) -> None:
    """The spread of the features between pictures stays a fair share of what it was; see the negative controls."""
    method = make(name)
    opt = torch.optim.AdamW(trainable(method), lr=1e-3)
    before = spread(method)
    for i in range(100):
        step(method, opt, batch_for(method, seed=i), Clock(i, 100))
    assert spread(method) > 0.3 * before


@torch.no_grad()
def spread(method: Method) -> float:
    """How different the pooled features of different pictures are: mean per-feature std over their root mean square."""
    method.eval()
    batch = batch_for(method, seed=1000, batch=64)
    obs = {Windows: lambda: batch.obs[:, 0], Pictures: lambda: batch.views[0][0], Clips: lambda: batch.view[0]}
    z = method.encode(obs[type(batch)]())
    z = z.flatten(1) if method.eats == "windows" else z.mean(1)  # (B, D)
    return float(z.std(0).mean() / z.square().mean().sqrt())
