"""The memory map: same pixels, made once, never trusted when damaged, never half-written."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openjepa.data import cache, open_source
from openjepa.data.config import DataConfig

from .conftest import encoded, fill, photo


def held(folder, **settings):
    return open_source(DataConfig(path=str(folder), **settings))


def place() -> Path:
    (only,) = (Path(os.environ["OPENJEPA_CACHE"]) / "pictures").iterdir()
    return only


def test_made_once_and_read_again(tmp_path, monkeypatch):
    fill(tmp_path, 6)
    first = held(tmp_path)
    assert isinstance(first.arrays.base, np.memmap) or isinstance(first.arrays, np.memmap)
    pixels = np.array(first.arrays)
    monkeypatch.setattr(cache, "_write", lambda *_: pytest.fail("decoded again"))
    assert (held(tmp_path).arrays == pixels).all()
    assert sorted(p.name for p in place().iterdir()) == ["info.json", "pixels.npy", "shapes.npy"]
    assert (np.load(place() / "pixels.npy") == pixels.ravel()).all()


def test_own_folder(tmp_path):
    fill(tmp_path / "in", 4)
    held(tmp_path / "in", cache_dir=str(tmp_path / "there"))
    assert len(list((tmp_path / "there" / "pictures").iterdir())) == 1


def test_changed_files_are_noticed(tmp_path):
    names = fill(tmp_path, 4)
    before = np.array(held(tmp_path).arrays)
    Image.fromarray(photo(24, 24, seed=77)).save(tmp_path / names[2])
    os.utime(tmp_path / names[2], ns=(1, 1))
    after = held(tmp_path).arrays
    assert (before[2] != after[2]).any() and (before[[0, 1, 3]] == after[[0, 1, 3]]).all()


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def damages():
    yield "a flipped bit", lambda p: flip_byte(p / "pixels.npy")
    yield "cut", lambda p: (p / "pixels.npy").write_bytes((p / "pixels.npy").read_bytes()[:-100])
    yield "no pixels", lambda p: (p / "pixels.npy").unlink()
    yield "no info", lambda p: (p / "info.json").unlink()
    yield "not json", lambda p: (p / "info.json").write_text("{")
    yield "other json", lambda p: (p / "info.json").write_text("[]")
    yield (
        "old version",
        lambda p: (p / "info.json").write_text(json.dumps(json.loads((p / "info.json").read_text()) | {"version": 0})),
    )
    yield "shapes", lambda p: np.save(p / "shapes.npy", np.load(p / "shapes.npy")[:-1])
    yield "empty", lambda p: (p / "shapes.npy").write_bytes(b"")


@pytest.mark.parametrize("damage", [pytest.param(d, id=name) for name, d in damages()])
def test_damaged_maps_are_made_again(tmp_path, caplog, damage):
    fill(tmp_path, 5)
    pixels = np.array(held(tmp_path).arrays)
    damage(place())
    with caplog.at_level(logging.WARNING):
        assert (held(tmp_path).arrays == pixels).all()
    assert "is made again" in caplog.text
    caplog.clear()
    assert (held(tmp_path).arrays == pixels).all() and not caplog.text


def test_interrupted_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    fill(tmp_path, 5)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            held(tmp_path)
    assert list((Path(os.environ["OPENJEPA_CACHE"]) / "pictures").iterdir()) == []
    assert len(held(tmp_path)) == 5


def test_folder_that_cannot_be_written_is_done_without(tmp_path, caplog):
    fill(tmp_path / "in", 3)
    (tmp_path / "file").write_text("in the way")
    source = held(tmp_path / "in", cache_dir=str(tmp_path / "file"))
    assert source.arrays is None and len(source) == 3 and "not cached" in caplog.text


def test_pictures_of_several_shapes_keep_them(tmp_path):
    sizes = [(20, 30), (30, 20), (25, 25), (600, 300)]
    for i, size in enumerate(sizes):
        Image.fromarray(photo(*size, seed=i)).save(tmp_path / f"{i}.png")
    source = held(tmp_path)
    assert source.arrays is None
    assert [tuple(source.read(i).shape[1:]) for i in range(4)] == [(20, 30), (30, 20), (25, 25), (512, 256)]
    assert all((source.read(i).permute(1, 2, 0).numpy() == photo(*sizes[i], seed=i)).all() for i in range(3))
    small = np.asarray(Image.fromarray(photo(600, 300, seed=3)).resize((256, 512), Image.Resampling.BICUBIC)).astype(
        int
    )
    assert abs(source.read(3).permute(1, 2, 0).numpy() - small).max() <= 2


def test_few_larger_ones_of_the_same_shape_are_reduced_to_it(tmp_path):
    fill(tmp_path, 5, (24, 24))
    Image.fromarray(photo(240, 240, seed=9)).save(tmp_path / "a" / "large.png")
    source = held(tmp_path)
    assert source.arrays.shape == (6, 3, 24, 24)
    at = list(source.names).index("a/large.png")
    small = np.asarray(Image.fromarray(photo(240, 240, seed=9)).resize((24, 24), Image.Resampling.BICUBIC)).astype(int)
    assert abs(source.arrays[at].transpose(1, 2, 0) - small).max() <= 1


def test_large_pictures_are_not_held(tmp_path):
    fill(tmp_path, 3, (300, 300), "jpg")
    assert held(tmp_path).arrays is None and not Path(os.environ["OPENJEPA_CACHE"], "pictures").exists()


def test_unreadable_ones_are_left_out_and_remembered(tmp_path):
    names = fill(tmp_path, 8)
    (tmp_path / names[3]).write_bytes(encoded(photo(24, 24))[:200])
    (tmp_path / names[6]).write_bytes(b"nothing")
    for _ in range(2):  # made, then read
        source = held(tmp_path, max_bad=0.3)
        assert len(source) == 6 and [n for n, _ in source.bad] == [names[3], names[6]]
        assert list(source.names) == [n for k, n in enumerate(names) if k not in (3, 6)]
        assert len(source.labels) == 6
    with pytest.raises(ValueError, match="2 of 8"):
        held(tmp_path, max_bad=0.1)


def test_nothing_readable(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(b"nothing")
    for settings in ({}, {"max_bad": 1.0}, {"cache": False}):
        with pytest.raises(ValueError, match="readable"):
            held(tmp_path, **settings)
