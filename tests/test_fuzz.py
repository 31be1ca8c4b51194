"""Damaged files and random configurations: whatever comes, what is promised holds."""

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from conftest import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from footage import lists, videos
from picojepa import config, fitting, masking
from picojepa.clips import ClipConfig
from picojepa.config import Settings
from picojepa.masking import MaskConfig
from tools import fuzz_videos

MUTANTS = 2500
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(max_examples=300, deadline=None)


# ---------------------------------------------------------------- damaged files


def test_damaged_files_are_decoded_or_refused_with_a_reason(provoked):
    record = fuzz_videos.fuzz(MUTANTS, seed=0)  # 500 of them streams without an index
    assert record["decoded"] + sum(record["reported"].values()) == MUTANTS
    assert all(record["reported"])
    assert (record["hangs"], record["crashes"]) == (0, 0), record["reported"]
    assert 0.1 < record["decoded"] / MUTANTS < 0.9, "the damage is of both kinds"
    provoked("files with damaged bytes", "decoding", record["count"])


def test_damage_is_seeded_and_does_something():
    content = bytes(range(256)) * 4 + b"moov" + bytes(range(256))
    one, two = ([fuzz_videos.damage(content, random.Random(seed)) for seed in range(50)] for _ in range(2))
    assert one == two
    assert len(set(one)) > 45


# ---------------------------------------------------------------- manifests

ODD = st.sampled_from(
    [*("", " ", "NA", "None", "nan", "1", "1.0", "-1", "1e400", "9" * 30, "True", "yes", "pretrain", "validation", "a")]
    + [*("x.mp4", "./v1.mp4", "a/../v1.mp4", "../x.mp4", "/etc/x.mp4", "a" * 300, "x\0y", "loop", "\ufeff", "e\u0301")]
)
CELL = ODD | st.text(max_size=8)
SIDES = st.sampled_from([("anna", "pretrain"), ("ben", "validation"), ("", "pretrain"), ("", "validation")])


@st.composite
def tables(draw) -> tuple[list[str], list[list[str]]]:
    """A header and rows; about half of the tables are damaged."""
    optional = st.lists(st.sampled_from(["split", "group", "labelled", "scene", "frames"]), unique=True)
    header, rows = draw(st.permutations(["path", "label", *draw(optional)])), []
    for number in draw(st.lists(st.integers(0, 60), max_size=40, unique=True)):
        group, split = draw(SIDES)
        video = {"path": f"v{number}.mp4", "label": draw(st.sampled_from("ab")), "split": split, "group": group}
        video |= {"labelled": draw(st.sampled_from(["True", "0"])), "scene": draw(CELL), "frames": str(number)}
        rows.append([video[name] for name in header])
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        row, cell = draw(st.sampled_from([header, *rows, *rows])), draw(CELL)
        kind, place = draw(st.sampled_from(["change", "change", "more", "less"])), draw(st.integers(0, len(header)))
        row[place : place + (kind != "more")] = [] if kind == "less" else [cell]
    return header, rows


