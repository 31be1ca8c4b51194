"""Damaged files and random configurations: whatever comes, what is promised holds."""

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from picojepa import masking, pretraining, videos
from picojepa.config import ClipConfig, MaskConfig
from tools import fuzz_videos

MUTANTS = 2000
FEW = settings(max_examples=60, deadline=None)


# ---------------------------------------------------------------- damaged files


def test_2000_damaged_files_are_decoded_or_refused_with_a_reason():
    record = fuzz_videos.fuzz(MUTANTS, seed=0)
    assert record["decoded"] + sum(record["reported"].values()) == MUTANTS
    assert all(record["reported"])
    assert (record["hangs"], record["crashes"]) == (0, 0), record["reported"]
    assert 0.1 < record["decoded"] / MUTANTS < 0.9, "the damage is of both kinds"


def test_damage_is_seeded_and_does_something():
    content = bytes(range(256)) * 4 + b"moov" + bytes(range(256))
    one, two = ([fuzz_videos.damage(content, random.Random(seed)) for seed in range(50)] for _ in range(2))
    assert one == two
    assert len(set(one)) > 45


# ---------------------------------------------------------------- times

RATES = st.floats(1, 240)
CLIPS = st.builds(
    ClipConfig,
    frames=st.integers(1, 32),
    size=st.just(16),
    frames_per_second=st.none() | st.floats(0.5, 60),
    stride=st.integers(1, 8),
)


@FEW
@given(clip=CLIPS, rate=RATES, frames=st.integers(1, 2000), start=st.floats(-2, 20), position=st.floats(0, 1))
def test_clip_times_lie_in_the_video_in_order_and_apart_as_configured(clip, rate, frames, start, position):
    end = start + frames / rate
    meta = SimpleNamespace(begin_stream_seconds=start, end_stream_seconds=end, average_fps=rate, num_frames=frames)
    times = videos.clip_times(SimpleNamespace(metadata=meta), clip, position)
    assert times.shape == (clip.frames,)
    assert ((times >= start) & (times < end)).all()
    steps, step = np.diff(times), 1 / clip.frames_per_second if clip.frames_per_second else clip.stride / rate
    padded = times >= end - 1e-3 - 1e-9
    assert (steps >= 0).all()
    np.testing.assert_allclose(steps[~padded[1:]], step, atol=1e-6)
    assert (np.diff(times[padded]) < 1e-6).all(), "padding repeats one frame"
    if (clip.frames - 1) * step + 1 / rate <= end - start:
        assert not padded[:-1].any(), "a video that is long enough is not padded"


# ---------------------------------------------------------------- samplers and masks


@FEW
@given(videos_=st.integers(2, 200), batch=st.integers(1, 64), seed=st.integers(0, 5), epochs=st.integers(1, 3))
def test_every_video_comes_once_an_epoch(videos_, batch, seed, epochs):
    batch = min(batch, videos_)
    config = replace(TINY.training, batch=batch, seed=seed, clips=videos_ * epochs)
    steps = -(-videos_ * epochs // batch)
    drawn = [pretraining.batch_numbers(step, videos_, config) for step in range(steps)]
    numbers, of_epoch = (np.concatenate(part) for part in zip(*drawn, strict=True))
    for epoch in range(epochs):
        ours = numbers[of_epoch == epoch]
        assert len(set(ours.tolist())) == len(ours), "none twice"
        if epoch < of_epoch.max():
            assert len(ours) == videos_, "and none left out"


GRIDS = st.tuples(st.integers(1, 8), st.integers(2, 14), st.integers(2, 14))


def parts(mask, grid):
    """Context and target as cells (B, slices, cells) of bool."""
    found = []
    for tokens in (mask.context, mask.target):
        assert (tokens.diff(dim=1) > 0).all(), "ascending, none twice"
        cells = torch.zeros(len(tokens), grid[0] * grid[1] * grid[2], dtype=torch.bool)
        found.append(cells.scatter_(1, tokens, True).unflatten(1, (grid[0], -1)))
    assert not (found[0] & found[1]).any(), "context and target have nothing in common"
    assert found[0].any((1, 2)).all()
    assert found[1].any((1, 2)).all()
    return found


@FEW
@given(grid=GRIDS, ratio=st.floats(0.05, 0.95), batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_tubes_are_constant_in_time_and_hide_the_share(grid, ratio, batch, seed):
    cells = grid[1] * grid[2]
    ratio = min(max(ratio, 1 / cells), 1 - 1 / cells)
    mask = masking.tube(grid, ratio, batch, torch.Generator().manual_seed(seed))
    context, target = parts(mask, grid)
    assert (context ^ target).all(), "nothing is left out"
    assert (target == target[:, :1]).all()
    assert (target[:, 0].sum(1) == round(ratio * cells)).all()


@FEW
@given(grid=GRIDS, strategy=st.sampled_from(["multiblock", "causal"]), batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_blocks_leave_a_context_and_a_target(grid, strategy, batch, seed):
    grid = (max(2, grid[0]), *grid[1:])
    config = MaskConfig(strategy=strategy, visible_slices=1)
    masks = masking.draw(config, grid, batch, torch.Generator().manual_seed(seed))
    assert len(masks) == masking.MASKS_PER_CLIP[strategy]
    for mask in masks:
        context, _ = parts(mask, grid)
        if strategy == "causal":
            assert not context[:, 1:].any()
