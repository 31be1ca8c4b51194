"""From file to tensor: sampling of frames, padding, bad files, the store of clips."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE

import decoders
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import BUNDLED, LEVEL, ROOT, a_set, remount, write_ramp
from torchcodec.decoders import VideoDecoder

from footage import videos, workers
from footage.videos import VideoError
from picojepa import data, store
from picojepa.clips import ClipConfig
from standin.plan import RATES


@pytest.fixture
def bundled():
    """The bundled clips."""
    return data.read_manifest(BUNDLED)


def frame_numbers(clips: torch.Tensor) -> list:
    """Which frame of a ramp each frame of (..., T, C, H, W) is."""
    exact = (clips.double().mean((-1, -2, -3)) - 8) / LEVEL
    assert (exact - exact.round()).abs().max() < 0.4, "the levels can not be told apart"
    return exact.round().int().tolist()


# ---------------------------------------------------------------- one video


def test_the_centre_clip_of_a_ramp_holds_the_middle_frames(ramp):
    consecutive = ClipConfig(size=16, frames_per_second=None)
    assert frame_numbers(videos.read_clips(ramp, consecutive, [0.5])) == [[20, 21, 22, 23, 24, 25, 26, 27]]
    eight_a_second = ClipConfig(size=16, frames_per_second=8.0)  # every third frame of 24 a second
    (numbers,) = frame_numbers(videos.read_clips(ramp, eight_a_second, [0.5]))
    assert np.diff(numbers).tolist() == [3] * 7
    assert numbers[0] + numbers[-1] == 47  # as many frames before as after


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_at_the_videos_own_rate_frames_are_a_stride_apart(ramp, stride):
    clip = ClipConfig(size=16, frames_per_second=None, stride=stride)
    first, last = frame_numbers(videos.read_clips(ramp, clip, [0.0, 1.0]))
    assert first == list(range(0, 8 * stride, stride))
    assert last == list(range(47 - 7 * stride, 48, stride))
    timed = ClipConfig(size=16, frames_per_second=24.0, stride=stride)  # a rate of one's own: the stride has no say
    assert frame_numbers(videos.read_clips(ramp, timed, [0.0])) == [list(range(8))]


def test_first_and_last_clip_reach_the_ends_of_the_video(ramp):
    clip = ClipConfig(size=16, frames_per_second=8.0)
    first, last = frame_numbers(videos.read_clips(ramp, clip, [0.0, 1.0]))
    assert first == list(range(0, 24, 3))
    assert last == list(range(26, 48, 3))


def test_several_clips_in_one_pass_are_the_single_clips(ramp):
    clip, positions = ClipConfig(size=16), [0.9, 0.1, 0.5]
    together = videos.read_clips(ramp, clip, positions)
    assert together.dtype == torch.uint8
    assert together.shape == (3, 8, 3, 16, 16)
    for one, position in zip(together, positions, strict=True):
        assert torch.equal(one, videos.read_clips(ramp, clip, [position])[0])


def test_a_short_video_is_padded_by_its_last_frame(tmp_path):
    path = write_ramp(tmp_path / "short.mp4", 5)
    for position in (0.0, 0.5, 1.0):
        (numbers,) = frame_numbers(videos.read_clips(path, ClipConfig(size=16, frames_per_second=None), [position]))
        assert numbers == [0, 1, 2, 3, 4, 4, 4, 4]
    single = write_ramp(tmp_path / "single.mp4", 1)
    assert frame_numbers(videos.read_clips(single, ClipConfig(size=16), [0.5])) == [[0] * 8]


@pytest.mark.parametrize("fps", RATES)
def test_at_any_frame_rate_a_clip_covers_the_same_time(tmp_path, fps):
    path = write_ramp(tmp_path / "ramp.mp4", round(2 * fps), fps)
    (numbers,) = frame_numbers(videos.read_clips(path, ClipConfig(size=16, frames_per_second=8.0), [0.0]))
    times = np.arange(8) / 8 + 0.5 / fps  # the middle of the first frame, and on in steps of 1/8 s
    assert numbers == np.floor(times * fps + 1e-6).astype(int).tolist()


def test_a_variable_frame_rate_is_read_by_time(tmp_path, ramp):
    path = tmp_path / "variable.mp4"  # 24 frames a second, after frame 11 only 8 a second
    stretch = "setpts='if(lt(N,12),N,12+3*(N-12))/24/TB'"
    command = ["ffmpeg", "-v", "error", "-i", ramp, "-vf", stretch, "-fps_mode", "vfr", "-crf", "4", path]
    subprocess.run(command, check=True)
    clip = ClipConfig(frames=12, size=16, frames_per_second=8.0)
    (numbers,) = frame_numbers(videos.read_clips(path, clip, [0.0]))
    decoder = VideoDecoder(str(path))
    shown = np.array([decoder.get_frame_at(i).pts_seconds for i in range(30)])
    times = videos.clip_times(decoder, clip, 0.0)
    assert numbers == [int(np.flatnonzero(shown <= t + 1e-9)[-1]) for t in times]
    assert set(np.diff(numbers[:4])) == {3}
    assert set(np.diff(numbers[5:])) == {1}


def test_frames_are_squashed_to_a_square(tmp_path):
    path = write_ramp(tmp_path / "wide.mp4", 10, size=(32, 64))
    assert videos.read_clips(path, ClipConfig(size=24), [0.5]).shape == (1, 8, 3, 24, 24)


def test_reading_twice_gives_the_same_bits():
    path = data.read_manifest(BUNDLED).path[0]
    once, twice = (videos.read_clips(path, ClipConfig(), [0.3, 0.5]) for _ in range(2))
    assert torch.equal(once, twice)


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
        (
            "sound only",
            r"not readable as video \(no moving pictures inside",
            "remove it from the list or encode it again",
        ),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, ramp, kind, reason, remedy, provoked):
    path = damaged(kind, tmp_path, ramp)
    with pytest.raises(VideoError, match=rf"^{path}: {reason}.*{remedy}$"):
        videos.read_clips(path, ClipConfig(), [0.5])
    provoked("a file that is no video", "decoding")


def test_a_file_that_breaks_off_is_read_or_refused(tmp_path, provoked):
    whole = write_ramp(tmp_path / "whole.mkv", 48)
    path = tmp_path / "broken.mkv"
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        try:
            assert videos.read_clips(path, ClipConfig(size=16), [1.0]).shape == (1, 8, 3, 16, 16)
        except VideoError as error:
            assert str(path) in str(error)  # noqa: PT017
    provoked("a file that breaks off", "decoding", 3)


def test_damage_inside_is_one_clear_error(tmp_path, ramp, provoked):
    content = bytearray(ramp.read_bytes())
    start = content.index(b"mdat")
    length = int.from_bytes(content[start - 4 : start], "big") - 8
    content[start + 4 : start + 4 + length] = bytes(length)  # the pictures, not the index
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=rf"^{path}: reading stopped.*; remove it from the list or encode it again$"):
        videos.read_clips(path, ClipConfig(size=16), [0.0])
    provoked("a file with damage inside", "decoding")


# ---------------------------------------------------------------- all videos


def test_interrupted_decoding_goes_on_and_gives_the_same_bits(tiny, cache, bundled, monkeypatch, tmp_path, provoked):
    whole = data.load_clips(tiny, bundled)
    monkeypatch.setenv("PICOJEPA_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(videos, "CHUNK", 2)
    run, begun, seen = workers.run, [], []

    def stop_at_the_third(function, jobs, *rest, **options):
        begun.append(len(jobs))
        for outcome in run(function, jobs, *rest, **options):
            seen.append(outcome)
            if len(seen) == 3:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(workers, "run", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        data.load_clips(tiny, bundled)
    resumed = data.load_clips(tiny, bundled)
    np.testing.assert_array_equal(resumed.training, whole.training)
    np.testing.assert_array_equal(resumed.centre, whole.centre)
    assert begun == [5, 3], "the first two videos were done"
    assert data.data_report(resumed).path.tolist() == bundled.path.tolist()
    provoked("Ctrl-C", "decoding")


def test_a_line_that_is_torn_off_does_not_count(tiny, bundled, tmp_path, monkeypatch, provoked):
    whole = videos.decode_all(bundled, tiny.clip, "content", tmp_path)
    log = tmp_path / "report.jsonl"
    log.write_bytes(log.read_bytes()[:-10])
    run, tried = workers.run, []
    monkeypatch.setattr(
        workers, "run", lambda f, jobs, *rest, **more: tried.extend(jobs) or run(f, jobs, *rest, **more)
    )
    assert videos.decode_all(bundled, tiny.clip, "content", tmp_path) == whole
    assert len(tried) == 1
    assert sorted(number for number, _ in store.read_json_lines(log)) == [0, 1, 2, 3, 4]
    provoked("a line that is torn off", "decoding")


def load(settings, listed, cache):
    """Decode a list in a process of its own."""
    script = "import pickle, sys; from picojepa import data; data.load_clips(*pickle.load(sys.stdin.buffer))"
    environment = os.environ | {"PICOJEPA_CACHE": str(cache)}
    child = subprocess.Popen([sys.executable, "-c", script], env=environment, stdin=PIPE, stdout=DEVNULL)
    child.stdin.write(pickle.dumps((settings, listed)))
    child.stdin.close()
    return child


def test_kill_9_loses_no_finished_work(tiny, cache, ramp, tmp_path, provoked):
    listed = data.read_manifest(a_set(tmp_path, ramp, good=300, bad=0))
    killed, seen = tmp_path / "killed", []
    for part in (60, 130, 200):
        child = load(tiny, listed, killed)
        deadline = time.monotonic() + 300
        while not (logs := sorted(killed.rglob("report.jsonl"))) or len(store.read_json_lines(logs[0])) < part:
            assert child.poll() is None, "the run ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        helpers = psutil.Process(child.pid).children(recursive=True)
        child.kill()
        assert child.wait() == -9
        assert psutil.wait_procs(helpers, timeout=60)[1] == [], "its workers go on"
        seen.append(len(store.read_json_lines(logs[0])))
    assert seen == sorted(set(seen)), "each run begins where the one before was killed"
    assert load(tiny, listed, killed).wait() == 0
    whole = data.load_clips(tiny, listed)
    (folder,) = (killed / "results").glob("data.clips-*[!k]")
    for name, wanted in (("training.npy", whole.training), ("centre.npy", whole.centre)):
        np.testing.assert_array_equal(np.load(folder / name), wanted)
    assert json.loads((folder / "report.json").read_text()) == data.data_report(whole).to_dict("records")
    assert store.card(folder)["digest"] == whole.digest
    provoked("kill -9", "decoding", len(seen))


def test_two_runs_at_once_decode_once(tiny, cache, bundled, provoked):
    children = [load(tiny, bundled, cache) for _ in range(2)]
    assert [child.wait(300) for child in children] == [0, 0]
    (folder,) = (cache / "results").glob("data.clips-*[!k]")
    assert len(data.load_clips(tiny, bundled).videos) == 5
    assert sorted(path.name for path in (cache / "results").iterdir()) == [folder.name, f"{folder.name}.lock"]
    provoked("two runs at once", "decoding")


def test_a_full_disk_is_named_and_the_next_call_goes_on(tiny, small_disk, ramp, tmp_path, monkeypatch, provoked):
    listed = data.read_manifest(a_set(tmp_path, ramp, good=20, bad=0))
    monkeypatch.setenv("PICOJEPA_CACHE", str(small_disk))
    (small_disk / "other").write_bytes(bytes(2_500_000))
    with pytest.raises(ValueError, match=r"20 videos take 0\.0 GB.*free are 0\.0 GB.*PICOJEPA_CACHE"):
        data.load_clips(tiny, listed)
    with monkeypatch.context() as patch:  # other programs fill the disk after it was looked at
        patch.setattr(videos, "_check_room", lambda *_: None)
        with pytest.raises(
            OSError,
            match=r"No space left on device; make room, or name another .* PICOJEPA_CACHE; what is done is kept.*disk",
        ):
            data.load_clips(tiny, listed)
    (small_disk / "other").unlink()
    clips = data.load_clips(tiny, listed)
    assert clips.centre.any(axis=(1, 2, 3, 4)).all()
    assert len(clips.videos) == 20
    provoked("the disk is full", "decoding", 2)


def test_a_read_only_folder_is_named(tiny, small_disk, bundled, monkeypatch, provoked):
    remount(small_disk, "ro")
    monkeypatch.setenv("PICOJEPA_CACHE", str(small_disk))
    with pytest.raises(OSError, match=rf"Read-only file system; name a folder .* in PICOJEPA_CACHE.*{small_disk}"):
        data.load_clips(tiny, bundled)
    provoked("the disk is read-only", "decoding")


@pytest.fixture
def trouble(monkeypatch):
    """Videos whose names ask for it hang their decoder, kill it or make it fail."""
    monkeypatch.setattr(videos, "read_batch", decoders.read_batch)
    monkeypatch.setattr(videos, "TIMEOUT", 10.0)


def test_a_decoder_that_hangs_or_dies_costs_its_own_video_only(
    tiny, cache, ramp, tmp_path, trouble, monkeypatch, provoked
):
    listed = data.read_manifest(a_set(tmp_path, ramp, good=63, bad=0))
    for number, kind in ((5, "hang"), (20, "die"), (40, "raise")):
        listed.loc[number, "path"] = str(shutil.copy(ramp, tmp_path / f"{kind}.mp4"))
    clips = data.load_clips(tiny, listed)
    assert len(clips.videos) == 60
    reasons = dict(zip(clips.skipped.path.map(lambda path: Path(path).stem), clips.skipped.reason, strict=True))
    assert reasons.keys() == {"hang", "die", "raise"}
    assert "decoding took longer than 10 s" in reasons["hang"]
    assert "the decoder died (exit code -11)" in reasons["die"]
    assert "MemoryError: no room for a frame" in reasons["raise"]
    assert clips.centre.any(axis=(1, 2, 3, 4)).all()
    provoked("a decoder that hangs, dies or fails", "decoding", len(reasons))


SCRIPT = """
from picojepa import data
from picojepa.config import settings
print("begun")
listed = data.read_manifest(data.Path({manifest!r}))
print(len(data.load_clips(settings("smoke"), listed).videos))
"""


def test_a_script_without_a_guard_is_not_run_twice(cache, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(manifest=str(BUNDLED)))
    done = subprocess.run([sys.executable, path], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().count("begun") == 1
    assert done.stdout.decode().splitlines()[-1] == "5"


def test_the_data_report_has_a_row_for_every_video(tiny, cache, ramp, tmp_path):
    listed = data.read_manifest(a_set(tmp_path, ramp, good=20, bad=1))
    write_ramp(tmp_path / "v03.mp4", 5)
    clips = data.load_clips(tiny, listed)
    report = data.data_report(clips)
    assert report.path.tolist() == listed.path.tolist()
    assert report.status.value_counts().to_dict() == {"read": 20, "unreadable": 1}
    assert "not readable as video" in report.reason[1]
    assert (report.drop(index=1).reason == "").all()
    wanted = {"frames": 48, "seconds": 2.0, "frames_per_second": 24.0, "width": 32, "height": 32, "codec": "h264"}
    wanted |= {"rotation": 0, "padding": 0}
    assert report.loc[0, list(wanted)].to_dict() == wanted
    assert report.loc[3, ["frames", "padding"]].tolist() == [5, 6]  # two of the frames, 1/8 s apart, are its own
    shutil.copytree(clips.folder, f"{clips.folder}.partial")  # as an interrupted call would leave one
    Path(f"{clips.folder}.partial", "report.json").write_text("[]")
    pd.testing.assert_frame_equal(data.data_report(clips), report)


def test_clips_that_were_not_decoded_have_no_report(noise):
    with pytest.raises(ValueError, match="not decoded from files; use those of load_clips"):
        data.data_report(noise)


def test_few_unreadable_videos_are_skipped_and_listed(tiny, cache, ramp, tmp_path, provoked):
    clips = data.load_clips(tiny, data.read_manifest(a_set(tmp_path, ramp, good=20, bad=1)))
    assert clips.skipped.path.tolist() == [str(tmp_path / "v01.mp4")]
    assert "not readable as video" in clips.skipped.reason[0]
    assert len(clips.videos) == len(clips.training) == len(clips.centre) == 20
    assert str(tmp_path / "v01.mp4") not in clips.videos.path.tolist()
    assert clips.centre.any(axis=(1, 2, 3, 4)).all(), "a black clip stands in for an unreadable one"
    provoked("a few videos of a list are unreadable", "decoding", len(clips.skipped))


def test_many_unreadable_videos_stop_with_the_list(tiny, cache, ramp, tmp_path, provoked):
    manifest = a_set(tmp_path, ramp, good=18, bad=2)
    message = rf"(?s)2 of 20 videos can not be read \(limit 5%\).*{tmp_path}/v01.mp4: not.*{tmp_path}/v11.mp4: not"
    for _ in range(2):  # nor does a second try slip through
        with pytest.raises(ValueError, match=message):
            data.load_clips(tiny, data.read_manifest(manifest))
    provoked("too many videos of a list are unreadable", "decoding", 2)


def test_what_could_not_be_read_is_tried_again(tiny, ramp, tmp_path):
    listed = data.read_manifest(a_set(tmp_path, ramp, good=18, bad=2))
    folder = tmp_path / "clips"
    folder.mkdir()
    with pytest.raises(ValueError, match="2 of 20 videos can not be read"):
        videos.decode_all(listed, tiny.clip, "content", folder)
    for name in ("v01.mp4", "v11.mp4"):
        shutil.copy(ramp, tmp_path / name)
    assert videos.decode_all(listed, tiny.clip, "content", folder)["skipped"] == 0
    assert np.load(folder / "centre.npy").any(axis=(1, 2, 3, 4)).all()


def test_a_moved_folder_still_skips_its_unreadable_video(tiny, cache, ramp, tmp_path):
    (tmp_path / "one").mkdir()
    manifest = a_set(tmp_path / "one", ramp, good=20, bad=1)
    data.load_clips(tiny, data.read_manifest(manifest))
    (tmp_path / "one").rename(tmp_path / "two")
    clips = data.load_clips(tiny, data.read_manifest(tmp_path / "two" / "manifest.csv"))
    assert len(clips.videos) == len(clips.centre) == 20
    assert clips.centre.any(axis=(1, 2, 3, 4)).all(), "a black clip stands in for an unreadable one"


def test_too_little_room_is_said_before_anything_is_decoded(pipelines, cache, monkeypatch, provoked):
    settings, listed = pipelines[1].settings, pipelines[1].clips.videos
    wanted = (pipelines[1].clips.training.nbytes + pipelines[1].clips.centre.nbytes) / 1e9
    monkeypatch.setenv("PICOJEPA_CACHE_GB", str(0.9 * wanted))
    with pytest.raises(ValueError, match=r"PICOJEPA_CACHE_GB.*clip\.clips_per_video"):
        data.load_clips(settings, listed)
    assert not list(cache.rglob("*.npy"))
    monkeypatch.setenv("PICOJEPA_CACHE_GB", str(1.1 * wanted))
    assert len(data.load_clips(settings, listed).videos) == len(listed)
    provoked("too little room from the start", "decoding")
