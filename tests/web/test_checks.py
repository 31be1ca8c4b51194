"""The checks themselves: a sound page passes all of them, and each of them finds what it is for on a broken one."""

from pathlib import Path

import pytest

from . import figures, sources, visits
from .conftest import ROOT
from .served import serve

CORE = (ROOT / "book" / "figures" / "core.js").read_text(encoding="utf-8")
STYLE = (ROOT / "book" / "figures" / "core.css").read_text(encoding="utf-8")
TOY = """window.picojepa.define("toy", (ui, data, figure) => {
  const state = { kind: 0, frame: 0, draw: 0 };
  const tell = () => {
    ui.say(`Kind ${state.kind}, frame ${state.frame}, draw ${state.draw}.`);
    figure.dataset.state = JSON.stringify(state);
  };
  ui.select("Kind", ["a", "b"], (kind) => { state.kind = kind; tell(); });
  const frame = ui.slider("Frame", { max: 7 }, (at) => { state.frame = at; tell(); });
  ui.play(frame);
  ui.button("Draw", () => { state.draw += 1; tell(); });
  ui.place();
  tell();
});"""
SOUND = f"""<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Sound</title>
<meta name="viewport" content="width=device-width"><meta name="description" content="A page without a fault.">
<link rel="icon" href="dot.svg">
<style>body {{ background: #fff; color: #222; }} [data-theme=dark] body {{ background: #111; color: #eee; }}
a {{ color: inherit; }} [data-theme=dark] {{ --pst-color-text-base: #eee; --pst-color-text-muted: #ccc;
  --pst-color-surface: #111; color-scheme: dark; }}
@media print {{ header {{ display: none; }} }} {STYLE}</style>
<script>document.documentElement.dataset.theme =
  matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({{ matches }}) => {{
  document.documentElement.dataset.theme = matches ? "dark" : "light"; }});</script></head>
<body><header>A book</header><main><article><h1 id="top">Sound</h1>
<p>Words to read, and <a href="other.html#there">a link</a>, and <a href="https://example.org">one elsewhere</a>.</p>
<img src="dot.svg" alt="a dot" width="40" height="40"><code>{{doc}}`x`</code>
<div class="pj" data-kind="toy" role="group" aria-label="A toy"><div class="pj-still">
<img src="dot.svg" alt="a still dot" width="40" height="40"></div><div class="pj-live"></div>
<script type="application/json">{{"src": "dot.svg"}}</script></div>
<script>{CORE}{TOY}picojepa.scan();</script>
</article></main></body></html>"""
DOT = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="4"/></svg>'
IN_TEXT = "<p>Words to read"
LIVE = '<div class="pj-live"></div>'
WIDGET = "application/vnd.jupyter.widget-view+json"
BIG = "A" * 20_000

