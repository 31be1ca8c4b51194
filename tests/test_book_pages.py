"""What the built pages are made of: media in files, pictures with sizes, late scripts, links that lead somewhere."""

import base64
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup
from PIL import Image

from tools import book_pages
from tools.book_pages import as_files, connect_links, finish, finished, pages_address

CONTENT = bytes(range(256)) * 4
URI = f"data:video/mp4;base64,{base64.b64encode(CONTENT).decode()}"
THERE = "https://github.com/Someone/book"


def page(folder, body="", head="", name="a.html", site=""):
    """A page after the extension has seen it."""
    text = f"<!DOCTYPE html><html><head><title>A &lt;b&gt;</title>{head}</head><body>{body}</body></html>"
    return BeautifulSoup(finished(text, folder / name, folder, site), "html.parser")


def inside(tag) -> str:
    """HTML between the tags of an element."""
    return tag.decode_contents(formatter="html")


# ---------------------------------------------------------------- media


def test_media_become_files_and_equal_ones_become_one(tmp_path):
    body = f'<video src="{URI}"></video><script>{{"src":"{URI}"}}</script>'
    soup = page(tmp_path, body, name="below/a.html")
    (path,) = (tmp_path / "_media").iterdir()
    assert path.read_bytes() == CONTENT
    assert path.suffix == ".mp4"
    link = f"../_media/{path.name}"
    assert inside(soup.body) == f'<video src="{link}"></video><script>{{"src":"{link}"}}</script>'


def test_small_icons_stay_in_the_page(tmp_path):
    body = '<img src="data:image/png;base64,AAAA">'
    assert as_files(body, tmp_path / "_media", "_media") == body
    assert not (tmp_path / "_media").exists()


def test_pictures_keep_their_place_and_load_late(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "b.png")
    (tmp_path / "c.svg").write_text("<svg/>")
    pictures = '<img src="b.png"/><img src="x.png" width="9"/><img src="c.svg"/><img src="https://example.org/d.png"/>'
    found = page(tmp_path, f'<article>{pictures}</article><img src="b.png"/>').select("img")
    assert [(tag.get("loading"), tag.get("width"), tag.get("height")) for tag in found] == [
        ("lazy", "30", "20"),
        (None, "9", None),
        ("lazy", None, None),
        ("lazy", None, None),
        (None, None, None),  # the logo is seen at once
    ]


# ---------------------------------------------------------------- scripts


@pytest.mark.parametrize(
    "unused",
    [
        '<script defer src="../_static/scripts/fontawesome.js?digest=5"></script>',
        '<script>const THEBE_JS_URL = "https://unpkg.com/thebe"; const thebe_selector = ".thebe"</script>',
        '<script async="async" src="_static/sphinx-thebe.js?v=1"></script>',
        '<script type="application/vnd.jupyter.widget-state+json">{}</script>',
        '<script defer="defer" src="_static/mathjax/tex-chtml-full.js?v=9"></script>',
        '<link rel="preload" as="script" href="_static/scripts/bootstrap.js?digest=5" />',
        '<script src="../searchindex.js"></script>',
        '<script src="_static/searchtools.js"></script><script src="_static/language_data.js"></script>',
    ],
)
def test_what_a_page_does_not_use_is_left_out(tmp_path, unused):
    assert inside(page(tmp_path, head=unused).head) == inside(page(tmp_path).head)


def test_a_page_with_a_formula_keeps_mathjax(tmp_path):
    script = '<script defer="defer" src="_static/mathjax/tex-chtml-full.js"></script>'
    assert page(tmp_path, '<span class="math notranslate">x</span>', script).select('script[src*="mathjax"]')


def test_the_page_of_the_search_keeps_its_index(tmp_path):
    scripts = '<script src="_static/searchtools.js"></script><script src="searchindex.js"></script>'
    found = page(tmp_path, '<div id="search-results"></div>', scripts).select("script")
    assert [tag["src"] for tag in found] == ["_static/searchtools.js", "searchindex.js"]


def test_scripts_run_after_the_text_but_for_the_options_that_others_change(tmp_path):
    scripts = (
        '<script src="../_static/documentation_options.js?v=1"></script>'
        "<script>DOCUMENTATION_OPTIONS.pagename = 'a';</script>"
        '<script src="../_static/doctools.js?v=9"></script><script defer src="_static/book.js"></script>'
    )
    found = page(tmp_path, head=scripts).select("script")
    assert [tag.has_attr("defer") for tag in found] == [False, False, True, True]


def test_scripts_and_text_are_not_rewritten(tmp_path):
    body = '<script>if (1 < 2 && "</p>") go("&amp;");</script><p>1 &lt; 2 &amp; <em>so</em>\n on</p><pre>a\n  b</pre>'
    assert str(page(tmp_path, body).body) == f"<body>{body}</body>"


