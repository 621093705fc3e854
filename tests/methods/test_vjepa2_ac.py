"""What is special to V-JEPA 2-AC."""

from __future__ import annotations

import pytest
import torch

from openjepa.core.compare import whiten_tokens
from openjepa.core.rollout import rollout
from openjepa.core.types import Clock, Dynamics, Space
from openjepa.methods.vjepa import VJEPA, VJEPAConfig
from openjepa.methods.vjepa2_ac import VJEPA2AC, VJEPA2ACConfig
from openjepa.nn import ClipViT, ViT
from openjepa.nn.ac_predictor import ACPredictor, rotation_3d
from openjepa.nn.position import rotate
from openjepa.nn.rescaled import Rescaled
from tests.methods.test_contract import TINY, make, step, trainable
from tests.methods.toy_windows import dot, dots
from tests.nn.test_dynamics import reach


def test_published_size() -> None:
    cfg = VJEPA2ACConfig()
    with torch.device("meta"):
        net = ACPredictor(1408, (16, 16), action=7, state=7, width=cfg.width, depth=cfg.depth, heads=cfg.heads)
    assert 295e6 < sum(p.numel() for p in net.parameters()) < 315e6  # "300 M"
    assert (cfg.window.steps, cfg.rollout, cfg.rollout_weight) == (8, 2, 1.0)


def test_is_dynamics_and_sees_all_frames_since_the_start() -> None:
    method = make("vjepa2_ac").eval()
    assert isinstance(method, Dynamics)
    batch = dot(5, 4)
    z = method.encode(batch.obs[:, 0])
    assert torch.allclose(z.mean(-1), torch.zeros(5, 16), atol=1e-5)
    future = rollout(method, z, batch.action)
    assert future.shape == (5, 3, 16, 32)
    assert torch.allclose(method.step(z, batch.action[:, 0]), future[:, 0], atol=1e-6)
    fed = torch.cat([z[:, None], future[:, :2]], 1)
    assert torch.allclose(method.predict(fed, batch.action, torch.zeros(5, 3, 2)), future, atol=1e-5)
    assert torch.allclose(future.var(-1, unbiased=False), torch.ones(5, 3, 16), atol=1e-2)


def test_the_two_terms_by_hand() -> None:
    method = make("vjepa2_ac").eval()
    batch = dot(5, 4)
    with torch.no_grad():
        terms, _ = method.losses(batch, Clock())
        z = method.encode(batch.obs.flatten(0, 1)).unflatten(0, (5, 4))
        s, a = batch.state[:, :3], batch.action
        forced = method.predict(z[:, :3], a, method.standardise(s))
        rolled = method.unroll(z[:, 0], a[:, :2], s[:, :2])
    assert terms["forced"] == pytest.approx(float((forced - z[:, 1:]).abs().mean()), rel=1e-4)
    assert terms["rolled"] == pytest.approx(float((rolled - z[:, 1:3]).abs().mean()), rel=1e-4)
    assert set(make("vjepa2_ac", rollout_weight=0.0).losses(batch, Clock())[0]) == {"forced"}


def test_predictor_looks_back_only_and_reads_action_and_state() -> None:
    net = ACPredictor(8, (2, 2), action=2, state=3, width=24, depth=2, heads=2).eval()
    z, a, s = (torch.randn(2, 4, *shape, requires_grad=True) for shape in ((4, 8), (2,), (3,)))
    out = net(z, a, s).square()
    for source in (z, a, s):
        assert torch.equal(reach(out, source), torch.ones(4, 4).tril().bool())
    bare = ACPredictor(8, (2, 2), action=0, state=0, width=24, depth=1, heads=2)
    assert bare(z, a[..., :0], s[..., :0]).shape == z.shape
    with pytest.raises(ValueError, match="2 x 2 patches"):
        net(z[:, :, :3], a, s)


def test_rotary_products_depend_on_the_distance_in_each_axis_alone() -> None:
    d, grid = 24, (3, 4)
    cos, sin = rotation_3d(d, 3, grid, prefix=2)
    q, k = torch.randn(2, 1, 1, 1, d)
    n = len(cos)
    turned = (rotate(q.expand(1, 1, n, d), (cos, sin)) @ rotate(k.expand(1, 1, n, d), (cos, sin)).mT)[0, 0]

    def at(t: int, row: int, column: int) -> int:
        return t * 14 + 2 + row * 4 + column

    assert turned[at(0, 0, 0), at(1, 1, 2)] == pytest.approx(float(turned[at(1, 1, 1), at(2, 2, 3)]), abs=1e-4)
    assert turned[at(0, 0, 0), at(0, 0, 1)] != pytest.approx(float(turned[at(0, 0, 0), at(0, 1, 0)]), abs=1e-3)
    assert turned[0, 1] == pytest.approx(float((q * k).sum()), abs=1e-4)  # action and state of one frame: no distance
    assert turned[0, 14] == pytest.approx(float(turned[15, 28 + 1]), abs=1e-4)
    with pytest.raises(ValueError, match="three axes"):
        rotation_3d(4, 1, (1, 1), 0)


