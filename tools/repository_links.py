"""Sphinx extension of the book: what depends on where its repository and its pages are.

One address in `_config.yml`, ``repository: {url: ...}``, brings the links to the repository, to edit a page, to report
an error and to launch a notebook. Without it there is no link that leads nowhere.
"""

import html
import re
from urllib.parse import urlsplit

BUTTONS = ("use_repository_button", "use_edit_page_button", "use_issues_button")
BINDER = "https://mybinder.org"
OWN_TITLES = {"genindex": "Index", "py-modindex": "Index of modules", "search": "Search"}  # Sphinx gives them none


def pages_address(repository: str) -> str:
    """Where GitHub publishes the pages of a repository; empty for repositories elsewhere."""
    parts = urlsplit(repository)
    owner, _, name = parts.path.strip("/").partition("/")
    if parts.netloc != "github.com" or not name:
        return ""
    own = f"{owner}.github.io".lower()
    return f"https://{own}/" if name.lower() == own else f"https://{own}/{name}/"


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


def describe(app, pagename, templatename, context, doctree) -> None:
    """Describe pages without a text of their own, name no address where none is known, and the icon as a picture."""
    tags = context.get("metatags", "")
    if not app.config.ogp_site_url:
        tags = re.sub(r'<meta property="og:url"[^>]*>\n?', "", tags)
    if doctree is None and 'name="description"' not in tags:
        title = context.get("title") or OWN_TITLES.get(pagename, pagename)
        text = html.escape(f"{title}: a page of the book {app.config.ogp_site_name}")
        tags += f'<meta name="description" content="{text}" />\n'
    icon = context["pathto"]("_static/icon.png", resource=True)
    context["metatags"] = f'{tags}<link rel="apple-touch-icon" href="{icon}" />\n'


def setup(app) -> dict:
    """Connect both; links before the theme and the page descriptions look at the settings."""
    app.connect("config-inited", connect_links, priority=100)
    app.connect("html-page-context", describe, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
