"""The numbers that public conversion scripts assert of published weights, for those who have them.

OPENJEPA_WEIGHTS names a folder with any of facebook/ijepa_* and facebook/vjepa2-* as sub-folders (of the same names,
as the Hub's command downloads them), 000000039769.jpg of COCO val2017 and bowling.mp4 of kinetics-mini. What is not
there is skipped. Heavy: up to 1.1 billion parameters.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from openjepa.interop import load
from openjepa.interop.preprocess import Preprocess

IJEPA = {  # last hidden state [0, :3, :3] of the COCO picture, with the processor's defaults; to 1e-4
    "ijepa_vith14_1k": ((-0.0621, -0.0054, -2.7513), (-0.1952, 0.0909, -3.9536), (0.0942, -0.0331, -1.2833)),
    "ijepa_vith14_22k": ((0.0358, -0.0045, -0.2154), (0.0418, -0.0246, 0.0108), (0.2529, -0.0345, -0.0246)),
    "ijepa_vith16_1k": ((0.5145, -0.1259, 0.0615), (0.1132, 0.0028, -0.0496), (1.1586, -0.0056, -0.0387)),
    "ijepa_vitg16_22k": ((0.0512, -0.0510, -0.0649), (0.1972, 0.0380, -0.0790), (0.1667, -0.0834, -0.1240)),
}
CLASSIFIERS = {  # most likely class of the bowling clip and its probability; to 1e-3
    "vjepa2-vitl-fpc16-256-ssv2": (145, 0.30867),
    "vjepa2-vitg-fpc64-384-ssv2": (112, 0.26408),
    "vjepa2-vitl-fpc32-256-diving48": (35, 0.32875),
    "vjepa2-vitg-fpc32-384-diving48": (22, 0.35351),
}


def weights(name: str, *more: str) -> Path:
    """The folder of published weights, or a skip that says what to do."""
    told = os.environ.get("OPENJEPA_WEIGHTS")
    if not told:
        pytest.skip("set OPENJEPA_WEIGHTS to a folder with published weights to check them")
    folder = Path(told)
    lost = [n for n in (name, *more) if not (folder / n).exists()]
    if lost:
        pytest.skip(f"{folder} does not hold {', '.join(lost)}")
    return folder


@pytest.mark.parametrize("name", IJEPA)
def test_ijepa(name: str) -> None:
    folder = weights(name, "000000039769.jpg")
    model = load(folder / name)
    size = model.preprocess.size
    prepare = Preprocess(size=size, mean=(0.5,) * 3, std=(0.5,) * 3, resample="bilinear", fit="squash")
    tokens = model.encode(prepare(folder / "000000039769.jpg")[None]).tokens
    torch.testing.assert_close(tokens[0, :3, :3], torch.tensor(IJEPA[name]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_vjepa2_classifier(name: str) -> None:
    """As many frames as the model takes, evenly out of the first 128."""
    folder = weights(name, "bowling.mp4")
    pytest.importorskip("av")
    from openjepa.data.clips import open_clips
    from openjepa.data.clips.config import ClipConfig

    model = load(folder / name)
    source = open_clips(ClipConfig(path=str(folder / "bowling.mp4"), workers=0, cache=False))
    frames = torch.arange(0, 128, 128 // model.preprocess.frames)
    scores = model.classify(torch.from_numpy(source.read(0, frames.numpy()))).softmax(-1)[0]
    number, chance = CLASSIFIERS[name]
    assert int(scores.argmax()) == number and abs(float(scores[number]) - chance) < 1e-3
