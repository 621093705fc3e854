"""Every format opens to the same episodes, whatever it calls things; and says which episodes it cannot give."""

import json

import numpy as np
import pytest

from openjepa.data.episodes import EpisodeConfig, gather, open_episodes, split
from openjepa.data.episodes.opening import kind_of

RNG = np.random.default_rng(0)
LENGTHS = (5, 7, 4)
PICTURES = [RNG.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8) for n in LENGTHS]
ACTIONS = [RNG.normal(size=(n, 2)).astype(np.float32) for n in LENGTHS]
STATES = [RNG.normal(size=(n, 3)) for n in LENGTHS]


def open_(path, **settings):
    return open_episodes(EpisodeConfig(path=str(path), **settings))


def assert_same(e, obs=PICTURES, action=ACTIONS, state=STATES):
    assert e.lengths.tolist() == list(LENGTHS)
    for i in range(len(LENGTHS)):
        np.testing.assert_array_equal(e[i].obs, np.asarray(obs[i], e.obs.dtype))
        if action is not None:
            np.testing.assert_array_equal(e[i].action[:-1], action[i][:-1])
        if state is not None:
            np.testing.assert_array_equal(e[i].state, state[i])


# npz


def test_a_folder_of_npz_with_other_names(tmp_path):
    for i in range(3):
        np.savez(tmp_path / f"{i:03d}.npz", front=PICTURES[i], u=ACTIONS[i][:-1], qpos=STATES[i])
    assert_same(open_(tmp_path, keys={"obs": "front", "action": "u"}))
    assert_same(open_(tmp_path, keys={"action": "u"}), obs=STATES)  # without a usual name for pictures: the states
    with pytest.raises(ValueError, match=r"keys\.obs must be a name in .* got 'side'. There are: front, u, qpos"):
        open_(tmp_path, keys={"obs": "side"})
    with pytest.raises(ValueError, match="keys must be among"):
        open_(tmp_path, keys={"observation": "front"})


def test_a_file_that_cannot_be_read_is_named_and_skipped_by_choice(tmp_path):
    for i in range(3):
        np.savez(tmp_path / f"{i}.npz", image=PICTURES[i], action=ACTIONS[i])
    (tmp_path / "3.npz").write_bytes((tmp_path / "1.npz").read_bytes()[:200])
    np.savez(tmp_path / "4.npz", action=ACTIONS[0])
    np.savez(tmp_path / "5.npz", image=PICTURES[0][:, :4], action=ACTIONS[0])
    np.savez(tmp_path / "6.npz", image=np.array([{"a": 1}]), action=ACTIONS[0])
    with pytest.raises(ValueError, match=r"got 4 bad of 3: .*3 \(cannot be read.*4 \(no observations among action"):
        open_(tmp_path)
    e = open_(tmp_path, on_bad="skip")
    assert_same(e, state=None)
    assert [n for n, _ in sorted(e.bad)] == ["3", "4", "5", "6"] and "(4, 8, 3)" in dict(e.bad)["5"]


def test_one_npz_stacked_flat_or_alone(tmp_path):
    flat = {"pixels": np.concatenate(PICTURES), "actions": np.concatenate(ACTIONS), "states": np.concatenate(STATES)}
    np.savez(tmp_path / "ends.npz", **flat, episode_ends=np.cumsum(LENGTHS))
    np.savez(tmp_path / "lengths.npz", **flat, lengths=LENGTHS)
    np.savez(tmp_path / "index.npz", **flat, episode_index=np.repeat([4, 9, 2], LENGTHS))
    marks = np.zeros(sum(LENGTHS), bool)
    marks[np.cumsum(LENGTHS)[:2] - 1] = True
    np.savez(tmp_path / "marks.npz", **flat, terminals=marks)
    for name in ("ends", "lengths", "index", "marks"):
        assert_same(open_(tmp_path / f"{name}.npz"))
    np.savez(tmp_path / "stacked.npz", obs=RNG.normal(size=(4, 6, 2)), action=RNG.normal(size=(4, 5, 1)))
    assert open_(tmp_path / "stacked.npz").lengths.tolist() == [6] * 4
    np.savez(tmp_path / "alone.npz", obs=STATES[0], action=ACTIONS[0])
    assert open_(tmp_path / "alone.npz").lengths.tolist() == [5]
    np.savez(tmp_path / "cut.npz", **flat, lengths=[5, 7, 40])
    with pytest.raises(ValueError, match="The file may be cut off"):
        open_(tmp_path / "cut.npz")
    np.savez(tmp_path / "pictures.npz", x=PICTURES[0], y=np.arange(5))
    assert kind_of(str(tmp_path / "pictures.npz")) is None


