"""What each kind of mask hides, and that nothing is lost or counted twice."""

from collections import Counter

import pytest
import torch

from picojepa import masking
from picojepa.masking import MaskConfig

GRID = (4, 6, 5)  # no two equal, so that a mixed-up order shows
PAPER = (4, 14, 14)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hidden(mask: masking.Mask, grid: masking.Grid) -> torch.Tensor:
    """The target as bool (B, slices, rows, columns)."""
    found = torch.zeros(len(mask.target), grid[0] * grid[1] * grid[2], dtype=torch.bool)
    return found.scatter_(1, mask.target, True).view(-1, *grid)


def draws(name: str) -> list[masking.Mask]:
    """Masks for a batch of 7 clips."""
    return masking.draw(MaskConfig(strategy=name, ratio=0.7), GRID, 7, generator())


@pytest.mark.parametrize("name", masking.STRATEGIES)
def test_context_and_target_are_disjoint_sorted_and_in_range(name):
    for mask in draws(name):
        assert mask.context.dtype == mask.target.dtype == torch.int64
        assert min(mask.context.shape[1], mask.target.shape[1]) > 0
        for context, target in zip(mask.context.tolist(), mask.target.tolist(), strict=True):
            assert not set(context) & set(target)
            assert context == sorted(set(context))
            assert target == sorted(set(target))
            assert set(context) | set(target) <= set(range(4 * 6 * 5))


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75, 0.9])
def test_a_tube_is_constant_in_time_complete_and_of_the_asked_size(ratio):
    mask = masking.tube(GRID, ratio, 50, generator())
    covered = hidden(mask, GRID)
    assert (covered == covered[:, :1]).all(), "the same cells in every time slice"
    assert (covered[:, 0].sum((1, 2)) == round(ratio * 30)).all()
    assert mask.context.shape[1] + mask.target.shape[1] == 4 * 6 * 5, "a tube leaves no token out"
    assert len({tuple(row) for row in mask.target.tolist()}) > 25, "every clip gets its own cells"


def test_a_tube_hides_every_cell_equally_often():
    share = hidden(masking.tube(GRID, 0.5, 4000, generator()), GRID)[:, 0].float().mean(0)
    assert (share - 0.5).abs().max() < 0.04  # five standard deviations


def test_the_paper_hides_147_of_196_cells():
    mask = masking.tube(PAPER, 0.75, 2, generator())
    assert mask.target.shape == (2, 4 * 147)
    assert mask.context.shape == (2, 4 * 49)


@pytest.mark.parametrize("ratio", [0.01, 0.99])
def test_a_ratio_that_hides_nothing_or_everything_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"share of {ratio} hides (0|30) of 30 cells; at least one must be hidden"):
        masking.tube(GRID, ratio, 2, generator())


def test_blocks_cover_63_and_81_percent_before_batching():
    """One clip at a time, so that nothing is cut and every draw has its own block size."""
    source, covered = generator(), torch.zeros(2)
    for _ in range(2000):
        masks = masking.multiblock((1, 14, 14), 1, source)
        assert all(mask.context.shape[1] + mask.target.shape[1] == 196 for mask in masks)
        covered += torch.tensor([mask.target.shape[1] / 196 for mask in masks])
    assert (100 * covered / 2000).tolist() == pytest.approx([63, 81], abs=1)


@pytest.mark.parametrize("batch", [10, 24])
def test_batching_leaves_some_tokens_in_neither_list(batch):
    """All lists of a batch are cut to the shortest: the encoder misses 74-77 and 92-93 % of the tokens."""
    missed, union, source = torch.zeros(2), torch.zeros(2), generator()
    for _ in range(400):
        for kind, mask in enumerate(masking.multiblock((1, 14, 14), batch, source)):
            missed[kind] += 1 - mask.context.shape[1] / 196
            union[kind] += (mask.context.shape[1] + mask.target.shape[1]) / 196
    low, high = (missed / 400).tolist()
    assert 0.735 < low < 0.775
    assert 0.912 < high < 0.94
    # What is in one of the two lists at all, short range and long range.
    assert (union / 400).tolist() == pytest.approx([0.77, 0.80] if batch == 10 else [0.71, 0.77], abs=0.015)


def test_a_union_of_blocks_spans_all_frames():
    for mask in masking.multiblock(GRID, 1, generator()):
        covered = hidden(mask, GRID)
        assert (covered == covered[:, :1]).all()


