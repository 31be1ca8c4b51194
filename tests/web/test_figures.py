"""Every interactive figure answers to mouse and keyboard; then what each of them is for."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, expect

from . import figures, sources, visits
from .test_pages import expect_nothing

KINDS = ("masks", "training_film", "attention", "imagined", "votes", "maps", "power")


@pytest.fixture(scope="module")
def pages_of(folder) -> dict[str, str]:
    """Kind of figure -> the first page that has one."""
    found: dict[str, str] = {}
    for name in sources.pages(folder):
        for kind in re.findall(r'class="pj" data-kind="(\w+)"', (folder / name).read_text(encoding="utf-8")):
            found.setdefault(kind, name)
    return found


@pytest.fixture
def figure(request, browser: Browser, book: str, pages_of: dict[str, str]) -> Iterator[Locator]:
    """The first figure of the kind that is asked for, alive, on a page that was opened for it."""
    if request.param not in pages_of:
        pytest.fail(f"no page has a figure of kind {request.param}", pytrace=False)
    with visits.visit(browser, book, pages_of[request.param]) as seen:
        figure = seen.page.locator(f".pj[data-kind={request.param}]").first
        figure.scroll_into_view_if_needed()
        seen.page.wait_for_selector(f".pj-ready[data-kind={request.param}]")
        seen.rest()
        yield figure
        expect_nothing(seen.errors + seen.foreign)


def of_kind(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("figure", [kind], indirect=True)


def said(figure: Locator) -> str:
    """What the figure says in words."""
    return " ".join(figure.locator("[role=status]").all_text_contents())


def told_by_choice(figure: Locator, number: int = 0) -> list[str]:
    """What the figure says for each choice of its first, second, ... select."""
    box = figure.get_by_role("combobox").nth(number)
    told = []
    for index in range(box.locator("option").count()):
        box.select_option(index=index)
        told.append(said(figure))
    return told


def painted(figure: Locator) -> int:
    """How many different pixels a figure's first film has, once it is here."""
    film = figure.locator("canvas").first
    expect(film).not_to_have_attribute("aria-busy", "true")
    return film.evaluate("""canvas => {
        const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;
    }""")


@pytest.mark.parametrize("check", figures.CHECKS, ids=lambda check: check.__name__)
def test_figures_answer(alive, visit, check):
    expect_nothing([f"{f.get_attribute('data-kind')}: {wrong}" for f in alive for wrong in check(f)])
    expect_nothing(visit.errors + visit.foreign)


def test_the_book_has_every_figure(pages_of):
    assert set(pages_of) == set(KINDS)


@of_kind("maps")
def test_a_dot_that_is_focused_plays_its_clip(figure):
    dots = figure.locator("svg [role=option]")
    first, last = (dots.nth(at) for at in (0, dots.count() - 1))
    first.focus()
    before = said(figure)
    first.press("End")
    assert last.get_attribute("aria-selected") == "true"
    assert said(figure) != before
    assert last.get_attribute("aria-label").split(": ")[1] in said(figure)
    assert painted(figure) > 8 or figure.get_by_text("holds no film of this clip").is_visible()


@of_kind("power")
def test_more_videos_and_a_larger_lead_tell_more(figure):
    percent = []
    for videos, lead in (("Home", "Home"), ("End", "Home"), ("End", "End")):
        figure.get_by_role("slider", name="Videos").press(videos)
        figure.get_by_role("slider", name="Lead").press(lead)
        percent.append(float(figure.get_attribute("data-state").split("; ")[2].removesuffix(" %")))
    assert percent == sorted(set(percent))
    assert f"{percent[-1]:.0f} %" in said(figure)


@of_kind("votes")
def test_the_next_video_has_votes_of_its_own(figure):
    tables = set()
    number = figure.get_by_role("combobox", name="Video", exact=True).locator("option").count()
    for _ in range(min(number, 5)):
        tables.add(figure.locator("tbody").inner_text())
        if figure.get_by_role("button", name="Next", exact=True).is_enabled():
            figure.get_by_role("button", name="Next", exact=True).click()
    assert len(tables) > 1
    assert "The vote" in said(figure)


@of_kind("masks")
def test_every_kind_of_mask_is_told_with_its_share(figure):
    shares = [re.search(r"[\d.]+ % of the tokens are hidden", text).group() for text in told_by_choice(figure)]
    assert len(set(shares)) > 1
    assert painted(figure) > 2


@of_kind("attention")
def test_each_clip_and_each_encoder_has_an_attention_of_its_own(figure):
    for number in (0, 1):
        assert len(set(told_by_choice(figure, number))) > 1
    assert painted(figure) > 8


@of_kind("imagined")
def test_each_clip_has_imagined_cells_of_its_own(figure):
    assert len(set(told_by_choice(figure))) > 1
    assert painted(figure) > 8


@of_kind("training_film")
def test_the_film_of_a_training_goes_from_its_first_step_to_the_last(figure):
    step = figure.get_by_role("slider", name="Step")
    step.press("Home")
    assert "Step 0 of" in said(figure)
    assert "its loss is that of random weights" in said(figure)
    step.press("End")
    at, last = re.search(r"Step (\d+) of (\d+)", said(figure)).groups()
    assert at == last != "0"
    assert "random weights" not in said(figure)
    assert painted(figure) > 8