def written(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def named(error: ValueError, path: Path) -> None:
    """An error is ours, not a parser's, and begins with the path."""
    assert type(error) is ValueError
    assert str(error).startswith(f"{path}: ")


def checked(path: Path) -> pd.DataFrame | None:
    """The list if it is accepted, and then it is as promised; None if it is refused with a reason that names it."""
    try:
        table = lists.read_manifest(path)
    except ValueError as error:
        named(error, path)
        return None
    assert table.index.tolist() == list(range(len(table)))
    assert set(table) <= {*lists.REQUIRED_COLUMNS, *lists.OPTIONAL_COLUMNS}
    assert table.path.is_unique
    assert all(Path(name).is_absolute() and Path(name).is_relative_to(path.parent) for name in table.path)
    assert table.label.map(lambda label: isinstance(label, str) and bool(label)).all()
    assert set(table.split) <= set(lists.SPLITS)
    assert set(table.label[table.split == "pretrain"]) == set(table.label)
    assert table.labelled.dtype == bool
    if "group" in table:
        assert (table.groupby("group").split.nunique() <= 1).all()
    book_of(table, path)
    return table


def book_of(table: pd.DataFrame, path: Path) -> None:
    """The book takes a list, and then every member of the ensemble has videos, or says why not."""
    try:
        videos = lists.for_the_book(table, path)
    except ValueError as error:
        named(error, path)
        return
    assert len(lists.classes(videos)) > 1
    assert len(lists.labelled_classes(videos)) > 1
    assert set(lists.quarters(videos)) >= {1, 2, 3, 4}


def test_a_manifest_is_accepted_and_then_as_promised_or_refused_by_name(tmp_path, provoked):
    seen = Counter()
    (tmp_path / "loop").symlink_to("loop")

    @MANY
    @given(tables(), st.randoms(use_true_random=False))
    def holds(table, random):
        header, rows = table
        found = checked(written(tmp_path / "list.csv", header, rows))
        seen[found is not None] += 1
        if found is not None:
            again = checked(written(tmp_path / "list.csv", header, random.sample(rows, len(rows))))
            again = again.set_index("path").loc[found.path].reset_index()[list(found)]
            pd.testing.assert_frame_equal(again, found)  # the order of the rows plays no part

    holds()
    assert min(seen.values()) > MANY.max_examples / 10, "some of both kinds"
    provoked("a table with any cells", "reading lists", seen.total())


def test_any_bytes_in_place_of_a_manifest_are_refused_by_name(tmp_path, provoked):
    seen = []
    texts = st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    headed = st.builds(bytes.__add__, st.just(b"path,label\n"), st.binary() | texts)

    @MANY
    @given(st.binary() | texts | headed)
    def holds(content):
        (tmp_path / "list.csv").write_bytes(content)
        seen.append(checked(tmp_path / "list.csv"))

    holds()
    provoked("any bytes in place of a table", "reading lists", len(seen))


# ---------------------------------------------------------------- configurations


def leaves(owner, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number of some settings, ``("training.mask.ratio", 0.75)`` for instance."""
    for field in fields(owner):
        value = getattr(owner, field.name)
        yield from leaves(value, f"{path}{field.name}.") if is_dataclass(value) else [(f"{path}{field.name}", value)]


NAMES = {name: value for name, value in leaves(TINY) if name not in ("profile", "recipe", "published")}
SHARES = st.floats(0, 1) | st.floats()
PAIRS = st.lists(SHARES | st.integers() | st.text("ab", max_size=2), max_size=3).map(tuple) | st.tuples(SHARES, SHARES)


def values(name: str) -> st.SearchStrategy[str]:
    """What may be written behind a name, sense or nonsense: also nothing, 0 and less, pairs that are none, words."""
    kinds = {
        bool: st.booleans(),
        int: st.integers(-2, 2) | st.integers() | st.integers(1, 128),
        float: SHARES | st.integers(),
        str: st.sampled_from(["tube", "causal", "published", "bfloat16"]),
        tuple: PAIRS,
        type(None): PAIRS,
    }
    return kinds[type(NAMES[name])].map(str) | st.just("None") | st.text()


def rebuilt(owner, tree: dict):
    """Settings from their plain dictionary."""
    parts = {name: getattr(owner, name) for name in tree}
    return type(owner)(**{k: rebuilt(parts[k], v) if is_dataclass(parts[k]) else v for k, v in tree.items()})


def overridden(texts: list[str]) -> Settings | None:
    """Changed settings; None if they are refused, and then a reason was printed (or help, where it was asked for)."""
    told, shown = io.StringIO(), io.StringIO()
    try:
        with redirect_stderr(told), redirect_stdout(shown):
            return config.override(TINY, *texts)
    except SystemExit as end:
        assert (end.code, bool(told.getvalue()), bool(shown.getvalue())) in [(2, True, False), (0, False, True)]  # noqa: PT017
        return None


def test_a_configuration_is_valid_or_refused(provoked):
    seen = Counter()
    changes = st.sampled_from(sorted(NAMES)).flatmap(lambda name: values(name).map(f"{name}={{}}".format))

    @MANY
    @given(st.lists(changes, min_size=1, max_size=2) | st.lists(changes | st.text(), min_size=1, max_size=3))
    def holds(texts):
        found = overridden(texts)
        seen[found is not None] += 1
        if found is None:
            return
        assert found.training.steps > 0
        sizes = found.clip.frames, found.clip.size, found.clip.size
        cells = found.model.tubelet, found.model.patch, found.model.patch
        assert tuple(n * cell for n, cell in zip(found.grid, cells, strict=True)) == sizes
        assert min(found.grid) > 0
        assert found.model.width % found.model.heads == 0
        assert repr(rebuilt(found, found.as_dict())) == repr(found)  # nan is not itself
        json.dumps(found.as_dict())

    holds()
    assert min(seen.values()) > MANY.max_examples / 10, "some of both kinds"
    provoked("settings of any value", "configuration", seen.total())


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
def test_clip_times_lie_in_the_video_in_order_and_apart_as_configured(clip, rate, frames, start, position, provoked):
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
    provoked("videos and clips of any length and rate", "times of frames")


# ---------------------------------------------------------------- samplers and masks


@FEW
@given(videos_=st.integers(2, 200), batch=st.integers(1, 64), seed=st.integers(0, 5), epochs=st.integers(1, 3))
def test_every_video_comes_once_an_epoch(videos_, batch, seed, epochs, provoked):
    batch = min(batch, videos_)
    config = replace(TINY.training, batch=batch, seed=seed, clips=videos_ * epochs)
    steps = -(-videos_ * epochs // batch)
    drawn = [fitting.batch_numbers(step, videos_, config) for step in range(steps)]
    numbers, of_epoch = (np.concatenate(part) for part in zip(*drawn, strict=True))
    for epoch in range(epochs):
        ours = numbers[of_epoch == epoch]
        assert len(set(ours.tolist())) == len(ours), "none twice"
        if epoch < of_epoch.max():
            assert len(ours) == videos_, "and none left out"
    provoked("lists and batches of any length", "batches")


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
def test_tubes_are_constant_in_time_and_hide_the_share(grid, ratio, batch, seed, provoked):
    cells = grid[1] * grid[2]
    ratio = min(max(ratio, 1 / cells), 1 - 1 / cells)
    mask = masking.tube(grid, ratio, batch, torch.Generator().manual_seed(seed))
    context, target = parts(mask, grid)
    assert (context ^ target).all(), "nothing is left out"
    assert (target == target[:, :1]).all()
    assert (target[:, 0].sum(1) == round(ratio * cells)).all()
    provoked("grids and masks of any size", "masks")


@FEW
@given(grid=GRIDS, strategy=st.sampled_from(["multiblock", "causal"]), batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_blocks_leave_a_context_and_a_target(grid, strategy, batch, seed, provoked):
    grid = (max(2, grid[0]), *grid[1:])
    config = MaskConfig(strategy=strategy, visible_slices=1)
    masks = masking.draw(config, grid, batch, torch.Generator().manual_seed(seed))
    assert len(masks) == {"multiblock": 2, "causal": 1}[strategy]
    for mask in masks:
        context, _ = parts(mask, grid)
        if strategy == "causal":
            assert not context[:, 1:].any()
    provoked("grids and masks of any size", "masks")
