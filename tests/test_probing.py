"""Probes learn what is there and nothing else; every score can be recomputed from what is stored."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch import nn

from evidence import baselines
from evidence.supervision import supervised
from picojepa import probing, results, store
from picojepa.features import encode, load_encoder
from picojepa.fitting import ProbeConfig
from picojepa.probing import AttentiveHead, LinearHead
from standin import CLASSES, LABELLED_CLASSES

CLASS_COUNT, PER_CLASS, WIDTH = 4, 100, 12
FREE = ProbeConfig(epochs=10, attentive_epochs=10, attentive_learning_rate=1e-2, batch=16)


@pytest.fixture(scope="module")
def separable():
    """Token features (400, 6, 12) in four clouds, their labels, and as many for testing."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASS_COUNT, WIDTH))
    labels = np.tile(np.arange(CLASS_COUNT), PER_CLASS)
    clouds = [centres[labels][:, None] + rng.normal(size=(len(labels), 6, WIDTH)) for _ in range(2)]
    return torch.from_numpy(clouds[0]).float(), labels, torch.from_numpy(clouds[1]).float(), labels


def linear(train, labels, test, tiny):
    return probing.linear_probe(train.mean(1).numpy(), labels, test.mean(1).numpy())


def knn(train, labels, test, tiny):
    return probing.knn_probe(train.mean(1).numpy(), labels, test.mean(1).numpy(), 10)


def attentive(train, labels, test, tiny):
    settings = replace(tiny, probe=FREE, model=replace(tiny.model, width=WIDTH))
    head = probing.attentive_head(settings, train, torch.from_numpy(labels), CLASS_COUNT)
    return probing.head_scores(head, test)


def trained_head(train, labels, test, tiny):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = LinearHead(WIDTH, CLASS_COUNT)
    probing.train_head(head, [train.mean(1)], torch.from_numpy(labels), 10, 1e-2, FREE)
    return probing.head_scores(head, test)


EACH_PROBE = pytest.mark.parametrize("probe", [linear, knn, attentive, trained_head])


@EACH_PROBE
def test_a_probe_finds_separable_classes(probe, separable, tiny):
    train, labels, test, answers = separable
    scores = probe(train, labels, test, tiny)
    assert scores.shape == (len(test), CLASS_COUNT)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    assert (scores.argmax(1) == answers).mean() > 0.95


@EACH_PROBE
def test_with_permuted_labels_a_probe_falls_to_chance(probe, separable, tiny):
    train, labels, test, answers = separable
    shares = []
    for seed in range(3):
        permuted = np.random.default_rng(seed).permutation(labels)
        shares.append((probe(train, permuted, test, tiny).argmax(1) == answers).mean())
    # Clouds are answered as a whole, so that a single permutation may lie far from 1 / 4.
    assert np.mean(shares) == pytest.approx(1 / CLASS_COUNT, abs=0.15)


@EACH_PROBE
def test_a_probe_gives_the_same_answer_twice(probe, separable, tiny):
    train, labels, test, _ = separable
    np.testing.assert_array_equal(probe(train, labels, test, tiny), probe(train, labels, test, tiny))


def test_linear_probe_is_at_the_minimum_of_its_loss(separable, monkeypatch):
    """The penalised cross-entropy, minimised with torch from another start, gives the same probabilities."""
    monkeypatch.setattr(probing, "PENALTIES", (0.1,))
    train, labels, test, _ = separable
    x, y = train.mean(1).double(), torch.from_numpy(labels)
    mean, std = x.mean(0), x.std(0, unbiased=False)
    weight, bias = (torch.zeros(s, dtype=torch.float64, requires_grad=True) for s in ((4, WIDTH), (4,)))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        logits = (x - mean) / std @ weight.T + bias
        loss = 0.1 * F.cross_entropy(logits, y, reduction="sum") + weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    wanted = (((test.mean(1) - mean) / std) @ weight.T + bias).softmax(-1).detach().numpy()
    np.testing.assert_allclose(
        probing.linear_probe(x.numpy(), labels, test.mean(1).double().numpy()), wanted, atol=1e-3
    )