# HDF5


def test_flat_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="install openjepa[episodes]")
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("pixels", data=np.concatenate(PICTURES), chunks=(2, 8, 8, 3), compression="gzip")
        f["action"], f["state"] = np.concatenate(ACTIONS), np.concatenate(STATES)
        f["ep_len"], f["ep_offset"] = np.array(LENGTHS), np.cumsum([0, *LENGTHS[:-1]])
    assert_same(open_(tmp_path / "a.h5"))
    assert_same(open_(tmp_path / "a.h5", obs="state"), obs=STATES)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:1000])
    with pytest.raises(ValueError, match="must be an HDF5 file"):
        open_(tmp_path / "cut.h5")


def test_a_group_per_episode_as_robomimic_has_them(tmp_path):
    h5py = pytest.importorskip("h5py", reason="install openjepa[episodes]")
    with h5py.File(tmp_path / "demo.hdf5", "w") as f:
        f.create_group("data").attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"robots": "Panda"}})
        for i in range(3):
            g = f.create_group(f"data/demo_{i * 5}")  # 0, 5, 10: in the order of numbers, not of letters
            g["actions"], g["states"], g["rewards"] = ACTIONS[i], STATES[i], np.zeros(LENGTHS[i])
            g["obs/agentview_image"], g["obs/eef"] = PICTURES[i], STATES[i][:, :2]
            g["obs/joint"] = STATES[i][:, 2:]
            g["next_obs/eef"] = STATES[i][:, :2]
        f["mask/train"] = np.array([b"demo_0"])
    e = open_(tmp_path / "demo.hdf5")
    assert_same(e)
    assert e.names == ["demo_0", "demo_5", "demo_10"] and e.about.world == {"name": "Lift", "robots": "Panda"}
    assert_same(open_(tmp_path / "demo.hdf5", obs="state"), obs=STATES)


@pytest.mark.parametrize("space", ["Box", "Discrete"])
def test_minari(tmp_path, space):
    h5py = pytest.importorskip("h5py", reason="install openjepa[episodes]")
    (tmp_path / "data").mkdir()
    acts = [np.arange(n - 1) % 3 for n in LENGTHS] if space == "Discrete" else [a[:-1] for a in ACTIONS]
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "w") as f:
        for i in range(3):
            f[f"episode_{i}/observations"], f[f"episode_{i}/actions"] = STATES[i], acts[i]
            f[f"episode_{i}/rewards"] = np.zeros(LENGTHS[i] - 1)
    about = {"type": "Box", "shape": [2], "low": [-1.0, -1.0], "high": [1.0, 2.0], "dtype": "float32"}
    about = {"type": "Discrete", "n": 3, "start": 0, "dtype": "int64"} if space == "Discrete" else about
    (tmp_path / "data" / "metadata.json").write_text(json.dumps({"action_space": json.dumps(about)}))
    e = open_(tmp_path)
    assert e.kind == "minari"
    assert_same(e, obs=STATES, action=None if space == "Discrete" else ACTIONS, state=None)
    assert (e.about.discrete, e.about.high) == ((3, ()) if space == "Discrete" else (None, (1.0, 2.0)))


# LeRobot


