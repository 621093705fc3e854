"""Few labels, ridge, known factors, the online observer and the baselines: known answers for each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from openjepa.core.types import Moment
from openjepa.nn import build_encoder
from openjepa.probe import Features, OnlineProbe, attentive, baselines, fewshot, pixels, regress, settle, untrained
from openjepa.probe.fewshot import draw
from openjepa.probe.finetune import Classifier, layer_groups
from openjepa.probe.ridge import ridge, ridge_classes


def clusters(n: int, seed: int, noise: float) -> Features:
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    centres = torch.randn(4, 16, generator=torch.Generator().manual_seed(9))
    return Features(centres[labels] + noise * torch.randn(n, 16, generator=g), labels, torch.arange(n))


def test_draws_are_stratified_seeded_and_nested():
    labels = torch.arange(200) % 4
    one, five = draw(labels, 1, seed=3), draw(labels, 5, seed=3)
    assert torch.bincount(labels[five]).tolist() == [5, 5, 5, 5]
    assert set(one.tolist()) <= set(five.tolist())  # more labels means more of the same, not others
    assert torch.equal(five, draw(labels, 5, seed=3)) and not torch.equal(five, draw(labels, 5, seed=4))
    assert torch.bincount(labels[draw(labels, 0.1, seed=0)]).tolist() == [5, 5, 5, 5]
    assert len(draw(labels, 0.001, seed=0)) == 4  # at least one of each


def test_more_labels_are_better_and_intervals_are_over_draws():
    found = fewshot(clusters(400, 0, 2.0), clusters(400, 1, 2.0), resamples=6, fractions=(0.01, 0.5))
    by_name = {part.name: part for part in found.parts}
    for readout in ("logistic", "nearest mean"):
        shares = [by_name[f"{n} per class ({readout})"].accuracy for n in (1, 5, 10)]
        assert shares == sorted(shares)
        assert by_name[f"50 % ({readout})"].accuracy > shares[1]
        assert by_name[f"1 % ({readout})"].settings["labels"] == 4  # 1 % of 100 per class
    head = by_name["10 per class (logistic)"]
    assert found.accuracy == head.accuracy and found.settings["headline"] == head.name
    assert head.settings["interval"] == "draws of labels" and len(head.settings["each"]) == 6


def test_few_labels_do_not_depend_on_the_scale_of_the_features():
    a, b = clusters(200, 0, 1.5), clusters(200, 1, 1.5)
    plain = fewshot(a, b, resamples=3, fractions=())
    big = fewshot(*(Features(1000 * f.z + 7, f.labels, f.index) for f in (a, b)), resamples=3, fractions=())
    for one, other in zip(plain.parts, big.parts, strict=True):
        assert one.accuracy == pytest.approx(other.accuracy, abs=0.01)


def test_too_few_pictures_for_every_setting():
    data = clusters(8, 0, 0.1)
    with pytest.raises(ValueError, match="up to 2"):
        fewshot(data, data, per_class=(5,), fractions=())


@pytest.mark.parametrize("shape", [(80, 6), (20, 30)])
@pytest.mark.parametrize("l2", [1e-3, 0.1, 10.0])
def test_ridge_equals_the_normal_equations(shape: tuple[int, int], l2: float):
    z, y = torch.randn(*shape), torch.randn(shape[0], 3)
    found = ridge(z, y, grid=(l2,), scaling="raw")
    x = ((z - z.mean(0)) * found.axes.scale).double()
    want = torch.linalg.solve(
        x.T @ x / len(x) + l2 * torch.eye(shape[1]).double(), x.T @ (y - y.mean(0)).double() / len(x)
    )
    torch.testing.assert_close(found(z).double(), x @ want + y.mean(0).double(), atol=1e-4, rtol=1e-4)


def test_ridge_leaves_one_out_without_leaving_any_out():
    z, y = torch.randn(25, 4), torch.randn(25, 1)
    errors = {}
    for l2 in (1e-2, 1.0):
        x = torch.cat([(z - z.mean(0)) / z.std(0, unbiased=False)], 1).double()
        total = 0.0
        for i in range(25):
            rest = torch.arange(25) != i
            # the shift of all pictures is kept and the mean of the others fitted, as the leverage formula has it
            design = torch.cat([x, torch.ones(25, 1).double()], 1)
            penalty = torch.diag(torch.tensor([l2] * 4 + [0.0]).double()) * 25
            w = torch.linalg.solve(design[rest].T @ design[rest] + penalty, design[rest].T @ y[rest].double())
            total += float((design[i] @ w - y[i].double()).square())
        errors[l2] = total
    assert ridge(z, y, grid=(1e-2, 1.0)).l2 == min(errors, key=errors.__getitem__)


def test_ridge_names_classes():
    a, b = clusters(200, 0, 0.3), clusters(100, 1, 0.3)
    assert torch.equal(ridge_classes(a.z, a.labels, b.z, classes=4), b.labels)


def test_r2_is_the_share_of_variance_that_was_there():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 5, generator=g)
    noise = torch.randn(4000, generator=g)
    targets = torch.stack([z[:, 0], z[:, 1] + noise, noise, z[:, 2].square()], 1)  # known shares: 1, 1/2, 0, 0
    found = regress(z[:2000], targets[:2000], z[2000:], targets[2000:], names=["all", "half", "none", "curved"])
    assert found.r2 == pytest.approx((1.0, 0.5, 0.0, 0.0), abs=0.04)
    for value, (low, high) in zip(found.r2, found.intervals, strict=True):
        assert low <= value <= high and high - low < 0.15
    rows = found.as_dict()["targets"]
    assert rows[1]["name"] == "half" and rows[1]["low"] < rows[1]["r2"] < rows[1]["high"]
    with pytest.raises(ValueError, match="must be 4 each"):
        regress(z, targets, z, targets, names=["a"])


class Toy(nn.Module):
    """A method as an observer sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 2, stride=2), nn.BatchNorm2d(8), nn.Dropout(0.5))

    def encode(self, obs: torch.Tensor) -> torch.Tensor:
        return self.net(obs).flatten(2).transpose(1, 2)


