"""Every format in `SOURCES` gives the pictures, names, labels and splits that are in it, and says what is wrong."""

import gzip
import io
import json
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from openjepa.config import parse
from openjepa.data import SOURCES, open_source
from openjepa.data.config import DataConfig
from openjepa.data.opening import even_choice, kind_of
from openjepa.data.picture import BadPicture
from openjepa.data.shapes import SHAPES, factors
from openjepa.data.source import Names

from .conftest import encoded, fill, photo


def source(path, **settings):
    return open_source(DataConfig(path=str(path), **settings))


def tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def parquet(path, count=6, labels=True, names=None, plain=False, start=0):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pictures = [encoded(photo(12, 12, seed=start + i)) for i in range(count)]
    cells = pictures if plain else [{"bytes": b, "path": f"{start + i}.png"} for i, b in enumerate(pictures)]
    table = arrow.table({"image": cells, **({"label": [i % 2 for i in range(count)]} if labels else {})})
    if names:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pyarrow.parquet.write_table(table, path, row_group_size=4)


# --- a contract over the table ------------------------------------------------------------------------------------


@pytest.fixture
def one_of_each(tmp_path):
    pytest.importorskip("sklearn")
    folder = tmp_path / "folder"
    fill(folder, 6, (12, 12))
    (tmp_path / "list.txt").write_text("".join(f"folder/{n} {k}\n" for k, n in enumerate(fill(folder, 6, (12, 12)))))
    np.savez(tmp_path / "a.npz", images=np.stack([photo(12, 12, i) for i in range(6)]), labels=np.arange(6))
    (tmp_path / "x-images-idx3-ubyte").write_bytes(
        b"\0\0\x08\x03" + np.array([6, 12, 12], ">u4").tobytes() + bytes(864)
    )
    parquet(tmp_path / "t.parquet")
    tar(tmp_path / "s.tar", {f"{i}.png": encoded(photo(12, 12, i)) for i in range(6)})
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"image": [{"bytes": encoded(photo(12, 12, i)), "path": None} for i in range(6)], "label": [0, 1] * 3}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "hub"))
    paths = {"folder": folder, "list": tmp_path / "list.txt", "npy": tmp_path / "a.npz", "hub": tmp_path / "hub",
             "idx": tmp_path / "x-images-idx3-ubyte", "parquet": tmp_path / "t.parquet", "shards": tmp_path / "s.tar",
             "digits": "digits", "shapes": "shapes:6"}  # fmt: skip
    assert paths.keys() == SOURCES.keys()
    return {kind: str(path) for kind, path in paths.items()}


def test_every_source_keeps_the_contract(one_of_each):
    for kind, path in one_of_each.items():
        assert kind_of(path) == kind
        for settings in ({}, {"cache": False}, {"channels": 1}, {"limit": 4}):
            s = source(path, **settings)
            assert len(s) == len(s.names) == (4 if "limit" in settings else 1797 if kind == "digits" else 6)
            channels = settings.get("channels", 3)
            pixels = s.read(len(s) - 1)
            assert pixels.dtype.is_floating_point is False and pixels.shape[0] == channels and pixels.dim() == 3
            assert len(s.mean) == len(s.std) == channels and s.size >= 4
            assert s.fingerprint() == source(path, **settings).fingerprint()
            assert s.bad == []
            if s.labels is not None:
                assert s.labels.dtype == np.int64 and len(s.labels) == len(s) and s.classes is not None
                assert s.labels.max() < len(s.classes)
            if s.arrays is not None:
                assert s.arrays.shape[:2] == (len(s), channels) and s.arrays.dtype == np.uint8
                assert (s.arrays[len(s) - 1] == pixels.numpy()).all()
            copy = pickle.loads(pickle.dumps(s))
            assert (copy.read(1) == s.read(1)).all() and copy.names[1] == s.names[1]