def lerobot(root, pyarrow, *, video=False, images=False, drop=None):
    import pyarrow.parquet as pq

    state = {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    features = {"action": {"dtype": "float32", "shape": [2]}, "observation.state": state}
    frame = np.concatenate([np.arange(n) for n in LENGTHS])
    columns = {
        "episode_index": np.repeat(np.arange(3), LENGTHS), "frame_index": frame,
        "action": [a.tolist() for a in np.concatenate(ACTIONS)],
        "observation.state": [s.tolist() for s in np.concatenate(STATES).astype(np.float32)],
    }  # fmt: skip
    if video or images:
        features["observation.images.top"] = {"dtype": "video" if video else "image", "shape": [16, 16, 3]}
    if images:
        from .conftest import encoded

        columns["observation.images.top"] = [
            {"bytes": encoded(np.kron(p, np.ones((2, 2, 1), np.uint8)), "PNG"), "path": None}
            for p in np.concatenate(PICTURES)
        ]
    table = pyarrow.table(columns)
    if drop is not None:
        table = pyarrow.concat_tables([table.slice(0, drop), table.slice(drop + 1)])
    (root / "meta").mkdir(parents=True)
    (root / "data" / "chunk-000").mkdir(parents=True)
    order = np.random.default_rng(1).permutation(len(table))  # rows need not be in order
    pq.write_table(table.take(order), root / "data" / "chunk-000" / "file-000.parquet")
    info = {"fps": 10, "total_frames": sum(LENGTHS), "features": features, "chunks_size": 1000,
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}  # fmt: skip
    (root / "meta" / "info.json").write_text(json.dumps(info))
    return root


def test_lerobot_states_and_pictures(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="install openjepa[episodes]")
    e = open_(lerobot(tmp_path / "a", pyarrow))
    singles = [s.astype(np.float32) for s in STATES]
    assert_same(e, obs=singles, state=singles)
    assert e.features == ("x", "y", "z") and e.about.dt == 0.1 and not e.pictures
    e = open_(lerobot(tmp_path / "b", pyarrow, images=True))
    assert_same(e, obs=[np.kron(p, np.ones((1, 2, 2, 1), np.uint8)) for p in PICTURES], state=singles)
    with pytest.raises(ValueError, match=r"1 bad of 2: 000001 \(frames are not 0 to 5"):
        open_(lerobot(tmp_path / "c", pyarrow, drop=8))


def test_lerobot_video(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="install openjepa[episodes]")
    av = pytest.importorskip("av", reason="install openjepa[episodes]")
    import pyarrow.parquet as pq

    root = lerobot(tmp_path / "a", pyarrow, video=True)
    place = root / "videos" / "observation.images.top" / "chunk-000"
    place.mkdir(parents=True)
    total, shades = sum(LENGTHS), np.linspace(20, 230, sum(LENGTHS)).astype(np.uint8)
    with av.open(str(place / "file-000.mp4"), "w") as out:  # all episodes in one file, as version 3 has them
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt, stream.gop_size = "yuv420p", 4
        for shade in shades:
            picture = np.full((16, 16, 3), shade, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    starts = np.cumsum([0, *LENGTHS[:-1]]) / 10
    key = "videos/observation.images.top/"
    (root / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    table = pyarrow.table({"episode_index": [0, 1, 2], key + "chunk_index": [0] * 3, key + "file_index": [0] * 3,
                           key + "from_timestamp": starts})  # fmt: skip
    pq.write_table(table, root / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    e = open_(root, cache_dir=str(tmp_path / "cache"))
    seen = e.obs.reshape(total, -1).mean(1)
    np.testing.assert_allclose(seen, shades, atol=6)  # lossy, and far less than from one frame to the next
    assert np.abs(np.diff(seen)).min() > 6
    assert len(list((tmp_path / "cache" / "episodes").iterdir())) == 1
    (place / "file-000.mp4").write_bytes((place / "file-000.mp4").read_bytes()[:600])
    with pytest.raises(ValueError, match=r"must hold a sound episode, got 000000 \(video file-000.mp4 cannot be read"):
        open_(root, cache_dir=str(tmp_path / "cache"))
    assert open_(root, obs="state").features == ("x", "y", "z")


# tracks


def test_tracks_are_cut_where_a_person_is_missing(tmp_path):
    lines = [(10 * t, p, t + p, -t) for t in range(6) for p in (1, 2) if not (p == 2 and t == 3)]
    text = "\n".join("\t".join(map(str, line)) for line in lines)
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text(text)
    e = open_(tmp_path)
    assert e.names[:3] == ["a/0001-000000", "a/0002-000000", "a/0002-000040"]
    assert e.lengths[:3].tolist() == [6, 3, 2] and e.action.shape[1] == 0 and e.features == ("x", "y")
    parts = split(e, EpisodeConfig(path="", held_group="b"))
    assert {n[0] for n in parts.names} == {"b"} and len(parts.train) == 3
    with pytest.raises(ValueError, match="Groups: a, b"):
        split(e, EpisodeConfig(path="", held_group="c"))


# large sets go through a folder of ours


def test_large_sets_are_converted_once_and_mapped(tmp_path, monkeypatch):
    for i in range(3):
        np.savez(tmp_path / f"{i}.npz", image=PICTURES[i], action=ACTIONS[i], state=STATES[i])
    np.savez(tmp_path / "3.npz", image=PICTURES[0], action=ACTIONS[1])
    cache = tmp_path / "cache"
    settings = {"on_bad": "skip", "cache_dir": str(cache)}
    small = open_(tmp_path, **settings)
    assert not cache.exists()
    monkeypatch.setattr(gather, "MEMORY", 0)
    for _ in range(2):
        large = open_(tmp_path, **settings)
        assert_same(large)
        assert large.bad == small.bad and large.names == small.names and large.where == small.where
        assert len(list((cache / "episodes").iterdir())) == 1
    np.savez(tmp_path / "2.npz", image=PICTURES[2][:-1], action=ACTIONS[2][:-1], state=STATES[2][:-1])
    assert open_(tmp_path, **settings).lengths.tolist() == [5, 7, 3]  # the files changed: read again


def test_real_robot_episodes(data_dir):
    e = open_(data_dir / "bridge")
    assert (len(e), e.frames, e.obs.shape[1:], e.action.shape[1], e.state.shape[1]) == (25, 250, (64, 64, 3), 7, 7)
    assert not e.bad and open_(data_dir / "bridge", obs="state").obs.shape[1:] == (7,)


def test_real_pedestrians(data_dir):
    e = open_(data_dir / "eth-ucy")
    assert len(set(e.groups)) == 8 and e.frames > 70_000
    speed = (
        np.concatenate(
            [np.linalg.norm(np.diff(e[i].state, axis=0), axis=1) for i in range(len(e)) if "zara" in e.groups[i]]
        )
        / 0.4
    )
    assert 0.5 < np.median(speed) < 2.0  # metres per second: people walk


# checking


def test_check_says_what_is_there_and_what_is_wrong(tmp_path):
    from openjepa.data.episodes import About, Writer
    from openjepa.data.episodes.checkup import check_episodes

    with Writer(tmp_path / "eps", About(low=(-0.5,), high=(0.5,))) as w:
        for i in range(30):
            g = np.random.default_rng(min(i, 28))  # the last two are equal
            x = np.concatenate([g.normal(size=(6, 2)), np.ones((6, 1))], 1)
            w.add(x, g.uniform(-1, 1, (5, 1)), x)
    report = check_episodes(EpisodeConfig(path=str(tmp_path / "eps")))
    assert report.ok and (report.episodes, report.sound, report.frames) == (30, 30, 180)
    assert report.duplicates == [["28", "29"]] and report.obs["constant"] == ["x2"]
    assert 0.3 < report.action["outside"] < 0.7 and report.action["bounds"] == [[-0.5], [0.5]]
    assert report.split["train"] + report.split["held_out"] == 30
    said = " ".join(report.advice)
    assert "exact copies" in said and "outside the bounds" in said and "never change" in said
    json.dumps(report.as_dict())
    content = bytearray((tmp_path / "eps" / "state.npy").read_bytes())
    content[-3] ^= 8
    (tmp_path / "eps" / "state.npy").write_bytes(bytes(content))
    report = check_episodes(EpisodeConfig(path=str(tmp_path / "eps")))
    assert not report.ok and report.bad[0][0] == "29" and "checksum" in report.bad[0][1] and report.sound == 29
