"""Clips that fit the videos: taken where nothing is said, named where something else was asked for."""

import numpy as np
import pytest

from openjepa.app.settings import resolve
from openjepa.config import USUAL_CLIP, ClipView
from openjepa.data.clips import check_clips, open_clips
from openjepa.data.clips.config import ClipConfig
from openjepa.data.clips.fit import Cut, fitting_cut, long_enough
from openjepa.data.clips.pace import latest_start
from openjepa.methods.future import FutureConfig
from openjepa.methods.vjepa import VJEPAConfig
from openjepa.train import execute

SMALL = ["method.encoder=vit_micro/8", "method.predictor_width=16", "method.predictor_depth=1", "batch_size=4",
         "budget.steps=1", "method.predictor_heads=2", "log.tensorboard=false"]  # fmt: skip


def fit(pace, lengths, rate=np.nan, bad=0, max_bad=0.05, whole=2):
    lengths = np.asarray(lengths)
    return fitting_cut(pace, lengths, np.full(len(lengths), float(rate)), bad=bad, max_bad=max_bad, whole=whole)


def test_the_usual_clip_is_that_of_the_methods():
    for config in (VJEPAConfig, FutureConfig):
        (view,) = config.model_fields["views"].default
        assert (view.frames, view.stride, view.fps) == (USUAL_CLIP.frames, USUAL_CLIP.stride, USUAL_CLIP.fps)


def test_frames_come_closer_before_they_become_fewer():
    assert fit(USUAL_CLIP, [61] * 9) == Cut(16, stride=4)
    assert fit(USUAL_CLIP, [60] * 9) == Cut(16, stride=3)
    assert fit(USUAL_CLIP, [20] * 9) == Cut(16, stride=1)
    assert fit(USUAL_CLIP, [15] * 9) == Cut(8, stride=1)
    assert fit(USUAL_CLIP, [5] * 9) == Cut(4, stride=1)
    assert fit(USUAL_CLIP, [3] * 9) is None and fit(USUAL_CLIP, [1] * 9) is None
    assert fit(ClipView(frames=12), [9], whole=4) is None  # 6 is no multiple, 4 is one tubelet


def test_a_few_short_videos_do_not_decide():
    lengths = [100] * 97 + [20] * 3
    assert fit(USUAL_CLIP, lengths) == Cut(16, stride=4)
    assert fit(USUAL_CLIP, lengths, max_bad=0.01) == Cut(16, stride=1)
    assert fit(USUAL_CLIP, lengths, bad=3) == Cut(16, stride=1)  # with the unreadable ones they are too many
    assert fit(USUAL_CLIP, [1] * 50 + [100] * 9) == Cut(16, stride=4)  # pictures are not asked


def test_fps_rises_to_the_rate_of_the_videos_and_turns_into_a_stride_where_none_is_known():
    view = ClipView(frames=16, fps=4)
    assert fit(view, [120] * 9, rate=30) == Cut(16, fps=4)
    assert fit(view, [60] * 9, rate=30) == Cut(16, fps=8)
    assert fit(view, [10] * 9, rate=30) == Cut(8, stride=1)
    assert fit(view, [20] * 9) == Cut(16, stride=1)


def test_long_enough_is_what_has_a_start():
    seconds = np.arange(40) / 30
    for pace in (Cut(8, stride=4), Cut(8, fps=6.0), Cut(8, fps=7.0), Cut(1, stride=1)):
        for n in range(1, 40):
            fits = long_enough(pace, np.array([n]), np.array([30.0 if n > 1 else np.nan]))[0]
            assert fits == (latest_start(pace, n, seconds[:n]) >= 0), (pace, n)


def test_a_run_that_is_not_told_its_clips_takes_what_fits_and_saves_it(tmp_path, caplog):
    run = resolve("vjepa", overrides=["data=bouncing-shapes:8", "data.size=64", f"out={tmp_path / 'a'}", *SMALL])
    out = execute(run)
    assert "8 of 8 videos are too short for the usual clip, 16 frames at stride 4 (61 frames)" in caplog.text
    saved = resolve(resume=out)
    (view,) = saved.method.views
    assert (view.frames, view.stride, view.flip) == (16, 1, 0.5)
    assert "stride: 1" in (out / "config.yaml").read_text()
    caplog.clear()
    assert execute(saved, resume=True) == out and execute(run, resume=True) == out  # the one given again fits again
    told = resolve("vjepa", config=out / "config.yaml", overrides=["data.frames=10", f"out={tmp_path / 'b'}"])
    with pytest.raises(ValueError, match=r"method.views=\[{frames: 8, stride: 1}\] fits 100 % of them"):
        execute(told)


def test_what_is_asked_for_is_kept_or_refused(tmp_path):
    views = "method.views=[{frames: 16, stride: 4}]"
    run = resolve("vjepa", overrides=["data=bouncing-shapes:8", views, f"out={tmp_path / 'a'}", *SMALL])
    with pytest.raises(ValueError, match=r"16 frames at stride 4.*method.views=\[{frames: 16, stride: 1}\] fits 100 %"):
        execute(run)


def test_both_kinds_of_the_images_and_videos_method_are_kept(tmp_path):
    heads = [s for s in SMALL if "encoder" not in s]
    run = resolve("vjepa21", overrides=["data=bouncing-shapes:8", "data.size=64", f"out={tmp_path / 'a'}", *heads,
                                        "method.encoder={name: vit_micro/8, pos: rope, levels: 2}"])  # fmt: skip
    execute(run)
    video, picture = resolve(resume=tmp_path / "a").method.views
    assert (video.frames, video.stride, video.fps, video.share) == (16, 1, None, 0.75) and picture.frames == 1


def test_data_check_says_what_a_run_would_take():
    report = check_clips(ClipConfig(path="bouncing-shapes:9"), decode=False)
    assert report.clip == "16 frames at stride 4" and report.too_short_count == 9
    assert report.ok and report.fits == "{frames: 16, stride: 1}"
    assert "9 of 9 videos are shorter than the usual clip, 16 frames at stride 4 (61 frames)" in report.advice[0]
    report = check_clips(ClipConfig(path="bouncing-shapes:9"), frames=16, stride=4, decode=False)
    assert not report.ok and "method.views=[{frames: 16, stride: 1}] fits 100 %" in report.advice[0]


def test_a_source_says_which_clip_would_fit():
    source = open_clips(ClipConfig(path="bouncing-shapes:9"))
    assert source.fitted(ClipView(frames=32), whole=2) == Cut(16, stride=1)
