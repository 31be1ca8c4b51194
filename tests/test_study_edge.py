"""Exported models decide as the model does, whatever they weigh."""

import json

import numpy as np
import pytest
import torch

from evidence import study_edge as study
from evidence.studies import all_studies
from picojepa import ensemble
from picojepa.architecture import new_encoder
from picojepa.machine import seeded
from picojepa.probing import LinearHead


def heads(count: int) -> list[LinearHead]:
    with seeded(3):
        found = [LinearHead(24, 4) for _ in range(count)]
        for head in found:
            head.linear.weight.data *= 20  # so that they disagree
    return found


@pytest.fixture
def committee(tiny):
    return study.Committee(new_encoder(tiny.model, tiny.grid, 0), heads(4)).eval()


@pytest.fixture
def pixels(noise):
    return torch.from_numpy(np.concatenate(list(noise.training)))


def test_the_vote_in_the_graph_is_the_vote_of_the_book(committee, pixels):
    decisions, certain = study.reference(committee, pixels)
    with torch.no_grad():
        features = committee.encoder(study.normalise(pixels)).mean(1)
    named = dict(enumerate(committee.heads))
    scores = ensemble.member_scores(named, features)
    assert (ensemble.leaders(scores).sum(1) > 1).any(), "ties occur in this test"
    assert np.array_equal(decisions, ensemble.majority_vote(scores))
    np.testing.assert_allclose(certain, scores.mean(0), atol=1e-6)


def test_weights_as_int8_are_off_by_half_a_step_at_most():
    layer = torch.nn.Linear(24, 8)
    kept = study.Int8Linear(layer)
    assert kept.weight.dtype == torch.int8
    error = (kept.weight * kept.scale - layer.weight).abs()
    assert (error <= kept.scale / 2 + 1e-7).all()


@pytest.mark.parametrize("change", ["float32", "int8 products"])
def test_a_fresh_process_gives_the_same_answers(change, committee, pixels):
    facts, decisions, scores = study.measure(committee, change, pixels[:4], calls=3)
    wanted, certain = study.reference(study.VARIANTS[change](committee), pixels[:4])
    assert np.array_equal(decisions, wanted)
    np.testing.assert_allclose(scores, certain, atol=1e-5)
    assert facts["how"] == "exported" or facts["how"].startswith("not exported: ")
    assert 0 < facts["median_ms"] <= facts["p95_ms"]
    assert facts["memory_mb"] > facts["memory_of_torch_mb"] > 0
    parameters = sum(p.numel() for p in committee.parameters())
    assert facts["file_mb"] < 4 * parameters / 1e6 + 1, "the file holds the model and one clip, not all clips"
    json.dumps(facts)


def test_a_broken_file_is_an_error_that_tells_why(tmp_path, pixels):
    (tmp_path / "model.pt2").write_text("no model")
    torch.save(pixels[:1], tmp_path / "clips.pt")
    with pytest.raises(RuntimeError, match="does not run in a fresh process"):
        study.fresh_process(tmp_path / "model.pt2", tmp_path / "clips.pt", calls=1)


def test_the_study_is_on_the_list():
    assert all_studies()["edge"].seeds == (0,)
