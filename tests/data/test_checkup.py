"""`check` finds what is planted, and its verdict agrees with what training does."""

import json

import numpy as np
import pytest
from PIL import Image

from openjepa.data import check, open_source
from openjepa.data.config import DataConfig

from .conftest import encoded, fill, photo


def test_everything_that_is_planted_is_found(tmp_path):
    names = fill(tmp_path, 30, (40, 50))
    (tmp_path / names[1]).write_bytes(encoded(photo(40, 50))[:300])  # truncated: only decoding shows it
    (tmp_path / names[2]).write_bytes(b"nothing")
    (tmp_path / names[3]).write_bytes((tmp_path / names[0]).read_bytes())
    (tmp_path / names[4]).write_bytes((tmp_path / names[0]).read_bytes())
    Image.fromarray(photo(8, 90)).save(tmp_path / names[5])
    Image.fromarray(photo(40, 50)[..., 0]).save(tmp_path / names[6])
    (tmp_path / "a" / "photo.jpg").write_bytes(encoded(photo(300, 200), "JPEG"))
    cfg = DataConfig(path=str(tmp_path))
    report = check(cfg)
    assert report.pictures == 31 and report.readable == 29
    assert [name for name, _ in report.bad] == [names[1], names[2]] and "truncated" in report.bad[0][1]
    assert report.formats == {"PNG": 28, "JPEG": 1} and report.modes == {"RGB": 28, "L": 1}
    assert report.duplicates == [[names[0], names[3], names[4]]] and report.duplicate_count == 2
    assert report.tiny == 1 and report.sizes["common"] == "50x40" and report.sizes["min"] == 8
    assert report.classes == {"a": 16, "b": 15} and report.recommended_size == 40
    assert not report.ok and "max_bad=0.05" in report.advice[0]
    with pytest.raises(ValueError, match="max_bad"):
        open_source(cfg)
    assert any("exact copies" in line for line in report.advice) and any("few to learn" in a for a in report.advice)
    json.dumps(report.as_dict())


def test_heads_only_is_said_and_misses_truncated_files(tmp_path):
    names = fill(tmp_path, 5)
    (tmp_path / names[1]).write_bytes(encoded(photo(24, 24))[:300])
    report = check(DataConfig(path=str(tmp_path)), decode=False)
    assert report.bad == [] and report.decode_minutes == 0 and "Only heads" in report.advice[-1]
    assert len(check(DataConfig(path=str(tmp_path))).bad) == 1


def test_cache_is_estimated_as_it_becomes(tmp_path):
    fill(tmp_path, 12, (30, 40))
    report = check(DataConfig(path=str(tmp_path)))
    assert report.cached and report.cache_bytes == open_source(DataConfig(path=str(tmp_path))).arrays.nbytes
    assert not check(DataConfig(path=str(tmp_path), cache=False)).cached


def test_arrays(tmp_path):
    pixels = np.stack([photo(20, 20, seed=i) for i in range(6)] + [photo(20, 20, seed=2)])
    np.savez(tmp_path / "a.npz", images=pixels, labels=[0] * 6 + [1])
    report = check(DataConfig(path=str(tmp_path / "a.npz")))
    assert report.ok and report.duplicates == [["2", "6"]] and report.classes == {"0": 6, "1": 1}
    assert report.decode_minutes == 0 and not report.cached and report.sizes["common"] == "20x20"


def test_large_photos_are_advised_to_be_reduced(tmp_path):
    fill(tmp_path, 3, (300, 400), "jpg")
    report = check(DataConfig(path=str(tmp_path)))
    assert report.ok and not report.cached and report.recommended_size == 224 and report.decode_minutes >= 0
    assert any("short side of 256" in line for line in report.advice)


def test_uneven_classes_and_sizes_without_whole_patches(tmp_path):
    fill(tmp_path, 2, (98, 98))
    for i in range(41):
        (tmp_path / "a" / f"more{i}.png").write_bytes(encoded(photo(98, 98, seed=100 + i)))
    report = check(DataConfig(path=str(tmp_path)))
    assert any("uneven (1 to 42" in line for line in report.advice)
    assert any(line.startswith("Set size=96") for line in report.advice)
    assert not any(line.startswith("Set size") for line in check(DataConfig(path=str(tmp_path), size=64)).advice)