def test_held_and_decoded_pictures_are_the_same(one_of_each):
    for kind in ("folder", "list", "parquet", "shards", "hub"):
        held, decoded = source(one_of_each[kind]), source(one_of_each[kind], cache=False)
        assert held.arrays is not None and decoded.arrays is None
        assert all((held.read(i) == decoded.read(i)).all() for i in range(6))
        assert held.fingerprint() == decoded.fingerprint() and list(held.names) == list(decoded.names)


# --- folders and lists --------------------------------------------------------------------------------------------


def test_folder_is_recursive_sorted_and_labelled_by_its_first_level(tmp_path):
    for name in ("dog/x/2.PNG", "cat/b.png", "cat/a.jpeg", "dog/.hidden.png", ".git/c.png", "cat/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(photo(9, 9), "JPEG" if name.endswith("jpeg") else "PNG"))
    s = source(tmp_path)
    assert list(s.names) == ["cat/a.jpeg", "cat/b.png", "dog/x/2.PNG"]
    assert s.labels.tolist() == [0, 0, 1] and s.classes == ["cat", "dog"]


def test_folder_without_classes(tmp_path):
    fill(tmp_path / "one", 2)
    (tmp_path / "loose.png").write_bytes(encoded(photo(9, 9)))
    assert source(tmp_path).labels is None
    (tmp_path / "loose.png").unlink()
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "p.png").write_bytes(encoded(photo(9, 9)))
    assert source(tmp_path / "flat").classes is None and source(tmp_path / "one" / "a").labels is None


def test_folder_splits(tmp_path):
    for split, count in (("train", 4), ("test", 2)):
        fill(tmp_path / split, count)
    assert len(source(tmp_path)) == len(source(tmp_path, split="train")) == 4
    assert len(source(tmp_path, split="test")) == 2 and source(tmp_path, split="test").classes == ["a", "b"]
    with pytest.raises(ValueError, match=r"split must be a folder.*'val'.*test, train"):
        source(tmp_path, split="val")


def test_circular_links_end(tmp_path):
    fill(tmp_path / "a", 2)
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(source(tmp_path)) == 2


def test_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"must hold pictures, got none.*\.jpg, \.jpeg, \.png"):
        source(tmp_path)


def test_list_files(tmp_path):
    for name in ("a.png", "my dog.png", "c.png"):
        (tmp_path / name).write_bytes(encoded(photo(9, 9)))
    (tmp_path / "l.txt").write_text("# mine\na.png cat\n\nmy dog.png dog\nc.png\n")
    s = source(tmp_path / "l.txt")
    assert list(s.names) == ["a.png", "my dog.png", "c.png"] and s.labels.tolist() == [0, 1, -1]
    (tmp_path / "l.csv").write_text('label,filename\n2,"a.png"\n0,my dog.png\n')
    s = source(tmp_path / "l.csv")
    assert s.labels.tolist() == [2, 0] and s.classes == ["0", "1", "2"]
    (tmp_path / "n.csv").write_text("a.png,x\nc.png,y\n")
    assert source(tmp_path / "n.csv").classes == ["x", "y"]
    (tmp_path / "t.tsv").write_text("path\na.png\n")
    assert source(tmp_path / "t.tsv").labels is None
    (tmp_path / "w.csv").write_text("what,that\n1,2\n")
    with pytest.raises(ValueError, match=r"must have a column of paths.*what, that"):
        source(tmp_path / "w.csv")
    (tmp_path / "e.txt").write_text("\n")
    with pytest.raises(ValueError, match="at least one"):
        source(tmp_path / "e.txt")


def test_files_missing_from_a_list_are_bad_files(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(photo(9, 9)))
    (tmp_path / "l.txt").write_text("a.png\nb.png\n")
    with pytest.raises(ValueError, match=r"at most 5\.0%.*1 of 2: b\.png \(file not found\)"):
        source(tmp_path / "l.txt")
    s = source(tmp_path / "l.txt", max_bad=0.5)
    assert len(s) == 1 and s.bad == [("b.png", "file not found")]