def test_a_widget_that_needs_a_kernel_is_a_warning(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(book_pages.logger, "warning", lambda text, *values: said.append(text % values))
    page(tmp_path)
    assert said == []
    page(tmp_path, '<script type="application/vnd.jupyter.widget-view+json">{}</script>')
    assert len(said) == 1
    assert said[0].startswith("a.html: a widget")


# ---------------------------------------------------------------- mends


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (
            '<div class="onlyprint" id="jb-print-docs-body">\n<h1>A</h1>x</div>',
            '<div class="onlyprint" id="jb-print-docs-body">\nx</div>',
        ),
        ('<summary aria-label="Toggle hidden content">x</summary>', "<summary>x</summary>"),
        (
            '<summary><span class="toctree-toggle"></span></summary>',
            '<summary aria-label="Pages below"><span class="toctree-toggle"></span></summary>',
        ),
        (
            '<button aria-label="Search" class="btn search-button-field" title="Search"></button>',
            '<button class="btn search-button-field" title="Search"></button>',
        ),
        (
            '<div class="bd-sidebar" id="pst-primary-sidebar"></div>',
            '<div aria-label="Book" class="bd-sidebar" id="pst-primary-sidebar" role="region"></div>',
        ),
        ("<table><tr><th></th><th>a</th></tr></table>", "<table><tr><td></td><th>a</th></tr></table>"),
        (
            '<table><tr><th class="level0"> &nbsp;</th></tr></table>',
            '<table><tr><td class="level0"> &nbsp;</td></tr></table>',
        ),
        ("<table><tr><th><p></p></th></tr></table>", "<table><tr><td><p></p></td></tr></table>"),
        (
            "<ul><li>a</li>\n<ul><li>a.b</li></ul><li>c</li></ul>",
            "<ul><li>a<ul><li>a.b</li></ul></li>\n<li>c</li></ul>",
        ),
        ('<div role="doc-biblioentry"></div>', '<div role="listitem"></div>'),
    ],
)
def test_what_the_theme_writes_is_mended(tmp_path, written, wanted):
    found = BeautifulSoup(inside(page(tmp_path, written).body), "html.parser")
    for tag in found.find_all(True):
        tag.attrs = dict(sorted(tag.attrs.items()))
    assert found.decode(formatter="html") == wanted


def test_a_page_is_finished_once(tmp_path):
    app = SimpleNamespace(
        builder=SimpleNamespace(format="html"), outdir=str(tmp_path), config=SimpleNamespace(ogp_site_url="")
    )
    whole, part = tmp_path / "a.html", tmp_path / "macros.html"
    whole.write_text("<html><head><title>A</title></head><body></body></html>")
    part.write_text("{% macro a() %}<th></th>{% endmacro %}")
    finish(app, ValueError("the build failed"))
    assert "icon" not in whole.read_text()
    finish(app, None)
    once = whole.read_text()
    finish(app, None)
    assert whole.read_text() == once
    assert once.count("_static/icon.png") == 1
    assert part.read_text() == "{% macro a() %}<th></th>{% endmacro %}"


# ---------------------------------------------------------------- where the pages are


def test_every_page_has_one_description_one_icon_and_no_made_up_address(tmp_path):
    url = '<meta content="index.html" property="og:url"/>'
    bare, own = page(tmp_path, name="below/a.html"), '<meta content="x" name="description"/>'
    assert [tag["content"] for tag in bare.select("meta[name=description]")] == ["A <b>"]
    assert [tag["href"] for tag in bare.select("link[rel=apple-touch-icon]")] == ["../_static/icon.png"]
    assert [tag["content"] for tag in page(tmp_path, head=own).select("meta[name=description]")] == ["x"]
    assert url not in str(page(tmp_path, head=url))
    assert url in str(page(tmp_path, head=url, site=THERE))


def connected(address: str, **more: str) -> SimpleNamespace:
    """Settings of a build after the extension has looked at them."""
    options = {"repository_url": address, "launch_buttons": {"notebook_interface": "jupyterlab"}}
    config = SimpleNamespace(html_theme_options=options, **({"html_baseurl": "", "ogp_site_url": ""} | more))
    connect_links(None, config)
    return config


def test_without_an_address_there_is_no_link():
    config = connected("")
    assert not any(config.html_theme_options[button] for button in book_pages.BUTTONS)
    assert config.html_theme_options["launch_buttons"] == {"notebook_interface": "jupyterlab"}
    assert config.html_baseurl == config.ogp_site_url == ""


def test_one_address_brings_all_links():
    config = connected(THERE + ".git")
    assert config.html_theme_options["repository_url"] == THERE
    assert all(config.html_theme_options[button] for button in book_pages.BUTTONS)
    assert config.html_theme_options["launch_buttons"]["binderhub_url"] == book_pages.BINDER
    assert config.html_baseurl == config.ogp_site_url == "https://someone.github.io/book/"


def test_an_address_of_the_pages_that_is_set_by_hand_stays():
    config = connected(THERE, html_baseurl="https://book.example/")
    assert config.html_baseurl == config.ogp_site_url == "https://book.example/"


@pytest.mark.parametrize(
    ("repository", "pages"),
    [
        (THERE, "https://someone.github.io/book/"),
        ("https://github.com/someone/someone.github.io", "https://someone.github.io/"),
        ("https://gitlab.com/someone/book", ""),
        ("https://github.com/someone", ""),
        ("", ""),
    ],
)
def test_where_pages_are_published(repository, pages):
    assert pages_address(repository) == pages
