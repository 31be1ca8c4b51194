"""What the built pages are made of: media in files, pictures with sizes."""

import base64

import pytest
from PIL import Image

from tools.book_pages import as_files, mended, with_sizes

CONTENT = bytes(range(256)) * 4
URI = f"data:video/mp4;base64,{base64.b64encode(CONTENT).decode()}"


def test_media_become_files_and_equal_ones_become_one(tmp_path):
    body = as_files(f'<video src="{URI}"></video><script>{{"src":"{URI}"}}</script>', tmp_path, "../_media/")
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == CONTENT
    assert path.suffix == ".mp4"
    assert body == f'<video src="../_media/{path.name}"></video><script>{{"src":"../_media/{path.name}"}}</script>'


def test_small_icons_stay_in_the_page(tmp_path):
    body = '<img src="data:image/png;base64,AAAA">'
    assert as_files(body, tmp_path, "_media/") == body


def test_pictures_keep_their_place_and_load_late(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    body = with_sizes('<img alt="a" src="_images/b.png"><img src="x.png" width="9">', {"b.png": tmp_path / "a.png"})
    assert body == '<img loading="lazy" width="30" height="20" alt="a" src="_images/b.png"><img src="x.png" width="9">'


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ('<script defer src="../_static/scripts/fontawesome.js?digest=5"></script>', ""),
        ('<div id="jb-print-docs-body" class="onlyprint">\n    <h1></h1>x</div>', None),
        ('<summary aria-label="Toggle hidden content">', "<summary>"),
        ('<summary><span class="toctree-toggle" role="presentation">', None),
        ('<button class="btn search-button-field b" title="Search" aria-label="Search">', None),
        ('<div id="pst-primary-sidebar" class="bd-sidebar">', None),
        ("<th></th><th>a</th><thead></thead>", "<td></td><th>a</th><thead></thead>"),
        ('<th class="blank level0" >&nbsp;</th>', '<td class="blank level0" ></td>'),
        ('<th class="head"><p></p></th>', '<td class="head"></td>'),
        (
            '<ul><li><a href="a.html">a</a></li>\n<ul><li><a href="b.html">a.b</a></li>\n</ul><li>c</li></ul>',
            '<ul><li><a href="a.html">a</a><ul><li><a href="b.html">a.b</a></li>\n</ul></li>\n<li>c</li></ul>',
        ),
        ('<div role="doc-biblioentry">', '<div role="listitem">'),
        ('<script defer="defer" src="_static/mathjax/tex-chtml-full.js?v=9"></script>', ""),
        ('<link rel="preload" as="script" href="_static/scripts/bootstrap.js?digest=5" />', ""),
        (
            '<script src="../_static/doctools.js?v=9"></script>',
            '<script defer src="../_static/doctools.js?v=9"></script>',
        ),
        ('<script data-a="b" src="_static/design-tabs.js">', '<script defer data-a="b" src="_static/design-tabs.js">'),
        ('<script src="../searchindex.js"></script>', ""),
    ],
)
def test_what_the_theme_writes_is_mended_once(written, wanted):
    page = mended(written)
    assert page != written
    assert wanted is None or page == wanted
    assert mended(page) == page


def test_a_page_with_a_formula_keeps_mathjax():
    page = '<script defer="defer" src="_static/mathjax/tex-chtml-full.js"></script><span class="math notranslate">'
    assert mended(page) == page


def test_the_page_of_the_search_has_what_it_searches_with_at_once():
    page = '<script src="_static/doctools.js"></script><script src="searchindex.js"></script><div id="search-results">'
    assert mended(page) == page