# --- arrays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, expected", [
    ((5, 8, 9), (5, 3, 8, 9)), ((5, 8, 9, 1), (5, 3, 8, 9)), ((5, 1, 8, 9), (5, 3, 8, 9)), ((5, 8, 9, 3), (5, 3, 8, 9)),
    ((5, 3, 8, 9), (5, 3, 8, 9)), ((5, 8, 9, 4), (5, 3, 8, 9)), ((5, 4, 8, 9), (5, 3, 8, 9)),
    ((5, 2, 8, 9), (5, 3, 8, 9)),
    ((5, 3, 3, 3), (5, 3, 3, 3)), ((5, 3, 4, 4), (5, 3, 4, 4)), ((5, 4, 4, 3), (5, 3, 4, 4)),
])  # fmt: skip
def test_array_layouts(tmp_path, shape, expected):
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.save(tmp_path / "a.npy", values)
    s = source(tmp_path / "a.npy", size=4)
    assert s.arrays.shape == expected
    if shape == (5, 3, 8, 9):
        assert (s.arrays == values).all()
    if shape == (5, 8, 9, 3):
        assert (s.arrays == values.transpose(0, 3, 1, 2)).all()


def test_array_values(tmp_path):
    def one(values):
        np.save(tmp_path / "a.npy", np.asarray(values).reshape(1, 1, 4))
        return source(tmp_path / "a.npy", size=4, channels=1).arrays.ravel().tolist()

    assert one(np.array([0, 0.5, 1, 0.25], np.float32)) == [0, 128, 255, 64]
    assert one(np.array([0, 257, 65535, 32768], np.uint16)) == [0, 1, 255, 128]
    assert one(np.array([0, 1, 200, 255], np.int64)) == [0, 1, 200, 255]
    assert one(np.array([True, False, True, False])) == [255, 0, 255, 0]
    for wrong in (
        np.array([0, 2.5, 1, 0]),
        np.array([0, -1, 1, 0]),
        np.array([np.nan, 0, 0, 0]),
        np.array([0, 1, 2, 999]),
    ):
        with pytest.raises(ValueError, match=r"uint8, uint16 or float pictures in 0\.\.1"):
            one(wrong)


def test_npz_keys_and_splits(tmp_path):
    many, few = np.zeros((4, 8, 8), np.uint8), np.zeros((2, 8, 8), np.uint8)
    np.savez(tmp_path / "m.npz", x_train=many, y_train=[[0], [1], [1], [0]], x_test=few, y_test=["u", "v"])
    assert len(source(tmp_path / "m.npz")) == 4 and source(tmp_path / "m.npz").labels.tolist() == [0, 1, 1, 0]
    assert source(tmp_path / "m.npz", split="test").classes == ["u", "v"]
    np.savez(tmp_path / "n.npz", train_images=many, test_images=few, test_labels=[5, 0])
    assert source(tmp_path / "n.npz", split="test").labels.tolist() == [5, 0]
    np.savez(tmp_path / "o.npz", pics=many, kinds=np.arange(4))
    assert source(tmp_path / "o.npz", image_column="pics", label_column="kinds").labels.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"must hold pictures under.*got pics, kinds.*image_column"):
        source(tmp_path / "o.npz")
    np.savez(tmp_path / "p.npz", images=many, labels=np.arange(3))
    with pytest.raises(ValueError, match=r"one label per picture \(4\)"):
        source(tmp_path / "p.npz")


def test_array_files_that_are_none(tmp_path):
    np.save(tmp_path / "five.npy", np.zeros((2, 3, 4, 5, 6), np.uint8))
    np.save(tmp_path / "none.npy", np.zeros((0, 4, 5), np.uint8))
    np.save(tmp_path / "object.npy", np.array([None, 1], dtype=object))
    np.save(tmp_path / "wide.npy", np.zeros((2, 7, 8, 9), np.uint8))
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    for name, reason in (("five", "For clips"), ("none", "at least one"), ("object", "never loaded"),
                         ("wide", "1 to 4 channels"), ("text", "plain numbers|readable")):  # fmt: skip
        with pytest.raises(ValueError, match=reason):
            source(tmp_path / f"{name}.npy")
    with pytest.raises(ValueError, match=r"plain numbers|readable"):
        source(tmp_path / "text.npz")


