"""Groups and rates of the optimiser."""

import pytest
import torch
from torch import nn

from openjepa.train.optim import learning_rate, make_optimizer, param_groups, set_rates, weight_decay
from openjepa.train.run import OptimConfig
from tests.train.toys import toy


def test_every_trainable_parameter_is_in_exactly_one_group():
    method = toy()
    groups = {g["name"]: g["params"] for g in param_groups(method)}
    assert set(groups) == {"encoder", "encoder/no_decay", "rest", "rest/no_decay"}
    ids = [id(p) for ps in groups.values() for p in ps]
    assert sorted(ids) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    assert all(p.ndim > 1 for name in ("encoder", "rest") for p in groups[name])
    assert all(p.ndim == 1 for name in ("encoder/no_decay", "rest/no_decay") for p in groups[name])
    assert any(p is method.hidden for p in groups["rest/no_decay"])


def test_a_two_dimensional_bias_does_not_decay():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.rel_bias = nn.Parameter(torch.zeros(2, 2))
            self.mask_token = nn.Parameter(torch.zeros(1, 1, 2))

    assert [g["name"] for g in param_groups(Odd())] == ["rest", "rest/no_decay"]


def test_nothing_to_train():
    with pytest.raises(ValueError, match="must have trainable parameters"):
        make_optimizer(nn.Linear(1, 1).requires_grad_(False), OptimConfig())


def test_decay_alone_shrinks_exactly_the_decaying_weights():
    net = nn.Linear(2, 2)
    nn.init.ones_(net.bias)
    cfg = OptimConfig(lr=0.1, weight_decay=0.5, warmup=0, schedule="constant")
    optimizer = make_optimizer(net, cfg)
    before = net.weight.detach().clone()
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.allclose(net.weight, before * (1 - 0.1 * 0.5)) and torch.equal(net.bias, torch.ones(2))


def test_published_ijepa_schedule():
    """Warm-up 2e-4 -> 1e-3 over 40 of 300 epochs, cosine to 1e-6, weight decay 0.04 -> 0.4."""
    cfg = OptimConfig(lr=1e-3, warmup=40, start_factor=0.2, final_factor=1e-3, weight_decay=0.04, weight_decay_end=0.4)
    rates = [learning_rate(cfg, s, 300) for s in range(301)]
    assert rates[0] == pytest.approx(2e-4) and rates[20] == pytest.approx(6e-4) and rates[40] == pytest.approx(1e-3)
    assert rates[170] == pytest.approx((1e-3 + 1e-6) / 2) and rates[300] == pytest.approx(1e-6)
    assert rates.index(max(rates)) == 40
    assert weight_decay(cfg, 0, 300) == pytest.approx(0.04) and weight_decay(cfg, 150, 300) == pytest.approx(0.22)


def test_other_shapes():
    def rate(step, **kw):
        return learning_rate(OptimConfig(lr=1.0, start_factor=0.0, final_factor=0.0, **kw), step, 100)

    assert rate(5, warmup=0.1) == pytest.approx(0.5)  # a share of the run
    assert rate(5, warmup=10) == pytest.approx(0.5)  # or a number of steps
    assert rate(0, warmup=0) == 1.0
    assert [rate(s, warmup=0, schedule="wsd", cooldown=0.2) for s in (0, 80, 90)] == pytest.approx([1, 1, 0.5])
    assert [rate(s, warmup=0, schedule="linear") for s in (0, 25, 75)] == pytest.approx([1, 0.75, 0.25])
    assert rate(99, warmup=0.1, schedule="constant") == 1.0
    assert rate(50, warmup=500) == pytest.approx(0.5)  # a warm-up longer than the run ends with it


def test_rates_are_written_to_all_groups():
    optimizer = make_optimizer(toy(), OptimConfig())
    lr, decay = set_rates(optimizer, OptimConfig(), 50, 100)
    for group in optimizer.param_groups:
        assert group["lr"] == lr
        assert group["weight_decay"] == (0.0 if group["name"].endswith("no_decay") else decay)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_the_rate_runs_its_whole_schedule_in_every_stage(schedule) -> None:
    cfg = OptimConfig(lr=1.0, warmup=0.1, final_factor=0.01, schedule=schedule)
    whole = [learning_rate(cfg, s, 205, [0.25, 0.7]) for s in range(205)]
    assert whole == [learning_rate(cfg, s, n) for n in (52, 92, 61) for s in range(n)]  # ceil of 51.25 and 143.5


def test_a_stretched_schedule_is_the_beginning_of_a_longer_one() -> None:
    """V-JEPA's stop at 1 / 1.25 of theirs; the warm-up is counted from the run itself."""
    cfg = OptimConfig(lr=1.0, warmup=0.1, final_factor=0.0, weight_decay=0.04, weight_decay_end=0.4)
    early = cfg.override({"stretch": 1.25})
    longer = cfg.override({"warmup": 10})
    for step in (0, 5, 9, 10, 50, 99):
        assert learning_rate(early, step, 100) == pytest.approx(learning_rate(longer, step, 125))
        assert weight_decay(early, step, 100) == pytest.approx(weight_decay(longer, step, 125))
    assert learning_rate(early, 99, 100) > 0.05 and weight_decay(early, 99, 100) < 0.39
