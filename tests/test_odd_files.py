"""Odd files are decoded as a player would show them: FFmpeg's own program is asked which frame that is.

Two comparisons, on the clips' own times. Unresized, a frame must be FFmpeg's bit for bit when both use the same
libraries; two levels of 255 are allowed for an FFmpeg program of another version. What is learned from is resized: it
must be what FFmpeg's filter of the same kind (bilinear, after the conversion to RGB) makes of that frame, within the
same two levels of rounding.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from footage import containers, videos
from footage.videos import VideoError
from picojepa.clips import ClipConfig

REAL = Path(os.environ.get("PICOJEPA_REAL") or ROOT.parent / "shared" / "real")
TOLERANCE = 2  # levels of 255
SECOND_WAY = "V:0"  # the stream that FFmpeg's program is asked for, whose times then begin at 0
CLIP = ClipConfig(size=24)


def ffmpeg(*arguments) -> subprocess.CompletedProcess:
    """Run FFmpeg without its banner."""
    command = ["ffmpeg", "-hide_banner", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True)


def shown_by_ffmpeg(path: Path, stream: int | str, times: np.ndarray, size: int | None, width: int, height: int):
    """The frames that are on the screen at these times, uint8 (n, height, width, 3), and since when they are."""
    times_kept = () if stream == SECOND_WAY else ("-copyts",)
    source = ("-threads", "1", *times_kept, "-i", path, "-map", f"0:{stream}", "-fps_mode", "passthrough")
    said = ffmpeg(*source, "-vf", "showinfo", "-f", "null", "-").stderr.decode(errors="replace")
    ticks = np.array([int(text) for text in re.findall(r"showinfo.*? pts:\s*(-?\d+)", said)])
    above, below = re.search(r"config in time_base: (\d+)/(\d+)", said).groups()
    since = ticks * int(above) / int(below)
    assert (np.diff(since) > 0).all()
    numbers = np.searchsorted(since, times + 1e-6, side="right") - 1
    assert (numbers >= 0).all()
    wanted = sorted(set(numbers.tolist()))
    chosen = f"select='{'+'.join(f'eq(n,{number})' for number in wanted)}'"
    if size:
        width, height, chosen = size, size, f"{chosen},scale,format=rgb24,scale={size}:{size}:flags=bilinear"
    pixels = ffmpeg("-v", "error", *source, "-vf", chosen, "-f", "rawvideo", "-pix_fmt", "rgb24", "-").stdout
    frames = np.frombuffer(pixels, np.uint8).reshape(len(wanted), height, width, 3)
    return frames[[wanted.index(number) for number in numbers]], since[numbers]


def difference(ours: torch.Tensor, theirs: np.ndarray) -> int:
    """Largest difference between frames (n, C, H, W) and (n, H, W, C), in levels."""
    return int(np.abs(ours.permute(0, 2, 3, 1).numpy().astype(int) - theirs).max())


def assert_as_a_player_shows(path: Path, clip: ClipConfig = CLIP, positions: tuple[float, ...] = (0.0, 0.5, 1.0)):
    """Our clips are FFmpeg's frames."""
    resized, _, note = videos._read(path, clip, positions)
    decoder = videos.through_program(path)[0] if note else videos.open_video(path)
    times = np.concatenate([videos.clip_times(decoder, clip, position) for position in positions])
    meta, stream = decoder.metadata, SECOND_WAY if note else decoder.stream_index
    theirs, since = shown_by_ffmpeg(path, stream, times, None, meta.width, meta.height)
    ours = decoder.get_frames_played_at(times.tolist())
    np.testing.assert_allclose(ours.pts_seconds.numpy(), since, atol=1e-4 if note else 1e-5)
    assert difference(ours.data, theirs) <= TOLERANCE
    squashed = shown_by_ffmpeg(path, stream, times, clip.size, 0, 0)[0]
    assert difference(resized.flatten(0, 1), squashed) <= TOLERANCE
    return decoder.metadata


# ---------------------------------------------------------------- files made here

