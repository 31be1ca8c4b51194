"""From file to tensor: lists and quarters, sampling of frames, padding, bad files, the store of clips."""

import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from torchcodec.decoders import VideoDecoder
from torchcodec.encoders import VideoEncoder

from picojepa import data, standin
from picojepa.clips import label_numbers, normalise
from picojepa.config import CLASSES, LABELLED_CLASSES, ClipConfig, StandInConfig
from picojepa.data import VideoError
from tools import bundle_clips

BUNDLED = ROOT / "data" / "clips" / "manifest.csv"
REAL = Path(os.environ.get("PICOJEPA_REAL") or ROOT.parent / "shared" / "real")
LEVEL = 4  # difference in brightness between two frames of a ramp


def write_ramp(path: Path, frames: int, fps: float = 24.0, size: tuple[int, int] = (32, 32)) -> Path:
    """A video whose frame i has brightness 8 + LEVEL * i everywhere."""
    grey = torch.arange(frames, dtype=torch.uint8) * LEVEL + 8
    video = grey.view(-1, 1, 1, 1).expand(-1, 3, *size).contiguous()
    VideoEncoder(video, frame_rate=fps).to_file(
        str(path), codec="libx264", pixel_format="yuv420p", crf=4, extra_options={"g": 12}
    )
    return path


def frame_numbers(clips: torch.Tensor) -> list:
    """Which frame of a ramp each frame of (..., T, C, H, W) is."""
    exact = (clips.double().mean((-1, -2, -3)) - 8) / LEVEL
    assert (exact - exact.round()).abs().max() < 0.4, "the levels can not be told apart"
    return exact.round().int().tolist()


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """48 frames in two seconds."""
    return write_ramp(tmp_path_factory.mktemp("ramp") / "ramp.mp4", 48)


# ---------------------------------------------------------------- lists


@pytest.fixture(scope="module")
def full():
    """The list at the size of the paper's."""
    return standin.plan(StandInConfig(scale=1.0))


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
    assert label_numbers(CLASSES).tolist() == list(range(10))
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
    assert table.labelled.tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,colour\nx.mp4,archery,red\n", "unknown column colour; known columns: path, label, split"),
        ("path,split\nx.mp4,pretrain\n", "column label is missing; add it"),
        ("label\narchery\n", "column path is missing; add it"),
        ("path,label\n", "lists no videos; add at least one row"),
        ("", "(lists no videos|is empty).*add"),
        ("path,label\nx.mp4,archery\nx.mp4,archery\n", "listed twice: x.mp4; remove one of the rows"),
        ("path,label,split\nx.mp4,archery,test\n", "unknown split test; known splits: pretrain, validation"),
        ("path,label,split\nx.mp4,archery,\n", "unknown split empty; known splits: pretrain, validation"),
        (
            "path,label,split\nx.mp4,archery,pretrain\ny.mp4,juggling,validation\n",
            "class without training videos: juggling; add some or remove",
        ),
        ("path,label\nx.mp4,\n", "(empty|no) (path or )?label"),
        ("path,label\n,archery\n", "(empty|no) path"),
    ],
)
def test_a_bad_manifest_is_refused_with_path_and_remedy(tmp_path, text, message):
    path = write_manifest(tmp_path, text)
    with pytest.raises(ValueError, match=rf"{path}.*{message}"):
        data.read_manifest(path)


def test_a_missing_manifest_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no manifest at {tmp_path}/none.csv; generate the stand-in"):
        data.read_manifest(tmp_path / "none.csv")


# ---------------------------------------------------------------- one video


