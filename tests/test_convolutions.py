"""The supervised network of the gates: what it can learn, what it cannot, and what its training does to a clip."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from evidence import convolutions, supervision
from picojepa.clips import normalise
from picojepa.probing import Task


@pytest.fixture(scope="module")
def dots():
    """Clips of a dot that goes to the left or to the right from anywhere, 400 for training and 100 for the test."""
    random, clips = np.random.default_rng(0), np.zeros((500, 4, 3, 32, 32), dtype=np.uint8)
    ways = np.arange(500) % 2
    for clip, way in zip(clips, 2 * ways - 1, strict=True):
        row, column = random.integers(32, size=2)
        for time in range(4):
            rows, columns = (row + np.arange(6)) % 32, (column + 4 * way * time + np.arange(6)) % 32
            clip[time, :, rows[:, None], columns] = 255
    videos = pd.DataFrame({"path": [f"{i}.mp4" for i in range(500)]})
    labels = torch.from_numpy(ways)
    task = Task(("left", "right"), np.arange(400), np.arange(400, 500), labels[:400], labels[400:])
    return SimpleNamespace(videos=videos, training=clips[:400, None], centre=clips), task


def right(scores: np.ndarray, task: Task) -> float:
    """Share of the test videos that are answered rightly."""
    assert scores.shape == (len(task.test), 2)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    return float((scores.argmax(1) == task.test_labels.numpy()).mean())


def test_a_way_is_learned_from_motion_and_not_from_one_frame(dots):
    clips, task = dots
    assert right(convolutions.supervised(clips, task, 2400, flips=False), task) > 0.9
    frames = (np.repeat(x[..., :1, :, :, :], 4, -4) for x in (clips.training, clips.centre))
    still = SimpleNamespace(videos=clips.videos, **dict(zip(("training", "centre"), frames, strict=True)))
    assert 0.3 < right(convolutions.supervised(still, task, 2400, flips=False), task) < 0.7


@pytest.mark.parametrize("flips", [False, True])
def test_clips_are_mirrored_only_if_that_was_asked_for(dots, monkeypatch, flips):
    clips, task = dots
    monkeypatch.setattr(convolutions, "crop", lambda batch, boxes: batch)
    seen = []
    monkeypatch.setattr(supervision, "fit", lambda model, batches, schedule: seen.extend(batches) or model.eval())
    convolutions.supervised(clips, task, 800, flips)
    known = {normalise(torch.from_numpy(clip)).numpy().tobytes() for clip in clips.training}
    as_is = [clip.numpy().tobytes() in known for batch, _ in seen for clip in batch]
    mirrored = [clip.flip(-1).contiguous().numpy().tobytes() in known for batch, _ in seen for clip in batch]
    assert all(a or b for a, b in zip(as_is, mirrored, strict=True))
    assert (0.4 < np.mean(as_is) < 0.6) if flips else all(as_is)


def test_a_block_halves_the_frame_and_keeps_time():
    assert convolutions.Block(3, 5)(torch.zeros(2, 3, 4, 16, 16)).shape == (2, 5, 4, 8, 8)
    assert convolutions.network(7)(torch.zeros(2, 3, 8, 64, 64)).shape == (2, 7)
