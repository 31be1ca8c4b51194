"""What can be seen of a page in Chromium. Each check tells what is wrong, one line for each thing."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, Playwright, Request, expect
from playwright.sync_api import TimeoutError as TooLate

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
AXE = Path(__file__).resolve().parents[2] / ".venv/web/node_modules/axe-core/axe.min.js"
SECONDS = 20_000  # milliseconds that a page may take for something
FOLLOWS = 5_000  # milliseconds until it has followed the system to dark
DESK = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
NAVIGATION = "header, .bd-header, .bd-header-article, .bd-sidebar-primary, .bd-sidebar-secondary, .prev-next-footer"

# Axe calls these violations; each is the theme's or a library's, and stays for the reason that is told.
KNOWN: tuple[tuple[str, str, str], ...] = ()  # (rule, part of the element's HTML, reason)


def chromium() -> str | None:
    """Where Chromium is."""
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


def launch(playwright: Playwright) -> Browser:
    """Start Chromium without a window."""
    return playwright.chromium.launch(executable_path=chromium(), args=FLAGS)


@dataclass
class Visit:
    """An open page, and what went wrong on it until now."""

    page: Page
    name: str
    errors: list[str] = field(default_factory=list)  # of scripts, and of requests that fail
    foreign: list[str] = field(default_factory=list)  # requests to other hosts
    waiting: int = 0  # requests without an answer
    transferred: int = 0  # bytes, as sent, until the page was loaded

    def rest(self) -> None:
        """Wait until nothing was asked for in a sixth of a second."""
        quiet = 0
        for _ in range(SECONDS // 50):
            quiet = 0 if self.waiting else quiet + 1
            if quiet > 3:
                return
            self.page.wait_for_timeout(50)
        self.errors.append("requests that never end")

    def ended(self, request: Request, failed: bool = False) -> None:
        """Note the end of a request; one that the page itself gave up is no error."""
        self.waiting -= 1
        if failed and request.failure not in ("net::ERR_ABORTED", "csp"):  # csp: scripts are turned off
            self.errors.append(f"{request.failure}: {request.url[:200]}")


@contextmanager
def visit(browser: Browser, site: str, name: str, **options: Any) -> Iterator[Visit]:
    """Open a page of a site in a browser that has nothing stored, and wait until it is still.

    Args:
        browser: Chromium.
        site: address of the index, http: or file:, with a slash at the end.
        name: such as ``01_data.html``.
        options: of Playwright's ``new_context``.
    """
    context = browser.new_context(**{"viewport": DESK, "reduced_motion": "reduce"} | options)
    try:
        page = context.new_page()
        seen = Visit(page, name)
        page.on("request", lambda request: watch(seen, site, request))
        page.on("requestfinished", seen.ended)
        page.on("requestfailed", lambda request: seen.ended(request, failed=True))
        page.on("response", lambda it: seen.errors.append(f"{it.status}: {it.url}") if it.status >= 400 else None)
        page.on("console", lambda it: seen.errors.append(f"console: {it.text}") if it.type == "error" else None)
        page.on("pageerror", lambda error: seen.errors.append(f"script: {error}"))
        session = count_bytes(context, page)
        page.goto(site + name, wait_until="load")
        seen.rest()
        seen.transferred = sum(session.sizes)
        yield seen
    finally:
        context.close()


def watch(seen: Visit, site: str, request: Request) -> None:
    """Note a request, above all one to another host."""
    seen.waiting += 1
    own = "file:" if site.startswith("file:") else site
    if not request.url.startswith((own, "data:", "blob:")):
        seen.foreign.append(f"{request.resource_type} {request.url[:200]}")


def count_bytes(context: BrowserContext, page: Page) -> CDPSession:
    """Note the size of all that is received, as it was sent (compressed), in the list ``sizes`` of the session."""
    session = context.new_cdp_session(page)
    session.sizes = []
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: session.sizes.append(int(event["encodedDataLength"])))
    return session


def settle(seen: Visit) -> None:
    """Wait for formulas, and bring every interactive figure to life."""
    page = seen.page
    if page.locator(".math").count():
        page.wait_for_selector("mjx-container", timeout=SECONDS, state="attached")
    for figure in page.locator(".pj").all():
        figure.scroll_into_view_if_needed()
        with suppress(AssertionError):  # the checks tell what a figure lacks that stays dead
            expect(figure).to_have_class(re.compile(r"\bpj-ready\b"))
    page.evaluate("scrollTo(0, 0)")
    seen.rest()


def formulas(page: Page) -> list[str]:
    """Formulas that MathJax could not set."""
    texts = page.locator("mjx-merror").evaluate_all("found => found.map(e => e.dataset.mjxError || e.textContent)")
    return [f"formula: {text}" for text in texts]


def sleeping(page: Page) -> list[str]:
    """Interactive figures that did not come to life."""
    return page.locator(".pj:not(.pj-ready)").evaluate_all(
        "found => found.map(figure => `figure ${figure.dataset.kind} is not ready`)"
    )


def accessible(page: Page, rules: tuple[str, ...] = ()) -> list[str]:
    """What axe finds: rule, how bad it is, and the element.

    Args:
        page: open page.
        rules: only these; empty: all that are on by themselves.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": list(rules)}
    violations = page.evaluate("async options => (await axe.run(document, options)).violations", options)
    wrong = []
    for violation in violations:
        for node in violation["nodes"]:
            if not any(violation["id"] == rule and part in node["html"] for rule, part, _ in KNOWN):
                target = " ".join(str(step) for step in node["target"])
                html = " ".join(node["html"].split())[:120]
                wrong.append(f"{violation['id']} ({violation['impact']}): {target}  {html}")
    return wrong


