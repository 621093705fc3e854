"""What `openjepa data check` says of videos."""

import shutil

import numpy as np
from PIL import Image

from openjepa.app.checking import check_data
from openjepa.data.clips import check_clips
from openjepa.data.clips.config import ClipConfig

from .conftest import moving, sound, write


def test_a_sound_set_and_its_numbers(tmp_path):
    for k in range(4):
        write(tmp_path / ["a", "b"][k % 2] / f"{k}.mp4", moving(20 + k))
    write(tmp_path / "a" / "slow.mkv", moving(20), fps=10, codec="mpeg4")
    report = check_clips(ClipConfig(path=str(tmp_path)), frames=8)
    assert report.ok and report.videos == report.readable == report.decoded == 5 and not report.bad
    assert report.lengths == {"min": 20, "median": 21, "max": 23} and report.frames == 20 + 21 + 22 + 23 + 20
    assert report.rates == {"25": 4, "10": 1} and report.codecs == {"h264": 4, "mpeg4": 1}
    assert report.sizes == {"64x48": 5} and report.classes == {"a": 3, "b": 2} and report.recommended_size == 48
    assert report.clips_per_cpu_second > 0 and any("rates differ" in line for line in report.advice)


def test_a_mess_is_told_apart(tmp_path):
    good = write(tmp_path / "good.mp4", moving(40, 96, 128), options={"crf": "10"})
    data = bytearray(good.read_bytes())
    at = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[at : at + 3000] = bytes(3000)
    (tmp_path / "damaged.mp4").write_bytes(bytes(data))
    (tmp_path / "zero.mp4").write_bytes(b"")
    sound(tmp_path / "song.m4a").rename(tmp_path / "song.mp4")
    write(tmp_path / "short.mp4", moving(3))
    report = check_clips(ClipConfig(path=str(tmp_path)), frames=16)
    assert {name for name, _ in report.bad} == {"damaged.mp4", "zero.mp4", "song.mp4"}
    assert report.too_short == ["short.mp4"] and not report.ok and "training would stop" in report.advice[0]
    heads = check_clips(ClipConfig(path=str(tmp_path)), frames=16, decode=False)
    assert {name for name, _ in heads.bad} == {"zero.mp4", "song.mp4"}  # damage within shows by decoding only


def test_the_content_decides_what_is_reported(tmp_path):
    video = write(tmp_path / "v" / "a.mp4", moving(20))
    (tmp_path / "p").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "p" / "a.png")
    assert check_data(str(tmp_path / "v"), ["frames=8", "stride=2"])["clip"] == "8 frames at stride 2"
    assert check_data(str(tmp_path / "p"))["pictures"] == 1
    shutil.copy(video, tmp_path / "p")
    both = check_data(str(tmp_path / "p"))
    assert both["pictures"]["pictures"] == 1 and both["clips"]["videos"] == 1 and both["clips"]["pictures"] == 1


def test_variable_rates_are_counted(tmp_path):
    write(tmp_path / "a.mkv", moving(20), times=np.cumsum([0, *[20, 120] * 10])[:20].tolist())
    report = check_clips(ClipConfig(path=str(tmp_path)), frames=4)
    assert report.variable == 1
