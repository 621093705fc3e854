"""Every sampler against its stated distribution; what must hold for every grid, on many of them."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from openjepa.core.masks import Masks, block_mask, context_size, coverage, multiblock, random_mask
from openjepa.core.types import Clock

GRID = (16, 16)
grids = st.tuples(st.integers(4, 32), st.integers(4, 32))
clocks = st.builds(Clock, step=st.integers(0, 10**6), seed=st.integers(0, 2**31))


def many(steps: int, batch: int, grid=GRID, **settings) -> tuple[torch.Tensor, torch.Tensor, list[Masks]]:
    """P(context), P(target) per cell, (H, W), and the masks of `steps` steps."""
    masks = [multiblock(grid, batch, clock=Clock(step=s, seed=1), **settings) for s in range(steps)]
    seen = [coverage(m, grid[0] * grid[1]) for m in masks]
    context, target = (torch.stack(x).mean(0).view(grid) for x in zip(*seen, strict=True))
    return context, target, masks


def sound(masks: Masks, num_tokens: int) -> None:
    """In range, strictly ascending, and no cell both context and target."""
    for index in masks:
        assert index.dtype == torch.int64
        assert index.min() >= 0 and index.max() < num_tokens
        assert (index.diff(dim=-1) > 0).all()
    hit = torch.zeros(len(masks.context), num_tokens, dtype=torch.bool).scatter_(1, masks.targets.flatten(1), True)
    assert not hit.gather(1, masks.context).any()


# the default: unbiased


def test_the_share_of_context_and_target_does_not_depend_on_the_batch_size() -> None:
    few_context, few_target, few = many(480, 8)
    all_context, all_target, whole = many(120, 128)
    assert {m.context.shape[1] for m in few + whole} == {context_size(GRID)} == {90}  # 35 % of 256
    assert abs(few_context - all_context).max() < 0.06
    assert abs(few_target - all_target).max() < 0.06
    assert abs(few_context.mean(1) - all_context.mean(1)).max() < 0.02
    size = torch.tensor([m.targets.shape[2] / 256 for m in few + whole])
    assert size.mean().item() == pytest.approx(0.175, abs=0.005)
    assert size.min() > 0.13 and size.max() < 0.22


def test_coverage_is_symmetric_and_reaches_every_cell() -> None:
    for probability in many(200, 128)[:2]:
        assert probability.min() > 0.005
        for axis in (0, 1):
            flipped = probability.flip(axis)
            assert (abs(probability - flipped) < 0.03).all()
            lines = probability.mean(1 - axis)
            assert abs(lines - lines.flip(0)).max() < 0.015


def test_target_positions_are_uniform_up_to_the_last_row_and_column() -> None:
    """Counts of every position of the most frequent size, against a chi-square bound."""
    corners: dict[tuple[int, int], list[torch.Tensor]] = {}
    for s in range(300):
        targets = multiblock(GRID, 64, clock=Clock(step=s), num_targets=1).targets[:, 0]
        first, last = targets[:, 0], targets[:, -1]
        size = (int((last // 16 - first // 16)[0]) + 1, int((last % 16 - first % 16)[0]) + 1)
        corners.setdefault(size, []).append(first)
    (height, width), found = max(corners.items(), key=lambda item: len(item[1]))
    counts = torch.zeros(256).scatter_add_(0, torch.cat(found), torch.ones(len(torch.cat(found)))).view(16, 16)
    places = counts[: 17 - height, : 17 - width]
    assert counts.sum() == places.sum()
    expected = places.sum() / places.numel()
    chi = ((places - expected) ** 2 / expected).sum()
    degrees = places.numel() - 1
    assert chi < degrees + 5 * (2 * degrees) ** 0.5


def test_scale_and_aspect_are_independent() -> None:
    sizes = []
    for s in range(400):
        targets = multiblock((32, 32), 1, clock=Clock(step=s)).targets[0, 0]
        sizes.append((targets[-1] // 32 - targets[0] // 32 + 1, targets[-1] % 32 - targets[0] % 32 + 1))
    h, w = torch.tensor(sizes, dtype=torch.float64).T
    assert abs(torch.corrcoef(torch.stack([h * w, h / w]))[0, 1]) < 0.15
    u = []
    for s in range(400):
        targets = multiblock((32, 32), 1, clock=Clock(step=s), paper_exact=True).targets[0, 0]
        u.append((targets[-1] // 32 - targets[0] // 32 + 1, targets[-1] % 32 - targets[0] % 32 + 1))
    h, w = torch.tensor(u, dtype=torch.float64).T
    assert torch.corrcoef(torch.stack([h * w, h / w]))[0, 1] > 0.8  # the published sampler: one random number for both


def test_blocks_may_span_a_whole_side() -> None:
    targets = multiblock((4, 32), 4, clock=Clock(), num_targets=1, target_scale=(0.5, 0.5), target_aspect=(1.0, 1.0))
    rows, columns = targets.targets // 32, targets.targets % 32
    assert {tuple(r.unique().tolist()) for r in rows.flatten(0, 1)} == {(0, 1, 2, 3)}
    assert {len(c.unique()) for c in columns.flatten(0, 1)} == {16}


def test_a_count_or_a_share_of_context_can_be_asked_for() -> None:
    for keep, tokens in ((40, 40), (0.25, 64), (1, 1)):
        masks = multiblock(GRID, 16, clock=Clock(), context_keep=keep)
        assert masks.context.shape == (16, tokens)
        sound(masks, 256)


def test_short_contexts_are_filled_from_outside_the_block_but_never_from_targets() -> None:
    """A tiny context block and many tokens asked for: the rest must come from elsewhere, uniformly."""
    settings = {"num_targets": 1, "context_scale": (0.05, 0.05), "context_keep": 100}
    context, _, masks = many(100, 64, **settings)
    for m in masks[:10]:
        sound(m, 256)
    assert abs(context - context.flip(0)).max() < 0.05 and context.min() > 0.2


def test_at_the_largest_context_almost_no_picture_needs_its_targets_stacked() -> None:
    with pytest.raises(ValueError, match="context_keep must be from 1 to") as error:
        multiblock(GRID, 4, clock=Clock(), context_keep=255)
    limit = int(str(error.value).split("from 1 to ")[1].split(" ")[0])
    assert limit > 110
    stacked = 0.0
    for s in range(30):
        masks = multiblock(GRID, 128, clock=Clock(step=s), context_keep=limit)
        sound(masks, 256)
        stacked += (masks.targets == masks.targets[:, :1]).all(2).all(1).float().mean().item() / 30
    assert stacked < 0.002


@settings(max_examples=60, deadline=None)
@given(grid=grids, clock=clocks, batch=st.integers(1, 9), num=st.integers(1, 6))
def test_every_grid_gives_sound_masks_of_the_promised_size(grid, clock, batch, num) -> None:
    masks = multiblock(grid, batch, clock=clock, num_targets=num)
    sound(masks, grid[0] * grid[1])
    assert masks.context.shape == (batch, context_size(grid, num))
    assert masks.targets.shape[:2] == (batch, num)


unit = st.floats(0.01, 1.0)


@settings(max_examples=120, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    scale=st.tuples(unit, unit).map(lambda x: tuple(sorted(x))),
    context=st.tuples(unit, unit).map(lambda x: tuple(sorted(x))),
    aspect=st.tuples(st.floats(0.05, 20), st.floats(0.05, 20)).map(lambda x: tuple(sorted(x))),
    num=st.integers(1, 5),
    clock=clocks,
)
def test_any_setting_is_sound_or_refused(grid, scale, context, aspect, num, clock) -> None:
    try:
        masks = multiblock(
            grid, 3, clock=clock, num_targets=num, target_scale=scale, target_aspect=aspect, context_scale=context
        )
    except ValueError as e:
        assert "must" in str(e)
        return
    sound(masks, grid[0] * grid[1])


# determinism


@settings(max_examples=40, deadline=None)
@given(grid=grids, clock=clocks, batch=st.integers(1, 6), world=st.integers(2, 4))
def test_the_rows_of_all_ranks_are_the_masks_of_one_process(grid, clock, batch, world) -> None:
    for sampler in (multiblock, random_mask, block_mask):
        whole = sampler(grid, world * batch, clock=clock)
        parts = [
            sampler(grid, batch, clock=Clock(step=clock.step, seed=clock.seed, rank=r, world=world))
            for r in range(world)
        ]
        for name in ("context", "targets"):
            assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name))


def test_redrawn_targets_split_over_ranks_too() -> None:
    settings = {"context_keep": 110}
    whole = multiblock(GRID, 64, clock=Clock(step=5), **settings)
    parts = [multiblock(GRID, 16, clock=Clock(step=5, rank=r, world=4), **settings) for r in range(4)]
    assert torch.equal(torch.cat([p.targets for p in parts]), whole.targets)
    assert torch.equal(torch.cat([p.context for p in parts]), whole.context)


@pytest.mark.parametrize("paper_exact", [False, True])
def test_the_clock_alone_decides(paper_exact: bool) -> None:
    draw = lambda **clock: multiblock(GRID, 8, clock=Clock(**clock), paper_exact=paper_exact)  # noqa: E731
    torch.manual_seed(1)
    first = draw(step=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = draw(step=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for other in (draw(step=4), draw(step=3, seed=1), draw(step=3, micro=1)):
        same = other.targets.shape == first.targets.shape and torch.equal(other.targets, first.targets)
        assert not same


# the published sampler


def test_paper_exact_has_the_published_statistics() -> None:
    """Facts on 16 x 16: context 42.7 % before the cut, 26.5 % after it at batch 128, about 32 % at batch 8."""
    alone = many(3000, 1, paper_exact=True)[2]  # a batch of one is not cut
    assert sum(m.context.shape[1] for m in alone) / 3000 / 256 == pytest.approx(0.427, abs=0.01)
    context, target, masks = many(150, 128, paper_exact=True)
    assert sum(m.context.shape[1] for m in masks) / 150 / 256 == pytest.approx(0.265, abs=0.012)
    assert sum(m.targets.shape[2] for m in masks) / 150 / 256 == pytest.approx(0.175, abs=0.006)
    rows = context.mean(1)
    assert rows[0].item() == pytest.approx(0.77, abs=0.02)
    assert rows[7:10].mean().item() == pytest.approx(0.19, abs=0.02)
    assert rows[14].item() == pytest.approx(0.02, abs=0.015)
    for probability in (context, target):
        assert (probability[-1] == 0).all() and (probability[:, -1] == 0).all()
        assert (probability[:-1, :-1] > 0).all()
    eight = many(600, 8, paper_exact=True)[2]
    assert 0.30 < sum(m.context.shape[1] for m in eight) / 600 / 256 < 0.35


def test_paper_exact_keeps_more_than_ten_cells_and_drops_a_target_when_it_cannot() -> None:
    """Targets over almost the whole grid: twenty tries per target are not enough, so one target after another goes."""
    big = {"target_scale": (0.75, 0.75), "target_aspect": (1.0, 1.0)}
    masks = multiblock((8, 8), 64, clock=Clock(), paper_exact=True, **big)
    assert masks.context.shape[1] > 10
    hit = torch.zeros(64, 64, dtype=torch.bool).scatter_(1, masks.targets.flatten(1), True)
    assert hit.gather(1, masks.context).any()  # the published rule gives way here, the default never does
    sound(multiblock((8, 8), 64, clock=Clock(), **(big | {"num_targets": 1})), 64)


@settings(max_examples=30, deadline=None)
@given(grid=st.tuples(st.integers(10, 32), st.integers(10, 32)), clock=clocks, batch=st.integers(1, 6))
def test_paper_exact_is_sound_on_every_grid_it_accepts(grid, clock, batch) -> None:
    assume(max(grid) <= 3 * min(grid))
    masks = multiblock(grid, batch, clock=clock, paper_exact=True)
    sound(masks, grid[0] * grid[1])
    assert (masks.targets // grid[1]).max() < grid[0] - 1 and (masks.targets % grid[1]).max() < grid[1] - 1
    assert (masks.context // grid[1]).max() < grid[0] - 1 and (masks.context % grid[1]).max() < grid[1] - 1


# the other samplers


@settings(max_examples=60, deadline=None)
@given(grid=grids, clock=clocks, batch=st.integers(1, 5), ratio=st.floats(0.02, 0.98))
def test_random_mask_is_a_partition(grid, clock, batch, ratio) -> None:
    total = grid[0] * grid[1]
    masks = random_mask(grid, batch, clock=clock, ratio=ratio)
    sound(masks, total)
    everything = torch.cat([masks.context, masks.targets.flatten(1)], dim=1).sort(1).values
    assert torch.equal(everything, torch.arange(total).expand(batch, -1))
    assert abs(masks.targets.shape[2] - ratio * total) <= 1


def test_random_mask_is_uniform() -> None:
    masks = random_mask((4, 4), 20_000, clock=Clock(), ratio=0.75)
    seen = coverage(masks, 16)
    assert abs(seen.context - 0.25).max() < 0.015
    assert torch.allclose(seen.context + seen.target, torch.ones(16))


@settings(max_examples=60, deadline=None)
@given(grid=grids, clock=clocks, ratio=st.floats(0.2, 0.8), blocks=st.integers(1, 4))
def test_block_mask_hides_about_its_ratio(grid, clock, ratio, blocks) -> None:
    assume(min(grid) >= 8)
    total = grid[0] * grid[1]
    masks = block_mask(grid, 3, clock=clock, ratio=ratio, blocks=blocks)
    sound(masks, total)
    assert masks.context.shape[1] + blocks * masks.targets.shape[2] == total
    assert abs(blocks * masks.targets.shape[2] / total - ratio) < 0.2


def test_block_mask_covers_every_cell_both_ways() -> None:
    seen = [coverage(block_mask((14, 14), 256, clock=Clock(step=s), ratio=0.5), 196) for s in range(30)]
    for name in ("context", "target"):
        probability = torch.stack([getattr(s, name) for s in seen]).mean(0).view(14, 14)
        assert probability.max() > 0
        assert abs(probability - probability.flip(0)).max() < 0.06
    assert torch.stack([s.target for s in seen]).mean(0).min() > 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: multiblock((16, 16), 4, clock=Clock(), target_scale=(0.0, 0.2)), "target scale must be"),
        (lambda: multiblock((16, 16), 4, clock=Clock(), target_scale=(0.3, 0.2)), "target scale must be"),
        (lambda: multiblock((16, 16), 4, clock=Clock(), context_scale=(0.5, 1.5)), "context scale must be"),
        (lambda: multiblock((16, 16), 4, clock=Clock(), target_aspect=(0.0, 1.0)), "target aspect must be"),
        (lambda: multiblock((16, 16), 4, clock=Clock(), num_targets=0), "number of target blocks"),
        (lambda: multiblock((16, 16), 0, clock=Clock()), "batch must be at least 1"),
        (lambda: multiblock((1, 1), 4, clock=Clock()), "grid must be"),
        (lambda: multiblock((16, 16), 4, clock=Clock(), target_scale=(1.0, 1.0)), "targets must leave context"),
        (lambda: multiblock((16, 16), 4, clock=Clock(), context_keep=0), "context_keep must be from 1"),
        (lambda: multiblock((16, 16), 4, clock=Clock(), context_keep=9, paper_exact=True), "must be None"),
        (lambda: multiblock((8, 8), 4, clock=Clock(step=1), paper_exact=True), "down to 3 x 3"),
        (lambda: multiblock((6, 6), 4, clock=Clock(), paper_exact=True), "more than 10 cells"),
        (lambda: multiblock((1, 16), 4, clock=Clock(), paper_exact=True), "more than 10 cells"),
        (lambda: random_mask((4, 4), 4, clock=Clock(), ratio=1.0), "ratio must be"),
        (lambda: block_mask((4, 4), 4, clock=Clock(), ratio=0.0), "ratio must be"),
        (lambda: block_mask((4, 4), 4, clock=Clock(), blocks=0), "number of target blocks"),
        (lambda: block_mask((2, 2), 4, clock=Clock(), blocks=4), "blocks must leave context"),
    ],
)
def test_impossible_settings_are_named(call, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