def test_a_block_is_a_rectangle_of_one_size_for_the_batch():
    (visible,) = [masking._outside_blocks(PAPER, 1, 0.15, 40, generator())]
    boxes = set()
    for clip in ~visible.view(40, 14, 14):
        rows, columns = clip.any(1).nonzero().flatten(), clip.any(0).nonzero().flatten()
        assert clip[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        boxes.add((len(rows), len(columns)))
    ((height, width),) = boxes
    assert height * width == pytest.approx(0.15 * 196, rel=0.15)
    assert 0.6 < height / width < 1.7
    assert len({tuple(row) for row in visible.tolist()}) > 10, "but at places of their own"


@pytest.mark.parametrize("side", [2, 3, 4, 14])
def test_some_context_and_some_target_remain_on_small_grids(side):
    source = generator()
    for _ in range(100):
        for mask in masking.multiblock((2, side, side), 3, source):
            assert mask.context.shape[1] > 0
            assert mask.target.shape[1] > 0


def test_a_causal_mask_shows_the_first_slices_only():
    covered = hidden(masking.causal(GRID, 2, 1, generator()), GRID)
    assert covered[:, 2:].all()
    assert (covered[:, 0] == covered[:, 1]).all()
    assert not covered[:, 0].all()


@pytest.mark.parametrize("slices", [0, 4])
def test_a_causal_mask_needs_past_and_future(slices):
    with pytest.raises(ValueError, match=f"{slices} of 4 time slices visible; at least one must be visible and one"):
        masking.causal(GRID, slices, 2, generator())


@pytest.mark.parametrize(("name", "masks"), [("tube", 1), ("multiblock", 2), ("causal", 1)])
def test_the_same_seed_draws_the_same_masks(name, masks):
    config = MaskConfig(strategy=name)
    first, again, other = (masking.draw(config, PAPER, 3, generator(seed)) for seed in (1, 1, 2))
    assert len(first) == masks
    assert all(torch.equal(a.target, b.target) for a, b in zip(first, again, strict=True))
    assert not all(
        a.target.shape == b.target.shape and torch.equal(a.target, b.target) for a, b in zip(first, other, strict=True)
    )


def test_split_against_lists():
    """Uneven rows: each keeps the first tokens of each kind, as many as the poorest row has."""
    visible = torch.rand(6, 3, 8, generator=generator()) < 0.4
    mask = masking._split(visible)
    rows = visible.flatten(1).tolist()
    seen = [[i for i, shown in enumerate(row) if shown] for row in rows]
    unseen = [[i for i, shown in enumerate(row) if not shown] for row in rows]
    assert mask.context.tolist() == [row[: min(map(len, seen))] for row in seen]
    assert mask.target.tolist() == [row[: min(map(len, unseen))] for row in unseen]
    assert len(Counter(map(len, seen))) > 1, "all rows alike would test nothing"


# ---------------------------------------------------------------- the registry


def test_an_unknown_strategy_is_refused_by_the_settings():
    with pytest.raises(ValueError, match="unknown mask strategy 'tubes'; known: tube, multiblock, causal"):
        MaskConfig(strategy="tubes")


def test_no_mask_is_drawn_for_an_unknown_strategy():
    """Also past the settings' own check: nothing stands in for a mask that is not there."""
    config = MaskConfig()
    object.__setattr__(config, "strategy", "tubes")
    with pytest.raises(KeyError, match="tubes"):
        masking.draw(config, GRID, 2, generator())
    with pytest.raises(KeyError, match="tubes"):
        masking.masks_per_clip(config, GRID)


def test_a_further_strategy_needs_no_other_place(monkeypatch):
    monkeypatch.setitem(
        masking.STRATEGIES, "two tubes", lambda config, *given: [masking.tube(given[0], 0.5, *given[1:])] * 2
    )
    config = MaskConfig(strategy="two tubes")
    assert [mask.target.shape for mask in masking.draw(config, GRID, 3, generator())] == [(3, 60)] * 2
    assert masking.masks_per_clip(config, GRID) == 2


@pytest.mark.parametrize(("name", "masks"), [("tube", 1), ("multiblock", 2), ("causal", 1)])
def test_masks_per_clip_are_counted_without_a_draw_from_outside(name, masks):
    before = torch.get_rng_state()
    assert masking.masks_per_clip(MaskConfig(strategy=name), GRID) == masks
    assert torch.equal(torch.get_rng_state(), before)
