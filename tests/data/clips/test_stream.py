"""A batch of clips is a function of the step: not of workers, ranks, restarts or bad files seen before."""

import logging
import shutil

import numpy as np
import pytest
import torch

from openjepa.config import ClipView
from openjepa.core.types import Clips
from openjepa.data.clips import ClipSource, ClipStream, clip_evaluation, clip_frames, open_clips
from openjepa.data.clips.config import ClipConfig

from .conftest import moving, write

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # fewer cores than workers

VIEWS = (
    ClipView(count=2, frames=4, stride=2, size=24, flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2, blur=0.3, share=2),
    ClipView(frames=8, size=16, scale=(0.1, 0.4), share=1),
)


def source(path: object, **settings: object) -> ClipSource:
    return open_clips(ClipConfig.model_validate({"path": str(path), **settings}))


def take(s: ClipSource, count: int, *, start: int = 0, views=VIEWS, **settings) -> list[Clips]:
    made = ClipStream(s, views, **({"batch_size": 4, "seed": 5} | settings))
    batches = made.batches(start)
    try:
        return [next(batches) for _ in range(count)]
    finally:
        made.close()


def same(a: list[Clips], b: list[Clips]) -> bool:
    return len(a) == len(b) and all(
        x.kind == y.kind and all(torch.equal(v, w) for v, w in zip((x[0], *x[2:]), (y[0], *y[2:]), strict=True))
        for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for k in range(9):
        write(root / f"{k}.mp4", moving(12 + k, 40, 56, seed=k))
    return root


@pytest.fixture(params=["drawn", "files"])
def clips(request, files, tmp_path) -> ClipSource:
    """The two ways through: clips cropped as a batch, and one by one."""
    return (
        source("bouncing-shapes:30") if request.param == "drawn" else source(files, workers=0, cache_dir=str(tmp_path))
    )


def test_what_a_batch_is(clips):
    batches = take(clips, 16)
    assert {b.kind for b in batches} == {0, 1}
    for batch in batches:
        view = VIEWS[batch.kind]
        assert batch.view.shape == (view.count, 4, view.frames, 3, view.size, view.size)
        assert batch.view.dtype == torch.float32 and bool(batch.view.isfinite().all())
        assert batch.index.dtype == batch.label.dtype == torch.int64 and batch.index.shape == batch.label.shape == (4,)


def test_same_seed_same_batches_other_seed_others(clips):
    assert same(take(clips, 4), take(clips, 4))
    assert not same(take(clips, 1), take(clips, 1, seed=6))


@pytest.mark.parametrize("start", [1, 5])
def test_resuming_at_a_step_equals_continuing(clips, start):
    assert same(take(clips, 7)[start:], take(clips, 7 - start, start=start))


def test_resuming_with_micro_batches_and_one_kind_for_all_of_them(clips):
    whole = take(clips, 12, accumulate=2)
    assert same(whole[6:], take(clips, 6, start=3, accumulate=2))
    assert all(a.kind == b.kind for a, b in zip(whole[::2], whole[1::2], strict=True))


def test_ranks_together_are_one_process(clips):
    whole, parts = take(clips, 4), [take(clips, 4, rank=r, world=2) for r in range(2)]
    for step, one in enumerate(whole):
        assert parts[0][step].kind == parts[1][step].kind == one.kind
        joined = torch.cat([p[step].view for p in parts], 1)
        assert torch.allclose(joined, one.view, atol=1e-4)
        assert torch.cat([p[step].index for p in parts]).tolist() == one.index.tolist()


def test_workers_change_nothing(files):
    s = source(files, cache=False)
    alone = take(s, 5, workers=0)
    assert same(alone, take(s, 5, workers=2))
    assert same(alone[2:], take(s, 3, start=2, workers=1))


def test_an_epoch_of_one_kind_holds_every_video_once(clips):
    views = [ClipView(frames=2)]
    per_epoch = len(clips) // 3
    epochs = [torch.cat([b.index for b in take(clips, per_epoch, start=per_epoch * e, views=views, batch_size=3)])
              for e in range(2)]  # fmt: skip
    assert all(sorted(e.tolist()) == list(range(len(clips))) for e in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


def test_kinds_come_in_their_share():
    made = ClipStream(source("bouncing-shapes:30"), VIEWS, batch_size=4, seed=1)
    kinds = np.array([made.plan.kind(step) for step in range(3000)])
    assert abs((kinds == 0).mean() - 2 / 3) < 0.03


def test_every_frame_gets_the_same_crop_and_colours(tmp_path):
    still = np.random.default_rng(0).integers(0, 255, (6, 1, 40, 40, 3), dtype=np.uint8).repeat(5, axis=1)
    np.save(tmp_path / "still.npy", still)
    view = ClipView(count=2, frames=5, size=16, flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), grey=0.3, blur=0.5, solarize=0.5)
    (batch,) = take(source(tmp_path / "still.npy"), 1, views=[view])
    assert torch.allclose(batch.view, batch.view[:, :, :1].expand_as(batch.view), atol=1e-5)
    assert (batch.view[0] - batch.view[1]).abs().mean() > 0.05


def test_frames_are_the_ones_that_stride_asks_for(tmp_path):
    values = np.arange(30, dtype=np.uint8)[None, :, None, None] * np.ones((8, 1, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "count.npy", values)
    s = source(tmp_path / "count.npy", normalise="half", channels=1)
    starts = set()
    for batch in take(s, 20, views=[ClipView(count=2, frames=4, stride=5)]):
        seen = ((batch.view.mean((3, 4, 5)) / 2 + 0.5) * 255).round().long()  # (V, B, T)
        assert (seen.diff(dim=2) == 5).all()
        starts |= set(seen[..., 0].flatten().tolist())
    assert starts == set(range(15))  # every start that fits, and no other


def test_fps_takes_what_is_on_show_at_each_time(tmp_path):
    draw = np.random.default_rng(0)
    times = np.cumsum([0, *draw.choice([20, 40, 100], 39)])
    write(tmp_path / "a.mkv", moving(40), times=times.tolist())
    s = source(tmp_path / "a.mkv")
    view = ClipView(frames=6, fps=10)
    for u in (0.0, 0.37, 1.0):
        from openjepa.data.clips.pace import random_frames

        seconds = s.seconds(0, view)
        (numbers,) = random_frames(np.array([u]), view, 40, seconds)
        start = u * (times[-1] / 1000 - 0.5)
        expected = [int(np.searchsorted(times / 1000, start + k / 10 + 1e-3, side="right")) - 1 for k in range(6)]
        assert abs(numbers - expected).max() <= 1 and (numbers == expected).mean() > 0.6
        assert (abs(times[numbers] / 1000 - (start + np.arange(6) / 10)) <= 0.1 + 1e-6).all()


def test_fps_without_a_rate_is_refused_with_advice():
    with pytest.raises(ValueError, match="unknown rate"):
        take(source("bouncing-shapes:9"), 1, views=[ClipView(frames=4, fps=2)])
    take(source("bouncing-shapes:9", rate=10), 1, views=[ClipView(frames=4, fps=2)])


def test_too_short_videos_are_named_and_left_out(files):
    s = source(files, max_bad=0.6)
    batches = take(s, 6, views=[ClipView(frames=16, size=16)])
    assert {name for name, _ in s.bad} == {"0.mp4", "1.mp4", "2.mp4", "3.mp4"}
    assert "too short: 12 frames, not enough for 16 frames" in dict(s.bad)["0.mp4"]
    assert min(int(b.index.min()) for b in batches) == 4
    with pytest.raises(ValueError, match=r"unusable videos must be at most 5.0%"):
        take(source(files), 1, views=[ClipView(frames=16)])
    with pytest.raises(ValueError, match=r"at least 64 frames, got 9 .* the longest, 8.mp4, has 20 frames"):
        take(source(files, max_bad=1), 1, views=[ClipView(frames=64)])


def test_videos_that_are_too_short_for_one_kind_serve_the_other(files):
    s = source(files)
    batches = take(s, 12, views=[ClipView(frames=4, size=16), ClipView(frames=16, size=16)], batch_size=3)
    assert not s.bad and all(int(b.index.min()) >= 4 for b in batches if b.kind == 1)


def test_a_damaged_video_is_replaced_counted_and_the_same_after_a_restart(files, tmp_path):
    for file in files.iterdir():
        shutil.copy(file, tmp_path)
    data = bytearray((tmp_path / "3.mp4").read_bytes())
    at = data.index(b"mdat") + 40
    data[at : at + 4000] = bytes(len(data[at : at + 4000]))
    (tmp_path / "3.mp4").write_bytes(bytes(data))
    views = [ClipView(frames=8, size=16)]
    s = source(tmp_path, max_bad=0.5)
    whole = take(s, 9, views=views)
    assert [name for name, _ in s.bad] == ["3.mp4"]
    fresh = source(tmp_path, max_bad=0.5)
    assert same(whole[4:], take(fresh, 5, start=4, views=views))


def test_pictures_and_videos_in_one_run(files):
    s = source(files, mix={"pictures:shapes:40": 1.0}, size=24)
    views = [ClipView(frames=6, share=1), ClipView(frames=1, share=1, flip=0.5)]
    batches = take(s, 16, views=views)
    assert {b.kind for b in batches} == {0, 1}
    for b in batches:
        assert bool((b.index >= 9).all()) if b.kind == 1 else bool((b.index < 9).all())


def test_few_videos_are_repeated_and_said(files, caplog):
    with caplog.at_level(logging.WARNING):
        (batch,) = take(source(files), 1, batch_size=16, views=[ClipView(frames=4, size=16)])
    assert "fewer than a batch" in caplog.text
    assert sorted(np.bincount(batch.index.numpy()).tolist()) == [1, 1] + [2] * 7


def test_evaluation_is_in_order_centred_and_complete(clips):
    parts = list(clip_evaluation(clips, frames=4, stride=2, size=20, clips=2, batch_size=6))
    index = torch.cat([p[2] for p in parts])
    assert index.tolist() == np.arange(len(clips)).repeat(2).tolist()
    assert all(p[0].shape[1:] == (4, 3, 20, 20) and len(p[0]) <= 6 for p in parts)
    numbers = clip_frames(clips, np.array([0]), ClipView(frames=4, stride=2), 3)[0]
    length = int(clips.lengths[0])
    assert numbers[:, 0].tolist() == [0, (length - 7) // 2, length - 7]
    again = torch.cat([p[0] for p in clip_evaluation(clips, frames=4, stride=2, size=20, indices=[5, 2], clips=2)])
    whole = torch.cat([p[0] for p in parts])
    assert torch.allclose(again[:2], whole[10:12], atol=1e-5) and torch.allclose(again[2:], whole[4:6], atol=1e-5)


def test_evaluation_leaves_out_what_is_too_short(files):
    index = torch.cat([p[2] for p in clip_evaluation(source(files), frames=16, size=16)])
    assert index.tolist() == [4, 5, 6, 7, 8]
    with pytest.raises(ValueError, match="at least 64 frames"):
        next(clip_evaluation(source(files), frames=64))


def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path):
    """A hundred times more frames: the reader holds those that are asked for."""
    import tracemalloc

    from openjepa.data.clips.video import outline, read_frames

    path = str(write(tmp_path / "long.mp4", np.tile(moving(20, 64, 64), (30, 1, 1, 1))))
    about = outline(path)
    assert len(about.times) == 600
    tracemalloc.start()
    read_frames(path, about, np.arange(0, 600, 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 64 * 64 * 3  # six frames, and room for a few more
