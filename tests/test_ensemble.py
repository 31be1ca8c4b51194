"""Votes against brute force, members on their own quarters, tables recomputed by hand."""

import csv
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from picojepa import classify, ensemble, features, store
from picojepa.architecture import new_encoder
from picojepa.data import VideoError, quarters
from picojepa.ensemble import MEMBERS, PARTIALS, TIE_RULES, VOTES
from picojepa.probing import LinearHead
from standin import LABELLED_CLASSES


def random_scores(members: int = 4, n: int = 500, classes: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.7), size=(members, n))


def one_video(*rows: list[float]) -> np.ndarray:
    """Scores of the members for one video, (members, 1, classes)."""
    return np.array(rows, dtype=float)[:, None]


# ---------------------------------------------------------------- votes


def winners(votes: list[int]) -> list[int]:
    """The classes with the most votes, by counting."""
    counts = Counter(votes)
    return sorted(c for c, n in counts.items() if n == max(counts.values()))


@pytest.mark.parametrize("members", [3, 4, 5])
@pytest.mark.parametrize("rule", TIE_RULES)
def test_majority_vote_against_a_counter(rule, members):
    scores = random_scores(members)
    ties = 0
    for video, chosen in enumerate(ensemble.majority_vote(scores, rule)):
        best = [max(range(4), key=lambda c, s=s: s[c]) for s in scores[:, video]]
        first = winners(best)
        ties += len(first) > 1
        wanted = {
            "summed certainty": max(first, key=lambda c: sum(s[c] for s in scores[:, video])),
            "class order": first[0],
            "first member": next(v for v in best if v in first),
        }.get(rule, chosen)
        assert chosen in first
        assert chosen == wanted
    assert ties > 50, "without ties the rule is not tested"


# Two votes each for class 0 and class 2; class 1 has the largest score of a single member but no majority.
TIE = one_video([0.1, 0.1, 0.8, 0.0], [0.4, 0.3, 0.3, 0.0], [0.4, 0.3, 0.3, 0.0], [0.2, 0.3, 0.5, 0.0])


@pytest.mark.parametrize(("rule", "answer"), [("summed certainty", 2), ("class order", 0), ("first member", 2)])
def test_each_rule_on_a_tie_made_by_hand(rule, answer):
    assert ensemble.ballots(TIE).tolist() == [[2, 0, 2, 0]]
    assert ensemble.leaders(TIE).tolist() == [[True, False, True, False]]
    assert ensemble.majority_vote(TIE, rule).tolist() == [answer]


def test_first_member_counts_only_if_it_voted_for_a_leader():
    scores = one_video([0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0])
    assert ensemble.majority_vote(scores, "first member").tolist() == [1]


def test_lots_are_fair_and_repeatable():
    scores = np.repeat(TIE, 2000, axis=1)
    drawn = ensemble.majority_vote(scores, "by lot")
    assert set(drawn) == {0, 2}
    assert (drawn == 0).mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(drawn, ensemble.majority_vote(scores, "by lot"))


def test_votes_count_not_certainties():
    """Three faint votes outvote one loud one; the soft vote says otherwise."""
    scores = one_video([0.34, 0.33, 0.33, 0], [0.34, 0.33, 0.33, 0], [0.34, 0.33, 0.33, 0], [0, 1, 0, 0])
    assert ensemble.majority_vote(scores).tolist() == [0]
    assert ensemble.soft_vote(scores).argmax(1).tolist() == [1]


def test_the_rule_of_the_book_is_summed_certainty():
    assert next(iter(TIE_RULES)) == "summed certainty"
    scores = random_scores()
    np.testing.assert_array_equal(ensemble.majority_vote(scores), ensemble.majority_vote(scores, "summed certainty"))


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="unknown rule for ties 'loudest'; known: summed certainty, class order"):
        ensemble.majority_vote(TIE, "loudest")


def test_a_rule_in_the_registry_breaks_ties(monkeypatch):
    monkeypatch.setitem(TIE_RULES, "last class", lambda scores: np.tile(np.arange(4.0), (scores.shape[1], 1)))
    assert ensemble.majority_vote(TIE, "last class").tolist() == [2]
    assert ensemble.majority_vote(one_video([0, 1, 0, 0]), "last class").tolist() == [1], "without a tie it has no say"


def test_soft_vote_is_the_mean():
    scores = random_scores(3, 7)
    np.testing.assert_allclose(ensemble.soft_vote(scores), (scores[0] + scores[1] + scores[2]) / 3)


def test_averaged_heads_give_averaged_logits():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        heads, features = [LinearHead(12, 4).double() for _ in range(4)], torch.randn(9, 12, dtype=torch.float64)
    logits = sum(head(features) for head in heads) / 4
    torch.testing.assert_close(ensemble.average_heads(heads).double()(features), logits, rtol=0, atol=1e-7)


# ---------------------------------------------------------------- members


