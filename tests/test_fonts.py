"""Figures show any name, and do not depend on the user's own settings of Matplotlib."""

import subprocess
import sys
import warnings

import matplotlib.pyplot as plt
import pytest
from conftest import ROOT
from figures import fonts, plots
from test_own_chapters import NAMES


@pytest.fixture
def styled():
    plots.use_style()
    yield
    plt.close("all")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_drawn_without_a_warning(styled, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, ax = plt.subplots()
        ax.plot([1, 2], label=name)
        ax.set(title=name, xlabel=name, xticks=[0, 1], xticklabels=[name, "b"])
        ax.legend()
        figure.canvas.draw()


def test_a_character_without_a_font_is_an_escape_and_others_stay(styled, monkeypatch):
    monkeypatch.setattr(fonts, "characters", lambda: frozenset(map(ord, "abcÜ$")))
    assert fonts.readable("aÜ$ b跑🤸") == "aÜ$ b\\u8dd1\\U0001f938"
    figure = plt.figure()
    assert figure.text(0, 0, "跑").get_text() == "\\u8dd1"


def test_a_dollar_is_no_formula_and_a_logarithmic_axis_has_plain_numbers(styled):
    figure, ax = plt.subplots()
    ax.set(title="Ba$$in $x^2$", xscale="log", xlim=(0.01, 1000))
    plots.plain_numbers(ax.xaxis)
    figure.canvas.draw()
    assert not ax.title.get_parse_math()
    assert "100" in [label.get_text() for label in ax.get_xticklabels()]
    assert not any("$" in label.get_text() for label in ax.get_xticklabels())


def test_styling_twice_sets_one_hook(styled):
    plots.use_style()
    assert plt.figure().text(0, 0, "a").get_text() == "a"


SETTINGS = "text.usetex: True\naxes.titlesize: 77\nfont.family: No Such Font\n"
DRAW = """
import warnings; warnings.simplefilter("error")
from figures import plots; plots.use_style()
import matplotlib.pyplot as plt
figure, ax = plt.subplots(); ax.set(title="a_b"); figure.savefig("x.png")
print(ax.title.get_size())
"""


def test_the_users_own_settings_change_nothing(tmp_path):
    environment = {"MPLBACKEND": "agg", "HOME": str(tmp_path), "PYTHONPATH": f"{ROOT}:{ROOT / 'book'}"}
    sizes = []
    for settings in ("", SETTINGS):
        (tmp_path / "matplotlibrc").write_text(settings)
        command = [sys.executable, "-c", DRAW]
        done = subprocess.run(command, env=environment, cwd=tmp_path, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        sizes.append(done.stdout)
    assert sizes[0] == sizes[1]


def test_a_name_is_no_markup_in_a_table():
    html = plots.table(plots.pd.DataFrame({"<i>": ["<b>", "Ba$$in"]})).to_html()
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert "<i>" not in html
    assert "mathjax_ignore" in html