def test_the_centre_clip_of_a_ramp_holds_the_middle_frames(ramp):
    consecutive = ClipConfig(size=16, frames_per_second=None)
    assert frame_numbers(data.read_clips(ramp, consecutive, [0.5])) == [[20, 21, 22, 23, 24, 25, 26, 27]]
    eight_a_second = ClipConfig(size=16, frames_per_second=8.0)  # every third frame of 24 a second
    (numbers,) = frame_numbers(data.read_clips(ramp, eight_a_second, [0.5]))
    assert np.diff(numbers).tolist() == [3] * 7
    assert numbers[0] + numbers[-1] == 47  # as many frames before as after


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_at_the_videos_own_rate_frames_are_a_stride_apart(ramp, stride):
    clip = ClipConfig(size=16, frames_per_second=None, stride=stride)
    first, last = frame_numbers(data.read_clips(ramp, clip, [0.0, 1.0]))
    assert first == list(range(0, 8 * stride, stride))
    assert last == list(range(47 - 7 * stride, 48, stride))
    timed = ClipConfig(size=16, frames_per_second=24.0, stride=stride)  # a rate of one's own: the stride has no say
    assert frame_numbers(data.read_clips(ramp, timed, [0.0])) == [list(range(8))]


def test_first_and_last_clip_reach_the_ends_of_the_video(ramp):
    clip = ClipConfig(size=16, frames_per_second=8.0)
    first, last = frame_numbers(data.read_clips(ramp, clip, [0.0, 1.0]))
    assert first == list(range(0, 24, 3))
    assert last == list(range(26, 48, 3))


def test_several_clips_in_one_pass_are_the_single_clips(ramp):
    clip, positions = ClipConfig(size=16), [0.9, 0.1, 0.5]
    together = data.read_clips(ramp, clip, positions)
    assert together.dtype == torch.uint8
    assert together.shape == (3, 8, 3, 16, 16)
    for one, position in zip(together, positions, strict=True):
        assert torch.equal(one, data.read_clips(ramp, clip, [position])[0])


def test_a_short_video_is_padded_by_its_last_frame(tmp_path):
    path = write_ramp(tmp_path / "short.mp4", 5)
    for position in (0.0, 0.5, 1.0):
        (numbers,) = frame_numbers(data.read_clips(path, ClipConfig(size=16, frames_per_second=None), [position]))
        assert numbers == [0, 1, 2, 3, 4, 4, 4, 4]
    single = write_ramp(tmp_path / "single.mp4", 1)
    assert frame_numbers(data.read_clips(single, ClipConfig(size=16), [0.5])) == [[0] * 8]


@pytest.mark.parametrize("fps", standin.RATES)
def test_at_any_frame_rate_a_clip_covers_the_same_time(tmp_path, fps):
    path = write_ramp(tmp_path / "ramp.mp4", round(2 * fps), fps)
    (numbers,) = frame_numbers(data.read_clips(path, ClipConfig(size=16, frames_per_second=8.0), [0.0]))
    times = np.arange(8) / 8 + 0.5 / fps  # the middle of the first frame, and on in steps of 1/8 s
    assert numbers == np.floor(times * fps + 1e-6).astype(int).tolist()


def test_a_variable_frame_rate_is_read_by_time(tmp_path, ramp):
    path = tmp_path / "variable.mp4"  # 24 frames a second, after frame 11 only 8 a second
    stretch = "setpts='if(lt(N,12),N,12+3*(N-12))/24/TB'"
    command = ["ffmpeg", "-v", "error", "-i", ramp, "-vf", stretch, "-fps_mode", "vfr", "-crf", "4", path]
    subprocess.run(command, check=True)
    clip = ClipConfig(frames=12, size=16, frames_per_second=8.0)
    (numbers,) = frame_numbers(data.read_clips(path, clip, [0.0]))
    decoder = VideoDecoder(str(path))
    shown = np.array([decoder.get_frame_at(i).pts_seconds for i in range(30)])
    times = data.clip_times(decoder, clip, 0.0)
    assert numbers == [int(np.flatnonzero(shown <= t + 1e-9)[-1]) for t in times]
    assert set(np.diff(numbers[:4])) == {3}
    assert set(np.diff(numbers[5:])) == {1}


def test_frames_are_squashed_to_a_square(tmp_path):
    path = write_ramp(tmp_path / "wide.mp4", 10, size=(32, 64))
    assert data.read_clips(path, ClipConfig(size=24), [0.5]).shape == (1, 8, 3, 24, 24)


