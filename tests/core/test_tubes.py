"""Masks of clips: coverage over space and time against the stated distribution, and the published figures."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from openjepa.core.masks import Masks, coverage, random_mask
from openjepa.core.tubes import _place, _size, distance, future, repeat, tube_sizes, tubes
from openjepa.core.types import Clock
from tests.core.test_masks import sound

GRID = (8, 14, 14)
SHORT = {"blocks": 8, "scale": (0.15, 0.15)}
LONG = {"blocks": 2, "scale": (0.7, 0.7)}
CUBES = {"blocks": 6, "scale": (0.3, 0.3), "time_scale": (0.25, 0.5)}
KINDS = pytest.mark.parametrize("kind", [SHORT, LONG, CUBES], ids=["short", "long", "cubes"])
clocks = st.builds(Clock, step=st.integers(0, 10**6), seed=st.integers(0, 2**31))


def many(steps: int, batch: int, grid=GRID, **changes) -> tuple[torch.Tensor, torch.Tensor, list[Masks]]:
    """P(context), P(target) per cell, (T, H, W), and the masks of `steps` steps."""
    masks = [tubes(grid, batch, clock=Clock(step=s, seed=1), **changes) for s in range(steps)]
    seen = [coverage(m, math.prod(grid)) for m in masks]
    context, target = (torch.stack(x).mean(0).view(grid) for x in zip(*seen, strict=True))
    return context, target, masks


@KINDS
def test_every_cell_in_space_and_time_is_context_and_target_equally_often(kind: dict) -> None:
    """Over 120 steps of 32 clips; a block size is shared by the clips of a step, so it counts as one draw."""
    context, target, masks = many(120, 32, **kind)
    assert {(m.context.shape[1], m.targets.shape[2]) for m in masks} == {
        tube_sizes(GRID, kind["blocks"], kind["scale"], (0.75, 1.5), kind.get("time_scale", (1.0, 1.0)))
    }
    for share, index in ((context, masks[0].context), (target, masks[0].targets.flatten(1))):
        even = index.shape[1] / math.prod(GRID)
        assert share.mean().item() == pytest.approx(even)
        noise = (even * (1 - even) / (120 * 32)) ** 0.5
        assert abs(share - even).max() < 6 * noise
        for axis in range(3):
            line = share.mean([a for a in range(3) if a != axis])
            assert abs(line - even).max() < 3 * noise, axis


@KINDS
def test_the_blocks_have_the_stated_distribution(kind: dict) -> None:
    """Before any clip is drawn again: P(hidden) = 1 - (1 - a)^blocks in every single cell."""
    g = torch.Generator().manual_seed(3)
    u = torch.rand(3, 1, 1, generator=g)
    size = _size(GRID, u, kind["scale"], (0.75, 1.5), kind.get("time_scale", (1.0, 1.0)))
    hidden = _place(GRID, size, torch.rand(6000, kind["blocks"], 3, generator=g)).float().mean(0)
    a = math.prod(size.flatten().tolist()) / math.prod(GRID)
    expected = 1 - (1 - a) ** kind["blocks"]
    assert abs(hidden - expected).max() < 6 * (expected * (1 - expected) / 6000) ** 0.5


@pytest.mark.parametrize("kind", [SHORT, LONG], ids=["short", "long"])
def test_the_statistics_do_not_depend_on_the_batch_size(kind: dict) -> None:
    few, many_ = many(240, 3, **kind), many(30, 24, **kind)
    assert {m.context.shape[1] for m in few[2] + many_[2]} == {tube_sizes(GRID, **kind)[0]}
    for a, b in zip(few[:2], many_[:2], strict=True):
        assert abs(a.mean((1, 2)) - b.mean((1, 2))).max() < 0.02
        assert abs(a - b).max() < 0.12


def test_scale_and_aspect_are_independent_and_sides_may_be_whole() -> None:
    u = torch.rand(3, 4000, generator=torch.Generator().manual_seed(0))
    _, h, w = _size((8, 64, 64), u, (0.1, 0.4), (0.75, 1.5), (1.0, 1.0)).double().unbind(-1)
    assert abs(torch.corrcoef(torch.stack([h * w, h / w]))[0, 1]) < 0.05
    t, h, w = _size((8, 4, 32), u, (0.5, 0.5), (1.0, 1.0), (0.25, 1.0)).unbind(-1)
    assert set(h.tolist()) == {4} and set(w.tolist()) == {16}
    assert set(t.tolist()) == set(range(2, 9))


def test_a_number_or_a_share_of_tokens_can_be_asked_for() -> None:
    for keep, tokens in ((40, 40), (0.25, 392), (1, 1)):
        masks = tubes(GRID, 8, clock=Clock(), context_keep=keep, target_keep=100)
        assert masks.context.shape == (8, tokens) and masks.targets.shape == (8, 1, 100)
        sound(masks, math.prod(GRID))


def test_kinds_of_one_step_draw_for_themselves() -> None:
    a, b = (tubes(GRID, 4, clock=Clock(), kind=k) for k in range(2))
    assert not torch.equal(a.context, b.context)


@settings(max_examples=60, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 6), st.integers(2, 12), st.integers(2, 12)),
    blocks=st.integers(1, 8),
    scale=st.floats(0.05, 0.8),
    time_scale=st.floats(0.2, 1.0),
    paper_exact=st.booleans(),
    clock=clocks,
    batch=st.integers(1, 5),
)
def test_any_setting_is_sound_or_refused(grid, blocks, scale, time_scale, paper_exact, clock, batch) -> None:
    kind = {"blocks": blocks, "scale": (scale, scale), "time_scale": (time_scale, time_scale)}
    try:
        masks = tubes(grid, batch, clock=clock, paper_exact=paper_exact, **kind)
    except ValueError as e:
        assert "must leave context" in str(e)
        return
    sound(masks, math.prod(grid))
    assert masks.context.shape[1] >= 1 and masks.targets.shape[2] >= 1


@settings(max_examples=20, deadline=None)
@given(clock=clocks, batch=st.integers(1, 5), world=st.integers(2, 4), long=st.booleans())
def test_the_rows_of_all_ranks_are_the_masks_of_one_process(clock, batch, world, long) -> None:
    kind = LONG if long else SHORT
    whole = tubes(GRID, world * batch, clock=clock, **kind)
    parts = [
        tubes(GRID, batch, clock=Clock(step=clock.step, seed=clock.seed, rank=r, world=world), **kind)
        for r in range(world)
    ]
    for i in range(2):
        assert torch.equal(torch.cat([p[i] for p in parts]), whole[i])


# the published sampler


@pytest.mark.parametrize(
    ("kind", "alone", "cut", "last_context", "last_target"),
    [(SHORT, 0.37, 0.23, 0.12, 0.12), (LONG, 0.187, 0.067, 0.12, 0.26)],
    ids=["short", "long"],
)
def test_paper_exact_has_the_published_statistics(
    kind: dict, alone: float, cut: float, last_context: float, last_target: float
) -> None:
    """On (8, 14, 14) the context falls from 37 to 23 % (18.7 to 6.7 %) at batch 24, and the last tubelet starves."""
    single = [tubes(GRID, 1, clock=Clock(step=s), paper_exact=True, **kind) for s in range(500)]
    share = sum(m.context.shape[1] for m in single) / 500 / 1568
    assert share == pytest.approx(alone, abs=0.012)
    assert {m.context.shape[1] + m.targets.shape[2] for m in single} == {1568}  # a batch of one is not cut

    context, target, masks = many(100, 24, paper_exact=True, **kind)
    assert sum(m.context.shape[1] for m in masks) / 100 / 1568 == pytest.approx(cut, abs=0.012)
    assert context[0].mean().item() == pytest.approx(share, abs=0.015)
    assert context[-1].mean() < last_context * share
    assert target[-1].mean() < last_target * target[0].mean()
    assert context[0, 7].mean() < context[0, 0].mean()  # blocks inside the grid: the middle is hidden more often


def test_paper_exact_boxes_lie_inside_the_clip() -> None:
    masks = [tubes(GRID, 1, clock=Clock(step=s), blocks=1, time_scale=(0.5, 0.5), paper_exact=True) for s in range(60)]
    starts = set()
    for m in masks:
        t = (m.targets.flatten() // 196).unique()
        assert t.tolist() == list(range(int(t[0]), int(t[0]) + 4))
        starts.add(int(t[0]))
    assert starts == {0, 1, 2, 3, 4}


# distances, and masks without chance


@settings(max_examples=20, deadline=None)
@given(grid=st.tuples(*[st.integers(1, 6)] * 3), seed=st.integers(0, 99))
def test_distance_is_that_to_the_nearest_token(grid, seed) -> None:
    total = math.prod(grid)
    assume(total > 2)
    g = torch.Generator().manual_seed(seed)
    index = torch.rand(2, total, generator=g).argsort(1)[:, : 1 + seed % 2]
    axes = [torch.arange(n, dtype=torch.float64) for n in grid]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 2)
    expected = torch.cdist(place.expand(2, -1, -1), place[index]).amin(2)
    assert torch.allclose(distance(index, grid).double(), expected, atol=1e-5)


def test_future_splits_by_time() -> None:
    masks = future(4, (2, 3), 2, horizon=2)
    assert masks.context.tolist() == [list(range(12))] * 2
    assert masks.targets.tolist() == [[list(range(12, 18)), list(range(18, 24))]] * 2
    assert future(4, (2, 3), 1, horizon=1, past=2).targets.tolist() == [[list(range(12, 18))]]


def test_repeat_lays_a_picture_mask_over_every_frame() -> None:
    masks = repeat(random_mask((3, 3), 2, clock=Clock(), ratio=0.5), 3, 9)
    sound(masks, 27)
    assert torch.equal(masks.context.view(2, 3, -1)[:, 2] - 18, masks.context.view(2, 3, -1)[:, 0])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tubes((4, 4), 1, clock=Clock()), "grid must be"),  # type: ignore[arg-type]
        (lambda: tubes(GRID, 0, clock=Clock()), "batch must be"),
        (lambda: tubes(GRID, 1, clock=Clock(), blocks=0), "blocks must be"),
        (lambda: tubes(GRID, 1, clock=Clock(), scale=(0.3, 0.2)), "scale must be"),
        (lambda: tubes(GRID, 1, clock=Clock(), time_scale=(0.0, 1.0)), "time_scale must be"),
        (lambda: tubes(GRID, 1, clock=Clock(), aspect=(0.0, 1.0)), "aspect must be"),
        (lambda: tubes(GRID, 1, clock=Clock(), scale=(1.0, 1.0)), "must leave context"),
        (
            lambda: tubes(GRID, 1, clock=Clock(), scale=(1.0, 1.0), aspect=(1.0, 1.0), paper_exact=True),
            "must leave context",
        ),
        (lambda: tubes(GRID, 1, clock=Clock(), context_keep=1500), "context_keep must be from 1 to"),
        (lambda: tubes(GRID, 1, clock=Clock(), target_keep=1560), "target_keep must be from 1 to"),
        (lambda: tubes(GRID, 1, clock=Clock(), context_keep=9, paper_exact=True), "must be None"),
        (lambda: future(3, (2, 2), 1, horizon=3), "past and horizon"),
        (lambda: future(3, (2, 2), 1, horizon=1, past=3), "past and horizon"),
    ],
)
def test_impossible_settings_are_named(call, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