def test_members_learn_from_their_own_quarter(pipelines):
    clips = pipelines[1].clips
    rows = {member: set(ensemble.member_rows(clips, member).tolist()) for member in MEMBERS}
    quarter = quarters(clips.videos)
    for number, member in enumerate(PARTIALS, 1):
        assert rows[member] == set(np.flatnonzero(quarter == number).tolist())
    assert set.union(*(rows[m] for m in PARTIALS)) == rows["General"]
    assert sum(len(rows[m]) for m in PARTIALS) == len(rows["General"]) == 32


def test_fitting_sees_the_features_and_labels_of_its_rows(pipelines, monkeypatch):
    clips, asked, taught = pipelines[1].clips, [], []
    table = torch.randn(len(clips.videos), 6, generator=torch.Generator().manual_seed(0))
    train_head = ensemble.train_head

    def spy(head, given, labels, epochs, peak, config):
        taught.append((given, labels, config.seed, head.linear.weight.clone()))
        return train_head(head, given, labels, epochs, peak, config)

    monkeypatch.setattr(ensemble, "train_head", spy)
    heads = ensemble.fit_members(clips, lambda rows: asked.append(rows) or [table[rows]], pipelines[1].settings.probe)
    assert list(heads) == list(MEMBERS)
    for member, rows, ((given,), labels, seed, _) in zip(MEMBERS, asked, taught, strict=True):
        assert rows.tolist() == ensemble.member_rows(clips, member).tolist()
        assert torch.equal(given, table[rows])
        assert [LABELLED_CLASSES[i] for i in labels] == clips.videos.label[rows].tolist()
        assert seed == MEMBERS.index(member)
    starts = {tuple(start.flatten().tolist()) for *_, start in taught}
    assert len(starts) == 5, "every member starts elsewhere"


def test_an_empty_quarter_is_refused(pipelines):
    clips = pipelines[1].clips
    videos = clips.videos
    only = videos.labelled & ((videos.split == "validation") | (videos.groupby(["split", "label"]).cumcount() == 0))
    few = replace(clips, videos=videos.assign(labelled=only & (videos.label != "abseiling")))
    with pytest.raises(ValueError, match="Partial 2 has no training videos; add labelled videos"):
        ensemble.fit_members(few, lambda rows: [torch.zeros(len(rows), 6)], pipelines[1].settings.probe)


def test_stored_heads_give_the_stored_scores(pipelines):
    pipeline = pipelines[1]
    encoder = features.load_encoder(pipeline.run / "encoder.safetensors", pipeline.settings)
    pooled = features.encode(encoder, pipeline.clips.centre[pipeline.tasks["four"].test])
    scores = ensemble.member_scores(pipeline.heads, pooled)
    assert scores.shape == (5, 20, 4)
    np.testing.assert_allclose(scores, ensemble.scores_of(pipeline.votes, MEMBERS), atol=1e-6)
    logits = torch.stack([head(pooled) for head in pipeline.heads.values()])
    np.testing.assert_allclose(scores, logits.softmax(-1).detach().numpy(), atol=1e-6)


def test_members_and_answers_are_found_again(pipelines, monkeypatch):
    pipeline = pipelines[1]
    monkeypatch.setenv("PICOJEPA_CACHE", str(pipeline.cache))
    for name in ("load_encoder", "fit_members", "decide"):
        monkeypatch.setattr(ensemble, name, None)  # whoever computes again fails
    heads = ensemble.train_members(pipeline.settings, pipeline.clips, pipeline.run)
    assert list(heads) == list(MEMBERS)
    for member, head in heads.items():
        assert torch.equal(head.linear.weight, pipeline.heads[member].linear.weight)
    table = ensemble.predictions(pipeline.settings, pipeline.clips, pipeline.run)
    pd.testing.assert_frame_equal(table, pipeline.votes)


@pytest.mark.parametrize("change", ["run", "data", "quarters", "probe"])
def test_members_of_another_run_list_or_training_are_others(pipelines, change):
    pipeline = pipelines[1]
    settings, clips, run = pipeline.settings, pipeline.clips, pipeline.run
    before = store.name_of(ensemble.FITTED, ensemble.member_inputs(settings, clips, run))
    if change == "run":
        run = run.with_name("another")
    elif change == "data":
        clips = replace(clips, digest="another")
    elif change == "quarters":
        clips = replace(clips, videos=clips.videos.assign(labelled=clips.videos.label != "abseiling"))
    else:
        settings = replace(settings, probe=replace(settings.probe, epochs=6))
    assert store.name_of(ensemble.FITTED, ensemble.member_inputs(settings, clips, run)) != before


# ---------------------------------------------------------------- tables


