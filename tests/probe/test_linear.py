"""The linear probe against scikit-learn, and what its two scalings say about collapsed features."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from openjepa.probe import Features, linear
from openjepa.probe.logistic import axes_of, fit, predict
from openjepa.probe.result import hold_out


def toy(n: int, d: int, classes: int, *, seed: int = 0, noise: float = 1.0, stretch: float = 1.0) -> Features:
    """Gaussian clusters in features whose scales differ by `stretch`; centres do not depend on `seed`."""
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=g)
    z = centres[labels] + noise * torch.randn(n, d, generator=g)
    scale = torch.logspace(0, np.log10(stretch), d) if stretch != 1 else torch.ones(d)
    return Features(z * scale + 3, labels, torch.arange(n))


def sklearn_weights(x: torch.Tensor, labels: torch.Tensor, l2: float) -> tuple[np.ndarray, np.ndarray]:
    model = pytest.importorskip("sklearn.linear_model").LogisticRegression(C=1 / (l2 * len(x)), max_iter=5000, tol=1e-9)
    model.fit(x.double().numpy(), labels.numpy())
    return model.coef_, model.intercept_


@pytest.mark.parametrize("scaling", ["standardised", "raw"])
@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("shape", [(300, 12), (40, 60)])  # more pictures than features, and fewer
def test_same_optimum_as_sklearn(scaling, l2: float, shape: tuple[int, int]):
    data = toy(*shape, classes=4, noise=3.0, stretch=30.0)
    axes = axes_of(data.z, scaling)
    x = axes.apply(data.z)
    found = fit(x, data.labels, axes.variance, classes=4, l2=l2)
    plain = (data.z - axes.mean) * axes.scale  # what the axes are a rotation of
    coef, intercept = sklearn_weights(plain, data.labels, l2)
    want = torch.from_numpy(plain.double().numpy() @ coef.T + intercept).float()
    got = x @ found.weight.T + found.bias
    p, q = want.softmax(1), got.softmax(1)
    assert (p - q).abs().max() < 5e-3
    objective = [
        float(torch.nn.functional.cross_entropy(logits, data.labels)) + 0.5 * l2 * weight
        for logits, weight in ((want, float((coef**2).sum())), (got, float(found.weight.square().sum())))
    ]
    assert objective[1] < objective[0] + 1e-5


def test_preconditioning_keeps_the_steps_few():
    data = toy(2000, 50, classes=5, noise=3.0, stretch=1e3)
    for scaling in ("standardised", "raw"):
        axes = axes_of(data.z, scaling)
        assert fit(axes.apply(data.z), data.labels, axes.variance, classes=5, l2=1e-3).steps < 60


def test_warm_start_ends_at_the_same_place():
    data = toy(400, 10, classes=3, noise=3.0)
    axes = axes_of(data.z, "standardised")
    x = axes.apply(data.z)
    cold = fit(x, data.labels, axes.variance, classes=3, l2=1e-3)
    warm = fit(
        x, data.labels, axes.variance, classes=3, l2=1e-3,
        start=fit(x, data.labels, axes.variance, classes=3, l2=1.0),
    )  # fmt: skip
    torch.testing.assert_close(warm.weight, cold.weight, atol=2e-2, rtol=2e-2)
    assert torch.equal(predict(x, warm), predict(x, cold))


def test_accuracy_is_that_of_the_bayes_classifier():
    train, test = toy(4000, 8, 4, noise=3.0), toy(4000, 8, 4, seed=1, noise=3.0)
    centres = torch.randn(4, 8, generator=torch.Generator().manual_seed(99)) + 3
    best = (torch.cdist(test.z, centres).argmin(1) == test.labels).double().mean()
    assert abs(linear(train, test).accuracy - best) < 0.015


def test_raw_shows_a_dimensional_collapse_that_standardising_hides():
    """The class is only in a direction a hundred thousand times smaller than the others."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 2
    z = torch.randn(600, 16, generator=g)
    z[:, 3] = (labels * 2.0 - 1 + 0.1 * torch.randn(600, generator=g)) * 1e-5
    data = Features(z, labels, torch.arange(600))
    standardised, raw = linear(data.rows(torch.arange(400)), data.rows(torch.arange(400, 600))).parts
    assert standardised.accuracy > 0.98 and raw.accuracy < 0.7


def test_constant_features_are_chance_and_say_so():
    labels = torch.arange(100) % 4
    z = torch.full((100, 8), 1.7) + 1e-8 * torch.randn(100, 8)
    found = linear(Features(z, labels, torch.arange(100)), Features(z, labels, torch.arange(100)))
    assert found.accuracy == pytest.approx(0.25) and found.settings["spread"] < 1e-6


def test_the_penalty_is_chosen_on_held_out_training_pictures():
    train, test = toy(80, 60, 3, noise=6.0), toy(400, 60, 3, seed=1, noise=6.0)
    found = linear(train, test)
    assert found.settings["l2"] >= 0.1  # few noisy pictures in many dimensions want a strong penalty
    weak = linear(train, test, grid=(1e-6,))
    assert found.accuracy >= weak.accuracy
    tried = found.settings["held_out"]
    assert max(tried.values()) == tried[f"{found.settings['l2']:g}"]


def test_hold_out_is_per_class_and_seeded():
    labels = torch.cat([torch.zeros(100), torch.ones(10), torch.full((1,), 2.0)]).long()
    kept, held = hold_out(labels, 0.2, seed=0)
    assert torch.bincount(labels[held], minlength=3).tolist() == [20, 2, 0]
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(111))
    assert torch.equal(held, hold_out(labels, 0.2, seed=0)[1])
    assert not torch.equal(held, hold_out(labels, 0.2, seed=1)[1])


def test_missing_class_numbers_do_not_matter():
    data = toy(200, 8, 3, noise=0.1)
    sparse = Features(data.z, data.labels * 7 + 2, data.index)  # classes 2, 9, 16
    assert linear(sparse, sparse).accuracy == 1.0


@pytest.mark.slow
def test_ten_thousand_pictures_in_seconds():
    data = toy(10_000, 384, 10, noise=8.0)
    start = time.process_time()
    linear(data, data)
    assert time.process_time() - start < 30