SOURCE = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=24:duration=2")
X264 = ("-c:v", "libx264", "-crf", "10")
MADE = {
    "size that is odd": ("odd.mp4", "-vf", "scale=33:17", "-pix_fmt", "yuv444p", *X264),
    "pixels that are not square": ("wide.mp4", "-vf", "setsar=16/9", *X264),
    "variable frame rate": (
        "variable.mp4",
        "-vf",
        "setpts='(N+if(gt(N,20),3*(N-20)))/24/TB'",
        "-fps_mode",
        "vfr",
        *X264,
    ),
    "10 bit": ("ten.mp4", "-pix_fmt", "yuv420p10le", *X264),
    "full range": ("full.mp4", "-vf", "scale=out_range=full", "-color_range", "pc", "-pix_fmt", "yuv420p", *X264),
    "no length in the header": ("live.webm", "-c:v", "libvpx", "-live", "1", "-f", "webm"),
    "three frames": ("three.mp4", "-frames:v", "3", *X264),
    "one frame": ("one.mp4", "-frames:v", "1", *X264),
    "gif": ("some.gif",),
    "MPEG-4 part 2 in avi": ("old.avi", "-c:v", "mpeg4"),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_file_of_an_odd_kind(tmp_path, kind, provoked):
    name, *options = MADE[kind]
    ffmpeg(*SOURCE, *options, tmp_path / name)
    assert_as_a_player_shows(tmp_path / name)
    provoked("a file of an odd kind, made here", "decoding")


def test_the_comparison_tells_neighbouring_frames_apart(tmp_path):
    ffmpeg(*SOURCE, *X264, tmp_path / "some.mp4")
    decoder = videos.open_video(tmp_path / "some.mp4")
    times = videos.clip_times(decoder, CLIP, 0.5)
    theirs, _ = shown_by_ffmpeg(tmp_path / "some.mp4", 0, times + 1 / 24, None, 96, 64)
    assert difference(decoder.get_frames_played_at(times.tolist()).data, theirs) > 10 * TOLERANCE


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_is_turned(tmp_path, degrees, provoked):
    ffmpeg(*SOURCE, *X264, tmp_path / "plain.mp4")
    path = tmp_path / "turned.mp4"
    ffmpeg("-i", tmp_path / "plain.mp4", "-c", "copy", "-metadata:s:v", f"rotate={degrees}", path)
    meta = assert_as_a_player_shows(path)
    assert (meta.width, meta.height) == ((96, 64) if degrees == 180 else (64, 96))
    assert abs(meta.rotation) in (degrees, 360 - degrees)
    provoked("a file of an odd kind, made here", "decoding")


@pytest.mark.parametrize("gop", [12, 100])
def test_an_edit_list_hides_what_a_player_does_not_show(tmp_path, gop, provoked):
    """Cut without encoding again: the file begins with frames, a key frame among them, that are not to be shown."""
    ffmpeg(*SOURCE, "-g", str(gop), "-bf", "0", *X264, tmp_path / "whole.mp4")
    path = tmp_path / "cut.mp4"
    ffmpeg("-ss", "0.7", "-i", tmp_path / "whole.mp4", "-c", "copy", path)
    meta = assert_as_a_player_shows(path)
    assert meta.num_frames < meta.num_frames_from_header
    assert_as_a_player_shows(path, ClipConfig(size=24, frames_per_second=None))
    provoked("a file of an odd kind, made here", "decoding")


LONG = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=24:duration=6")
INTERLACED = ("-flags", "+ildct+ilme")
STREAMS = {  # files without an index of times, as cameras, discs and old data sets have them
    "XviD": ("xvid.avi", "-c:v", "mpeg4", "-bf", "2", "-vtag", "XVID"),
    "H.264 in AVI": ("h264.avi", "-bf", "3", *X264),
    "every picture whole": ("motion.avi", "-c:v", "mjpeg"),
    "broadcast": ("open.ts", "-x264-params", "open-gop=1:keyint=30:bframes=3", *X264),
    "camcorder": ("inter.mts", *INTERLACED, "-mpegts_m2ts_mode", "1", "-x264-params", "tff=1", *X264),
    "HEVC": ("h265.ts", "-c:v", "libx265", "-x265-params", "log-level=error"),
    "disc": ("dvd.vob", "-c:v", "mpeg2video", *INTERLACED, "-bf", "2", "-q:v", "3", "-f", "vob"),
    "MPEG-1": ("old.mpg", "-c:v", "mpeg1video", "-bf", "2"),
    "no container": ("bare.h264", *X264),
    "no container, MPEG-2": ("bare.m2v", "-c:v", "mpeg2video", "-bf", "2"),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_without_an_index_is_read(tmp_path, kind, provoked):
    name, *options = STREAMS[kind]
    ffmpeg(*LONG, *options, tmp_path / name)
    assert_as_a_player_shows(tmp_path / name)
    provoked("a stream without an index of times", "decoding")


@pytest.mark.parametrize(("kind", "note"), [("XviD", "through FFmpeg's program"), ("every picture whole", "")])
def test_avi_goes_through_the_program_only_where_frames_lie_in_another_order(tmp_path, kind, note):
    """An hour of plain AVI can be sought in; to decode all of it would take longer than allowed."""
    name, *options = STREAMS[kind]
    ffmpeg(*LONG, *options, tmp_path / name)
    assert videos.read_batch([(0, str(tmp_path / name), [0.0, 1.0])], CLIP)[0][1]["note"] == note


def test_a_file_that_takes_the_program_too_long_is_refused_with_the_remedy(tmp_path, monkeypatch, provoked):
    name, *options = STREAMS["XviD"]
    ffmpeg(*LONG, *options, tmp_path / name)
    monkeypatch.setattr(videos, "PROGRAM_TIMEOUT", 1e-3)
    with pytest.raises(VideoError, match=r"takes longer than 0.001 s for all of it; cut it into parts, or put it"):
        videos.open_video(tmp_path / name)
    provoked("a stream without an index of times", "decoding")


@pytest.mark.parametrize("size", [0, 1, 7, 2**31, 2**32 - 1])
def test_an_index_of_absurd_size_is_no_trouble(tmp_path, size):
    """The boxes of a damaged file may claim any size, also one in 64 bits."""
    for head in (b"moov", b"free"):
        for long in (b"", b"\xff" * 8):
            (tmp_path / "x.mp4").write_bytes(size.to_bytes(4, "big") + head + long + b"tkhd" + bytes(20))
            assert not containers.mirrored(tmp_path / "x.mp4")


@pytest.mark.parametrize(("kind", "unit"), [("broadcast", 188), ("disc", 2048), ("H.264 in AVI", 0)])
def test_a_recording_that_begins_or_ends_in_the_middle_is_read(tmp_path, kind, unit, provoked):
    """The first frames lack what they refer to; FFmpeg shows those that it can."""
    name, *options = STREAMS[kind]
    ffmpeg(*LONG, *options, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    part = content[len(content) // 5 // unit * unit :] if unit else content[: len(content) * 4 // 5]
    path = tmp_path / f"part_{name}"
    path.write_bytes(part)
    assert_as_a_player_shows(path)
    note = videos.read_batch([(0, str(path), [0.5])], CLIP)[0][1]["note"]
    assert note.startswith("through FFmpeg's program: "), "what is missing is said"
    provoked("a stream without an index of times", "decoding")


def boxes(content: bytes) -> list[tuple[bytes, int, int]]:
    """Kind, start and end of the outermost boxes of an MP4 file."""
    found, place = [], 0
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        found.append((content[place + 4 : place + 8], place, place + size))
        place += size
    return found


def test_a_hole_in_a_fragmented_file_costs_its_own_frames_only(tmp_path, provoked):
    """As a recording has it whose disk was full, or a stream of which a part was never received."""
    ffmpeg(*LONG, "-g", "25", *X264, "-movflags", "frag_keyframe+empty_moov", tmp_path / "whole.mp4")
    content = (tmp_path / "whole.mp4").read_bytes()
    data = [box for box in boxes(content) if box[0] == b"mdat"]
    hole = bytearray(content)
    hole[data[2][1] + 8 : data[2][2]] = bytes(data[2][2] - data[2][1] - 8)  # about the third second of six
    path = tmp_path / "hole.mp4"
    path.write_bytes(hole)
    whole = videos.read_clips(tmp_path / "whole.mp4", CLIP, [0.0, 1.0]).numpy()
    clips, row = videos.read_batch([(0, str(path), [0.0, 1.0])], CLIP)[0]
    np.testing.assert_array_equal(clips, whole)
    assert row["note"] == ""
    clips, row = videos.read_batch([(0, str(path), [0.0, 0.4, 1.0])], CLIP)[0]
    np.testing.assert_array_equal(clips[[0, 2]], whole)
    assert row["note"].startswith("through FFmpeg's program: ")
    assert row["frames"] < 6 * 24
    provoked("a hole in the middle of a file", "decoding")


EIGHT = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, -1, 0)]
EIGHT += [(0, -1, -1, 0)]


@pytest.mark.parametrize("matrix", [*EIGHT, (0.7071, 0.7071, -0.7071, 0.7071)], ids=str)
def test_every_orientation_is_shown_as_ffmpeg_shows_it(tmp_path, matrix, provoked):
    """Front cameras mirror; the matrix is in the header of the track."""
    ffmpeg(*SOURCE, *X264, tmp_path / "plain.mp4")
    content = bytearray((tmp_path / "plain.mp4").read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (round(65536 * number).to_bytes(4, "big", signed=True) for number in matrix)
    content[start : start + 20] = a + b + bytes(4) + c + d
    path = tmp_path / "turned.mp4"
    path.write_bytes(content)
    assert_as_a_player_shows(path)
    provoked("a mirrored or turned video", "decoding")


def test_a_short_video_of_variable_rate_is_padded_by_its_last_frame(tmp_path, provoked):
    """The last frame is shown for a tenth as long as the others."""
    ffmpeg(
        *SOURCE,
        "-frames:v",
        "4",
        "-vf",
        "setpts='if(eq(N,3),2.1,N)/24/TB'",
        "-fps_mode",
        "vfr",
        *X264,
        tmp_path / "s.mp4",
    )
    decoder = videos.open_video(tmp_path / "s.mp4")
    frames = decoder.get_frames_played_at(videos.clip_times(decoder, CLIP, 0.5).tolist())
    last = decoder.get_frame_at(len(decoder) - 1)
    assert frames.pts_seconds[-1] == last.pts_seconds
    assert torch.equal(frames.data[-1], last.data)
    provoked("a file of an odd kind, made here", "decoding")


def test_a_file_without_picture_or_of_absurd_size_is_refused(tmp_path, monkeypatch, provoked):
    ffmpeg(*SOURCE, *X264, tmp_path / "some.mp4")
    monkeypatch.setattr(videos, "PIXEL_LIMIT", 96 * 64 - 1)
    with pytest.raises(VideoError, match="96 x 64 pixels are too many; encode it again, smaller"):
        videos.open_video(tmp_path / "some.mp4")
    monkeypatch.setattr(videos, "PIXEL_LIMIT", 96 * 64)
    videos.open_video(tmp_path / "some.mp4")
    monkeypatch.setattr(videos, "HOURS_LIMIT", 1 / 3600)
    with pytest.raises(VideoError, match=r"hours are too long .*; cut it into parts"):
        videos.open_video(tmp_path / "some.mp4")
    provoked("a file larger or longer than allowed", "decoding", 2)


# ---------------------------------------------------------------- files of others

UNREADABLE = {  # of the folder `odd`: empty, truncated, encrypted, sound only, without frames
    "moviepy__media__doc_medias__result.webm",
    "mp4parse-rust__mp4parse__tests__amr_wb_1f.3gp",
    "mp4parse-rust__mp4parse__tests__bipbop_480wp_1001kbps-cenc-video-key1-init.mp4",
    "mp4parse-rust__mp4parse__tests__bipbop_cbcs_audio_init.mp4",
    "mp4parse-rust__mp4parse__tests__test_case_1185230.mp4",
    "mp4parse-rust__mp4parse_capi__tests__afconvert-aac-0.5s.mp4",
    "mp4parse-rust__mp4parse_capi__tests__bipbop_nonfragment_header.mp4",
    "mp4parse-rust__mp4parse_capi__tests__opus_audioinit.mp4",
}
FILES = sorted((REAL / "odd").glob("*")) + sorted((REAL / "skateboard").rglob("*.mov")) if REAL.is_dir() else []


def about(path: Path, reason: str = "") -> str:
    """For the record: what became of a file; a reason means that it was refused."""
    kind = path.relative_to(REAL).parts[0]
    return json.dumps({"folder": kind, "file": path.relative_to(REAL / kind).as_posix(), "reason": reason})


@pytest.mark.skipif(not FILES, reason=f"real videos: no folder {REAL} (PICOJEPA_REAL)")
class TestRealVideos:
    """Videos that nobody here made; the file names are those of the folder's README."""

    def test_there_are_as_many_as_the_readme_says(self):
        assert len(FILES) == 82

    @pytest.mark.parametrize("path", [path for path in FILES if path.name in UNREADABLE], ids=lambda path: path.name)
    def test_a_file_without_frames_is_refused(self, path, provoked, record_property):
        with pytest.raises(VideoError, match=rf"^{re.escape(str(path))}: .*; .*again") as error:
            videos.read_clips(path, CLIP, [0.5])
        provoked("a file of others, without frames", "decoding")
        record_property("file", about(path, str(error.value).removeprefix(f"{path}: ")))

    @pytest.mark.parametrize(
        "path", [path for path in FILES if path.name not in UNREADABLE], ids=lambda path: path.name
    )
    def test_a_file_is_read_as_a_player_shows_it(self, path, provoked, record_property):
        assert_as_a_player_shows(path, positions=(0.5,))
        provoked("a file of others", "decoding")
        record_property("file", about(path))