# Check, what stands on the sound page, what stands there instead, and what the check says of it.
IN_FILES = [
    (sources.links, "other.html#there", "nowhere.html", "no file nowhere.html"),
    (sources.links, "other.html#there", "other.html#here", "no anchor other.html#here"),
    (sources.links, "other.html#there", "#here", "no anchor #here"),
    (sources.links, "other.html#there", "/other.html", "leaves the folder"),
    (sources.links, "other.html#there", "../other.html", "leaves the folder"),
    (sources.links, '<img src="dot.svg" alt="a dot"', '<img src="none.png" alt="a dot"', "img: no file none.png"),
    (sources.links, '<link rel="icon" href="dot.svg">', '<link rel="icon" href="none.ico">', "no file none.ico"),
    (sources.links, "</head>", '<link rel="preconnect" href="https://example.org"></head>', "asks another host"),
    (sources.links, '{"src": "dot.svg"}', '{"src": "_media/none.webp"}', "no file _media/none.webp"),
    (sources.outline, ' lang="en"', "", "no language"),
    (sources.outline, "<title>Sound</title>", "<title> </title>", "no title"),
    (sources.outline, ' name="viewport"', "", "no viewport"),
    (sources.outline, ' name="description"', "", "no description"),
    (sources.outline, IN_TEXT, f"<h1>Twice</h1>{IN_TEXT}", "2 headings h1"),
    (sources.outline, '<h1 id="top">Sound</h1>', "", "0 headings h1"),
    (sources.pictures, ' alt="a dot"', "", "no alt"),
    (sources.pictures, ' alt="a dot"', ' alt=""', "empty alt"),
    (sources.pictures, '"dot.svg"}', f'"data:image/webp;base64,{BIG}"}}', "image/webp of 20 kB"),
    (sources.words, IN_TEXT, "<p>{doc}`data`", "raw text"),
    (sources.words, IN_TEXT, "<p>{glue:text}`key`", "raw text"),
    (sources.words, IN_TEXT, "<p>:::{note} Look", "raw text"),
    (sources.words, IN_TEXT, "<p>```{figure} x", "raw text"),
    (sources.words, IN_TEXT, "<p>{numref}`fig-x`", "raw text"),
    (sources.words, IN_TEXT, "<p>No key: x</p><p>", "raw text"),
    (sources.words, IN_TEXT, "<p>&lt;Figure size 640x480 with 1 Axes&gt;</p><p>", "raw text"),
    (sources.words, IN_TEXT, f'<div class="output stderr">careful</div>{IN_TEXT}', "stderr in an output"),
    (sources.words, IN_TEXT, f'<div class="output traceback">ValueError</div>{IN_TEXT}', "traceback in an output"),
    (
        sources.words,
        IN_TEXT,
        f'<script type="application/vnd.jupyter.widget-view+json">{{}}</script>{IN_TEXT}',
        "kernel",
    ),
]
IN_PAGES = [
    (visits.formulas, IN_TEXT, f'<mjx-merror data-mjx-error="Missing brace">x</mjx-merror>{IN_TEXT}', "Missing brace"),
    (visits.sleeping, "picojepa.scan();</script>", "</script>", "toy is not ready"),
    (visits.accessible, IN_TEXT, f'<button type="button"></button>{IN_TEXT}', "button-name (critical)"),
    (visits.accessible, IN_TEXT, '<p style="color: #bbb">Words to read', "color-contrast (serious)"),
    (visits.dark, 'matches ? "dark"', 'matches ? "light"', "data-theme is light"),
    (visits.dark, "color: #eee", "color: #333", "color-contrast (serious)"),
    (visits.phone, IN_TEXT, '<p style="width: 600px">Words to read', "wide on a phone of 360"),
    (visits.phone, IN_TEXT, f"<p>{'x' * 300}</p>{IN_TEXT}", "wide on a phone of 360"),
    (visits.phone, 'alt="a dot" width="40" height="40"', 'alt="a dot" height="0"', "no room on a phone"),
    (visits.paper, "@media print { header", "@media print { footer", "in print: header"),
    (visits.paper, "@media print { .pj .pj-live { display: none; }", "@media print {", "in print: controls"),
    (visits.paper, ".pj .pj-still { display: block; }", "", "pictures of interactive figures are missing"),
    (visits.paper, "@media print { header", "@media print { h1, header", "in print: no heading"),
]
IN_FIGURES = [
    (figures.form, '"Draw"', '""', "no name: <button"),
    (figures.form, "min-height: 2rem", "max-height: 16px; font-size: 8px !important", "less than 24"),
    (figures.form, "status.textContent = text;", "", "does not say in words"),
    (figures.form, "figure.dataset.state =", "figure.state =", "no data-state"),
    (figures.unreached, "ui.place();", "ui.place(); frame.tabIndex = -1;", "Frame: the Tab key does not come to it"),
]
AT_ALL = [
    (IN_TEXT, f'<img src="https://example.org/x.png" alt="x">{IN_TEXT}', "foreign", "https://example.org/x.png"),
    (IN_TEXT, f'<script src="none.js"></script>{IN_TEXT}', "errors", "404"),
    (IN_TEXT, f"<script>console.error('careful')</script>{IN_TEXT}", "errors", "console: careful"),
    (IN_TEXT, f"<script>nothing.there()</script>{IN_TEXT}", "errors", "script: "),
]