def test_votes_in_the_table_are_those_of_the_four_partials(pipelines):
    table = pipelines[1].votes
    assert table.groupby("member").size().to_dict() == dict.fromkeys((*MEMBERS, *VOTES), 20)
    scores = ensemble.scores_of(table)
    assert scores.shape == (4, 20, 4)
    by_member = {member: group.reset_index(drop=True) for member, group in table.groupby("member")}
    for vote, chosen in zip(VOTES, (ensemble.majority_vote(scores), scores.mean(0).argmax(1)), strict=True):
        rows = by_member[vote]
        assert rows.predicted.tolist() == [LABELLED_CLASSES[i] for i in chosen]
        np.testing.assert_allclose(rows.certainty, scores.mean(0)[np.arange(20), chosen], rtol=1e-5)
    for member in MEMBERS:
        rows = by_member[member]
        own = rows.filter(like="p_").to_numpy()
        assert rows.predicted.tolist() == [LABELLED_CLASSES[i] for i in own.argmax(1)]
        np.testing.assert_allclose(rows.certainty, own.max(1), rtol=1e-5)
        assert rows.video.tolist() == by_member["General"].video.tolist()


def stored_rows(pipeline) -> list[dict]:
    """The stored predictions of a pipeline, without pandas."""
    for path in (pipeline.cache / "results").glob("ensemble.predictions-*/predictions.csv"):
        if store.card(path.parent)["inputs"]["data"] == pipeline.clips.digest:
            with path.open(newline="") as file:
                return list(csv.DictReader(file))
    raise AssertionError("no stored predictions")


def test_tables_2_and_3_are_recomputed_from_the_csv(pipelines):
    rows = stored_rows(pipelines[1])
    accuracy, certainty = ensemble.accuracy_table(pipelines[1].votes), ensemble.certainty_table(pipelines[1].votes)
    assert list(accuracy) == [*MEMBERS, *VOTES]
    assert list(accuracy.index) == [*LABELLED_CLASSES, "mean of 4 classes", "all videos"]
    assert list(certainty) == list(MEMBERS)
    assert list(certainty.index) == list(LABELLED_CLASSES)
    for member in accuracy:
        own = [row for row in rows if row["member"] == member]
        right = {c: [row["predicted"] == c for row in own if row["label"] == c] for c in LABELLED_CLASSES}
        percent = {c: 100 * sum(r) / len(r) for c, r in right.items()}
        wanted = [*percent.values(), sum(percent.values()) / 4, 100 * sum(map(sum, right.values())) / len(own)]
        assert accuracy[member].tolist() == pytest.approx(wanted)
        if member in certainty:
            sure = [
                [max(float(r[f"p_{k}"]) for k in LABELLED_CLASSES) for r in own if r["label"] == c]
                for c in LABELLED_CLASSES
            ]
            assert certainty[member].tolist() == pytest.approx([100 * sum(s) / len(s) for s in sure])


def test_class_mean_and_pooled_share_differ_where_classes_do():
    rows = [("a", "a")] * 3 + [("b", "a")]
    table = pd.concat([pd.DataFrame(rows, columns=["label", "predicted"]).assign(member=m) for m in (*MEMBERS, *VOTES)])
    found = ensemble.accuracy_table(table)["General"]
    assert (found["mean of 2 classes"], found["all videos"]) == (50, 75)


# ---------------------------------------------------------------- one file


def test_a_validation_file_gets_its_stored_answer(pipelines):
    pipeline = pipelines[1]
    encoder = features.load_encoder(pipeline.run / "encoder.safetensors", pipeline.settings)
    row = pipeline.tasks["four"].test[7]
    found = classify.classify_file(
        pipeline.clips.videos.path[row], pipeline.settings, encoder, pipeline.heads, LABELLED_CLASSES
    )
    stored = pipeline.votes.groupby("member", sort=False).nth(7).set_index("member")
    assert list(found.index) == [*MEMBERS, *VOTES]
    assert found.answer.to_dict() == stored.predicted.to_dict()
    np.testing.assert_allclose(found.certainty, stored.certainty[found.index], atol=1e-6)
    np.testing.assert_allclose(found[list(LABELLED_CLASSES)], stored.filter(like="p_").loc[found.index], atol=1e-6)


def test_a_file_is_encoded_once(pipelines, monkeypatch):
    pipeline, encoded, encode = pipelines[1], [], classify.encode
    monkeypatch.setattr(classify, "encode", lambda *a, **k: encoded.append(a) or encode(*a, **k))
    encoder = new_encoder(pipeline.settings.model, pipeline.settings.grid, 0)
    for path in sorted((ROOT / "data" / "clips").glob("*.mp4"))[:2]:
        found = classify.classify_file(path, pipeline.settings, encoder, pipeline.heads, LABELLED_CLASSES)
        np.testing.assert_allclose(found[list(LABELLED_CLASSES)].sum(axis=1), 1, atol=1e-5)
    assert len(encoded) == 2


def test_a_file_that_is_no_video_is_refused(pipelines, tmp_path):
    pipeline, path = pipelines[1], tmp_path / "notes.mp4"
    path.write_text("not a video")
    encoder = new_encoder(pipeline.settings.model, pipeline.settings.grid, 0)
    with pytest.raises(VideoError, match=f"{path}: not readable as video"):
        classify.classify_file(path, pipeline.settings, encoder, pipeline.heads, LABELLED_CLASSES)
