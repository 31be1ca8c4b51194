"""Every page of the built book: files, requests, formulas, accessibility, dark, phone, paper, and without scripts."""

import pytest

from . import sources, visits

LANDING, PAGE = 1_000_000, 5_000_000  # bytes that a page may transfer when it is opened


def expect_nothing(wrong: list[str]) -> None:
    """Fail with what is wrong, without the code that found it."""
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


@pytest.mark.parametrize("check", sources.CHECKS, ids=lambda check: check.__name__)
def test_file(source, check):
    expect_nothing(check(source))


def test_bytes(visit):
    limit = LANDING if visit.name == "index.html" else PAGE
    expect_nothing([f"{visit.transferred / 1e6:.2f} MB, more than {limit / 1e6}"] * (visit.transferred >= limit))


@pytest.mark.parametrize("check", visits.CHECKS, ids=lambda check: check.__name__)
def test_page(visit, check):
    expect_nothing(check(visit.page))


def test_requests(visit):
    """Last, so that what the checks before set off is seen too."""
    expect_nothing(visit.errors + [f"another host: {request}" for request in visit.foreign])


def test_the_search_finds_the_chapter(browser, book):
    with visits.visit(browser, book, "search.html?q=tubelet") as seen:
        found = seen.page.locator("#search-results li a[href*='03_architecture']").first
        found.wait_for()
        expect_nothing(seen.errors + seen.foreign)


def test_without_scripts(browser, book, name):
    with visits.visit(browser, book, name, java_script_enabled=False) as seen:
        expect_nothing(visits.without_scripts(seen.page) + seen.errors + seen.foreign)


def test_from_disk(browser, folder, name):
    with visits.visit(browser, folder.as_uri() + "/", name) as seen:
        visits.settle(seen)
        expect_nothing(visits.formulas(seen.page) + visits.sleeping(seen.page) + seen.errors + seen.foreign)