def site(folder: Path, page: str) -> Path:
    """A site of two pages and a picture."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    (folder / "other.html").write_text('<html lang="en"><title>Other</title><h1 id="there">Other</h1></html>', "utf-8")
    (folder / "dot.svg").write_text(DOT, encoding="utf-8")
    return folder


def broken(there: str, instead: str) -> str:
    """The sound page with a fault."""
    assert there in SOUND, f"the sound page has no {there}"
    return SOUND.replace(there, instead)


def named(case: tuple) -> str:
    return f"{getattr(case[0], '__name__', 'requests')}: {case[-1]}"


def test_a_sound_page_passes(browser, tmp_path):
    source = sources.Source(site(tmp_path, SOUND), "page.html")
    assert [wrong for check in sources.CHECKS for wrong in check(source)] == []
    with serve(tmp_path) as address, visits.visit(browser, address, "page.html") as seen:
        size = seen.transferred
        visits.settle(seen)
        assert [wrong for check in visits.CHECKS for wrong in check(seen.page)] == []
        assert [wrong for check in figures.CHECKS for wrong in check(seen.page.locator(".pj"))] == []
        assert (seen.errors, seen.foreign) == ([], [])
    assert 1000 < size < len(SOUND), "what is counted is what was sent, as gzip"


@pytest.mark.parametrize(("check", "there", "instead", "says"), IN_FILES, ids=map(named, IN_FILES))
def test_a_fault_in_a_file_is_found(tmp_path, check, there, instead, says):
    wrong = check(sources.Source(site(tmp_path, broken(there, instead)), "page.html"))
    assert any(says in line for line in wrong), wrong


@pytest.mark.parametrize(("check", "there", "instead", "says"), IN_PAGES, ids=map(named, IN_PAGES))
def test_a_fault_of_a_page_is_found(browser, tmp_path, check, there, instead, says):
    site(tmp_path, broken(there, instead))
    with serve(tmp_path) as address, visits.visit(browser, address, "page.html") as seen:
        visits.settle(seen)
        wrong = check(seen.page)
    assert any(says in line for line in wrong), wrong


@pytest.mark.parametrize(("check", "there", "instead", "says"), IN_FIGURES, ids=map(named, IN_FIGURES))
def test_a_fault_of_a_figure_is_found(browser, tmp_path, check, there, instead, says):
    site(tmp_path, broken(there, instead))
    with serve(tmp_path) as address, visits.visit(browser, address, "page.html") as seen:
        visits.settle(seen)
        wrong = check(seen.page.locator(".pj"))
    assert any(says in line for line in wrong), wrong


def test_dead_controls_are_found(browser, tmp_path):
    deaf = broken("state.kind = kind; tell();", "").replace("state.draw += 1; tell();", "")
    site(tmp_path, deaf.replace("state.frame = at; tell();", ""))
    with serve(tmp_path) as address, visits.visit(browser, address, "page.html") as seen:
        visits.settle(seen)
        wrong = figures.dead(seen.page.locator(".pj"))
    assert wrong == [
        "Kind: another choice changes nothing",
        "Kind: an arrow key changes nothing",
        "Frame: an arrow key changes nothing",
        "Frame: a click changes nothing",
        "Play: a click changes nothing",
        "Play: the Enter key changes nothing",
        "Draw: a click changes nothing",
        "Draw: the Enter key changes nothing",
    ]


@pytest.mark.parametrize(("there", "instead", "where", "says"), AT_ALL, ids=map(named, AT_ALL))
def test_a_fault_of_requests_and_scripts_is_found(browser, tmp_path, there, instead, where, says):
    site(tmp_path, broken(there, instead))
    with serve(tmp_path) as address, visits.visit(browser, address, "page.html") as seen:
        wrong = getattr(seen, where)
    assert any(says in line for line in wrong), wrong


@pytest.mark.parametrize(
    ("there", "instead", "says"),
    [
        (".pj-live { display: none; }", ".pj-still { display: none; }", "controls of"),
        (".pj-live { display: none; }", ".pj-still { display: none; }", "pictures of interactive figures are missing"),
        ("<article>", "<article style='visibility: hidden'>", "0 of 1 paragraphs can be read"),
        ("<article>", "<article hidden>", "no heading"),
        ('<img src="dot.svg" alt="a still dot"', '<img src="other.html" alt="a still dot"', "is not shown"),
    ],
)
def test_what_is_lost_without_scripts_is_found(browser, tmp_path, there, instead, says):
    site(tmp_path, broken(there, instead).replace(LIVE, '<div class="pj-live">x</div>'))
    with serve(tmp_path) as address, visits.visit(browser, address, "page.html", java_script_enabled=False) as seen:
        wrong = visits.without_scripts(seen.page)
    assert any(says in line for line in wrong), wrong