def test_linear_probe_takes_the_penalty_that_three_folds_like_best(separable, monkeypatch):
    """Every penalty alone, then the cross-entropy of held-out training videos; test videos have no say."""
    train, labels, test, _ = separable
    x, y, held_out = train.mean(1).numpy()[:120], labels[:120], test.mean(1).numpy()
    y = np.where(np.random.default_rng(0).random(120) < 0.3, (y + 1) % 4, y)  # noise makes a strong penalty better
    chosen = probing.linear_probe(x, y, held_out)
    scaled, loss, answers = StandardScaler().fit_transform(x), {}, {}
    for penalty in probing.PENALTIES:
        loss[penalty] = np.mean(
            [
                log_loss(
                    y[out],
                    LogisticRegression(C=penalty, max_iter=1000).fit(scaled[kept], y[kept]).predict_proba(scaled[out]),
                )
                for kept, out in StratifiedKFold(3).split(scaled, y)
            ]
        )
        with monkeypatch.context() as patch:
            patch.setattr(probing, "PENALTIES", (penalty,))
            answers[penalty] = probing.linear_probe(x, y, held_out)
    best = min(loss, key=loss.get)
    np.testing.assert_allclose(chosen, answers[best], atol=1e-3)
    others = [np.abs(answers[c] - chosen).max() for c in loss if c != best]
    assert min(others) > 0.01, "penalties that give the same answers would test nothing"


def test_knn_against_brute_force(separable):
    train, labels, test, _ = (part[:60] for part in separable)
    a, b = train.mean(1).numpy(), test.mean(1).numpy()
    found = probing.knn_probe(a, labels, b, 7)
    for row, scores in zip(b, found, strict=True):
        cosine = a @ row / np.linalg.norm(a, axis=1) / np.linalg.norm(row)
        nearest = labels[np.argsort(-cosine)[:7]]
        np.testing.assert_allclose(scores, [(nearest == c).mean() for c in range(4)])
    assert probing.knn_probe(a[:4], labels[:4], b, 10)[0].tolist() == [0.25] * 4  # fewer videos than neighbours


def test_attentive_head_against_a_slow_reference():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head, x = AttentiveHead(8, 3, heads=2).double(), torch.randn(2, 5, 8, dtype=torch.float64)
    tokens = F.layer_norm(x, (8,))
    query, key, value = head.attention.in_proj_weight.view(3, 8, 8)
    for clip, found in zip(tokens, head(x), strict=True):
        parts = []
        for part in (slice(0, 4), slice(4, 8)):
            share = ((clip @ key.T)[:, part] @ (query @ head.query[0, 0])[part] / 2).softmax(0)
            parts.append(share @ (clip @ value.T)[:, part])
        wanted = head.linear(head.attention.out_proj(torch.cat(parts)))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_linear_head_takes_tokens_or_their_mean():
    head, tokens = LinearHead(5, 3), torch.randn(2, 7, 5)
    torch.testing.assert_close(head(tokens), head(tokens.mean(1)))


def test_a_head_is_trained_as_the_paper_trains_it(separable):
    """Steps, learning rates and clipping against a loop that is written out."""
    train, labels, _, _ = separable
    x, y, config = train.mean(1)[:50], torch.from_numpy(labels[:50]), ProbeConfig(batch=16, seed=4)
    ours, slow = LinearHead(WIDTH, 4), LinearHead(WIDTH, 4)
    slow.load_state_dict(ours.state_dict())
    other = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))  # the epochs take turns
    probing.train_head(ours, [x, other], y, 4, 0.1, config)
    decayed, free = {"params": [slow.linear.weight]}, {"params": [slow.linear.bias], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([decayed, free], weight_decay=config.weight_decay)
    generator, step = torch.Generator().manual_seed(4), 0
    for epoch in range(4):
        order = torch.randperm(50, generator=generator)
        for chosen in (order[:17], order[17:34], order[34:]):
            half = (step - 6) / 6  # two of four epochs of three steps are warm-up
            rate = 0.1 * (step + 1) / 6 if step < 6 else 1e-7 + (0.1 - 1e-7) * (1 + np.cos(np.pi * half)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            F.cross_entropy(slow((other if epoch % 2 else x)[chosen]), y[chosen]).backward()
            nn.utils.clip_grad_norm_(slow.parameters(), 1.0)
            optimizer.step()
            step += 1
    torch.testing.assert_close(ours.linear.weight, slow.linear.weight, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.linear.bias, slow.linear.bias, rtol=0, atol=1e-5)
    assert not ours.training


def test_colour_histogram_is_numpys():
    clips = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 5, 7), dtype=np.uint8)
    found = baselines.colour_histogram(clips)
    for clip, row in zip(clips, found, strict=True):
        wanted = [np.histogram(clip[:, c], bins=8, range=(0, 256))[0] / clip[:, c].size for c in range(3)]
        np.testing.assert_allclose(row, np.concatenate(wanted))


