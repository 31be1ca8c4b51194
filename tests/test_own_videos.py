"""One's own videos: folders and manifests, the split, few and many classes."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import as_clips
from figures import duplicates, plots
from hypothesis import given, settings
from hypothesis import strategies as st
from torchcodec.encoders import VideoEncoder

from evidence import ledger
from footage import lists
from footage.videos import VideoError
from picojepa import data, ensemble, pretraining, probing, results, stats

RATHER = settings(max_examples=60, deadline=None)


def listing(sizes: dict[str, int], **columns) -> pd.DataFrame:
    """A table of so many videos of each class."""
    rows = [{"path": f"{label}/{i:03}.mp4", "label": label} for label, n in sizes.items() for i in range(n)]
    return pd.DataFrame(rows).assign(**columns)


def split(videos: pd.DataFrame) -> pd.DataFrame:
    """The table with the split of the rule, all training videos labelled."""
    videos = videos.assign(split=lists.split_by_rule(videos))
    return videos.assign(labelled=videos.split == "pretrain")


# ---------------------------------------------------------------- the split


class_sizes = st.dictionaries(st.sampled_from([f"class {i}" for i in range(12)]), st.integers(1, 60), min_size=1)


@RATHER
@given(class_sizes, st.randoms(use_true_random=False))
def test_a_split_is_stratified_and_does_not_know_the_order_of_the_rows(sizes, random):
    videos = listing(sizes)
    found = lists.split_by_rule(videos)
    for label, n in sizes.items():
        held = int((found[videos.label == label] == "validation").sum())
        assert held == (max(1, round(n / 5)) if n > 1 else 0)
    order = random.sample(list(videos.index), len(videos))
    pd.testing.assert_series_equal(lists.split_by_rule(videos.loc[order]).sort_index(), found)


@RATHER
@given(class_sizes)
def test_a_video_more_changes_no_other_class(sizes):
    before, after = listing(sizes), listing({**sizes, "another class": 7})
    same = after.label != "another class"
    pd.testing.assert_series_equal(lists.split_by_rule(after)[same], lists.split_by_rule(before))


rows = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 8)), min_size=1, max_size=60)


@RATHER
@given(rows, st.booleans())
def test_a_group_stays_on_one_side_and_training_has_every_class(pairs, inside_class):
    videos = pd.DataFrame({"path": [f"{i}.mp4" for i in range(len(pairs))], "label": [label for label, _ in pairs]})
    videos["group"] = [None if g is None else f"{label * inside_class}{g}" for label, g in pairs]
    found = lists.split_by_rule(videos)
    assert (found.groupby(videos.group).nunique() == 1).all()
    assert set(videos.label[found == "pretrain"]) == set(videos.label)
    groups = videos.group.fillna(videos.path).groupby(videos.label).nunique()
    if inside_class:  # then nothing stands in the way of both sides
        assert set(videos.label[found == "validation"]) == set(groups.index[groups > 1])


def test_the_share_of_large_groups_is_about_a_fifth():
    videos = listing({"a": 200, "b": 100})
    videos["group"] = [f"person {i % 23}" for i in range(300)]
    share = (lists.split_by_rule(videos) == "validation").groupby(videos.label).mean()
    assert share.between(0.1, 0.22).all()


# ---------------------------------------------------------------- manifests and folders


def manifest(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", ["../x.mp4", "/etc/x.mp4", "a/../../x.mp4"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, path, provoked):
    with pytest.raises(ValueError, match=rf"list.csv: {re.escape(path)} leads out of {tmp_path}; put the video"):
        data.read_manifest(manifest(tmp_path, f"path,label\n{path},a\n"))
    provoked("a path that leads out of the folder", "reading lists")


def test_a_path_that_comes_back_is_read(tmp_path):
    text = f"path,label\na/../x.mp4,a\n{tmp_path}/y.mp4,a\n"
    assert data.read_manifest(manifest(tmp_path, text)).path.tolist() == [f"{tmp_path}/x.mp4", f"{tmp_path}/y.mp4"]


def test_a_link_out_of_the_folder_is_refused(tmp_path, provoked):
    inside, outside = tmp_path / "inside" / "a", tmp_path / "outside.mp4"
    inside.mkdir(parents=True)
    outside.touch()
    (inside / "x.mp4").symlink_to(outside)
    for read, path in ((data.read_folder, inside.parent), (data.read_manifest, inside.parent / "list.csv")):
        manifest(inside.parent, "path,label\na/x.mp4,a\n")
        with pytest.raises(ValueError, match=r"a/x.mp4 leads out of .*inside; put the video \(no link to it\)"):
            read(path)
    provoked("a link that leads out of the folder", "reading lists", 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nx.mp4,a\n./x.mp4,a\n", r"listed twice: ./x.mp4; remove one"),
        (
            "path,label,split,group\nx.mp4,a,pretrain,anna\ny.mp4,a,validation,anna\n",
            "group anna is in both splits; give it one, or remove the column split",
        ),
        ("path,label\nx.mp4,a,b\n", r"line 2 has 3 cells, the first line 2; put a cell that holds a comma into quotes"),
        ("path,label,weight\nx.mp4,a,b\n", "unknown column weight; known columns: path, label"),
        ("where,what\nx,a\n", "the first line names no column that is known; known columns: path, label"),
        ("x.mp4 a\ny.mp4 b c.d e\nz.mp4\n", "rows of 1 and of 2 words, and no first line that names columns"),
        ("path,label,label\nx.mp4,a,b\n", "column label is named twice in the first line; remove one"),
        ("path,label\nx.mp4,a\n\ny.mp4,\n", "line 4: empty path or label; fill it"),
        ("path,label,labelled\nx.mp4,a,maybe\n", "line 2: labelled must be True or False"),
        ("path,label\nx\0y.mp4,a\n", r"no table in UTF-8 \(there is a zero byte\); save it as CSV"),
        ('path,label\n"x.mp4,a\n', r"no table in UTF-8 \(unexpected end of data\); save it as CSV"),
    ],
)
def test_a_bad_list_is_one_clear_error(tmp_path, text, message, provoked):
    with pytest.raises(ValueError, match=message):
        data.read_manifest(manifest(tmp_path, text))
    provoked("a list with a mistake", "reading lists")


def test_a_list_that_is_saved_in_another_way(tmp_path, provoked):
    path = tmp_path / "list.csv"
    path.write_bytes("path,label\r\nx.mp4,é\r\n".encode("utf-8-sig"))  # as spreadsheets do
    assert data.read_manifest(path).label.tolist() == ["é"]
    path.write_bytes("path,label\nx.mp4,é\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list.csv: this is no table in UTF-8 \('utf-8' codec.*; save it as CSV"):
        data.read_manifest(path)
    provoked("a list with a mistake", "reading lists")


def test_names_that_no_path_can_have_are_refused(tmp_path, provoked):
    folder = a_folder(tmp_path / "folder", {"a": 2})
    (folder / "a" / os.fsdecode(b"\xff.mp4")).touch()
    with pytest.raises(ValueError, match=r"'a/\\udcff.mp4' is no usable path; rename the file or remove it"):
        data.read_folder(folder)
    provoked("a name that cannot be used", "reading lists")


@pytest.mark.parametrize("name", ["loop.mp4", f"{'long' * 100}.mp4"])
def test_a_name_without_a_file_is_a_video_that_is_missing(tmp_path, name, provoked):
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    listed = data.read_manifest(manifest(tmp_path, f"path,label\n{name},a\n"))
    assert data.file_hash(Path(listed.path[0])) == "missing"
    with pytest.raises(VideoError, match=rf"{name}: no such video file; check the path"):
        data.open_video(listed.path[0])
    provoked("a name that cannot be used", "reading lists")


def test_names_that_look_like_numbers_or_nothing_are_names(tmp_path):
    table = data.read_manifest(manifest(tmp_path, "path,label\n1.mp4,1\n2.mp4,None\n3.mp4,NA\n"))
    assert table.label.tolist() == ["1", "None", "NA"]
    assert table.labelled.all()


def a_folder(folder: Path, sizes: dict[str, int]) -> Path:
    """Empty files, so many for each class."""
    for label, n in sizes.items():
        (folder / label).mkdir(parents=True)
        for i in range(n):
            (folder / label / f"{i}.mp4").touch()
    return folder


def test_a_folder_is_a_list(tmp_path):
    folder = a_folder(tmp_path, {"b": 5, "a": 6, ".hidden": 1})
    (folder / "a" / "deep").mkdir()
    (folder / "a" / "0.mp4").rename(folder / "a" / "deep" / "0.MOV")
    (folder / "a" / "notes.txt").touch()
    (folder / "a" / "._1.mp4").touch()
    table = data.read_folder(folder)
    assert table.label.tolist() == ["a"] * 6 + ["b"] * 5
    assert f"{folder}/a/deep/0.MOV" in table.path.tolist()
    assert table.split.value_counts().to_dict() == {"pretrain": 9, "validation": 2}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({}, "no videos in sub-folders; make one for each class"),
        ({"a": 0, "b": 0}, r"no videos in sub-folders \(passed over: 2 an empty folder\); make one for each class"),
        ({"train": 3, "val": 2}, "train, val look like splits; put a folder for each class into each of them"),
    ],
)
def test_a_folder_without_videos_is_refused(tmp_path, sizes, message, provoked):
    with pytest.raises(ValueError, match=message):
        data.read_folder(a_folder(tmp_path, sizes))
    provoked("a folder without videos", "reading lists")


def test_a_wrong_name_in_the_environment_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PICOJEPA_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere: nothing there \(PICOJEPA_DATA\); name a folder"):
        data.source()
    monkeypatch.delenv("PICOJEPA_DATA")
    assert data.source() is None


# ---------------------------------------------------------------- few and many


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"a": 40}, r"needs two classes.*found: a \(40\); add videos or classes. To pre-train only"),
        ({"a": 1, "b": 1}, r"at least two videos each.*found: a \(1\), b \(1\)"),
        ({"a": 2, "b": 1}, r"found: a \(2\), b \(1\)"),
        ({"a": 3, "b": 2}, "3 labelled training videos of 2 classes, in 3 of the four quarters of chapter 6"),
        ({"a": 2, "b": 2}, "2 labelled training videos of 2 classes, .* need at least four videos of two classes"),
    ],
)
def test_too_few_videos_are_refused_with_the_remedy(sizes, message, provoked):
    with pytest.raises(ValueError, match=rf"own: .*{message}"):
        lists.for_the_book(split(listing(sizes)), Path("own"))
    provoked("too few videos", "reading lists")


def test_labels_of_one_quarter_only_are_refused(provoked):
    videos = split(listing({"a": 20, "b": 20}))
    first = videos.assign(labelled=lists.quarters(videos).isin([1, 2]))
    with pytest.raises(ValueError, match="own: 16 labelled .* in 2 of the four quarters .*, label more of them"):
        lists.for_the_book(first, Path("own"))
    provoked("too few videos", "reading lists")


@pytest.mark.parametrize(
    "sizes",
    [
        {"a": 3, "b": 3},
        {"a": 4, "b": 2},
        dict.fromkeys("abcd", 2),
        dict.fromkeys("abc", 20),
        dict.fromkeys("abcdefghijkl", 6),
        {"a": 300, "b": 4},
    ],
)
def test_other_numbers_of_classes_are_taken(sizes):
    videos = lists.for_the_book(split(listing(sizes)), Path("own"))
    assert lists.classes(videos) == lists.labelled_classes(videos) == tuple(sorted(sizes))
    number = lists.quarters(videos)
    assert set(number[number > 0]) == {1, 2, 3, 4}
    for label in sizes:
        dealt = number[(number > 0) & (videos.label == label)].value_counts().reindex(range(1, 5), fill_value=0)
        assert dealt.min() > 0 or dealt.sum() < 4


def test_a_class_of_one_video_is_for_pretraining_only():
    videos = lists.for_the_book(split(listing({"a": 10, "b": 10, "c": 1})), Path("own"))
    assert lists.classes(videos) == ("a", "b")
    assert not videos[videos.label == "c"].labelled.any()
    assert (videos.label == "c").sum() == 1


@pytest.mark.parametrize(("n", "sizes"), [(5, [2, 1, 1, 1]), (6, [2, 1, 2, 1]), (9, [3, 2, 2, 2]), (10, [3, 3, 3, 1])])
def test_quarters_of_few_videos_are_as_even_as_can_be(n, sizes):
    videos = listing({"a": n}).assign(split="pretrain", labelled=True)
    assert lists.quarters(videos).value_counts().sort_index().tolist() == sizes


def test_every_class_has_a_style_of_its_own():
    for names in (["Ollie", "Kickflip"], [f"c{i}" for i in range(12)], ["archery", "abseiling"]):
        styles = plots.class_styles(names)
        assert set(names) <= set(styles)
        assert len(set(styles.values())) == len(styles)
    assert plots.class_styles(["archery"])["archery"] == plots.class_styles(["abseiling", "archery"])["archery"]


def test_of_fewer_than_five_videos_nothing_is_said():
    mean, low, high = stats.bootstrap_interval(np.array([10.0, 12.0, 11.0, 9.0]))
    assert (mean, ledger.verdict(low, high)) == (10.5, "cannot be told here")
    assert ledger.in_words((mean, low, high)) == "+10.5 (too few for an interval)"
    assert ledger.claim("a", "b", "c", (mean, low, high), "4 videos")["verdict"] == "cannot be told here"
    assert ledger.in_words((1, -2, 4), " points") == "+1.0 points (-2.0 to +4.0)"
    assert ledger.half_interval(194) == "43 to 57"


def few(noise, sizes: dict[str, int]):
    """Clips of noise as so many videos of each class."""
    videos = split(listing(sizes)).sort_values("split", kind="stable", ignore_index=True)
    training = np.concatenate([noise.training] * (1 + len(videos) // len(noise.training)))[: len(videos)]
    return replace(as_clips(training), videos=videos)


def test_members_whose_list_lacks_a_class_are_trained(noise, tiny):
    clips = few(noise, {"a": 3, "b": 3})
    lists_of = {m: set(clips.videos.label[ensemble.member_rows(clips, m)]) for m in ensemble.PARTIALS}
    assert lists_of == {"Partial 1": {"a"}, "Partial 2": {"a"}, "Partial 3": {"b"}, "Partial 4": {"b"}}
    features = torch.randn(len(clips.videos), 6, generator=torch.Generator().manual_seed(0))
    probe = replace(tiny.probe, epochs=300, learning_rate=0.1)
    heads = ensemble.fit_members(clips, lambda chosen: [features[chosen]], probe)
    for member, (label,) in lists_of.items():
        seen = features[ensemble.member_rows(clips, member)]
        answers = ensemble.member_scores({member: heads[member]}, seen).argmax(-1)
        assert (answers == ("a", "b").index(label)).all()


def test_two_files_of_one_name_stay_two(noise):
    clips = few(noise, {"a": 12, "b": 6})
    clips.videos["path"] = [f"/own/{v.label}/take {i}/same.mp4" for i, v in enumerate(clips.videos.itertuples())]
    task = probing.make_task(clips, ("a", "b"))
    table = probing.prediction_table(clips, task, np.full((len(task.test), 2), 0.5))
    assert table.video.is_unique


def test_stored_names_stay_names(tmp_path):
    table = pd.DataFrame({"video": ["01"], "label": ["None"], "predicted": ["1"], "p_1": [0.5]})
    table.to_csv(tmp_path / probing.PREDICTIONS, index=False)
    pd.testing.assert_frame_equal(probing.read_predictions(tmp_path), table)


# ---------------------------------------------------------------- videos that look alike


def test_a_new_encoding_of_a_training_video_is_found(noise):
    clips = few(noise, {"a": 5, "b": 5})
    rng = np.random.default_rng(1)
    centre = rng.integers(0, 256, (10, 8, 3, 4, 4), dtype=np.uint8).repeat(8, axis=-2).repeat(8, axis=-1)
    apart = replace(clips, centre=centre)
    assert duplicates.near_duplicates(apart).empty
    copy = centre.copy()
    copy[9] = np.clip(centre[2].astype(int) + rng.integers(-6, 7, centre[2].shape), 0, 255)
    found = duplicates.near_duplicates(replace(clips, centre=copy))
    assert [found.training[0], found.validation[0]] == [plots.short_name(p) for p in clips.videos.path[[2, 9]]]
    assert len(found) == 1
    assert found.bits[0] <= duplicates.ALIKE


# ---------------------------------------------------------------- the least list


def write_videos(folder: Path, sizes: dict[str, int]) -> Path:
    """Short videos of a square that goes along or down before smooth noise, so many of each class."""
    rng = np.random.default_rng(0)
    for number, (label, n) in enumerate(sizes.items()):
        (folder / label).mkdir(parents=True)
        for i in range(n):
            ground = rng.integers(0, 200, (3, 4, 6)).repeat(16, 1).repeat(16, 2)
            video = np.stack([ground] * 12).astype(np.uint8)
            start = rng.integers(0, 8)
            for t in range(12):
                at = [start + 20, start + 20]
                at[number % 2] = start + 3 * t
                video[t, :, at[0] : at[0] + 16, at[1] : at[1] + 16] = 255
            VideoEncoder(torch.from_numpy(video), frame_rate=12).to_file(str(folder / label / f"{i}.mp4"), crf=20)
    return folder


def test_the_least_list_goes_through_everything(tiny, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PICOJEPA_DATA", str(write_videos(tmp_path / "least", {"a": 3, "b": 3})))
    clips = data.load_clips(tiny)
    assert clips.videos.split.value_counts().to_dict() == {"pretrain": 4, "validation": 2}
    run = pretraining.run(tiny, clips)
    task = probing.make_task(clips, data.classes(clips.videos))
    assert len(probing.probe_run(tiny, clips, run, task)) == 2 * 3 * 2
    table = ensemble.predictions(tiny, clips, run)
    assert ensemble.accuracy_table(table).index.tolist() == ["a", "b", "mean of 2 classes", "all videos"]
    assert results.table1(tiny, clips)["classification videos"].tolist() == [4, 1, 1, 1, 1]