def test_idx_pairs_plain_and_zipped(tmp_path):
    def idx(values):
        return b"\0\0\x08" + bytes([values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()

    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6)).astype(np.uint8)
    for start, some in (("train", pixels), ("t10k", pixels[:2])):
        (tmp_path / f"{start}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(some)))
        (tmp_path / f"{start}-labels-idx1-ubyte").write_bytes(idx(np.arange(len(some), dtype=np.uint8)))
    s = source(tmp_path, channels=1)
    assert (s.arrays[:, 0] == pixels).all() and s.labels.tolist() == [0, 1, 2, 3, 4]
    assert len(source(tmp_path, split="test")) == 2
    assert len(source(tmp_path / "t10k-images-idx3-ubyte.gz")) == 2
    whole = gzip.decompress((tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes())
    for wrong in (whole[:-1], b"\0\1\2\3", b""):
        (tmp_path / "w-images-idx3-ubyte").write_bytes(wrong)
        with pytest.raises(ValueError, match=r"IDX file|must hold .* bytes"):
            source(tmp_path / "w-images-idx3-ubyte")
    (tmp_path / "w-images-idx3-ubyte.gz").write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(ValueError, match="readable IDX"):
        source(tmp_path / "w-images-idx3-ubyte.gz")


# --- Parquet and Hugging Face -------------------------------------------------------------------------------------


def test_parquet_files_splits_and_class_names(tmp_path):
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data" / "train-00000-of-00002.parquet", 6, names=["u", "v"])
    parquet(tmp_path / "data" / "train-00001-of-00002.parquet", 5, names=["u", "v"], start=6)
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", 3, names=["u", "v"])
    s = source(tmp_path)
    assert len(s) == 11 and s.classes == ["u", "v"] and list(s.names[:3]) == ["0.png", "1.png", "2.png"]
    for i in (0, 5, 6, 10):
        assert (s.read(i).permute(1, 2, 0).numpy() == photo(12, 12, seed=i)).all()
    assert len(source(tmp_path, split="test")) == 3
    with pytest.raises(ValueError, match=r"split must be one of test, train.*'val'"):
        source(tmp_path, split="val")


def test_parquet_columns(tmp_path):
    parquet(tmp_path / "p.parquet", plain=True, labels=False)
    s = source(tmp_path / "p.parquet")
    assert s.labels is None and s.names[5] == "p/5"
    with pytest.raises(ValueError, match=r"image_column must name.*'picture'.*there: image"):
        source(tmp_path / "p.parquet", image_column="picture")
    (tmp_path / "q.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match="must be a Parquet file"):
        source(tmp_path / "q.parquet")


def test_large_parquet_is_read_forwards(tmp_path, monkeypatch):
    from openjepa.data import parquet as rooms

    monkeypatch.setattr(rooms, "_IN_MEMORY", 0)
    monkeypatch.setattr(rooms, "_GROUPS_KEPT", 2)
    parquet(tmp_path / "p.parquet", 20)
    s = source(tmp_path / "p.parquet", cache=False)
    assert sorted(s.order(0, 0).tolist()) == list(range(20))
    assert all((s.read(i).permute(1, 2, 0).numpy() == photo(12, 12, seed=i)).all() for i in (0, 19, 7, 3, 12, 0))
    assert len(s.raw._held) == 2


def test_hub_folder_with_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})

    def rows(count):
        cells = [{"bytes": encoded(photo(12, 12, i)), "path": None} for i in range(count)]
        return datasets.Dataset.from_dict({"img": cells, "label": [1] * count}, features=features)

    datasets.DatasetDict({"train": rows(4), "test": rows(2)}).save_to_disk(str(tmp_path / "d"))
    assert len(source(tmp_path / "d")) == 4
    s = source(tmp_path / "d", split="test")
    assert len(s) == 2 and s.classes == ["no", "yes"] and s.labels.tolist() == [1, 1]
    with pytest.raises(ValueError, match="split must be one of train, test"):
        source(tmp_path / "d", split="val")
    with pytest.raises(ValueError, match="must be a dataset that opens"):
        source("hf://nobody/nothing-of-the-kind")


def test_missing_extras_name_what_to_install(tmp_path, monkeypatch):
    for module, path, extra in (("pyarrow", tmp_path / "t.parquet", "eval"), ("sklearn", "digits", "eval"),
                                ("datasets", "hf://a/b", "hf")):  # fmt: skip
        if str(path).endswith("parquet"):
            path.write_bytes(b"")
        for name in [m for m in sys.modules if m == module or m.startswith(f"{module}.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ValueError, match=rf'pip install "openjepa\[{extra}\]"'):
            source(path)


# --- tar shards ---------------------------------------------------------------------------------------------------


def test_shards_samples_labels_and_patterns(tmp_path):
    for k in range(3):
        tar(tmp_path / f"s{k:02d}.tar", {
            f"d/{k}{i}.{part}": data for i in range(4)
            for part, data in (("txt", b"hello"), ("png", encoded(photo(10, 10, k * 4 + i))), ("cls", str(i).encode()))
        })  # fmt: skip
    s = source(tmp_path / "s{00..02}.tar")
    assert len(s) == 12 and s.names[4] == "s01.tar/d/10.png" and s.labels.tolist() == [0, 1, 2, 3] * 3
    assert all((s.read(i).permute(1, 2, 0).numpy() == photo(10, 10, i)).all() for i in range(12))
    assert len(source(tmp_path)) == len(source(tmp_path / "s*.tar")) == 12
    assert len(source(tmp_path / "s{00,02}.tar")) == 8
    with pytest.raises(ValueError, match=r"tar shards must exist, got .*s03\.tar"):
        source(tmp_path / "s{00..03}.tar")
    (tmp_path / "z.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="uncompressed"):
        source(tmp_path / "z.tar.gz")
    tar(tmp_path / "none.tar", {"a.txt": b"hello"})
    with pytest.raises(ValueError, match="must hold pictures"):
        source(tmp_path / "none.tar")


def test_shard_labels_in_json(tmp_path):
    members = {f"{name}.png": encoded(photo(8, 8)) for name in "abc"}
    tar(tmp_path / "j.tar", {**members, "a.json": b'{"label": "cat"}', "b.json": b"{", "c.json": b'{"label": 7}'})
    s = source(tmp_path / "j.tar")
    assert s.classes == ["7", "cat"] and s.labels.tolist() == [1, -1, 0]


def test_damaged_shards_give_what_comes_before_and_are_listed(tmp_path):
    pictures = {f"{i}.png": encoded(photo(16, 16, i)) for i in range(6)}
    tar(tmp_path / "a.tar", pictures)
    tar(tmp_path / "b.tar", {**pictures, "3.png": b"not a picture"})
    tar(tmp_path / "c.tar", pictures)
    tar(tmp_path / "d.tar", pictures)
    whole = (tmp_path / "c.tar").read_bytes()
    with tarfile.open(tmp_path / "c.tar") as file:
        starts = [m.offset for m in file]
        cut = [m.offset_data for m in file][4] + 10
    (tmp_path / "c.tar").write_bytes(whole[:cut])  # ends in the middle of a picture
    (tmp_path / "d.tar").write_bytes(whole[: starts[2]] + b"\xff" * 512 + whole[starts[2] + 512 :])  # a broken header
    s = source(tmp_path, max_bad=0.5, cache=False)
    assert [n for n in s.names if n.startswith("c")][:4] == [f"c.tar/{i}.png" for i in range(4)]
    assert [n for n in s.names if n.startswith("d")] == ["d.tar/0.png", "d.tar/1.png"]
    reasons = dict(s.bad)
    assert "damaged" in reasons["d.tar"] and "damaged" in reasons["c.tar"]
    at = list(s.names).index("b.tar/3.png")
    with pytest.raises(BadPicture, match="not a picture"):
        s.read(at)
    held = source(tmp_path, max_bad=0.5)
    assert dict(held.bad)["b.tar/3.png"] == "not a picture file" and len(held) == len(
        [n for n in s.names if n not in ("b.tar/3.png", "c.tar/4.png")]
    )


def test_shards_are_read_forwards_yet_shuffled(tmp_path, monkeypatch):
    from openjepa.data import source as room

    monkeypatch.setattr(room, "SHUFFLE_WINDOW", 64)
    monkeypatch.setattr(room, "SHARDS_TOGETHER", 2)
    shards = np.repeat(np.arange(6), 100)
    first = room.forward_order(shards, np.random.default_rng(0))
    assert sorted(first.tolist()) == list(range(600))
    # of any 200 in a row, nearly all come from two shards
    for at in (0, 200, 400):
        counts = np.bincount(shards[first[at : at + 200]], minlength=6)
        assert np.sort(counts)[-2:].sum() >= 170
    assert (np.diff(first[:64]) != 1).mean() > 0.9
    assert first.tolist() != room.forward_order(shards, np.random.default_rng(1)).tolist()


# --- built in -----------------------------------------------------------------------------------------------------


def test_digits_split_is_fixed_and_stratified():
    pytest.importorskip("sklearn")
    train, test = source("digits", split="train"), source("digits", split="test", limit=None)
    assert (len(train), len(test)) == (1347, 450) and train.arrays.shape[1:] == (3, 8, 8)
    assert np.bincount(test.labels).min() >= 43 and np.bincount(test.labels).max() <= 47
    assert train.arrays.max() == 255 and train.classes == [str(k) for k in range(10)]
    rows = {a.tobytes() for a in train.arrays} & {a.tobytes() for a in test.arrays}
    assert len(rows) <= 1
    with pytest.raises(ValueError, match="train or test"):
        source("digits", split="val")


def test_shapes_show_their_factors():
    s = source("shapes:300", size=48)
    assert s.classes == list(SHAPES) and (s.labels == s.factors["shape"]).all()
    assert (source("shapes:20", size=48).arrays == s.arrays[:20]).all()  # a longer set begins with the shorter one
    assert not (source("shapes:20", size=48, split="test").arrays == s.arrays[:20]).all()
    colours = s.arrays.astype(float) / 255
    for i in range(300):
        ground = s.factors["ground"][i]
        shown = abs(colours[i] - ground).max(0) > 0.1
        y, x = np.argwhere(shown).mean(0) / 48
        tolerance = 0.06 + 0.1 * (SHAPES[s.labels[i]] in ("triangle", "star"))
        assert abs(x - s.factors["x"][i]) < tolerance and abs(y - s.factors["y"][i]) < tolerance
        area = shown.mean() / s.factors["size"][i] ** 2
        assert 0.8 < area < 3.2
    assert len(np.bincount(s.labels)) == 6 and np.bincount(s.labels).min() > 25


def test_shapes_are_drawn_alike_now_or_later(monkeypatch):
    from openjepa.data import shapes

    now = source("shapes:12", size=24)
    monkeypatch.setattr(shapes, "_DRAWN_NOW", 0)
    later = source("shapes:12", size=24)
    assert later.arrays is None and all((later.read(i) == now.read(i)).all() for i in range(12))


def test_factors_are_uniform_and_independent():
    known = factors(np.arange(20_000))
    table = np.stack([known[n] for n in ("shape", "hue", "ground", "size", "x", "y", "rotation")])
    assert abs(np.corrcoef(table) - np.eye(7)).max() < 0.03
    assert abs(known["hue"].mean() - 0.5) < 0.01 and abs(np.var(known["hue"]) - 1 / 12) < 0.002


# --- choosing -----------------------------------------------------------------------------------------------------


def test_limit_is_even_over_classes_and_seeded():
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    chosen = even_choice(labels, 1000, 100, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [50, 30, 20] and (np.diff(chosen) > 0).all()
    assert chosen.tolist() == even_choice(labels, 1000, 100, seed=0).tolist()
    assert chosen.tolist() != even_choice(labels, 1000, 100, seed=1).tolist()
    assert len(set(even_choice(None, 1000, 1000, seed=0).tolist())) == 1000


def test_size_and_normalisation(tmp_path):
    fill(tmp_path, 4, (300, 400), "jpg")
    assert source(tmp_path).size == 224 and source(tmp_path, size=96).size == 96
    np.save(tmp_path / "a.npy", np.stack([photo(20, 30, i) for i in range(8)]))
    s = source(tmp_path / "a.npy", normalise="data")
    assert s.size == 20
    pixels = s.arrays.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert np.allclose(s.mean, pixels.mean(1), atol=1e-6) and np.allclose(s.std, pixels.std(1), atol=1e-6)
    assert source(tmp_path / "a.npy", normalise="half").mean == (0.5,) * 3
    assert np.allclose(source(tmp_path / "a.npy", channels=1).mean, (0.449,), atol=1e-3)


def test_paths_that_are_nothing(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"data must exist.*Did you mean 'photos'"):
        source(tmp_path / "photo")
    with pytest.raises(ValueError, match="Did you mean 'digits'"):
        source("digit")
    (tmp_path / "a.png").write_bytes(encoded(photo(4, 4)))
    with pytest.raises(ValueError, match="it is a picture"):
        source(tmp_path / "a.png")
    with pytest.raises(ValueError, match="pth"):
        parse(DataConfig, {"pth": "x"})


def test_names_are_a_sequence():
    names = Names(["a", "", "\u00e9\udcff", "d" * 300])
    assert (
        list(names) == ["a", "", "\u00e9\udcff", "d" * 300]
        and names[-1] == "d" * 300
        and names[1:3] == ["", "\u00e9\udcff"]
    )
    with pytest.raises(IndexError):
        names[4]


def test_settings_and_names_need_no_torch():
    code = "import sys, openjepa.data, openjepa.data.config; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_grey_file_stays_small(tmp_path):
    Image.fromarray(photo(9, 9)[..., 0]).save(tmp_path / "a.png")
    assert source(tmp_path, channels=1).arrays.shape == (1, 1, 9, 9)


def test_the_index_of_shards_is_kept_and_never_trusted_when_damaged(tmp_path, monkeypatch):
    from openjepa.data import shards

    tar(tmp_path / "a.tar", {"0.png": encoded(photo(8, 8)), "0.cls": b"cat", "1.png": encoded(photo(8, 8, 1))})
    settings = {"cache_dir": str(tmp_path / "cache"), "max_bad": 1.0}
    first = source(tmp_path / "a.tar", **settings)
    (kept,) = (tmp_path / "cache" / "shards").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_read_index", lambda _: pytest.fail("read again"))
        again = source(tmp_path / "a.tar", **settings)
    assert list(again.names) == list(first.names) and again.labels.tolist() == first.labels.tolist() == [0, -1]
    assert again.fingerprint() == first.fingerprint()
    sound = kept.read_text()
    for damage in ("", "7\n[]", sound.replace("0.png", "9.png"), sound[:-3]):
        kept.write_text(damage)
        assert list(source(tmp_path / "a.tar", **settings).names) == list(first.names)
        assert kept.read_text() == sound
    tar(tmp_path / "a.tar", {"2.png": encoded(photo(8, 8, 2))})
    assert list(source(tmp_path / "a.tar", **settings).names) == ["a.tar/2.png"]
