"""Pictures show the numbers they are given."""

import base64
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from figures import plots
from matplotlib.figure import Figure
from torchcodec.decoders import VideoDecoder

from picojepa import masking, stats
from standin import CLASSES, LABELLED_CLASSES


@pytest.fixture(autouse=True)
def _close():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def drawn(figure: Figure) -> np.ndarray:
    """The picture as pixels: warnings while it is drawn are errors."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def clips(n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 3, 32, 32), dtype=np.uint8)


def test_every_class_has_a_colour_and_a_marker_of_its_own():
    styles = plots.class_styles(CLASSES)
    assert set(styles) == set(CLASSES)
    assert [len(set(part)) for part in zip(*styles.values(), strict=True)] == [len(CLASSES)] * 2


def test_names_for_people_leave_processors_alone():
    assert plots.pretty("held out: air_drumming, acting_in_play") == "held out: air drumming, acting in play"
    assert plots.pretty("x86_64, 2 threads") == "x86_64, 2 threads"


def test_source_shows_the_definition_and_links_to_it():
    text = plots.source(masking.tube).data
    assert "def tube(grid: Grid" in text
    assert '<a href="_modules/picojepa/masking.html#tube">picojepa/masking.py</a>' in text


def test_clips_are_shown_frame_by_frame():
    figure = plots.show_clips(clips(), ["air_drumming", "archery"])
    assert len(figure.axes) == 16
    np.testing.assert_array_equal(figure.axes[9].images[0].get_array(), np.moveaxis(clips()[1, 1], 0, -1))
    assert [t.get_text() for ax in figure.axes for t in ax.texts] == ["air drumming", "archery"]
    drawn(figure)


def embedded(page) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r"data:video/mp4;base64,([^\"]+)", page.data)]


def test_videos_are_put_into_the_page_as_they_are():
    path = ROOT / "data" / "clips" / "abseiling.mp4"
    page = plots.video([path], ["<ab_seiling>"])
    assert embedded(page) == [path.read_bytes()]
    assert 'aria-label="&lt;ab seiling&gt;"' in page.data


def test_clips_become_videos_that_play(tmp_path):
    flat = np.broadcast_to(np.array([200, 40, 40], dtype=np.uint8)[:, None, None], (1, 8, 3, 32, 32))
    (content,) = embedded(plots.clip_video(flat, ["red"]))
    (tmp_path / "clip.mp4").write_bytes(content)
    decoder = VideoDecoder(str(tmp_path / "clip.mp4"))
    assert decoder.metadata.codec == "h264"
    assert decoder.metadata.average_fps == pytest.approx(8)
    assert decoder[:].shape == (8, 3, 32, 32)
    assert decoder[:].double().mean((0, 2, 3)).tolist() == pytest.approx([200, 40, 40], abs=6)


def test_a_mask_is_painted_where_it_hides():
    clip, hidden = np.zeros((8, 3, 32, 32), dtype=np.uint8), np.zeros((4, 2, 2), dtype=bool)
    hidden[1, 0, 1] = True
    found = plots.paint_mask(clip, hidden, strength=1.0)
    assert found.shape == clip.shape
    target = tuple(int(plots.TARGET[i : i + 2], 16) for i in (1, 3, 5))
    painted = (found == np.array(target)[:, None, None]).all(1)  # (T, H, W)
    wanted = np.zeros_like(painted)
    wanted[2:4, :16, 16:] = True
    np.testing.assert_array_equal(painted, wanted)


def test_hidden_grid_is_the_target():
    found = plots.hidden_grid(torch.tensor([0, 7, 23]), (2, 3, 4))
    assert [tuple(place) for place in np.argwhere(found)] == [(0, 0, 0), (0, 1, 3), (1, 2, 3)]


def test_boxes_and_arrows_are_drawn():
    places = {"x-encoder\nvisible": (1, 1), "predictor": (4, 1), "y-encoder": (4, 3)}
    arrows = [
        ("x-encoder\nvisible", "predictor", "features"),
        ("y-encoder", "predictor", "x stop"),
        ("x-encoder\nvisible", "y-encoder", "~ EMA"),
    ]
    figure = plots.boxes(places, arrows, {"predictor": plots.PREDICTED})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"x-encoder", "visible", "predictor", "y-encoder", "features", "stop", "EMA"} <= set(texts)
    assert len(figure.axes[0].patches) == 3 + 3
    assert drawn(figure).std() > 0


def test_training_curves_hold_the_metrics():
    metrics = pd.DataFrame({"clips": [0, 1000, 2000], "loss": [3.0, 2.0, 1.0], "spread": [0.1, 0.2, 0.3]})
    figure = plots.training_curves(
        {"run": metrics}, {"loss": "loss (no unit)", "spread": "spread"}, {"run": plots.CONTEXT}
    )
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss (no unit)", "spread"]
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [0, 1, 2]
    assert line.get_ydata().tolist() == [3, 2, 1]
    drawn(figure)


def test_curves_leave_out_rows_that_were_not_measured():
    metrics = pd.DataFrame({"clips": [0, 1000, 2000], "quick_probe": [None, 0.2, 0.5], "similarity": [-0.5, 0.0, 0.5]})
    columns = {name: name for name in ("quick_probe", "similarity", "clips", "clips")} | {"a": "a"}
    figure = plots.training_curves({"run": metrics.assign(a=1.0)}, columns, {"run": plots.CONTEXT})
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 2]
    assert figure.axes[1].get_ylim()[0] <= -0.5
    assert [ax.axison for ax in figure.axes] == [True] * 4 + [False] * 2
    drawn(figure)


def test_live_curves_change_one_display(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(plots.DisplayHandle, "display", lambda self, figure: said.append("display"))
    monkeypatch.setattr(plots.DisplayHandle, "update", lambda self, figure: said.append("update"))
    live = plots.LiveCurves({"loss": "loss"})
    for loss in (2.0, 1.0, 0.5):
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(f'{{"clips": 1, "loss": {loss}}}\n')
        live(tmp_path, None)
    assert said == ["display", "update", "update"]
    assert plt.get_fignums() == []


def test_bars_have_the_length_of_the_scores():
    names = ["random weights, linear", "pre-trained, linear"]
    scores = pd.DataFrame(
        {"name": names, "accuracy": [20.0, 40.0], "low": [15.0, 35.0], "high": [26.0, 46.0], "n": 194}
    )
    figure = plots.score_bars(scores, "name", chance=10)
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == [20, 40]
    assert "194 videos" in ax.get_xlabel()
    assert ax.lines[-1].get_xdata() == [10, 10] or [10, 10] in [list(line.get_xdata()) for line in ax.lines]
    drawn(figure)


def test_confusions_count_videos():
    label = ["abseiling"] * 3 + ["adjusting_glasses"]
    table = pd.DataFrame({"label": label, "predicted": ["abseiling", "abseiling", "adjusting_glasses", "abseiling"]})
    figure = plots.confusions({"General": table}, LABELLED_CLASSES)
    counts = [int(text.get_text()) for text in figure.axes[0].texts]
    assert np.reshape(counts, (4, 4))[:2, :2].tolist() == [[2, 1], [1, 0]]
    assert sum(counts) == 4
    drawn(figure)


@pytest.mark.parametrize("numbers", [None, {"by video": np.tile([0, 1, 2], 4)}])
def test_maps_show_every_point(numbers):
    xy = {title: np.random.default_rng(i).normal(size=(12, 2)) for i, title in enumerate(("by class", "by video"))}
    figure = plots.maps(xy, list(LABELLED_CLASSES) * 3, numbers)
    for ax, points in zip(figure.axes, xy.values(), strict=True):
        shown = np.concatenate([part.get_offsets() for part in ax.collections])
        assert sorted(map(tuple, shown.tolist())) == sorted(map(tuple, points.tolist()))
    assert len(figure.legends[0].get_texts()) == 4
    drawn(figure)


def test_a_table_has_numbers_right_and_words_left():
    frame = pd.DataFrame({"a": [1.25], "b": ["1.25"], "c": ["a word"], "d": ["words that may be broken"]})
    html = plots.table(frame, precision=1).to_html()
    styles = {place: rule for places, rule in re.findall(r"([^{}]+)\{([^}]*)\}", html) for place in places.split(",")}
    told = {
        column: " ".join(rule for place, rule in styles.items() if f".col{at}" in place)
        for at, column in enumerate(frame)
    }
    assert [("text-align: left" in told[column]) for column in frame] == [False, False, True, True]
    assert "white-space: nowrap" in told["c"]
    assert "white-space: nowrap" not in told["d"]
    assert ">1.2<" in html


def test_intervals_as_text_are_those_of_the_counts():
    rows = [("a", "a", 7), ("a", "b", 1), ("b", "b", 2)]  # label, answer, how many videos
    one = pd.DataFrame([row[:2] for row in rows for _ in range(row[2])], columns=["label", "predicted"])
    table = pd.concat([one.assign(member="General"), one.assign(member="soft vote", predicted="a")])
    text = plots.with_intervals(table)
    assert text.index.tolist() == ["a", "b", "all videos"]
    for (row, member), (right, n) in {
        ("a", "General"): (7, 8),
        ("b", "General"): (2, 2),
        ("all videos", "General"): (9, 10),
        ("b", "soft vote"): (0, 2),
    }.items():
        low, high = stats.wilson(right, n)
        assert text.loc[row, member] == f"{100 * right / n:.0f} ({100 * low:.0f}–{100 * high:.0f})"
    assert plots.with_intervals(table, 2).loc["all videos", "General"].startswith("90.00 (")
