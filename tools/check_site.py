"""Open every page of the built book in Chromium: no foreign request, no console error, sliders that work.

Usage: python tools/check_site.py [folder of the built book]
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SHOWN = """box => {
    const copy = box.cloneNode(true);
    copy.querySelectorAll('.widget-slider').forEach(slider => slider.remove());
    return copy.innerHTML;
}"""


def sliders(page: Page) -> list[str]:
    """What is wrong with the sliders: an arrow key on each must change what is shown in its box."""
    if not page.locator('script[type="application/vnd.jupyter.widget-view+json"]').count():
        return []
    page.wait_for_selector(".jupyter-widgets", timeout=20_000)
    wrong = []
    boxes = page.locator(
        "xpath=//*[contains(@class, 'widget-vbox')][not(ancestor::*[contains(@class, 'widget-vbox')])]"
    )
    for tab in page.locator(".widget-tab .lm-TabBar-tab").all() or [None]:
        if tab is not None:
            tab.click()
        for box in boxes.all():
            for handle in box.locator(".noUi-handle").all():
                if handle.is_visible() and not changes(page, box, handle):
                    wrong.append("a slider changes nothing but itself")
    return wrong


def changes(page: Page, box: Locator, handle: Locator) -> bool:
    """Whether an arrow key on a slider's handle changes what its box shows."""
    before = box.evaluate(SHOWN)
    at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
    handle.focus()
    page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
    page.wait_for_timeout(300)
    return box.evaluate(SHOWN) != before


def check(page: Page, path: Path) -> list[str]:
    """What is wrong with one page."""
    wrong: list[str] = []

    def request(route, request):
        if request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            wrong.append(f"asks for {request.url}")
            route.abort()

    page.route("**/*", request)
    page.on("console", lambda message: wrong.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.goto(path.resolve().as_uri(), wait_until="load")
    if page.locator(".math").count():
        page.wait_for_selector("mjx-container", timeout=20_000)
        if page.locator("mjx-merror").count():
            wrong.append("a formula has an error")
    wrong += sliders(page)
    page.wait_for_timeout(300)
    return wrong


def main() -> int:
    """Check all pages; return 1 if something is wrong."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "_build/html")
    pages = sorted(folder.glob("*.html"))
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not pages or not chromium:
        print(f"{folder} has {len(pages)} pages; Chromium: {chromium or 'not found'}")
        return 1
    failures = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for path in pages:
            page = browser.new_page()
            for wrong in check(page, path):
                failures += 1
                print(f"{path.name}: {wrong}")
            page.close()
        browser.close()
    print(f"{len(pages)} pages opened, {failures} things wrong")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
