"""Sphinx extension of the book: light pages that ask no other host for anything.

Media that notebooks put into a page as data URIs become files, which a browser loads when they are needed; pictures
get their sizes, so that nothing jumps while a page loads; scripts that no page uses are left out, others come late.
What the theme writes and a screen reader stumbles over is mended in the finished pages.
"""

import base64
import hashlib
import re
from pathlib import Path

from PIL import Image
from sphinx.util import logging

logger = logging.getLogger(__name__)
MEDIA = re.compile(r"data:(?:image|video)/(png|jpeg|webp|gif|mp4);base64,([A-Za-z0-9+/=]{1000,})")
PICTURE = re.compile(r'<img (?![^>]*\b(?:loading|width)=)(?=[^>]*\bsrc="([^"]+)")')
UNUSED = ("thebe", "THEBE", "vnd.jupyter.widget-state")
MENDS = (
    # half a megabyte of icons that a font brings as well
    (r'<script defer src="[^"]*/fontawesome\.js[^"]*"></script>', ""),
    # a second title, for print only; without one on pages that have no text of their own
    (r'(<div id="jb-print-docs-body" class="onlyprint">)\s*<h1>.*?</h1>', r"\1"),
    # names that hide the words which can be seen
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'(<button class="[^"]*search-button-field[^"]*" title="Search") aria-label="Search"', r"\1"),
    # names that are missing
    (r'<summary>(?=<span class="toctree-toggle")', '<summary aria-label="Pages below">'),
    (r'(<div id="pst-primary-sidebar" class="[^"]*")>', r'\1 role="region" aria-label="Book">'),
    # a list below a list, but in none of its items
    (r"(<li><a [^>]*>[\w.]+</a>)</li>\s*(<ul>(?:<li><a [^>]*>[\w.]+</a></li>\s*)+</ul>)(?=<li>)", r"\1\2</li>\n"),
    # cells of a table that head nothing
    (r"<th((?: [^>]*)?)>(?:\s|&nbsp;|&#160;|<p>\s*</p>)*</th>", r"<td\1></td>"),
    # entries of the bibliography in a role that their list does not take
    (r' role="doc-biblioentry"', ' role="listitem"'),
)
# What a browser waits for before it shows the text, though only the page of the search needs it so early.
LATER = (
    (r'<link rel="preload" as="script"[^>]*>', ""),
    (
        r'<script (?=[^>]*src="[^"]*/'
        r"(?:doctools|sphinx_highlight|clipboard\.min|copybutton|sphinx-book-theme|togglebutton|design-tabs)\.js)(?!defer)",
        "<script defer ",
    ),
    (r'<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>', ""),
)
SEARCHES = 'id="search-results"'
FORMULA = re.compile(r'class="[^"]*\bmath\b')
MATHJAX = re.compile(r'<script[^>]* src="[^"]*/mathjax/[^"]*"></script>')


def as_files(body: str, folder: Path, link: str) -> str:
    """The page's HTML with media in files.

    Args:
        body: HTML.
        folder: where the files are written, each under the digest of its content.
        link: what stands for the folder in the page's links, with a slash at its end.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def file(found: re.Match) -> str:
        content = base64.b64decode(found[2])
        path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.{found[1]}"
        path.write_bytes(content)
        return link + path.name

    return MEDIA.sub(file, body)


def with_sizes(body: str, sources: dict[str, Path]) -> str:
    """Pictures load when they are near the window, and their place is kept until then.

    Args:
        body: HTML.
        sources: file name under ``_images`` -> file.
    """

    def tag(found: re.Match) -> str:
        source = sources.get(Path(found[1]).name)
        if source is None or source.suffix == ".svg":
            return '<img loading="lazy" '
        with Image.open(source) as picture:
            width, height = picture.size
        return f'<img loading="lazy" width="{width}" height="{height}" '

    return PICTURE.sub(tag, body)


def lighten(app, pagename, templatename, context, doctree) -> None:
    """Leave out Thebe, which names a foreign host, and the state of widgets; the reader's system chooses the mode."""
    context["default_mode"] = "auto"
    scripts = context["script_files"]
    scripts[:] = [s for s in scripts if not any(word in f"{s} {getattr(s, 'attributes', '')}" for word in UNUSED)]
    if "body" not in context:
        return
    if "vnd.jupyter.widget-view" in context["body"]:
        logger.warning("a widget of ipywidgets needs a kernel, and a page has none: see book/figures")
    sources = {name: Path(app.srcdir) / path for path, name in app.builder.images.items()}
    body = as_files(context["body"], Path(app.outdir) / "_media", context["pathto"]("_media", 1) + "/")
    context["body"] = with_sizes(body, sources)


def mended(page: str) -> str:
    """A finished page with what is named in `MENDS` set right, fast, and without MathJax if it has no formula."""
    for wrong, right in MENDS if SEARCHES in page else MENDS + LATER:
        page = re.sub(wrong, right, page, flags=re.DOTALL)
    return page if FORMULA.search(page) else MATHJAX.sub("", page)


def finish(app, exception) -> None:
    """Mend all pages."""
    if exception is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            page = path.read_text(encoding="utf-8")
            if (better := mended(page)) != page:
                path.write_text(better, encoding="utf-8")


def setup(app) -> dict:
    """Connect everything."""
    app.connect("html-page-context", lighten, priority=900)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
