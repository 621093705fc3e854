"""Every format opens to the same kind of source; what cannot be used is named, counted and left out."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openjepa.data.clips import open_clips
from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.opening import holds, kind_of
from openjepa.data.clips.source import ClipSource

from .conftest import moving, sequential, sound, write


def opened(path: object, **settings: object) -> ClipSource:
    return open_clips(ClipConfig.model_validate({"path": str(path), **settings}))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Two classes of three videos, of 20 frames each."""
    root = tmp_path_factory.mktemp("videos")
    for k in range(6):
        write(root / ["jump", "walk"][k % 2] / f"{k}.mp4", moving(20, seed=k))
    return root


def test_a_folder_of_class_folders(videos):
    source = opened(videos)
    assert len(source) == 6 and source.classes == ["jump", "walk"] and source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.names[0] == "jump/0.mp4" and source.lengths.tolist() == [20] * 6
    assert np.allclose(source.rates, 25) and source.size == 48 and source.sizes[0].tolist() == [48, 64]
    whole = sequential(videos / "walk" / "3.mp4")
    assert np.array_equal(source.read(4, np.array([7, 2]))[0].transpose(1, 2, 0), whole[7])


def test_one_video_file_is_a_source(videos):
    source = opened(videos / "jump" / "0.mp4")
    assert len(source) == 1 and source.read(0, np.array([19])).shape == (1, 3, 48, 64)


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "published.csv"])
def test_lists(videos, tmp_path, name):
    files = sorted(videos.rglob("*.mp4"))
    lines = {
        "list.txt": [f"{f} {i % 2}" for i, f in enumerate(files)],
        "list.csv": ["video,label", *(f"{f},{i % 2}" for i, f in enumerate(files))],
        "published.csv": [f"{f} {i % 2}" for i, f in enumerate(files)],  # as V-JEPA's lists: no header, a space
    }
    (tmp_path / name).write_text("\n".join(lines[name]))
    source = opened(tmp_path / name)
    assert len(source) == 6 and source.labels.tolist() == [0, 1] * 3
    assert holds(str(tmp_path / name)) == {"clips"}


def test_parquet(videos, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files = sorted(videos.rglob("*.mp4"))
    rows = [{"bytes": f.read_bytes(), "path": f.name} for f in files]
    parquet.write_table(pa.table({"video": rows, "label": [0, 1, 2, 0, 1, 2]}), tmp_path / "train.parquet")
    source = opened(tmp_path)
    assert len(source) == 6 and source.labels.tolist() == [0, 1, 2, 0, 1, 2] and holds(str(tmp_path)) == {"clips"}
    assert np.array_equal(source.read(2, np.array([5]))[0].transpose(1, 2, 0), sequential(files[2])[5])


def test_tar_shards(videos, tmp_path):
    files = sorted(videos.rglob("*.mp4"))
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard:02d}.tar", "w") as tar:
            for k, file in enumerate(files[3 * shard : 3 * shard + 3]):
                tar.add(file, f"{k}.mp4")
                data = json.dumps({"label": shard}).encode()
                info = tarfile.TarInfo(f"{k}.json")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    source = opened(tmp_path)
    assert len(source) == 6 and source.labels.tolist() == [0, 0, 0, 1, 1, 1] and holds(str(tmp_path)) == {"clips"}
    assert np.array_equal(source.read(5, np.array([3]))[0].transpose(1, 2, 0), sequential(files[5])[3])
    order = source.order(np.arange(6), seed=0, epoch=0)
    assert sorted(order.tolist()) == list(range(6))


def numbered(root: Path, name: str, count: int, first: int = 1, size: int = 20) -> None:
    (root / name).mkdir(parents=True)
    for k in range(count):
        Image.new("L", (size, size), 10 * k).save(root / name / f"frame{first + k}.png")


def test_folders_of_numbered_pictures(tmp_path):
    for name in ("a/one", "a/two", "b/three"):
        numbered(tmp_path, name, 12, first=5)
    source = opened(tmp_path, rate=10.0)
    assert source.kind == "frames" and source.lengths.tolist() == [12] * 3 and source.labels.tolist() == [0, 0, 1]
    read = source.read(1, np.array([0, 5, 11]))  # frame5, frame10, frame16: by number, not by name
    assert read[:, 0, 0, 0].tolist() == [0, 50, 110] and source.rates.tolist() == [10.0] * 3
    assert holds(str(tmp_path)) == {"pictures"}  # until a method that eats clips asks


def test_pictures_that_are_not_numbered_are_no_clips(tmp_path):
    for name in ("cat", "dog"):
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"must hold videos .* or folders of numbered pictures"):
        opened(tmp_path)
    source = opened(f"pictures:{tmp_path}")
    assert source.lengths.tolist() == [1, 1] and source.read(0, np.array([0])).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("shape", [(5, 7, 9, 9), (5, 7, 9, 9, 3), (5, 7, 3, 9, 9)])
