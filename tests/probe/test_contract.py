"""Every probe of the table: perfect where it can be, at chance where there is nothing, the same for the same seed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from openjepa.nn import Encoder
from openjepa.probe import PROBES, Features, Labelled, ProbeResult

CLASSES, SIDE = 4, 4
QUICK = {  # enough for a toy
    "linear": {},
    "knn": {},
    "fewshot": {"resamples": 4, "fractions": (0.1,)},
    "attentive": {"epochs": 12, "batch_size": 16, "lrs": (1e-2,)},
    "attentive_deep": {"epochs": 12, "batch_size": 16, "lrs": (3e-3,)},
    "finetune": {"epochs": 12, "batch_size": 16, "lr": 1e-2},
}


class Patches(Encoder):
    """A linear map of 2 x 2 patches: small, and with every attribute of an encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.grid, self.prefix, self.patch = 12, (2, 2), 0, 2
        self.embed = nn.Conv2d(1, 12, 2, stride=2)
        self.blocks = nn.ModuleList([nn.Linear(12, 12)])
        self.norm = nn.LayerNorm(12)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        return self.layers(x, [-1])[0]

    def layers(self, x: Tensor, indices) -> list[Tensor]:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return [self.norm(tokens + self.blocks[0](tokens)) for _ in indices]


def toy(n: int, seed: int, *, shuffled: bool = False) -> tuple[Tensor, Tensor]:
    """Four patterns in strong contrast, with noise; or the same pictures with labels that mean nothing."""
    g = torch.Generator().manual_seed(seed)
    patterns = torch.randn(CLASSES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % CLASSES
    pictures = 3 * patterns[labels] + 0.3 * torch.randn(n, 1, SIDE, SIDE, generator=g)
    return pictures, labels[torch.randperm(n, generator=g)] if shuffled else labels


def labelled(encoder: Encoder, n: int, seed: int, *, shuffled: bool = False) -> Labelled:
    pictures, labels = toy(n, seed, shuffled=shuffled)
    rows = torch.arange(n)
    return Labelled(encoder, lambda: list(zip(pictures.split(32), labels.split(32), rows.split(32), strict=True)))


def run(name: str, *, seed: int = 0, shuffled: bool = False) -> ProbeResult:
    torch.manual_seed(0)
    encoder = Patches()
    train = labelled(encoder, 160, 1, shuffled=shuffled)
    return PROBES[name](train, labelled(encoder, 200, 2, shuffled=shuffled), seed=seed, **QUICK[name])


def test_the_table_is_covered():
    assert set(QUICK) == set(PROBES)


@pytest.mark.parametrize("name", PROBES)
def test_separable_is_solved(name: str):
    found = run(name)
    assert found.accuracy > 0.98 and found.n == 200
    assert found.name == name
    assert all(part.accuracy > 0.9 for part in found.parts)


@pytest.mark.parametrize("name", PROBES)
def test_shuffled_labels_are_at_chance(name: str):
    found = run(name, shuffled=True)
    assert abs(found.accuracy - 1 / CLASSES) < 0.12  # four standard errors of 200 pictures
    low, high = found.interval
    assert 0 <= low <= found.accuracy <= high <= 1


@pytest.mark.parametrize("name", PROBES)
def test_same_seed_same_numbers_whatever_the_global_state(name: str):
    first = run(name, shuffled=True)
    state = torch.get_rng_state()
    torch.manual_seed(123)
    encoder = Patches()
    encoder.load_state_dict(_state())
    train, test = (labelled(encoder, n, s, shuffled=True) for n, s in ((160, 1), (200, 2)))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    second = PROBES[name](train, test, seed=0, **QUICK[name])
    assert torch.equal(before, torch.get_rng_state()), "a probe must not draw from the global generator"
    torch.set_rng_state(state)
    assert first.as_dict() == second.as_dict()


def _state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Patches().state_dict()


@pytest.mark.parametrize("name", PROBES)
def test_the_encoder_is_not_touched(name: str):
    torch.manual_seed(0)
    encoder = Patches().train()
    encoder.norm.eval()  # a module in its own mode
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    PROBES[name](labelled(encoder, 80, 1), labelled(encoder, 40, 2), seed=0, **QUICK[name])
    assert encoder.training and encoder.blocks.training and not encoder.norm.training
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize("name", PROBES)
def test_result_is_plain_json(name: str):
    found = run(name)
    back = json.loads(json.dumps(found.as_dict()))
    assert back["accuracy"] == found.accuracy and back["low"] <= back["high"]
    assert len(found.rows()) == max(1, len(found.parts))
    assert "interval" in back["settings"]
    with pytest.raises(AttributeError):
        found.accuracy = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("name", PROBES)
def test_unseen_and_unknown_labels(name: str):
    encoder = Patches()
    train, test = labelled(encoder, 80, 1), labelled(encoder, 40, 2)
    strange = replace(test, batches=lambda: [(x, y + 1, i) for x, y, i in test.batches()], _kept={})
    with pytest.raises(ValueError, match="unseen"):
        PROBES[name](train, strange, seed=0, **QUICK[name])
    none = replace(test, batches=lambda: [(x, y * 0 - 1, i) for x, y, i in test.batches()], _kept={})
    with pytest.raises(ValueError, match="labels must be known"):
        PROBES[name](train, none, seed=0, **QUICK[name])


@pytest.mark.parametrize("name", ["attentive", "finetune"])
def test_several_seeds_give_an_interval_over_seeds(name: str):
    encoder = Patches()
    train, test = labelled(encoder, 80, 1, shuffled=True), labelled(encoder, 40, 2, shuffled=True)
    found = PROBES[name](train, test, seed=3, repeats=3, **QUICK[name])
    assert found.settings["interval"] == "seeds" and len(found.settings["each"]) == 3
    assert found.accuracy == pytest.approx(sum(found.settings["each"]) / 3)
    alone = PROBES[name](train, test, seed=4, repeats=1, **QUICK[name])
    if name == "finetune":  # attentive chooses its rate with the first seed
        assert alone.accuracy == found.settings["each"][1]


def test_features_alone_do_for_all_but_fine_tuning():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    data = Features(torch.eye(8)[labels] * 5 + torch.randn(60, 8, generator=g) * 0.2, labels, torch.arange(60))
    for name in ("linear", "knn", "fewshot"):
        assert PROBES[name](data, data).accuracy == 1.0
    with pytest.raises(ValueError, match="must be Labelled"):
        PROBES["finetune"](data, data)
