"""Links to a repository appear when its address is set, and only then."""

import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import repository_links

THERE = "https://github.com/Someone/book"


def connected(address: str, **more: str) -> SimpleNamespace:
    """Settings of a build after the extension has looked at them."""
    options = {"repository_url": address, "launch_buttons": {"notebook_interface": "jupyterlab"}}
    config = SimpleNamespace(html_theme_options=options, **({"html_baseurl": "", "ogp_site_url": ""} | more))
    repository_links.connect_links(None, config)
    return config


def test_without_an_address_there_is_no_link():
    config = connected("")
    assert not any(config.html_theme_options[button] for button in repository_links.BUTTONS)
    assert config.html_theme_options["launch_buttons"] == {"notebook_interface": "jupyterlab"}
    assert config.html_baseurl == config.ogp_site_url == ""


def test_one_address_brings_all_links():
    config = connected(THERE + ".git")
    assert config.html_theme_options["repository_url"] == THERE
    assert all(config.html_theme_options[button] for button in repository_links.BUTTONS)
    assert config.html_theme_options["launch_buttons"]["binderhub_url"] == repository_links.BINDER
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
    assert repository_links.pages_address(repository) == pages


def page(tags: str, doctree: object, site: str = "") -> str:
    """Meta tags of a page after the extension has seen them."""
    app = SimpleNamespace(config=SimpleNamespace(ogp_site_url=site, ogp_site_name="A <book>"))
    context = {"metatags": tags, "pathto": lambda path, resource: path}
    repository_links.describe(app, "genindex", "", context, doctree)
    return context["metatags"].removesuffix('<link rel="apple-touch-icon" href="_static/icon.png" />\n')


def test_every_page_has_one_description_and_no_made_up_address():
    assert page("", None).count('name="description" content="Index: a page of the book A &lt;book&gt;"') == 1
    own = '<meta name="description" content="x" />\n'
    assert page(own, object()) == page(own, None) == own
    url = '<meta property="og:url" content="index.html" />\n'
    assert page(url, object()) == ""
    assert page(url, object(), THERE) == url