def source(n: int, seed: int):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    x = (labels * 2.0 - 1)[:, None, None, None] * torch.ones(4, 4).triu() + 0.2 * torch.randn(n, 1, 4, 4, generator=g)
    return lambda: zip(x.split(16), labels.split(16), torch.arange(n).split(16), strict=True)


def test_online_probe_changes_nothing_and_repeats_exactly():
    method = Toy().train()
    moment = Moment(5, 10, method, {}, {})
    before = {k: v.clone() for k, v in method.state_dict().items()}
    state = torch.get_rng_state()
    probe = OnlineProbe(source(64, 0), source(32, 1))
    first, second = probe(moment), probe(moment)
    assert first == second == {"probe/knn": 1.0, "probe/linear": 1.0}
    assert torch.equal(state, torch.get_rng_state()) and method.training and method.net[2].training
    assert all(torch.equal(before[k], v) for k, v in method.state_dict().items())
    assert all(p.grad is None for p in method.parameters())
    assert OnlineProbe(source(64, 0), source(32, 1))(moment) == first  # nothing is remembered between looks


def test_online_probe_is_silent_about_a_diverged_run():
    method = Toy()
    with torch.no_grad():
        method.net[0].weight.fill_(float("nan"))
    assert OnlineProbe(source(64, 0), source(32, 1))(Moment(5, 10, method, {}, {})) == {}


def test_pixels():
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(pixels()(x), x.flatten(1))
    torch.testing.assert_close(pixels(size=4)(torch.full((1, 3, 8, 8), 0.3)), torch.full((1, 48), 0.3))
    assert pixels(size=2)(x).std() < x.std()  # an antialiased reduction averages
    assert torch.equal(pixels(size=8)(x), x.flatten(1))


def test_untrained_is_seeded_and_leaves_the_global_state():
    state = torch.get_rng_state()
    a, b, c = (untrained("vit_micro/4", size=8, seed=s) for s in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(a(x), b(x)) and not torch.equal(a(x), c(x)) and not a.training


def test_settled_batch_norms_have_the_statistics_of_the_pictures():
    g = torch.Generator().manual_seed(0)
    batches = [(5 + 3 * torch.randn(32, 3, 16, 16, generator=g), torch.zeros(32), torch.arange(32)) for _ in range(4)]
    net = baselines.untrained("resnet18", size=16, batches=batches)
    fresh = baselines.untrained("resnet18", size=16)
    first = next(m for m in net.modules() if isinstance(m, nn.BatchNorm1d))
    seen = []
    hook = first.register_forward_hook(lambda m, args, out: seen.append(out.detach().clone()))
    for x, _, _ in batches:
        net(x)
    hook.remove()
    out = torch.cat(seen)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(out.shape[1]), atol=0.05, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(out.shape[1]), atol=0.05, rtol=0)
    assert first.momentum == 0.1 and not net.training
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), fresh.parameters(), strict=True))
    vit = untrained("vit_micro/4", size=8)
    settle(vit, [])  # nothing to settle


@pytest.mark.parametrize("name", ["vit_micro/4", "resnet18", "convnext_atto", "convnet_tiny"])
def test_fine_tuning_rates_rise_with_depth_and_cover_every_parameter(name: str):
    encoder = build_encoder(name, size=32)
    model = Classifier(encoder, 3, "mean")
    groups = layer_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5)
    rate = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert set(rate) == {id(p) for p in model.parameters()}
    assert sum(len(g["params"]) for g in groups) == len(rate)
    n = len(encoder.blocks)
    for i, block in enumerate(encoder.blocks):
        assert {rate[id(p)] for p in block.parameters()} <= {0.5 ** (n - i)}
    assert rate[id(model.head.linear.weight)] == 1.0
    first = next(encoder.parameters())
    assert rate[id(first)] == 0.5 ** (n + 1) or name == "convnet_tiny"
    assert all(g["weight_decay"] == 0 for g in groups for p in g["params"] if p.dim() < 2)


def test_the_rate_of_the_attentive_probe_is_chosen_on_held_out_training_pictures():
    data = clusters(120, 0, 0.3)
    found = attentive(data, clusters(40, 1, 0.3), lrs=(1e-7, 1e-2), epochs=6, batch_size=16)
    assert found.settings["lr"] == 1e-2 and found.accuracy > 0.95
    assert found.settings["held_out"]["1e-07"] < 0.8 < found.settings["held_out"]["0.01"]
