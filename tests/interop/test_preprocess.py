"""Pictures are prepared as training prepared them: the same squares, the same odd files, the same numbers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openjepa.data import evaluation, open_source
from openjepa.data.config import DataConfig
from openjepa.data.picture import read_picture
from openjepa.interop import Preprocess
from openjepa.interop.preprocess import as_image

RNG = np.random.default_rng(0)


def odd(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(RNG.integers(0, 65536, (9, 12), dtype=np.uint16))
    bands = {"RGBA": 4, "LA": 2, "RGB": 3, "L": 1, "CMYK": 4}[mode]
    pixels = RNG.integers(0, 256, (9, 12, bands), dtype=np.uint8)
    return (
        Image.fromarray(pixels[..., 0] if bands == 1 else pixels, mode=mode)
        if mode != "CMYK"
        else Image.fromarray(pixels[..., :3]).convert("CMYK")
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "I;16", "CMYK"])
def test_odd_files_become_what_training_makes_of_them(mode: str, channels: int):
    file = io.BytesIO()
    odd(mode).save(file, "TIFF")
    want = read_picture(file.getvalue(), channels)
    got = np.asarray(as_image(Image.open(io.BytesIO(file.getvalue())), channels))
    assert np.array_equal(got.reshape(want.shape), want)


def test_exif_rotation(tmp_path: Path):
    image = Image.fromarray(RNG.integers(0, 256, (8, 16, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    assert as_image(tmp_path / "a.png", 3).size == (8, 16)
    assert np.array_equal(np.asarray(as_image(tmp_path / "a.png", 3)), read_picture(tmp_path / "a.png"))


@pytest.mark.parametrize("size", [(40, 30), (31, 57), (16, 16), (9, 12)])
def test_equals_the_evaluation_of_the_data_wing(tmp_path: Path, size: tuple[int, int]):
    (tmp_path / "pictures").mkdir()
    image = Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
    image.save(tmp_path / "pictures/a.png")
    source = open_source(DataConfig(path=str(tmp_path / "pictures"), size=16, cache=False))
    want = next(iter(evaluation(source)))[0][0]
    got = Preprocess(16, mean=tuple(source.mean), std=tuple(source.std))(tmp_path / "pictures/a.png")
    assert (got - want).abs().max() <= 1.01 / 255 / min(source.std)  # one level


def test_settings_survive_json():
    p = Preprocess(32, 1, (0.1,), (0.2,), "bilinear")
    assert Preprocess.from_dict(p.as_dict(), "x") == p
    x = torch.randint(0, 256, (1, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(p(x), (x / 255 - 0.1) / 0.2)
