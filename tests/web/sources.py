"""What can be seen in the HTML files without a browser. Each check tells what is wrong, one line for each thing."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, NavigableString, Tag

ADDRESSES = {  # attributes that name a file, and whether the browser asks for it by itself
    "a[href], area[href]": ("href", False),
    "link[href]": ("href", True),
    "[src]": ("src", True),
    "[poster]": ("poster", True),
    "[srcset]": ("srcset", True),
    "object[data]": ("data", True),
}
MEDIA = re.compile(r'"([^"\\<>]{1,300}\.(?:webp|png|jpe?g|gif|svg|mp4|webm|bin))"')
CODE = ("pre", "code", "script", "style", "template")
RAW = re.compile(
    r"""
    \{[a-z][\w:-]*\}`        # a role: {doc}`...`
    | [`:~]{3,}\{[\w:-]+\}   # a directive: ```{note} or :::{note}
    | ^\s*:::+\s*$           # its end
    | \bpasted:|\bglue:|No\ key:\s
    | \[\[?@?\?\?*\]?\]      # a citation that was not found
    | <IPython\.core|<Figure\ size|Text\(\d
""",
    re.VERBOSE | re.MULTILINE,
)


class Source:
    """One HTML file of a site."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.text = (folder / name).read_text(encoding="utf-8")
        self.soup = BeautifulSoup(self.text, "html.parser")


def pages(folder: Path) -> list[str]:
    """Names of all pages, those in folders too."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*.html")))
    return [path.as_posix() for path in found if path.parts[0] not in ("_static", "_sources")]


@cache
def anchors(path: Path, modified: int) -> frozenset[str]:
    """Names to which a link into the page may point."""
    return frozenset(re.findall(r"""\b(?:id|name)=["']([^"']+)""", path.read_text(encoding="utf-8")))


def addresses(source: Source) -> Iterator[tuple[str, str, bool]]:
    """Tag, address, and whether the browser asks for it by itself, of all that the page names."""
    for selector, (attribute, asked) in ADDRESSES.items():
        for tag in source.soup.select(selector):
            value = tag[attribute]
            parts = [part.split()[0] for part in value.split(",")] if attribute == "srcset" else [value]
            yield from ((tag.name, part, asked) for part in parts)
    for script in source.soup.select('script[type="application/json"]'):
        yield from (("data of a figure", address, True) for address in MEDIA.findall(script.string or ""))


def links(source: Source) -> list[str]:
    """Links, anchors and media that lead nowhere, out of the site, or make the browser ask another host."""
    wrong = []
    root = source.folder.resolve()
    for tag, address, asked in addresses(source):
        parts = urlsplit(address)
        if parts.scheme in ("data", "blob", "mailto", "javascript"):
            continue
        if parts.scheme or parts.netloc:
            if asked and "canonical" not in str(source.soup.find(tag, href=address)):
                wrong.append(f"{tag}: asks another host for {address}")
            continue
        here = source.folder / source.name
        path = (here.parent / unquote(parts.path)).resolve() if parts.path else here.resolve()
        path = path / "index.html" if path.is_dir() else path
        if parts.path.startswith("/") or not path.is_relative_to(root):
            wrong.append(f"{tag}: leaves the folder of the book: {address}")
        elif not path.is_file():
            wrong.append(f"{tag}: no file {address}")
        elif parts.fragment and path.suffix == ".html":
            if unquote(parts.fragment) not in anchors(path, path.stat().st_mtime_ns):
                wrong.append(f"{tag}: no anchor {address}")
    return sorted(set(wrong))


def outline(source: Source) -> list[str]:
    """What lacks of language, title, one first heading, and a description for search engines."""
    soup = source.soup
    wrong = []
    if not (soup.html and soup.html.get("lang")):
        wrong.append("no language: <html lang=...>")
    if not (soup.title and soup.title.get_text(strip=True)):
        wrong.append("no title")
    if not soup.select('meta[name="viewport"]'):
        wrong.append("no viewport: a phone shows the page small")
    if (count := len(soup.select("h1"))) != 1:
        wrong.append(f"{count} headings h1: {[h.get_text(strip=True)[:40] for h in soup.select('h1')]}")
    description = soup.select_one('meta[name="description"]')
    if not (description and description.get("content", "").strip()):
        wrong.append("no description: <meta name=description>")
    return wrong


def pictures(source: Source) -> list[str]:
    """Pictures without a text alternative, and media that are not files of their own."""
    soup = source.soup
    wrong = [f"no alt: <img src={str(tag.get('src'))[:60]}>" for tag in soup.select("img:not([alt])")]
    wrong += [
        f"empty alt: <img src={str(tag.get('src'))[:60]}>"
        for tag in soup.select('article img[alt=""]')
        if tag.get("role") != "presentation" and not tag.get("aria-hidden")
    ]
    for found in re.finditer(r"data:([a-z]+/[\w.+-]+)[;,][^\"'\\)\s<]{10000,}", source.text):
        before = re.sub(r"\s+", " ", source.text[max(0, found.start() - 60) : found.start()])
        wrong.append(f"{found.group(1)} of {len(found.group()) // 1000} kB inside the page after ...{before}")
    return wrong


def prose(tag: Tag) -> Iterator[str]:
    """The text of an element, without code and formulas."""
    for child in tag.children:
        if isinstance(child, Tag):
            if child.name not in CODE and "math" not in child.get("class", ()):
                yield from prose(child)
        elif type(child) is NavigableString:
            yield child


def words(source: Source) -> list[str]:
    """Text that nobody should see: roles and directives, messages of errors, what a program prints by mistake."""
    wrong = [
        f"{tag['class'][-1]} in an output: {tag.get_text(' ', strip=True)[:90]}"
        for tag in source.soup.select(".output.stderr, .output.traceback, .system-message")
    ]
    text = "\n".join(prose(source.soup.body))
    for found in RAW.finditer(text):
        around = text[max(0, found.start() - 30) : found.end() + 30]
        wrong.append("raw text: " + " ".join(around.split()))
    if source.soup.select_one('script[type*="vnd.jupyter.widget-view"]'):
        wrong.append("a widget that needs a kernel")
    if "Traceback (most recent call last)" in text:
        wrong.append("a traceback")
    return wrong


CHECKS = (links, outline, pictures, words)
