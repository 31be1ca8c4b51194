"""The built book, served on loopback, and one Chromium for all checks. They run when they are asked for by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, sync_playwright

from . import sources, visits
from .served import serve

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--site", default=str(ROOT / "_build" / "html"), help="folder of the built book")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """`make test` needs no built book: these checks are left out unless an argument names them."""
    asked = (Path(config.invocation_params.dir, argument.split("::")[0]).resolve() for argument in config.args)
    return None if any(path.is_relative_to(HERE) for path in asked) else True


def folder_of(config: pytest.Config) -> Path:
    """Where the built book is."""
    return Path(config.getoption("--site")).resolve()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say once what is missing, not with every test. ``items`` may hold tests from elsewhere."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    if any("book" in getattr(item, "fixturenames", ()) for item in ours):
        if not (folder_of(config) / "index.html").is_file():
            raise pytest.UsageError(f"no book in {folder_of(config)}: run `make book` first")
    if ours and not visits.chromium():
        raise pytest.UsageError("Chromium is missing (on Debian: sudo apt-get install chromium)")
    if ours and not visits.AXE.is_file():
        raise pytest.UsageError("axe-core is missing: start these checks by `make test-web`")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each page, or for each page with an interactive figure.

    Those of a page run one after the other, in one process.
    """
    folder = folder_of(metafunc.config)
    names = sources.pages(folder) if folder.is_dir() else []
    if "alive" in metafunc.fixturenames:
        names = [name for name in names if 'class="pj"' in (folder / name).read_text(encoding="utf-8")]
    if "name" in metafunc.fixturenames:
        marked = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names]
        metafunc.parametrize("name", marked, scope="module", ids=[name.removesuffix(".html") for name in names])


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with sync_playwright() as playwright:
        browser = visits.launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def folder(pytestconfig: pytest.Config) -> Path:
    """Where the built book is."""
    return folder_of(pytestconfig)


@pytest.fixture(scope="session")
def book(folder: Path) -> Iterator[str]:
    """Address of the book's index, below a path, with a slash at its end."""
    with serve(folder) as address:
        yield address


@pytest.fixture(scope="module")
def source(folder: Path, name: str) -> sources.Source:
    """The file of a page."""
    return sources.Source(folder, name)


@pytest.fixture(scope="module")
def visit(browser: Browser, book: str, name: str) -> Iterator[visits.Visit]:
    """A page that is open and still, with its interactive figures alive."""
    with visits.visit(browser, book, name) as seen:
        visits.settle(seen)
        yield seen


@pytest.fixture
def alive(visit: visits.Visit) -> list[Locator]:
    """The interactive figures of a page."""
    return visit.page.locator(".pj").all()
