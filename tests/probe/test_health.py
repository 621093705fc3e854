"""The observer: known answers, and that looking changes nothing."""

import math
import time

import pytest
import torch
from torch import nn

from openjepa.core.spread import random_directions, sigreg
from openjepa.core.types import Clock, Moment, Pictures
from openjepa.methods import IJEPA, IJEPAConfig, LeJEPA, LeJEPAConfig
from openjepa.probe.health import Monitor, quiet
from openjepa.probe.shortcut import border_share, content_share, splice, trivial_r2
from openjepa.probe.vitals import decay, features, inputs, knn_accuracy, prediction, sigreg_here, weights


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_pictures(n: int = 64, size: int = 16, channels: int = 3) -> torch.Tensor:
    coarse = torch.randn(n, channels, size // 4, size // 4, generator=generator())
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear")


def ijepa() -> IJEPA:
    torch.manual_seed(0)
    encoder = {"name": "vit_micro/4", "width": 32, "depth": 2, "heads": 2, "drop_path": 0.2}
    return IJEPA(IJEPAConfig(encoder=encoder, predictor_width=32, predictor_depth=1), size=16)


def lejepa() -> LeJEPA:
    torch.manual_seed(0)
    cfg = LeJEPAConfig(encoder={"name": "convnet_tiny", "width": 8}, projector_hidden=32, projector_out=16, slices=32)
    return LeJEPA(cfg, size=16)


class Constant(nn.Module):
    """Every picture has the same features, up to rounding noise."""

    def encode(self, obs: torch.Tensor) -> torch.Tensor:
        noise = 1e-6 * torch.randn(len(obs), 4, 8, generator=generator(len(obs)))
        return torch.linspace(1, 2, 8) + noise


class Pixels(nn.Module):
    def encode(self, obs: torch.Tensor) -> torch.Tensor:
        return obs.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("make", [ijepa, lejepa])
def test_looking_changes_nothing(make):
    method, pictures = make(), smooth_pictures()
    method.train()
    method.encoder.eval()  # a mixed state must come back as it was
    before = {k: v.clone() for k, v in method.state_dict().items()}
    modes, rng = [m.training for m in method.modules()], torch.get_rng_state()

    Monitor(pictures)(Moment(1, 10, method, {}, {}))

    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    assert [m.training for m in method.modules()] == modes
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(p.grad is None for p in method.parameters())


def test_quiet_puts_modes_back_after_an_error():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    with pytest.raises(RuntimeError), quiet(net):
        assert not net.training
        raise RuntimeError
    assert net.training and net[1].training


@pytest.mark.parametrize("make", [ijepa, lejepa])
def test_the_same_look_gives_the_same_numbers_and_only_floats(make):
    method, monitor = make(), Monitor(smooth_pictures(), torch.arange(64) % 4)
    a, b = (monitor(Moment(1, 10, method, {}, {})) for _ in range(2))
    assert a == b
    assert all(isinstance(v, float) and math.isfinite(v) for v in a.values())
    assert 0 < a["health/spread"] <= 1 and 0 <= a["health/knn"] <= 1


def test_numbers_of_a_training_batch_come_from_seen():
    method, pictures = ijepa(), smooth_pictures()
    batch = Pictures((pictures.unsqueeze(0),), torch.arange(64), torch.full((64,), -1))
    _, seen = method(batch, Clock(0, 10))
    row = Monitor(pictures)(Moment(0, 10, method, {}, seen))
    assert {"health/unexplained", "health/unexplained_position", "health/teacher_distance"} <= row.keys()
    assert row["health/teacher_distance"] == 0  # a copy, before the first step

    method = lejepa()
    views = torch.stack([pictures, pictures.flip(-1)])
    _, seen = method(Pictures((views,), torch.arange(64), torch.full((64,), -1)), Clock(0, 10))
    row = Monitor(pictures)(Moment(0, 10, method, {}, seen))
    assert {"health/view_spread", "health/sigreg", "health/projected_std"} <= row.keys()


def test_start_is_reported_once_with_the_first_look():
    method = lejepa()
    monitor = Monitor(smooth_pictures(), start=method)
    first, second = (monitor(Moment(s, 10, method, {}, {})) for s in (5, 10))
    assert first["start/health/spread"] == first["health/spread"]
    assert not any(key.startswith("start/") for key in second)


def test_collapse_lowers_spread_and_rank_above_the_floor_but_not_the_raw_rank():
    row = Monitor(smooth_pictures())(Moment(0, 1, Constant(), {}, {}))
    assert row["health/spread"] < 1e-5
    assert row["health/rank"] == 0 and row["health/axes"] == 0
    assert row["health/effective_rank"] > 5  # noise has full rank: why the floor is needed
    assert row["health/mean_cosine"] > 0.999


def test_features_of_known_directions():
    z = torch.zeros(400, 10)
    z[:, :4] = torch.randn(400, 4, generator=generator())
    row = features(z)
    assert row["health/rank"] == pytest.approx(4, abs=0.1)
    assert row["health/axes"] == 4
    assert row["health/dead"] == pytest.approx(0.6)
    assert row["health/spread"] == pytest.approx(1, abs=0.02)
    assert sum(row[f"spectrum/{r}"] for r in (1, 2, 3, 4)) == pytest.approx(1, abs=0.02)
    assert features(z + 100)["health/spread"] < 0.02  # a common offset is not spread


def test_decay_of_a_power_law():
    assert decay(torch.arange(1.0, 200.0) ** -2).item() == pytest.approx(2, abs=1e-3)
    assert math.isnan(decay(torch.tensor([1.0, 1e-9])).item())


def test_sigreg_here_equals_the_training_term_on_the_same_directions():
    p = torch.randn(128, 16, generator=generator()) * 0.7
    u = random_directions(256, 16, generator(0))
    assert sigreg_here(p).item() == pytest.approx(sigreg(p, directions=u).item(), rel=1e-4)


def test_prediction_against_the_mean():
    target = torch.randn(2, 64, 8, generator=generator())
    mean = target.flatten(0, -2).mean(0).expand_as(target)
    assert prediction({"prediction": mean, "target": target})["health/unexplained"] == pytest.approx(1, abs=1e-5)
    assert prediction({"prediction": target, "target": target})["health/unexplained"] == 0
    assert prediction({}) == {}


def test_a_prediction_of_the_position_alone_explains_the_mean_but_not_the_content():
    g = generator()
    index = torch.randint(0, 9, (50, 4, 3), generator=g)
    place = 3 * torch.randn(9, 8, generator=g)
    target = place[index] + torch.randn(50, 4, 3, 8, generator=g)
    row = prediction({"prediction": place[index], "target": target, "target_index": index})
    assert row["health/unexplained"] < 0.2
    assert row["health/unexplained_position"] == pytest.approx(1, abs=0.1)


def test_knn_accuracy_of_separate_and_of_mixed_classes():
    y = torch.arange(60) % 3
    z = 5 * torch.eye(3)[y] + 0.1 * torch.randn(60, 3, generator=generator())
    assert knn_accuracy(z, y) == 1
    assert knn_accuracy(torch.randn(60, 3, generator=generator()), y) < 0.65
    assert knn_accuracy(torch.cat([z, z[:5]]), torch.cat([y, torch.full((5,), -1)])) == 1


def test_weights_and_teacher_distance():
    method = ijepa()
    with torch.no_grad():
        for p in method.teacher.parameters():
            p.mul_(0.5)
    assert weights(method)["health/teacher_distance"] == pytest.approx(0.5, abs=1e-4)


def test_inputs_tell_noise_from_things():
    noise = torch.randn(64, 3, 16, 16, generator=generator())
    assert abs(inputs(noise)["health/input_correlation"]) < 0.05
    assert inputs(smooth_pictures())["health/input_correlation"] > 0.5
    flat = inputs(torch.zeros(64, 3, 16, 16))
    assert flat["health/input_std"] == 0 and math.isnan(flat["health/input_correlation"])


def test_border_share_of_known_encoders():
    x = smooth_pictures(32)
    for encode, expected in (
        (lambda p: p[:, 0, 0], 1.0),
        (lambda p: p[:, 0, 6:10, 6:10].flatten(1), 0.0),
        (lambda p: p.mean((2, 3)), None),
    ):
        share = border_share(encode, x, encode(x)).item()
        assert share == expected if expected is not None else 0.1 < share < 0.6
    constant = torch.ones(32, 4)
    assert math.isnan(border_share(lambda p: torch.ones(len(p), 4), x, constant).item())


def test_splice_changes_only_the_inside():
    a, b = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    out = splice(a, b)
    assert out[0, 0, :2].eq(1).all() and out[0, 0, 2:14, 2:14].eq(0).all()
    assert out.mean().item() == pytest.approx(1 - (12 / 16) ** 2)


def test_trivial_r2_of_a_colour_histogram_and_of_noise():
    x = smooth_pictures(128)
    assert trivial_r2(x, x.mean((2, 3))).item() > 0.99
    assert trivial_r2(x, torch.randn(128, 8, generator=generator())).item() < 0.1


def test_content_share_is_zero_for_positions_and_one_for_content():
    position = torch.randn(1, 9, 4, generator=generator())
    content = torch.randn(64, 9, 4, generator=generator())
    assert content_share(position.expand(64, -1, -1)).item() == pytest.approx(0, abs=1e-5)
    assert content_share(content).item() == pytest.approx(1, abs=0.02)
    assert 0.3 < content_share(position + content).item() < 0.7


def test_wrong_inputs_are_refused_in_words():
    with pytest.raises(ValueError, match="pictures must be 16 to 2048"):
        Monitor(torch.zeros(3, 3, 8, 8))
    with pytest.raises(ValueError, match="labels must be one per picture"):
        Monitor(torch.zeros(32, 3, 8, 8), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="method must have encode"):
        Monitor(torch.zeros(32, 3, 8, 8))(Moment(0, 1, nn.Linear(1, 1), {}, {}))
    assert "health/knn" not in Monitor(smooth_pictures(), torch.full((64,), -1))(Moment(0, 1, Pixels(), {}, {}))


def test_a_look_is_cheap():
    method, monitor = lejepa(), Monitor(smooth_pictures(256))
    monitor(Moment(0, 1, method, {}, {}))
    begin = time.process_time()
    monitor(Moment(0, 1, method, {}, {}))
    assert time.process_time() - begin < 2