def test_state_is_an_input_and_a_missing_one_is_its_mean() -> None:
    method = make("vjepa2_ac")
    for i in range(60):  # running statistics
        method.losses(dot(32, 4, seed=i), Clock())
    method.eval()
    batch = dot(5, 4)
    z = method.encode(batch.obs[:, 0])
    far, near = (method.step(z, batch.action[:, 0], batch.state[:, 0] + x) for x in (3.0, 0.0))
    assert not torch.allclose(far, near, atol=1e-3)
    mean = method.scale.running_mean.expand(5, 2)
    assert torch.allclose(method.step(z, batch.action[:, 0], mean), method.step(z, batch.action[:, 0]), atol=1e-5)
    with pytest.raises(ValueError, match="state is unknown"):
        VJEPA2AC(method.cfg, space=Space(obs=(1, 16, 16), action=2))
    without = make("vjepa2_ac", state=False)
    assert without.predictor.state is None and torch.isfinite(without.losses(batch, Clock())[0]["forced"])


def test_state_drop_hides_the_state_of_whole_windows() -> None:
    method = make("vjepa2_ac", state_drop=0.5)
    scaled = method.standardise(dot(400, 4).state, Clock(step=1))
    gone = (scaled == 0).flatten(1).all(1)
    assert gone.float().mean() == pytest.approx(0.5, abs=0.1)
    assert ((scaled == 0).flatten(1).any(1) == gone).all()


def test_the_encoder_never_moves_and_it_learns_to_move_the_dot() -> None:
    """Against the last frame again, and against the same actions in another order."""
    method = make("vjepa2_ac", width=48, depth=2)
    before = {k: v.clone() for k, v in method.encoder.state_dict().items()}
    opt = torch.optim.AdamW(trainable(method), lr=3e-3)
    for i in range(150):
        step(method, opt, dot(16, 4, seed=i), Clock(i, 150))
    assert all(torch.equal(v, before[k]) for k, v in method.encoder.state_dict().items())
    method.eval()
    batch = dot(128, 4, seed=999)
    with torch.no_grad():
        right = method.losses(batch, Clock())[0]["forced"]
        wrong = method.losses(batch._replace(action=batch.action.roll(1, 0)), Clock())[0]["forced"]
        z = method.encode(batch.obs.flatten(0, 1)).unflatten(0, (128, 4))
    assert right < (z[:, 1:] - z[:, :-1]).abs().mean() and right < 0.9 * wrong, (right, wrong)


def test_an_encoder_of_clips_sees_each_frame_as_a_whole_tubelet() -> None:
    """Built by name, or the teacher of a V-JEPA behind other statistics, as `checkpoint` brings it."""
    method = make("vjepa2_ac").eval()
    assert isinstance(method.encoder, ClipViT) and method.encoder.grid == (1, 4, 4) and method.grid == (4, 4)
    frame = dot(3, 4).obs[:, 0]
    twice = whiten_tokens(method.encoder(frame[:, None].expand(-1, 2, -1, -1, -1)))
    assert torch.equal(method.encode(frame), twice)

    cfg = VJEPAConfig.model_validate(TINY["vjepa"] | {"views": [{"frames": 8}]})
    teacher = VJEPA(cfg, size=16, channels=1).teacher
    given = Rescaled(teacher, mean=[0.0], std=[1.0], own_mean=[0.5], own_std=[2.0])
    method = VJEPA2AC(method.cfg, space=dots(16), encoder=given)
    assert method.encode(frame).shape == (3, 16, 32)
    assert torch.allclose(method.encode(frame), whiten_tokens(teacher((frame - 0.5) / 2)), atol=1e-5)
    terms, _ = method.losses(dot(3, 4), Clock())
    sum(terms.values()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert isinstance(make("vjepa2_ac", clips=False).encoder, ViT)


def test_its_planner_is_a_search_of_ours() -> None:
    from openjepa.plan.cost import CostConfig
    from openjepa.plan.protocol import planner_config
    from openjepa.presets.clips import vjepa2_ac_planner

    found = vjepa2_ac_planner()
    cem = planner_config(found["planner"])
    assert (cem.horizon, cem.samples, cem.elites, cem.iterations, cem.momentum) == (2, 400, 10, 10, 0.15)
    assert CostConfig.model_validate(found["cost"]).distance == "l1"