def test_frame_differences_are_means_over_places():
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 32, 32), dtype=np.uint8)
    found = baselines.frame_differences(clips, side=8)
    assert found.shape == (2, 64)
    for clip, row in zip(clips.astype(float), found, strict=True):
        moved = np.abs(clip[1:] - clip[:-1]).mean((0, 1))
        wanted = [moved[y : y + 4, x : x + 4].mean() for y in range(0, 32, 4) for x in range(0, 32, 4)]
        np.testing.assert_allclose(row, wanted, rtol=1e-5)
    assert not baselines.frame_differences(clips[:, :1].repeat(4, axis=1)).any(), "a still picture"


# ---------------------------------------------------------------- through the pipeline


def test_a_probe_in_the_registry_is_asked(pipelines, monkeypatch, tmp_path):
    """One place to add a probe: it is given tokens, labels and classes, and its answers stand in the table."""
    pipeline, task = pipelines[1], pipelines[1].tasks["four"]

    def commonest(settings, task, train, test, folder):
        assert (train.shape, test.shape) == ((32, 64, 24), (20, 64, 24))
        share = np.bincount(task.train_labels, minlength=len(task.classes)) / len(train)
        return np.tile(share, (len(test), 1))

    monkeypatch.setattr(probing, "PROBES", {"commonest": commonest})
    encoder = load_encoder(pipeline.run / "encoder.safetensors", pipeline.settings)
    table = probing.probe_encoder(encoder, pipeline.settings, pipeline.clips, task, "any", tmp_path)
    assert table[["features", "probe"]].drop_duplicates().to_numpy().tolist() == [["any", "commonest"]]
    assert set(table.certainty) == {0.25}


def test_a_task_asks_about_its_classes_only(pipelines):
    clips = pipelines[1].clips
    for name, classes in (("ten", CLASSES), ("four", LABELLED_CLASSES)):
        task = pipelines[1].tasks[name]
        for rows, labels, split in (
            (task.train, task.train_labels, "pretrain"),
            (task.test, task.test_labels, "validation"),
        ):
            videos = clips.videos.iloc[rows]
            assert set(videos.split) == {split}
            assert videos.label.tolist() == [classes[number] for number in labels]
            assert set(videos.label) == set(classes)
    assert len(pipelines[1].tasks["ten"].train) == 8 * len(CLASSES)
    assert clips.videos.labelled[pipelines[1].tasks["four"].train].all()


def test_a_labelled_task_leaves_out_what_is_not_labelled(pipelines):
    clips = pipelines[1].clips
    videos = clips.videos.copy()
    first = videos.index[(videos.label == "adjusting_glasses") & (videos.split == "pretrain")][0]
    videos.loc[first, "labelled"] = False
    changed = replace(clips, videos=videos)
    labelled = probing.make_task(changed, LABELLED_CLASSES, labelled_only=True)
    everything = probing.make_task(changed, LABELLED_CLASSES)
    assert set(everything.train) - set(labelled.train) == {first}


def test_a_class_without_training_videos_is_refused(pipelines):
    """Skipped files, or a list of one's own, may leave a class of the task empty."""
    clips = pipelines[1].clips
    fewer = replace(clips, videos=clips.videos.assign(label=clips.videos.label.replace("archery", "applauding")))
    with pytest.raises(ValueError, match="archery"):
        probing.make_task(fewer, CLASSES)


BOTH = 2 * len(probing.PROBES)  # random weights and pre-trained
TEN = len(CLASSES)
PLAIN = len(baselines.WITHOUT_NETWORK)
TABLES = {"probes": (BOTH * 5 * TEN, TEN), "probes_of_four": (BOTH * 20, 4), "baselines": (PLAIN * 5 * TEN, TEN)}


