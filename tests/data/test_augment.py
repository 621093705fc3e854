"""Colour steps against Pillow and colorsys, one at a time; and the whole chain's rules."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from openjepa.config import View
from openjepa.data.augment import (
    COLOUR_DRAWS,
    LUMA,
    augment,
    blur,
    brightness_matrix,
    colour_matrix,
    hue_matrix,
    normalise,
    saturation_matrix,
)

from .conftest import photo

PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # mean and std that leave 0..1


def picture(seed: int = 0) -> np.ndarray:
    """Away from black and white, so that nothing is clipped and Pillow's steps are linear too."""
    return (photo(24, 24, seed).astype(float) * 0.4 + 70).astype(np.uint8)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def uniforms(**chosen: float) -> torch.Tensor:
    """One row of draws: jitter on, no move, nothing else, except what is named."""
    names = ["jitter", "brightness", "contrast", "saturation", "hue", "grey", "blur", "sigma", "solarize"]
    row = {"jitter": 0.0, "brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.5, "grey": 0.99, "blur": 0.99,
           "sigma": 0.5, "solarize": 0.99} | chosen  # fmt: skip
    return torch.tensor([[row[n] for n in names]])


def levels(out: torch.Tensor) -> np.ndarray:
    return (out[0] * 255).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("u, factor", [(0.0, 0.6), (0.5, 1.0), (0.999999, 1.4)])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_jitter_equals_pillow(name, u, factor):
    enhance = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    strength = [0.4 if n == name else 0.0 for n in ("brightness", "contrast", "saturation", "hue")]
    pixels = picture()
    ours = levels(augment(tensor(pixels), View(jitter=tuple(strength)), uniforms(**{name: u}), *PLAIN))
    expected = np.asarray(enhance[name](Image.fromarray(pixels)).enhance(factor)).astype(float)
    assert abs(ours - expected).max() <= 1.5  # Pillow cuts to whole levels after each step, and its mean too
    assert abs(ours - expected).mean() < 0.8


def test_grey_equals_pillow():
    pixels = picture()
    ours = levels(augment(tensor(pixels), View(grey=0.5), uniforms(grey=0.1), *PLAIN))
    assert abs(ours - np.asarray(ImageOps.grayscale(Image.fromarray(pixels)))[..., None].astype(float)).max() <= 1
    untouched = levels(augment(tensor(pixels), View(grey=0.5), uniforms(grey=0.9), *PLAIN))
    assert abs(untouched - pixels).max() < 1e-3


@pytest.mark.parametrize("turn", [-0.1, -0.03, 0.05, 0.1, 1 / 3, 0.5])
def test_hue_moves_the_hue_of_colorsys(turn):
    draw = np.random.default_rng(0)
    colours = draw.uniform(0.2, 0.8, (500, 3))
    colours = colours[np.ptp(colours, axis=1) > 0.1]  # near grey the hue means nothing
    moved = colours @ hue_matrix(torch.tensor([turn]))[0].double().numpy().T
    for before, after in zip(colours, moved, strict=True):
        change = (colorsys.rgb_to_hsv(*after)[0] - colorsys.rgb_to_hsv(*before)[0] - turn + 0.5) % 1 - 0.5
        assert abs(change) < 0.007
    assert np.allclose(moved.sum(1), colours.sum(1), atol=1e-5)
    spread = [np.linalg.norm(c - c.mean(1, keepdims=True), axis=1) for c in (colours, moved)]
    assert np.allclose(*spread, atol=1e-5)


def test_a_third_of_the_circle_is_exact():
    x = torch.rand(3, 50)
    assert torch.allclose(hue_matrix(torch.tensor([1 / 3]))[0] @ x, x.roll(1, 0), atol=1e-6)
    assert torch.allclose(hue_matrix(torch.tensor([0.0]))[0], torch.eye(3), atol=1e-7)


def test_the_matrices():
    assert torch.allclose(brightness_matrix(torch.tensor([0.5]))[0], 0.5 * torch.eye(3))
    assert torch.allclose(saturation_matrix(torch.tensor([1.0]))[0], torch.eye(3))
    assert torch.allclose(saturation_matrix(torch.tensor([0.0]))[0], torch.tensor(LUMA).expand(3, 3))


def test_all_steps_at_once_equal_the_steps_one_by_one():
    view = View(jitter=(0.3, 0.3, 0.3, 0.1), jitter_p=1.0, grey=0.0)
    u = torch.rand(1, COLOUR_DRAWS, generator=torch.Generator().manual_seed(3))
    x = tensor(picture()).float() / 255
    move = (2 * u[0, 1:5] - 1) * torch.tensor(view.jitter)
    step = (1 + move[0]) * x
    mean = (step * torch.tensor(LUMA)[:, None, None]).sum(1).mean()
    step = (1 + move[1]) * step - move[1] * mean
    step = torch.einsum("ij,bjhw->bihw", saturation_matrix(1 + move[2:3])[0], step)
    step = torch.einsum("ij,bjhw->bihw", hue_matrix(move[3:4])[0], step)
    assert torch.allclose(augment(tensor(picture()), view, u, *PLAIN), step.clamp(0, 1), atol=1e-5)