def test_arrays(tmp_path, shape):
    clips = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "a.npz", clips=clips, labels=np.arange(5) % 2)
    np.save(tmp_path / "a.npy", clips)
    source = opened(tmp_path / "a.npz")
    assert source.lengths.tolist() == [7] * 5 and source.labels.tolist() == [0, 1, 0, 1, 0]
    read = opened(tmp_path / "a.npy").read(3, np.array([6]))[0]
    expected = clips[3, 6] if len(shape) == 4 else clips[3, 6].transpose(2, 0, 1) if shape[-1] == 3 else clips[3, 6]
    assert np.array_equal(read, np.broadcast_to(expected, (3, 9, 9)))


def test_the_published_moving_mnist_file_is_turned(tmp_path):
    clips = np.zeros((20, 30, 64, 64), dtype=np.uint8)
    clips[3, 7] = 9
    np.save(tmp_path / "mnist_test_seq.npy", clips)
    source = opened(tmp_path / "mnist_test_seq.npy", channels=1)
    assert len(source) == 30 and source.lengths[0] == 20 and int(source.read(7, np.array([3])).max()) == 9


@pytest.fixture
def mess(tmp_path, videos) -> Path:
    """Twenty good files and one of every bad kind."""
    for k in range(20):
        shutil.copy(videos / "jump" / "0.mp4", tmp_path / f"good{k:02d}.mp4")
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "words.mkv").write_bytes(b"words " * 100)
    sound(tmp_path / "song.m4a").rename(tmp_path / "song.mp4")
    data = write(tmp_path / "cut.mkv", moving(40)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    return tmp_path


def test_unusable_files_are_named_and_left_out(mess):
    source = opened(mess, max_bad=0.2)
    assert len(source) == 20 and {name for name, _ in source.bad} == {"zero.mp4", "words.mkv", "song.mp4", "cut.mkv"}
    reasons = dict(source.bad)
    assert reasons["zero.mp4"] == "empty file" and "no video stream" in reasons["song.mp4"]
    assert "truncated" in reasons["cut.mkv"]
    again = opened(mess, max_bad=0.2)  # out of what was kept
    assert again.bad == source.bad and np.array_equal(again.lengths, source.lengths)


def test_too_many_unusable_files_stop_the_run(mess):
    with pytest.raises(ValueError, match=r"unusable videos must be at most 5.0%.*got 4 of 24"):
        opened(mess)


def test_what_is_kept_is_made_again_when_damaged(videos, tmp_path):
    first = opened(videos, cache_dir=str(tmp_path))
    (kept,) = (tmp_path / "clips").glob("*.npz")
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 0xFF
    kept.write_bytes(bytes(data))
    again = opened(videos, cache_dir=str(tmp_path))
    assert np.array_equal(again.lengths, first.lengths) and again.fingerprint() == first.fingerprint()


def test_a_changed_file_is_looked_at_again(videos, tmp_path):
    shutil.copy(videos / "jump" / "0.mp4", tmp_path / "a.mp4")
    assert opened(tmp_path).lengths.tolist() == [20]
    write(tmp_path / "a.mp4", moving(9))
    assert opened(tmp_path).lengths.tolist() == [9]


def test_a_mix_takes_its_share_of_every_epoch(videos):
    source = opened(videos, mix={"bouncing-shapes:100": 0.5, "pictures:shapes:50": 0.25})
    assert len(source) == 156 and source.size == 48
    order = np.concatenate([source.order(np.arange(156), seed=0, epoch=e) for e in range(4)])
    counts = [int(((order >= a) & (order < b)).sum()) for a, b in ((0, 6), (6, 106), (106, 156))]
    assert counts == [4 * c for c in (89, 45, 22)]  # 1 : 0.5 : 0.25 of 156
    seen = np.bincount(order[order < 6])
    assert seen.max() - seen.min() <= 1  # the small part is used up evenly
    assert source.labels.tolist()[:6] == [0, 0, 0, 1, 1, 1] and (source.labels[6:] == -1).all()


def test_names_that_are_not_there(tmp_path, videos):
    with pytest.raises(ValueError, match="data must exist"):
        opened(tmp_path / "none")
    with pytest.raises(ValueError, match="Did you mean 'bouncing-shapes'"):
        opened("bouncing-shape")
    with pytest.raises(ValueError, match="weight above 0"):
        ClipConfig(path="bouncing-shapes", mix={"a": 0.0})
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="pictures:FOLDER"):
        kind_of(str(tmp_path / "a.png"))


def test_limit_keeps_classes_in_their_share(videos):
    source = opened(videos, limit=4)
    assert len(source) == 4 and source.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(
        source.read(2, np.array([1])),
        opened(videos).read(list(opened(videos).names).index(source.names[2]), np.array([1])),
    )


def test_measured_normalisation(tmp_path):
    draw = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", draw.integers(0, 100, (30, 6, 8, 8), dtype=np.uint8))
    source = opened(tmp_path / "a.npy", normalise="data", channels=1)
    assert abs(source.mean[0] - 49.5 / 255) < 0.01 and abs(source.std[0] - 28.9 / 255) < 0.01