@pytest.mark.parametrize("name", TABLES)
def test_stored_tables_have_a_row_per_video_and_a_score_per_class(pipelines, name):
    table = getattr(pipelines[1], name)
    rows, classes = TABLES[name]
    scores = table.filter(like="p_")
    assert (len(table), scores.shape[1]) == (rows, classes)
    names = CLASSES if classes == 10 else LABELLED_CLASSES
    assert list(scores) == [f"p_{label}" for label in names]
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert table.predicted.tolist() == [names[i] for i in scores.to_numpy().argmax(1)]
    np.testing.assert_allclose(table.certainty, scores.max(axis=1))
    task = pipelines[1].tasks["ten" if classes == 10 else "four"]
    videos = pipelines[1].clips.videos.iloc[task.test]
    for _, group in table.groupby(["features", "probe"]):
        assert group.label.tolist() == videos.label.tolist()
        assert [f"/{video}.mp4" in path for video, path in zip(group.video, videos.path, strict=True)] == [True] * len(
            videos
        )


def test_reported_scores_are_recomputed_from_the_csv(pipelines):
    """Without pandas: count the rows whose largest score is the label's."""
    counted = {}
    for path in sorted((pipelines[1].cache / "results").glob("probing.*/predictions.csv")):
        card = store.card(path.parent)
        if card["inputs"]["data"] != pipelines[1].clips.digest:
            continue
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                scores = {name[2:]: float(value) for name, value in row.items() if name.startswith("p_")}
                right = max(scores, key=scores.get) == row["label"]
                key = card["stage"], len(scores), row["features"], row["probe"]
                counted.setdefault(key, []).append(right)
    reported = {}
    for stage, table in (
        ("encoder", pipelines[1].probes),
        ("encoder", pipelines[1].probes_of_four),
        ("baselines", pipelines[1].baselines),
    ):
        classes = table.filter(like="p_").shape[1]
        for row in results.score_table(table, ["features", "probe"]).to_dict("records"):
            reported[f"probing.{stage}", classes, row["features"], row["probe"]] = row["accuracy"], row["n"]
    assert len(reported) == BOTH + BOTH + PLAIN
    assert {key: len(right) for key, right in counted.items()} == {key: n for key, (_, n) in reported.items()}
    accuracy = {key: percent for key, (percent, _) in reported.items()}
    assert {key: 100 * np.mean(right) for key, right in counted.items()} == pytest.approx(accuracy)


def test_another_data_seed_changes_every_score(pipelines):
    one, two = pipelines[1], pipelines[2]
    assert one.clips.digest != two.clips.digest
    for name in (*TABLES, "votes"):
        keys = ["member"] if name == "votes" else ["features", "probe"]
        groups = [dict(list(getattr(p, name).groupby(keys))) for p in (one, two)]
        assert groups[0].keys() == groups[1].keys()
        for key, table in groups[0].items():
            other = groups[1][key]
            assert table.label.tolist() == other.label.tolist()
            assert not np.allclose(table.certainty, other.certainty, atol=1e-6), f"{name} {key}"
            changed = (table.filter(like="p_").to_numpy() != other.filter(like="p_").to_numpy()).any(axis=1)
            least = 0.5 if "k-NN" in key else 0.95  # shares of three neighbours take four values only
            assert changed.mean() > least, f"{name} {key}"


def test_tables_are_found_again(pipelines, monkeypatch):
    pipeline = pipelines[1]
    monkeypatch.setenv("PICOJEPA_CACHE", str(pipeline.cache))
    for name in ("probe_encoder", "linear_probe"):
        monkeypatch.setattr(probing, name, None)  # whoever computes again fails
    given = pipeline.settings, pipeline.clips
    pd.testing.assert_frame_equal(probing.probe_run(*given, pipeline.run, pipeline.tasks["ten"]), pipeline.probes)
    pd.testing.assert_frame_equal(baselines.probe_baselines(*given, pipeline.tasks["ten"]), pipeline.baselines)


def test_random_weights_are_asked_once_for_all_runs_of_a_seed(pipelines, monkeypatch, cache):
    """Their answers do not depend on a run, and every run of the seed is compared with the same ones."""
    pipeline, asked, probe = pipelines[1], [], probing.probe_encoder
    monkeypatch.setattr(probing, "probe_encoder", lambda *given: asked.append(given[4]) or probe(*given))
    other = shutil.copytree(pipeline.run, cache / "another-run")
    given = pipeline.settings, pipeline.clips
    tables = [probing.probe_run(*given, run, pipeline.tasks["four"]) for run in (pipeline.run, other)]
    assert asked == ["random weights", "pre-trained", "pre-trained"]
    pd.testing.assert_frame_equal(*tables)