def dark(page: Page) -> list[str]:
    """Whether the page follows a reader whose system is dark, and its colours can be read then."""
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    try:
        page.wait_for_function("document.documentElement.dataset.theme == 'dark'", timeout=FOLLOWS)
        wrong = []
    except TooLate:
        wrong = [f"data-theme is {page.evaluate('document.documentElement.dataset.theme')}, not dark"]
    wrong += accessible(page, ("color-contrast", "link-in-text-block"))
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    return wrong


WIDE = """() => {
    const name = (e) => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "")
        + [...e.classList].slice(0, 3).map(c => "." + c).join("");
    const wide = (e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1
        && getComputedStyle(e).overflowX === "visible";
    return [...document.querySelectorAll("body *")]
        .filter(e => e.checkVisibility() && wide(e) && ![...e.children].some(wide)).map(name).slice(0, 5);
}"""


FLAT = """found => found.filter(e => e.checkVisibility() && e.clientHeight < 2)
    .map(e => `no room on a phone for the picture ${e.getAttribute("src").slice(0, 80)}`)"""


def phone(page: Page) -> list[str]:
    """What is wrong at a width of 360 pixels: what makes a page scroll sideways, and pictures without room.

    A picture that comes late gets its room before, or the text jumps under the reader's eyes.
    """
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(200)
    width = page.evaluate("document.documentElement.scrollWidth")
    culprits = page.evaluate(WIDE)
    wrong = page.locator("article img").evaluate_all(FLAT)
    page.set_viewport_size(DESK)
    if width > PHONE["width"] + 1:
        wrong.append(f"{width} px wide on a phone of {PHONE['width']}: {', '.join(culprits)}")
    return wrong


def shown(page: Page, selector: str) -> list[str]:
    """The visible elements among those that a selector finds."""
    return page.locator(selector).evaluate_all("""found => found
        .filter(e => e.checkVisibility({visibilityProperty: true}) && e.getBoundingClientRect().height > 0)
        .map(e => e.tagName.toLowerCase() + '.' + [...e.classList].join('.'))""")


def paper(page: Page) -> list[str]:
    """Whether print leaves the navigation out, and shows each interactive figure as its picture."""
    page.emulate_media(media="print")
    wrong = [f"in print: {element}" for element in shown(page, NAVIGATION)]
    wrong += [f"in print: controls of {element}" for element in shown(page, ".pj-live")]
    missing = page.locator(".pj").count() - len(shown(page, ".pj-still"))
    wrong += [f"in print: {missing} pictures of interactive figures are missing"] if missing else []
    wrong += [] if shown(page, "article h1, main h1") else ["in print: no heading"]
    page.emulate_media(media="screen", color_scheme="light", reduced_motion="reduce")
    return wrong


def without_scripts(page: Page) -> list[str]:
    """What a reader without scripts does not get, on a page that was opened without."""
    wrong = [f"without scripts: controls of {element}" for element in shown(page, ".pj-live")]
    missing = page.locator(".pj").count() - len(shown(page, ".pj-still"))
    wrong += [f"without scripts: {missing} pictures of interactive figures are missing"] if missing else []
    wrong += [] if shown(page, "article h1, main h1") else ["without scripts: no heading"]
    wrong += page.locator(".pj-still img").evaluate_all(
        "found => found.filter(e => !e.naturalWidth).map(e => `without scripts: picture ${e.src} is not shown`)"
    )
    texts = page.locator("article p, main p").count()
    read = len(shown(page, "article p, main p"))
    return wrong + ([f"without scripts: {read} of {texts} paragraphs can be read"] if read < texts / 2 else [])


CHECKS = (formulas, sleeping, accessible, dark, phone, paper)
