"""The Python of the guide runs, and its table of sources is complete."""

import re
from pathlib import Path

from openjepa.data import SOURCES

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "data.md"


def test_the_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    scope: dict = {}
    exec(code, scope)
    assert scope["batch"].views[0].shape == (2, 64, 3, 32, 32) and scope["batch"].views[1].shape == (4, 64, 3, 16, 16)
    assert scope["images"].shape[1:] == (3, 32, 32)


def test_every_source_is_in_the_guide():
    words = {"folder": "a folder", "list": "list.txt", "npy": "a.npy", "idx": "idx3", "parquet": "Parquet", "hub": "hf://",
             "shards": ".tar", "digits": "digits", "shapes": "shapes"}  # fmt: skip
    assert words.keys() == SOURCES.keys()
    text = GUIDE.read_text(encoding="utf-8")
    assert all(word in text for word in words.values())


def test_the_guide_to_episodes_runs():
    text = (GUIDE.parent / "episodes.md").read_text(encoding="utf-8")
    scope: dict = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(code, scope)
    assert scope["batch"].obs.shape == (64, 5, 4) and scope["batch"].action.shape == (64, 4, 4)
    assert 0 < len(scope["unseen"]) < 15


def test_every_format_of_episodes_is_in_the_guide():
    from openjepa.data.episodes import FORMATS

    words = {"npz": ".npz", "hdf5": "HDF5", "minari": "Minari", "lerobot": "LeRobot", "tracks": "pedestrian tracks"}
    text = (GUIDE.parent / "episodes.md").read_text(encoding="utf-8")
    assert words.keys() == FORMATS.keys() and all(word in text for word in words.values())


def test_the_guide_to_clips_runs_and_is_complete():
    from openjepa.data.clips import FORMATS

    text = (GUIDE.parent / "clips.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    scope: dict = {}
    exec(code, scope)
    assert scope["batch"].view.shape == (1, 16, 8, 3, 32, 32) and scope["clips"].shape == (16, 8, 3, 32, 32)
    assert scope["truth"]["position"].shape == (16, 8, 2, 2)
    words = {"folder": "a folder of video", "list": "list.txt", "parquet": "Parquet", "shards": ".tar",
             "frames": "numbered pictures", "pictures": "pictures:", "arrays": "clips.npy",
             "moving-mnist": "moving-mnist:", "bouncing-shapes": "bouncing-shapes"}  # fmt: skip
    assert words.keys() == FORMATS.keys() and all(word in text for word in words.values())