def test_the_stored_attentive_head_gives_the_stored_answers(pipelines, monkeypatch):
    pipeline, task = pipelines[1], pipelines[1].tasks["four"]
    monkeypatch.setenv("PICOJEPA_CACHE", str(pipeline.cache))
    folder = probing.probed(pipeline.settings, pipeline.clips, task, pipeline.run)
    head = probing.new_attentive_head(pipeline.settings, len(task.classes))
    head.load_state_dict(load_file(folder / probing.ATTENTIVE))
    encoder = load_encoder(pipeline.run / "encoder.safetensors", pipeline.settings)
    scores = probing.head_scores(head, encode(encoder, pipeline.clips.centre[task.test], pool=False))
    stored = probing.read_predictions(folder).query("probe == 'attentive'")
    np.testing.assert_allclose(scores, stored.filter(like="p_"), atol=1e-6)


def test_other_labels_are_not_answered_from_the_store(pipelines, monkeypatch, cache):
    """A key must hold the task: the same classes and sizes with permuted labels are another result."""
    pipeline, task = pipelines[1], pipelines[1].tasks["four"]
    permuted = replace(task, train_labels=task.train_labels.roll(3))
    asked = [probing.probe_run(pipeline.settings, pipeline.clips, pipeline.run, t) for t in (task, permuted)]
    assert not np.allclose(asked[0].certainty, asked[1].certainty)


def test_permuted_labels_fall_to_chance_through_the_whole_path(pipelines, monkeypatch, tmp_path):
    """An encoder whose features give the class away: right labels find it, permuted ones do not."""
    pipeline = pipelines[1]
    clips, task, settings = pipeline.clips, pipeline.tasks["ten"], replace(pipeline.settings, probe=FREE)
    codes = np.random.default_rng(0).normal(size=(len(CLASSES), 1, 24))
    rows = {clip.tobytes(): CLASSES.index(label) for clip, label in zip(clips.centre, clips.videos.label, strict=True)}

    def tell(encoder, chosen, pool=True):
        noise = np.random.default_rng(1).normal(size=(len(chosen), 6, 24))
        tokens = torch.from_numpy(codes[[rows[clip.tobytes()] for clip in chosen]] + 0.5 * noise).float()
        return tokens.mean(1) if pool else tokens

    monkeypatch.setattr(probing, "encode", tell)
    right = probing.probe_encoder(None, settings, clips, task, "telling", tmp_path)
    assert (right.groupby("probe").apply(probing.accuracy, include_groups=False) > 0.9).all()
    shares = []
    for seed in range(5):
        order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed))
        permuted = replace(task, train_labels=task.train_labels[order])
        table = probing.probe_encoder(None, settings, clips, permuted, "telling", tmp_path)
        assert table.shape == right.shape
        shares.append(table.groupby("probe").apply(probing.accuracy, include_groups=False))
    assert pd.concat(shares, axis=1).mean(axis=1).to_numpy() == pytest.approx([0.1] * len(probing.PROBES), abs=0.1)


def test_supervised_training_learns_labels(tiny, monkeypatch):
    """Two classes of plainly different brightness."""
    labels = np.tile([0, 1], 8)
    dark = np.full((16, 1, 8, 3, 32, 32), 40, dtype=np.uint8)
    training = dark + (120 * labels[:, None, None, None, None, None]).astype(np.uint8)
    clips = type("Clips", (), {"training": training, "centre": training[:, 0]})
    task = probing.Task(
        ("dark", "bright"), np.arange(16), np.arange(16), torch.from_numpy(labels), torch.from_numpy(labels)
    )
    settings = replace(tiny, probe=replace(tiny.probe, supervised_epochs=40))
    scores = supervised(settings, clips, task)
    assert (scores.argmax(1) == labels).all()
    permuted = replace(task, train_labels=1 - task.train_labels)
    assert (supervised(settings, clips, permuted).argmax(1) != labels).all()