def test_reading_twice_gives_the_same_bits():
    path = data.read_manifest(BUNDLED).path[0]
    once, twice = (data.read_clips(path, ClipConfig(), [0.3, 0.5]) for _ in range(2))
    assert torch.equal(once, twice)


def test_normalise_is_imagenets_and_moves_the_channels():
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 5, 6), dtype=np.uint8)
    wanted = np.empty((2, 3, 4, 5, 6))
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        wanted[:, channel] = (clips[:, :, channel] / 255 - mean) / std
    found = normalise(torch.from_numpy(clips))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-6)


# ---------------------------------------------------------------- bad files


def damaged(kind: str, folder: Path, ramp: Path) -> Path:
    """A file that is no video, or not a whole one."""
    path = folder / "broken.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("This is not a video.\n" * 100)
    elif kind == "without index":  # an mp4 keeps its index at the end
        path.write_bytes(ramp.read_bytes()[: ramp.stat().st_size // 2])
    elif kind == "sound only":
        subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", "-f", "mp4", path], check=True)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "reason", "remedy"),
    [
        ("missing", "no such video file", "check the path or generate the data again"),
        ("folder", "no such video file", "check the path or generate the data again"),
        ("empty", "the file is empty", "fetch or generate it again"),
        ("text", "not readable as video", "remove it from the list or encode it again"),
        ("without index", "not readable as video", "remove it from the list or encode it again"),
        ("sound only", "(not readable as video|no frames)", "remove it from the list or encode it again"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, ramp, kind, reason, remedy):
    path = damaged(kind, tmp_path, ramp)
    with pytest.raises(VideoError, match=rf"^{path}: {reason}.*{remedy}$"):
        data.read_clips(path, ClipConfig(), [0.5])


def test_a_file_that_breaks_off_is_read_or_refused(tmp_path):
    whole = write_ramp(tmp_path / "whole.mkv", 48)
    path = tmp_path / "broken.mkv"
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        try:
            assert data.read_clips(path, ClipConfig(size=16), [1.0]).shape == (1, 8, 3, 16, 16)
        except VideoError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_damage_inside_is_one_clear_error(tmp_path, ramp):
    content = bytearray(ramp.read_bytes())
    start = content.index(b"mdat")
    length = int.from_bytes(content[start - 4 : start], "big") - 8
    content[start + 4 : start + 4 + length] = bytes(length)  # the pictures, not the index
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=rf"^{path}: reading stopped.*; remove it from the list or encode it again$"):
        data.read_clips(path, ClipConfig(size=16), [0.0])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"real videos: no folder {REAL} (PICOJEPA_REAL)")
class TestRealVideos:
    """Videos that nobody here made; the file names are those of the folder's README."""

    def test_skateboard_clips_are_read(self):
        paths = sorted((REAL / "skateboard").rglob("*.mov"), key=lambda p: p.stat().st_size)[:6]
        assert len(paths) == 6
        for path in paths:
            clips = data.read_clips(path, ClipConfig(), [0.5])
            assert (clips.shape, clips.dtype) == ((1, 8, 3, 64, 64), torch.uint8)

    def test_odd_files_are_read_or_refused(self):
        paths = sorted((REAL / "odd").iterdir())
        read = 0
        for path in paths:
            try:
                clips = data.read_clips(path, ClipConfig(size=32), [0.5])
            except VideoError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017
                continue
            assert (clips.shape, clips.dtype) == ((1, 8, 3, 32, 32), torch.uint8)
            read += 1
        assert read >= 33 * len(paths) // 42  # 33 of the 42 hold a frame


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
    monkeypatch.setattr(data, "read_clips", None)  # whoever decodes again fails
    np.testing.assert_array_equal(data.load_clips(tiny, videos).centre, first.centre)


def test_interrupted_decoding_goes_on_and_gives_the_same_bits(tiny, cache, videos, monkeypatch, tmp_path):
    whole = data.load_clips(tiny, videos)
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(data, "CHUNK", 2)
    read, calls = data.read_clips, []

    def stop_at_the_third(path, *rest):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(path, *rest)

    monkeypatch.setattr(data, "read_clips", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        data.load_clips(tiny, videos)
    before = len(calls)
    resumed = data.load_clips(tiny, videos)
    np.testing.assert_array_equal(resumed.training, whole.training)
    np.testing.assert_array_equal(resumed.centre, whole.centre)
    assert len(calls) - before == 3, "the first two videos were done"


def a_set(folder: Path, ramp: Path, good: int, bad: int) -> Path:
    """A manifest of ``good`` copies of a ramp and ``bad`` files of text, the latter spread among the former."""
    names = [f"v{i:02}.mp4" for i in range(good + bad)]
    unreadable = names[1 :: (good + bad) // bad][:bad] if bad else []
    for name in names:
        if name in unreadable:
            (folder / name).write_text(f"no video {name}")
        else:
            shutil.copy(ramp, folder / name)
    return write_manifest(folder, "path,label\n" + "".join(f"{name},archery\n" for name in names))


def test_few_unreadable_videos_are_skipped_and_listed(tiny, cache, ramp, tmp_path):
    clips = data.load_clips(tiny, data.read_manifest(a_set(tmp_path, ramp, good=20, bad=1)))
    assert clips.skipped.path.tolist() == [str(tmp_path / "v01.mp4")]
    assert "not readable as video" in clips.skipped.reason[0]
    assert len(clips.videos) == len(clips.training) == len(clips.centre) == 20
    assert str(tmp_path / "v01.mp4") not in clips.videos.path.tolist()
    assert clips.centre.any(axis=(1, 2, 3, 4)).all(), "a black clip stands in for an unreadable one"


def test_many_unreadable_videos_stop_with_the_list(tiny, cache, ramp, tmp_path):
    manifest = a_set(tmp_path, ramp, good=18, bad=2)
    message = rf"(?s)2 of 20 videos can not be read \(limit 5%\).*{tmp_path}/v01.mp4: not.*{tmp_path}/v11.mp4: not"
    for _ in range(2):  # nor does a second try slip through
        with pytest.raises(ValueError, match=message):
            data.load_clips(tiny, data.read_manifest(manifest))


def test_a_moved_folder_still_skips_its_unreadable_video(tiny, cache, ramp, tmp_path):
    (tmp_path / "one").mkdir()
    manifest = a_set(tmp_path / "one", ramp, good=20, bad=1)
    data.load_clips(tiny, data.read_manifest(manifest))
    (tmp_path / "one").rename(tmp_path / "two")
    clips = data.load_clips(tiny, data.read_manifest(tmp_path / "two" / "manifest.csv"))
    assert len(clips.videos) == len(clips.centre) == 20
    assert clips.centre.any(axis=(1, 2, 3, 4)).all(), "a black clip stands in for an unreadable one"


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
    rows = pd.read_csv(BUNDLED).to_dict("records")
    wanted = [{key: row[key] for key in row if key != "sha256"} for row in rows]
    assert wanted == bundle_clips.rows(), "the generator has changed: run .venv/bin/python tools/bundle_clips.py"
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


def test_too_little_room_is_said_before_anything_is_decoded(pipelines, cache, monkeypatch):
    settings, videos = pipelines[1].settings, pipelines[1].clips.videos
    wanted = data.clip_gigabytes(videos, settings.clip)
    stored = pipelines[1].clips.training.nbytes + pipelines[1].clips.centre.nbytes
    assert wanted == pytest.approx(stored / 1e9)
    monkeypatch.setenv("PICOJEPA_CACHE_GB", str(0.9 * wanted))
    with pytest.raises(ValueError, match=r"PICOJEPA_CACHE_GB.*clip\.clips_per_video"):
        data.load_clips(settings, videos)
    assert not list(cache.rglob("*.npy"))
    monkeypatch.setenv("PICOJEPA_CACHE_GB", str(1.1 * wanted))
    assert len(data.load_clips(settings, videos).videos) == len(videos)
