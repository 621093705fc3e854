"""A batch is a function of the step: not of workers, ranks, restarts or bad files seen before."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openjepa.config import View
from openjepa.core.types import Pictures
from openjepa.data import PictureStream, open_source, stream
from openjepa.data.config import DataConfig
from openjepa.data.plan import Plan
from openjepa.data.source import Source

from .conftest import encoded, fill, photo

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # fewer cores than workers

VIEWS = (
    View(count=2, scale=(0.3, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2, blur=0.3, solarize=0.2),
    View(count=3, size=16, scale=(0.1, 0.4), filter="bilinear"),
)


def source(path, **settings) -> Source:
    return open_source(DataConfig(path=str(path), **settings))


def take(s: Source, count: int, *, start: int = 0, views=VIEWS, **settings) -> list[Pictures]:
    made = PictureStream(s, views, **({"batch_size": 8, "seed": 5} | settings))
    batches = made.batches(start)
    try:
        return [next(batches) for _ in range(count)]
    finally:
        made.close()


def same(a: list[Pictures], b: list[Pictures]) -> bool:
    return len(a) == len(b) and all(
        all(torch.equal(v, w) for v, w in zip(x.views, y.views, strict=True))
        and torch.equal(x.index, y.index)
        and torch.equal(x.label, y.label)
        for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(params=["array", "files"])
def pictures(request, tmp_path) -> Source:
    """The two ways through: pictures cropped as a batch, and one by one."""
    if request.param == "array":
        return source("shapes:40", size=24)
    for i in range(40):
        (tmp_path / f"{i % 2}").mkdir(exist_ok=True)
        (tmp_path / f"{i % 2}" / f"{i:02d}.png").write_bytes(encoded(photo(20 + i, 60 - i, seed=i)))
    return source(tmp_path, cache=False, size=24, workers=0)


def test_what_a_batch_is(pictures):
    (batch,) = take(pictures, 1)
    assert [tuple(v.shape) for v in batch.views] == [(2, 8, 3, 24, 24), (3, 8, 3, 16, 16)]
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in batch.views)
    assert batch.index.dtype == batch.label.dtype == torch.int64 and batch.index.shape == (8,)
    assert batch.label.tolist() == pictures.labels[batch.index.numpy()].tolist()
    low = (0 - torch.tensor(pictures.mean)) / torch.tensor(pictures.std)
    high = (1 - torch.tensor(pictures.mean)) / torch.tensor(pictures.std)
    for view in batch.views:
        assert (view.amin((0, 1, 3, 4)) >= low - 1e-4).all() and (view.amax((0, 1, 3, 4)) <= high + 1e-4).all()
    first, second = batch.views[0]
    assert (first - second).abs().mean() > 0.05  # two draws


def test_same_seed_same_batches_other_seed_others(pictures):
    assert same(take(pictures, 6), take(pictures, 6))
    assert not same(take(pictures, 1), take(pictures, 1, seed=6))


@pytest.mark.parametrize("start", [1, 4, 5, 13])
def test_resuming_at_a_step_equals_continuing(pictures, start):
    assert same(take(pictures, 16)[start:], take(pictures, 16 - start, start=start))


def test_resuming_with_micro_batches(pictures):
    assert same(take(pictures, 12, accumulate=2)[6:], take(pictures, 6, start=3, accumulate=2))


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_are_one_process(pictures, world):
    whole = take(pictures, 6)
    parts = [take(pictures, 6, rank=r, world=world) for r in range(world)]
    for step, one in enumerate(whole):
        for g in range(2):
            joined = torch.cat([p[step].views[g] for p in parts], 1)
            # a batched product of another batch size may sum in another order: the last bit of a float
            assert torch.allclose(joined, one.views[g], atol=1e-4)
        assert torch.cat([p[step].index for p in parts]).tolist() == one.index.tolist()


def test_micro_batches_hold_the_same_pictures_as_the_batch(pictures):
    whole, parts = take(pictures, 3), take(pictures, 6, accumulate=2)
    for step in range(3):
        joined = torch.cat([parts[2 * step].index, parts[2 * step + 1].index])
        assert joined.tolist() == whole[step].index.tolist()


def test_an_epoch_holds_every_picture_once_and_the_next_another_order(pictures):
    epochs = [torch.cat([b.index for b in take(pictures, 5, start=5 * e)]).tolist() for e in range(3)]
    assert all(sorted(e) == list(range(40)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_last_incomplete_batch_is_dropped(pictures):
    made = PictureStream(pictures, VIEWS, batch_size=12, seed=0)
    assert made.steps_per_epoch == 3
    epoch = torch.cat([b.index for b in take(pictures, 3, batch_size=12)]).tolist()
    assert len(set(epoch)) == 36


def test_a_set_smaller_than_a_batch_is_repeated_and_said(caplog):
    s = source("shapes:5", size=12)
    with caplog.at_level(logging.WARNING):
        (first, second) = take(s, 2, batch_size=16)
    assert "fewer than a batch" in caplog.text
    assert sorted(np.bincount(first.index.numpy()).tolist()) == [3, 3, 3, 3, 4]
    assert not torch.equal(first.views[0], second.views[0])
    assert same(take(s, 4, batch_size=16)[2:], take(s, 2, start=2, batch_size=16))


def test_workers_change_nothing(tmp_path):
    fill(tmp_path, 30, (40, 50))
    s = source(tmp_path, cache=False, size=24)
    alone = take(s, 6, batch_size=20, workers=0)
    assert same(alone, take(s, 6, batch_size=20, workers=2))
    assert same(alone[3:], take(s, 3, start=3, batch_size=20, workers=3))


@pytest.mark.slow
def test_spawned_workers(tmp_path, monkeypatch):
    fill(tmp_path, 10, (40, 50))
    s = source(tmp_path, cache=False, size=24)
    loader = torch.utils.data.DataLoader
    monkeypatch.setattr(
        torch.utils.data, "DataLoader", lambda *a, **k: loader(*a, **k, multiprocessing_context="spawn")
    )
    spawned = take(s, 2, workers=1)
    monkeypatch.undo()
    assert same(spawned, take(s, 2, workers=0))


def test_close_stops_the_workers_and_a_second_start_works(tmp_path):
    import multiprocessing

    fill(tmp_path, 20, (40, 50))
    made = PictureStream(source(tmp_path, cache=False, size=24), VIEWS, batch_size=8, seed=5, workers=2)
    first = next(made.batches())
    assert len(multiprocessing.active_children()) == 2
    again = next(made.batches())
    assert same([first], [again]) and len(multiprocessing.active_children()) == 2
    made.close()
    assert multiprocessing.active_children() == []
    made.close()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 3), st.sampled_from([1, 2, 4]), st.integers(0, 60))
def test_rows_of_a_step_are_a_slice_of_the_epoch(seed, accumulate, world, step):
    s = source("shapes:50", size=8)
    size = 4 * accumulate * world
    rows = []
    for micro in range(accumulate):
        for rank in range(world):
            plan = Plan(50, size, accumulate, seed, rank, world)
            rows += plan.rows(s, step, micro).tolist()
    epoch, at = divmod(step, max(1, 50 // size))
    if size <= 50:
        assert rows == s.order(seed, epoch)[at * size : (at + 1) * size].tolist()
    assert len(rows) == size


def test_both_ways_show_the_same_pictures(tmp_path, monkeypatch):
    fill(tmp_path, 20, (24, 24))
    plain = (View(count=2, scale=(0.3, 1.0), flip=0.5), View(count=1, size=16, filter="bilinear"))
    held = source(tmp_path)
    batched = take(held, 2, views=plain)
    monkeypatch.setattr(stream, "BATCHED_SIDE", 0)
    single = take(held, 2, views=plain)
    decoded = take(source(tmp_path, cache=False, workers=0), 2, views=plain)
    assert same(single, decoded)
    level = 1 / (255 * min(held.std))
    for a, b in zip(batched, single, strict=True):
        for v, w in zip(a.views, b.views, strict=True):
            assert (v - w).abs().max() <= 2.1 * level and (v - w).abs().mean() < 0.3 * level


# --- unreadable files ---------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path):
    names = fill(tmp_path, 40, (40, 50))
    for k in (3, 4, 39):
        (tmp_path / names[k]).write_bytes(b"nothing")
    return tmp_path, names


def test_bad_files_are_replaced_by_the_next_counted_and_listed(broken):
    folder, names = broken
    good = take(source(folder, cache=False, max_bad=0.2, size=24, workers=0), 5)
    order = torch.cat([b.index for b in good]).tolist()
    s = source(folder, cache=False, max_bad=0.2, size=24)
    wished = s.order(5, 0).tolist()
    moved = {3: 5, 4: 5, 39: 0}
    assert order == [moved.get(i, i) for i in wished]
    for workers in (0, 2):
        s = source(folder, cache=False, max_bad=0.2, size=24)
        assert same(take(s, 5, workers=workers), good)
        assert s.bad == [(names[k], "not a picture file") for k in (3, 4, 39)]
        assert [b.label.tolist() for b in good] == [s.labels[b.index.numpy()].tolist() for b in good]
    assert same(take(s, 3, start=2), good[2:])  # not a function of what was seen before


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_files_stop_the_run(broken, workers):
    folder, _ = broken
    with pytest.raises(ValueError, match=r"at most 5\.0%.*got 3 of \d+.*not a picture file.*data check.*max_bad") as e:
        take(source(folder, cache=False, size=24), 5, workers=workers)
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="at most 0"):
        take(source(folder, cache=False, size=24, max_bad=0.0), 5, workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_bad_files(tmp_path, workers):
    names = fill(tmp_path, 12, (40, 50))
    s = source(tmp_path, cache=False, size=24, max_bad=1.0)
    for name in names:
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"must hold readable pictures, got 12 unreadable ones in a row"):
        take(s, 1, workers=workers)


def test_files_that_vanish_during_training_are_bad_files(tmp_path):
    names = fill(tmp_path, 40, (40, 50))
    s = source(tmp_path, cache=False, size=24, workers=0)
    (tmp_path / names[0]).unlink()
    take(s, 5)
    assert s.bad == [(names[0], "file not found")]


def test_tiny_pictures_are_enlarged_counted_and_said_once(tmp_path, caplog):
    fill(tmp_path, 16, (10, 30))
    made = PictureStream(source(tmp_path, cache=False, size=24), VIEWS, batch_size=8, seed=0, workers=0)
    with caplog.at_level(logging.WARNING):
        batches = made.batches()
        assert next(batches).views[0].shape[-1] == 24
        next(batches)
    assert made.tiny == 16 and caplog.text.count("are enlarged") == 1


# --- settings -----------------------------------------------------------------------------------------------------


def test_settings_that_cannot_be(pictures):
    with pytest.raises(ValueError, match=r"multiple of accumulate \* processes = 3 \* 1, got 8"):
        PictureStream(pictures, VIEWS, batch_size=8, accumulate=3, seed=0)
    with pytest.raises(ValueError, match="at least one kind of view"):
        PictureStream(pictures, [], batch_size=8, seed=0)


def test_grey_pictures():
    s = source("shapes:16", size=16, channels=1)
    (batch,) = take(s, 1)
    assert batch.views[0].shape == (2, 8, 1, 16, 16)


def test_a_whole_view_is_the_picture():
    s = source("shapes:16", size=16)
    (batch,) = take(s, 1, views=(View(scale=(1, 1), ratio=(1, 1)),))
    expected = torch.from_numpy(s.arrays[batch.index.numpy()]) / 255
    expected = (expected - torch.tensor(s.mean)[:, None, None]) / torch.tensor(s.std)[:, None, None]
    assert torch.allclose(batch.views[0][0], expected, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_batches_are_the_same(pictures):
    here, there = take(pictures, 2), take(pictures, 2, device="cuda")
    for a, b in zip(here, there, strict=True):
        assert a.index.tolist() == b.index.tolist()
        for v, w in zip(a.views, b.views, strict=True):
            assert w.is_cuda and (v - w.cpu()).abs().mean() < 1e-3
