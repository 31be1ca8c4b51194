"""Sphinx extension of the book: light pages that ask no other host for anything, and know where they are published.

In finished pages, data URIs become files, which a browser loads when they are needed; pictures get their sizes, so that
nothing jumps; scripts that a page does not use are left out, others come late; what a screen reader stumbles over is
mended. One address in `_config.yml`, ``repository: {url: ...}``, brings the links to the repository, to edit a page, to
report an error and to launch a notebook. Without it there is no link that leads nowhere.
"""

import base64
import hashlib
import re
from pathlib import Path

from bs4 import BeautifulSoup
from PIL import Image
from sphinx.util import logging

BUTTONS = ("use_repository_button", "use_edit_page_button", "use_issues_button")
BINDER = "https://mybinder.org"
FINISHED = 'rel="apple-touch-icon"'  # a link that finished pages have
MEDIA = re.compile(r"data:(?:image|video)/(png|jpeg|webp|gif|mp4);base64,([A-Za-z0-9+/=]{1000,})")
UNUSED = (
    'script[src*="/fontawesome.js"]',  # half a megabyte of icons that a font brings as well
    'script[src*="thebe"], script:-soup-contains("THEBE_JS_URL")',  # names a foreign host
    'script[type*="vnd.jupyter.widget-state"]',
    'link[rel="preload"][as="script"]',  # what is preloaded comes before the text
    "#jb-print-docs-body > h1",  # a second title, for print only
)
SEARCH = 'script[src*="searchtools.js"], script[src*="language_data.js"], script[src*="searchindex.js"]'
HIDING = 'summary[aria-label="Toggle hidden content"], button.search-button-field'  # their names hide words to be seen
ROLES = {
    "summary:has(> .toctree-toggle)": {"aria-label": "Pages below"},
    "#pst-primary-sidebar": {"role": "region", "aria-label": "Book"},
    '[role="doc-biblioentry"]': {"role": "listitem"},  # its list takes no other
}
logger = logging.getLogger(__name__)


def pages_address(repository: str) -> str:
    """Where GitHub publishes the pages of a repository; empty for repositories elsewhere."""
    found = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)", repository)
    if not found:
        return ""
    host, name = f"{found[1]}.github.io".lower(), found[2]
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def connect_links(app, config) -> None:
    """Turn all links on or off, and tell search engines and social networks where a page is."""
    options = config.html_theme_options
    address = (options.get("repository_url") or "").strip().rstrip("/").removesuffix(".git")
    options["repository_url"] = address
    options.update(dict.fromkeys(BUTTONS, bool(address)))
    launch = {k: v for k, v in options.get("launch_buttons", {}).items() if k == "notebook_interface"}
    options["launch_buttons"] = launch | ({"binderhub_url": BINDER} if address else {})
    config.html_baseurl = config.html_baseurl or pages_address(address)
    config.ogp_site_url = config.ogp_site_url or config.html_baseurl


def as_files(text: str, folder: Path, link: str) -> str:
    """HTML with its media in a folder, each under the digest of its content; ``link`` leads there from the page."""

    def file(found: re.Match) -> str:
        content = base64.b64decode(found[2])
        path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.{found[1]}"
        folder.mkdir(exist_ok=True)
        path.write_bytes(content)
        return f"{link}/{path.name}"

    return MEDIA.sub(file, text)


def lighten(soup: BeautifulSoup, folder: Path) -> None:
    """Leave out what a page does not use; scripts run after the text, pictures in its folder load when near."""
    unused = [*UNUSED, *([] if soup.select_one("#search-results") else [SEARCH])]
    unused += [] if soup.select_one(".math") else ['script[src*="/mathjax/"]']
    for tag in soup.select(", ".join(unused)):
        tag.decompose()
    for script in soup.select('script[src]:not([defer], [src*="documentation_options.js"])'):
        script["defer"] = "defer"  # in their order; scripts inside the page change the options
    for picture in soup.select("article img[src]:not([loading], [width])"):
        picture["loading"] = "lazy"
        path = folder / picture["src"]
        if path.suffix != ".svg" and path.is_file():
            with Image.open(path) as image:
                picture["width"], picture["height"] = map(str, image.size)


def mend(soup: BeautifulSoup, site: str) -> None:
    """Set right what a screen reader or a search engine stumbles over; without a site no address is made up."""
    for tag in soup.select(HIDING):
        del tag["aria-label"]
    for selector, attributes in ROLES.items():
        for tag in soup.select(selector):
            tag.attrs.update(attributes)
    for inner in soup.select("li + ul"):  # a list below a list, but in none of its items
        inner.find_previous_sibling("li").append(inner)
    for cell in soup.select("th"):
        if not cell.get_text(strip=True) and not cell.find("img"):
            cell.name = "td"  # it heads nothing
    for tag in soup.select('meta[property="og:url"]') if not site else []:
        tag.decompose()
    if not soup.select_one('meta[name="description"]'):  # the page has no text of its own
        soup.head.append(soup.new_tag("meta", attrs={"name": "description", "content": soup.title.get_text()}))


def finished(text: str, page: Path, out: Path, site: str = "") -> str:
    """What Sphinx wrote into a page of a folder, as readers get it; ``site`` is where it is published, if known."""
    root = "../" * (len(page.relative_to(out).parts) - 1)
    soup = BeautifulSoup(as_files(text, out / "_media", f"{root}_media"), "html.parser")
    if soup.select_one('script[type*="vnd.jupyter.widget-view"]'):
        logger.warning("%s: a widget of ipywidgets needs a kernel, and a page has none: see book/figures", page.name)
    lighten(soup, page.parent)
    mend(soup, site)
    soup.head.append(soup.new_tag("link", rel="apple-touch-icon", href=f"{root}_static/icon.png"))
    return str(soup)


def finish(app, exception) -> None:
    """Finish all pages that are not finished yet."""
    if exception is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            if "<html" in text and FINISHED not in text:
                page.write_text(finished(text, page, Path(app.outdir), app.config.ogp_site_url), encoding="utf-8")


def setup(app) -> dict:
    """Connect both; links before the theme and the page descriptions look at the settings."""
    app.connect("config-inited", connect_links, priority=100)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
