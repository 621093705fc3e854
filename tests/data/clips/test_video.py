"""Any frame of any file, exactly; and every unusable file is named with its reason."""

from pathlib import Path

import numpy as np
import pytest

from openjepa.data.clips.source import BadClip
from openjepa.data.clips.video import outline, read_frames, verify

from .conftest import av, moving, sequential, sound, write

KINDS = {
    "b-frames.mp4": {"codec": "libx264"},
    "open-gop.mkv": {"codec": "libx264", "options": {"x264-params": "open-gop=1:bframes=3"}},
    "stream.ts": {"codec": "libx264"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "open-gop=1:keyint=12:log-level=none"}},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "no-times.avi": {"codec": "libx264"},
    "no-times.h264": {"codec": "libx264"},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "ten-bit.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "motion.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "animated.gif": {"codec": "gif", "pixels": "rgb8"},
}


def same(path: Path, count: int, draw: np.random.Generator, tries: int = 6) -> None:
    """Random sets of frames are those of sequential decoding."""
    whole, about = sequential(path), outline(str(path))
    assert len(about.times) == len(whole) == count
    for _ in range(tries):
        numbers = draw.choice(count, 3, replace=False)  # in any order
        read = read_frames(str(path), about, numbers)
        for number, frame in zip(numbers, read, strict=True):
            assert np.array_equal(frame.transpose(1, 2, 0), whole[number]), f"frame {number} of {path.name}"


@pytest.mark.parametrize("name", KINDS)
def test_seeking_equals_sequential_decoding(tmp_path, name):
    try:
        path = write(tmp_path / name, moving(40), **KINDS[name])
    except av.error.FFmpegError as e:
        pytest.skip(f"this PyAV cannot write {name}: {e}")
    same(path, 40, np.random.default_rng(1))
    about = outline(str(path))
    for number in (0, 39):  # the ends
        read_frames(str(path), about, np.array([number]))
    assert (about.height, about.width) == (48, 64) and abs(about.rate - 25) < 0.5
    verify(str(path), about)


def test_every_frame_of_every_real_file(data_dir):
    files = sorted(p for p in (data_dir / "clips").rglob("*") if p.is_file())
    assert len(files) >= 20 and any("10bits" in p.name for p in files) and any("av1" in p.name for p in files)
    draw = np.random.default_rng(0)
    for path in files:
        whole, about = first_frames(path, 150), outline(str(path))
        length = min(len(whole), len(about.times))
        numbers = np.unique([0, length - 1, *draw.choice(length, min(length, 4), replace=False)])
        read = read_frames(str(path), about, numbers)
        for number, frame in zip(numbers, read, strict=True):
            assert np.array_equal(frame.transpose(1, 2, 0), whole[number]), f"frame {number} of {path.name}"


def first_frames(path: Path, most: int) -> list[np.ndarray]:
    found = []
    with av.open(str(path)) as box:
        for frame in box.decode(video=0):
            found.append(frame.to_ndarray(format="rgb24"))
            if len(found) == most:
                break
    return found


def test_far_frames_of_a_long_real_file(data_dir):
    """Behind several key frames: reached by seeking, equal to decoding from the start."""
    path = data_dir / "clips" / "bottle-detection.mp4"
    about = outline(str(path))
    numbers = np.array([249, 250, 251, 700, 1188])
    wanted = {}
    with av.open(str(path)) as box:
        for k, frame in enumerate(box.decode(video=0)):
            if k in numbers:
                wanted[k] = frame.to_ndarray(format="rgb24")
    assert len(about.times) == 1189 and len(about.keys) == 5
    for number, frame in zip(numbers, read_frames(str(path), about, numbers), strict=True):
        assert np.array_equal(frame.transpose(1, 2, 0), wanted[int(number)])


def test_bytes_and_paths_give_the_same(tmp_path):
    path = write(tmp_path / "a.mp4", moving(20))
    data, numbers = path.read_bytes(), np.array([3, 17])
    assert np.array_equal(
        read_frames(data, outline(data), numbers), read_frames(str(path), outline(str(path)), numbers)
    )


