"""The design of the factorial, its masks and objectives, and what a card holds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from evidence import factorial, trials
from evidence.experiments import trained
from picojepa import store
from picojepa.architecture import gather_tokens
from picojepa.config import adapted
from picojepa.masking import MaskConfig


def levels_of(rows):
    return np.array([list(row.values()) for row in rows])


def test_every_combination_once_and_the_first_half_is_clear_of_itself():
    levels = levels_of(factorial.design())
    assert len({tuple(row) for row in levels}) == 64 == len(levels)
    first = factorial.columns(factorial.design()[:32]).to_numpy()
    np.testing.assert_array_equal(first.T @ first, 32 * np.eye(21))  # main effects and all pairs
    assert not first.sum(0).any()
    assert len({trial.seed for trial in factorial.TRIALS}) == 64


@pytest.mark.parametrize(
    ("grid", "ratio", "hidden"), [((4, 4, 4), 0.5, 8), ((4, 4, 4), 0.75, 12), ((2, 8, 8), 0.5, 32)]
)
def test_a_block_is_one_rectangle_in_every_slice(grid, ratio, hidden):
    slices, rows, columns = grid
    mask = factorial.block(grid, ratio, 50, torch.Generator().manual_seed(0))
    places = set()
    for context, target in zip(mask.context, mask.target, strict=True):
        assert sorted([*context.tolist(), *target.tolist()]) == [*range(slices * rows * columns)]
        covered = torch.zeros(slices * rows * columns, dtype=torch.bool)
        covered[target] = True
        covered = covered.view(grid)
        assert (covered == covered[0]).all()
        inside = covered[0].nonzero()
        height, width = (inside.max(0).values - inside.min(0).values + 1).tolist()
        assert height * width == len(inside) == hidden
        places.add((height, width, *inside.min(0).values.tolist()))
    assert len(places) > 3


def test_what_each_level_changes(tiny):
    base = adapted(tiny)
    low, high = dict.fromkeys(factorial.FACTORS, -1), dict.fromkeys(factorial.FACTORS, 1)
    plain, changed = factorial.changed(base, low).training, factorial.changed(base, high).training
    assert (plain.mask.ratio, plain.ema, plain.target, plain.spreading) == (0.5, None, "last block", "none")
    assert changed.ema == (0.0, 0.0)
    assert (changed.mask.ratio, changed.target, changed.spreading) == (0.75, "minus clip mean", "variance-covariance")
    assert factorial.changed(base, low | {"target": 1, "spreading term": 1}) == base, "the recipe of the book"


def test_objectives(tiny):
    settings = trained(adapted(tiny), mask=MaskConfig(ratio=0.5))
    squared = factorial.SquaredBlockJEPA(settings, 0)
    one, other = torch.zeros(2, 3, 4), torch.full((2, 3, 4), 0.5)
    assert squared.distance(one, other) == 0.25
    assert factorial.BlockJEPA(settings, 0).distance(one, other) == 0.5
    clips = torch.randn(2, 3, tiny.clip.frames, tiny.clip.size, tiny.clip.size)
    masks = squared.draw_masks(2, torch.Generator().manual_seed(0))
    loss, _ = squared(clips, masks)
    wanted = gather_tokens(squared.targets(clips), masks[0].target)
    context = squared.encode(clips, masks[0].context)
    by_hand = (squared.predict(context, masks[0], 0) - wanted).square().mean() + squared.spreading(context)
    torch.testing.assert_close(loss, by_hand)


def test_a_card_keeps_every_answer(noise, tiny, cache, monkeypatch):
    settings = replace(tiny, recipe="adapted")
    monkeypatch.setattr(trials, "trial_settings", lambda seed: trained(settings, seed=seed))
    monkeypatch.setattr(trials, "ask", lambda clips, question: task)
    monkeypatch.setattr(trials, "QUESTIONS", ("action",))
    labels = torch.arange(4) % 2
    from picojepa.probing import Task

    rows = np.arange(8)
    task = Task(("a", "b"), rows[:4], rows[4:8], labels, labels)
    card = trials.card(trials.Trial("some", 3, trained=False), noise)
    for key, found in card["answers"].items():
        answers = trials.unpacked(found["by_video"], found["n"])
        assert (answers.sum(), len(answers)) == (found["right"], 4), key
    assert trials.score(card).shape == (4,)
    assert card["run"] == "random weights 3"
    assert 1 <= card["lidar"] <= tiny.model.width
    assert store.plain(settings.model) == {k: card["settings"]["model"][k] for k in store.plain(settings.model)}


def test_lidar_counts_directions_that_tell_videos_apart():
    generator = torch.Generator().manual_seed(0)
    centres = torch.zeros(400, 1, 16)
    centres[:, 0, :5] = torch.randn(400, 5, generator=generator)
    noise = 0.01 * torch.randn(400, 4, 16, generator=generator)
    assert trials.lidar(centres + noise) == pytest.approx(5, abs=0.3)
    assert trials.lidar(torch.randn(400, 4, 16, generator=generator)) > 12
    wide = centres + noise
    wide[:, :, 0] *= 100  # noise and signal of one number grow alike: nothing changes
    assert trials.lidar(wide) == pytest.approx(5, abs=0.3)