def test_solarize_equals_pillow():
    pixels = photo(24, 24)
    ours = levels(augment(tensor(pixels), View(solarize=0.5), uniforms(solarize=0.2), *PLAIN))
    assert abs(ours - np.asarray(ImageOps.solarize(Image.fromarray(pixels), 128))).max() < 0.01


def test_blur_is_the_gaussian():
    line = torch.zeros(1, 1, 1, 224)
    dot = torch.zeros(2, 1, 224, 224)
    dot[:, :, 112, 112] = 1
    sigma = torch.tensor([1.0, 2.0])
    out = blur(dot, sigma)
    at = torch.arange(224) - 112.0
    for k in range(2):
        line = torch.exp(-0.5 * (at / sigma[k]) ** 2) * (at.abs() <= 6)
        line = line / line.sum()
        assert torch.allclose(out[k, 0], line[:, None] * line[None], atol=1e-7)
    assert torch.allclose(out.sum((1, 2, 3)), torch.ones(2), atol=1e-5)


def test_blur_of_small_and_flat_pictures():
    assert torch.allclose(blur(torch.full((2, 3, 4, 4), 0.7), torch.tensor([0.01, 0.05])), torch.tensor(0.7))
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(blur(x, torch.tensor([1e-4, 1e-4])), x, atol=1e-6)


def test_output_is_clamped_to_the_range_of_pictures():
    view = View(jitter=(0.9, 0.9, 0.9, 0.5), jitter_p=1.0)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    x = torch.randint(0, 256, (16, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    out = augment(x, view, torch.rand(16, COLOUR_DRAWS), mean, std)
    back = out * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    assert back.min() > -1e-6 and back.max() < 1 + 1e-6 and back.std() > 0.2


def test_zero_probabilities_only_normalise():
    x = torch.randint(0, 256, (4, 3, 8, 8)).to(torch.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    expected = (x / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    for view in (View(), View(jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.0)):
        assert torch.allclose(augment(x, view, torch.zeros(4, COLOUR_DRAWS), mean, std), expected, atol=1e-5)
    assert torch.allclose(normalise(x, mean, std), expected, atol=1e-5)


def test_probabilities_are_met_and_choices_are_independent():
    view = View(jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey=0.2)
    u = torch.rand(20_000, COLOUR_DRAWS, generator=torch.Generator().manual_seed(0))
    matrix, share = colour_matrix(view, u)
    grey = (matrix - matrix[:, :1]).abs().amax((1, 2)) < 1e-6
    still = share == 0
    assert abs(grey.float().mean() - 0.2) < 0.01 and abs(still.float().mean() - 0.2) < 0.01
    assert abs((grey & still).float().mean() - 0.04) < 0.006


def test_rows_do_not_depend_on_their_neighbours():
    view = View(jitter=(0.4, 0.4, 0.4, 0.1), grey=0.3, blur=0.5, solarize=0.3)
    x = torch.randint(0, 256, (8, 3, 32, 32)).to(torch.uint8)
    u = torch.rand(8, COLOUR_DRAWS)
    joined = augment(x, view, u, *PLAIN)
    single = torch.cat([augment(x[i : i + 1], view, u[i : i + 1], *PLAIN) for i in range(8)])
    assert torch.allclose(joined, single, atol=1e-5)


def test_one_channel():
    view = View(jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=1.0, grey=0.5, solarize=0.0)
    x = torch.full((3, 1, 8, 8), 100, dtype=torch.uint8)
    u = torch.full((3, COLOUR_DRAWS), 0.25)
    assert torch.allclose(augment(x, view, u, (0.0,), (1.0,)), torch.tensor(100 / 255 * 0.8), atol=1e-5)


def test_rotation_of_quarter_turns_is_exact_and_of_none_is_nothing() -> None:
    from openjepa.data.augment import rotate

    x = torch.randn(4, 3, 8, 8)
    turned = rotate(x, torch.tensor([0.0, 90.0, 180.0, -90.0]))
    for k, (a, b) in enumerate(zip(x, turned, strict=True)):
        assert torch.allclose(torch.rot90(a, k, (1, 2)), b, atol=1e-5)


def test_rotation_is_drawn_both_ways_within_its_limit() -> None:
    x = torch.zeros(2, 1, 9, 9)
    x[..., 1, 4] = 255.0
    u = torch.zeros(2, COLOUR_DRAWS)
    u[1, 9] = 1.0
    low, high = augment(x, View(rotate=45), u, (0.0,), (1.0,))
    assert torch.allclose(low, high.flip(-1), atol=1e-5) and not torch.allclose(low, x[0] / 255)