def test_variable_frame_rate_keeps_every_time(tmp_path):
    times = np.cumsum([0, *np.random.default_rng(3).choice([20, 40, 200], 29)]).tolist()
    path = write(tmp_path / "a.mkv", moving(30), times=times)
    about = outline(str(path))
    assert ((about.times - about.times[0]) * about.unit * 1000).round().tolist() == times
    same(path, 30, np.random.default_rng(0))


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_flags_are_obeyed(tmp_path, rotation):
    plain = write(tmp_path / "plain.mp4", moving(5))
    turned = write(tmp_path / "turned.mp4", moving(5), rotation=rotation)
    about = outline(str(turned))
    assert (about.height, about.width) == ((48, 64) if rotation == 180 else (64, 48))
    upright = read_frames(str(plain), outline(str(plain)), np.array([2]))[0]
    with av.open(str(turned)) as box:
        angle = next(box.decode(video=0)).rotation  # counter-clockwise, as FFmpeg gives it
    assert abs(angle) == abs(rotation)
    expected = np.rot90(upright, angle // 90, axes=(1, 2))
    assert np.array_equal(read_frames(str(turned), about, np.array([2]))[0], expected)


def test_transparency_lies_on_white(tmp_path):
    path = str(tmp_path / "a.mov")
    with av.open(path, "w") as box:
        stream = box.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "rgba"
        for alpha in (255, 0):
            picture = np.full((16, 16, 4), (255, 0, 0, alpha), dtype=np.uint8)
            box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        box.mux(stream.encode())
    read = read_frames(path, outline(path), np.array([0, 1]))
    assert read[0, :, 8, 8].tolist() == [255, 0, 0] and read[1, :, 8, 8].tolist() == [255, 255, 255]


def test_odd_sizes_one_channel_and_one_frame(tmp_path):
    path = write(tmp_path / "a.mkv", moving(1, 47, 63), codec="ffv1", pixels="yuv444p")
    about = outline(str(path))
    assert (about.height, about.width, len(about.times)) == (47, 63, 1) and np.isnan(about.rate)
    assert read_frames(str(path), about, np.array([0])).shape == (1, 3, 47, 63)
    white = write(tmp_path / "w.mp4", np.full((3, 32, 32, 3), 255, np.uint8))
    grey = read_frames(str(white), outline(str(white)), np.array([1]), 1)
    assert grey.shape == (1, 1, 32, 32) and grey.min() >= 250


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.write_bytes(b""), "empty file"),
        (lambda p: p.write_bytes(b"not a video" * 50), "damaged or not a video"),
        (lambda p: sound(p.with_suffix(".m4a")).rename(p), "no video stream, only audio"),
        (lambda p: None, "file not found"),
    ],
)
def test_files_that_are_no_video_say_why(tmp_path, make, reason):
    make(tmp_path / "a.mp4")
    with pytest.raises(BadClip, match=reason):
        outline(str(tmp_path / "a.mp4"))


@pytest.mark.parametrize(
    ("name", "options"), [("a.mkv", {}), ("a.mp4", {}), ("fast.mp4", {"movflags": "faststart"}), ("a.webm", {})]
)
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_truncated_files_are_told(tmp_path, name, options, share):
    codec = "libvpx" if name.endswith("webm") else "libx264"
    path = tmp_path / name
    if options:
        with av.open(str(path), "w", options=options) as box:
            stream = box.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for picture in moving(40):
                box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            box.mux(stream.encode())
    else:
        write(path, moving(40), codec=codec)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadClip, match=r"truncated|damaged or not a video"):
        outline(str(path))


def test_damage_in_the_middle_is_found_by_decoding(tmp_path):
    path = write(tmp_path / "a.mp4", moving(40, 96, 128), options={"crf": "10"})
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[at : at + 3000] = bytes(3000)
    path.write_bytes(bytes(data))
    about = outline(str(path))
    with pytest.raises(BadClip, match="damage"):
        verify(str(path), about)


def test_frames_out_of_range_are_refused(tmp_path):
    path = write(tmp_path / "a.mp4", moving(5))
    with pytest.raises(BadClip, match="not among its 5"):
        read_frames(str(path), outline(str(path)), np.array([5]))
