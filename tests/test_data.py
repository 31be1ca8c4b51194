"""Lists of videos: manifests, splits and quarters, and the clips of a whole list."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import BUNDLED, a_set
from torchcodec.decoders import VideoDecoder

import standin
from footage.lists import paper_lists
from picojepa import data
from picojepa.clips import label_numbers, normalise
from standin import CLASSES, LABELLED_CLASSES, StandInConfig
from tools import bundle_clips

# ---------------------------------------------------------------- lists


@pytest.fixture(scope="module")
def full():
    """The list of the paper's actions at the size of the paper's."""
    table = standin.plan(StandInConfig(scale=1.0))
    return table[table.label.isin(paper_lists().index)]


def test_quarters_are_those_of_the_paper(full):
    quarter = data.quarters(full)
    sizes = pd.crosstab(full.label, quarter).loc[list(LABELLED_CLASSES), [1, 2, 3, 4]]
    assert sizes.loc["abseiling"].tolist() == [240, 240, 240, 237]
    assert sizes.loc["adjusting_glasses"].tolist() == [147, 148, 148, 146]  # one of the first run is missing
    assert sizes.loc["alligator_wrestling"].tolist() == [153, 153, 153, 151]
    assert sizes.loc["archaeological_excavation"].tolist() == [166, 166, 166, 163]
    assert sizes.sum().tolist() == [706, 707, 707, 697]
    assert (quarter > 0).sum() == full[full.split == "pretrain"].labelled.sum() == 2817
    assert (full.split == "pretrain").sum() == 7203
    assert ((full.split == "validation") & full.label.isin(LABELLED_CLASSES)).sum() == 194


def test_a_quarter_is_a_contiguous_run_of_the_sorted_list(full):
    shuffled = full.sample(frac=1, random_state=0)
    quarter = data.quarters(shuffled)
    pd.testing.assert_series_equal(quarter.sort_index(), data.quarters(full))
    for label in LABELLED_CLASSES:
        ours = shuffled[(quarter > 0) & (shuffled.label == label)].sort_values("path")
        assert quarter[ours.index].is_monotonic_increasing
    assert (quarter[(shuffled.split == "validation") | ~shuffled.labelled] == 0).all()


def test_label_numbers_are_places_in_the_list():
    assert label_numbers(CLASSES, CLASSES).tolist() == list(range(len(CLASSES)))
    assert label_numbers(["alligator_wrestling", "abseiling"], LABELLED_CLASSES).tolist() == [2, 0]


def write_manifest(folder: Path, text: str) -> Path:
    """A manifest of this text."""
    path = folder / "manifest.csv"
    path.write_text(text)
    return path


def test_a_manifest_gets_absolute_paths_split_and_labelled(tmp_path):
    table = data.read_manifest(write_manifest(tmp_path, "path,label\nb/x.mp4,archery\ny.mp4,abseiling\n"))
    assert table.path.tolist() == [str(tmp_path / "b/x.mp4"), str(tmp_path / "y.mp4")]
    assert table.split.tolist() == ["pretrain", "pretrain"]
    assert table.labelled.tolist() == [True, True]


def test_of_the_papers_classes_its_four_are_labelled(tmp_path):
    rows = "".join(f"{label}.mp4,{label}\n" for label in paper_lists().index)
    table = data.read_manifest(write_manifest(tmp_path, "path,label\n" + rows))
    assert tuple(table.label[table.labelled]) == LABELLED_CLASSES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,colour\nx.mp4,archery,red\n", "unknown column colour; known columns: path, label, split"),
        ("path,split\nx.mp4,pretrain\n", "column label is missing; add it"),
        ("label\narchery\n", "column path is missing; add it"),
        ("path,label\n", "lists no videos; add at least one row"),
        ("", "(lists no videos|is empty).*add"),
        ("path,label\nx.mp4,archery\nx.mp4,archery\n", "listed twice: x.mp4; remove one of the rows"),
        ("path,label,split\nx.mp4,archery,third\n", "unknown split third; known splits: pretrain, validation"),
        ("path,label,split\nx.mp4,archery,\n", "unknown split empty; known splits: pretrain, validation"),
        (
            "path,label,split\nx.mp4,archery,pretrain\ny.mp4,juggling,validation\n",
            "class without training videos: juggling; add some or remove",
        ),
        ("path,label\nx.mp4,\n", "(empty|no) (path or )?label"),
        ("path,label\n,archery\n", "(empty|no) path"),
    ],
)
def test_a_bad_manifest_is_refused_with_path_and_remedy(tmp_path, text, message, provoked):
    path = write_manifest(tmp_path, text)
    with pytest.raises(ValueError, match=rf"{path}.*{message}"):
        data.read_manifest(path)
    provoked("a list with a mistake", "reading lists")


def test_a_missing_manifest_is_refused(tmp_path, provoked):
    with pytest.raises(FileNotFoundError, match=rf"no manifest at {tmp_path}/none.csv; generate the stand-in"):
        data.read_manifest(tmp_path / "none.csv")
    provoked("a list that is missing", "reading lists")


# ---------------------------------------------------------------- as numbers


def test_normalise_is_imagenets_and_moves_the_channels():
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 5, 6), dtype=np.uint8)
    wanted = np.empty((2, 3, 4, 5, 6))
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        wanted[:, channel] = (clips[:, :, channel] / 255 - mean) / std
    found = normalise(torch.from_numpy(clips))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-6)


# ---------------------------------------------------------------- all videos


@pytest.fixture
def videos():
    """The bundled clips."""
    return data.read_manifest(BUNDLED)


def test_clips_of_a_list_are_those_of_its_files(tiny, cache, videos):
    clips = data.load_clips(tiny, videos)
    assert clips.training.shape == (5, 2, 8, 3, 32, 32)
    assert clips.centre.shape == (5, 8, 3, 32, 32)
    assert clips.training.dtype == clips.centre.dtype == np.uint8
    assert clips.skipped.empty
    for path, centre in zip(clips.videos.path, clips.centre, strict=True):
        np.testing.assert_array_equal(centre, data.read_clips(path, tiny.clip, [0.5])[0].numpy())
    assert (clips.training[:, 0] != clips.training[:, 1]).any(axis=(1, 2, 3, 4)).all()


def test_training_videos_come_first_and_validation_has_centre_clips_only(tiny, cache, videos):
    extra = videos.iloc[[0]].assign(split="validation", path=videos.path[0])
    clips = data.load_clips(tiny, pd.concat([extra, videos], ignore_index=True))
    assert clips.videos.split.tolist() == ["pretrain"] * 5 + ["validation"]
    assert (len(clips.training), len(clips.centre)) == (5, 6)
    np.testing.assert_array_equal(clips.centre[5], clips.centre[0])


def test_clips_are_decoded_once_and_the_same_anywhere(tiny, cache, videos, monkeypatch, tmp_path):
    first = data.load_clips(tiny, videos)
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "other"))
    second = data.load_clips(tiny, videos)
    np.testing.assert_array_equal(first.training, second.training)
    assert first.digest == second.digest
    monkeypatch.setattr("footage.videos.decode_all", None)  # whoever decodes again fails
    np.testing.assert_array_equal(data.load_clips(tiny, videos).centre, first.centre)


def test_the_digest_knows_everything_that_results_depend_on(ramp, tmp_path):
    videos = data.read_manifest(a_set(tmp_path, ramp, good=3, bad=0))
    videos["label"] = "abseiling"
    digests = {data.data_digest(videos)}
    digests.add(data.data_digest(videos.assign(label=["archery", "abseiling", "abseiling"])))
    digests.add(data.data_digest(videos.assign(split=["validation", "pretrain", "pretrain"])))
    digests.add(data.data_digest(videos.assign(labelled=[True, False, True])))
    (tmp_path / "v02.mp4").write_bytes(ramp.read_bytes() + b"more")
    digests.add(data.data_digest(videos))
    (tmp_path / "v02.mp4").unlink()
    digests.add(data.data_digest(videos))
    assert len(digests) == 6


def test_the_digest_reads_the_files_whatever_the_list_says(ramp, tmp_path):
    videos = data.read_manifest(a_set(tmp_path, ramp, good=3, bad=0)).assign(sha256="the same")
    before = data.data_digest(videos)
    (tmp_path / "v02.mp4").write_bytes(ramp.read_bytes() + b"more")
    assert data.data_digest(videos) != before


def test_the_digest_knows_the_names_that_cut_the_quarters(videos):
    renamed = videos.assign(path=[str(Path(p).with_name(f"{9 - i}.mp4")) for i, p in enumerate(videos.path)])
    assert data.data_digest(renamed) != data.data_digest(videos)


# ---------------------------------------------------------------- the bundled clips


def test_bundled_clips_are_small_and_cover_the_labelled_classes(videos):
    assert set(videos.label) == {*LABELLED_CLASSES, "applauding"}
    assert set(videos.split) == {"pretrain"}
    assert videos.groupby("label").labelled.all().to_dict() == {c: c in LABELLED_CLASSES for c in set(videos.label)}
    assert sum(Path(path).stat().st_size for path in videos.path) < 150_000
    assert [data.file_hash(Path(path)) for path in videos.path] == videos.sha256.tolist()


def test_bundled_clips_are_what_the_generator_draws(videos):
    table = pd.read_csv(BUNDLED)
    wanted, again = (
        table.drop(columns="sha256"),
        "the generator has changed: run .venv/bin/python tools/bundle_clips.py",
    )
    pd.testing.assert_frame_equal(wanted, pd.DataFrame(bundle_clips.rows()), check_dtype=False, obj=again)
    rows = table.to_dict("records")
    for row, path in zip(rows, videos.path, strict=True):
        decoded = VideoDecoder(path, dimension_order="NHWC")[:].numpy().astype(float)
        error = np.mean((decoded - standin.render(row, bundle_clips.CONFIG)) ** 2)
        assert 10 * np.log10(255**2 / error) > 25, f"{path}: run .venv/bin/python tools/bundle_clips.py"


def test_bundled_clips_are_in_the_current_style_of_the_stand_in():
    now, bundled = asdict(StandInConfig()), asdict(bundle_clips.CONFIG)
    assert {key for key in now if now[key] != bundled[key]} <= {"seed", "scale", "validation_scale"}


def test_bundling_again_gives_the_same_list(tmp_path):
    table = bundle_clips.bundle(tmp_path)
    pd.testing.assert_frame_equal(table.drop(columns="sha256"), pd.read_csv(BUNDLED).drop(columns="sha256"))
