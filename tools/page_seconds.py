"""Sphinx extension of the book: the seconds that each page took when it was last run, on a page and in the log.

On the page they stand in the place of MyST-NB's ``{nb-exec-table}``, with titles and their sum.
"""

from docutils import nodes
from myst_nb.ext.execution_tables import ExecutionStatsNode
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

logger = logging.getLogger(__name__)


def seconds_of(env) -> dict[str, float]:
    """Page -> seconds, for all pages that are run."""
    runs = {page: NbMetadataCollector.get_exec_data(env, page) for page in sorted(env.found_docs)}
    return {page: run["runtime"] for page, run in runs.items() if run and run.get("runtime")}


def row(*cells: nodes.Node) -> nodes.row:
    """A row of a table."""
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def table(names: tuple[str, str], rows: list[nodes.row]) -> nodes.table:
    """A table of two columns under a line of names."""
    head = nodes.thead("", row(*map(nodes.Text, names)))
    columns = [nodes.colspec(colwidth=width) for width in (80, 20)]
    group = nodes.tgroup("", *columns, head, nodes.tbody("", *rows), cols=2)
    return nodes.table("", group, classes=["colwidths-auto"])


class PageSeconds(SphinxPostTransform):
    """Put the table in the place of ``{nb-exec-table}``, before MyST-NB puts its own there."""

    default_priority = 7

    def run(self, **kwargs) -> None:
        """Replace all such places of a page."""
        for place in list(self.document.findall(ExecutionStatsNode)):
            seconds = seconds_of(self.env)
            rows = [row(self.link(page), nodes.Text(f"{taken:.0f}")) for page, taken in seconds.items()]
            rows.append(row(nodes.strong("", "all pages"), nodes.strong("", f"{sum(seconds.values()):.0f}")))
            place.replace_self(table(("page", "seconds"), rows))

    def link(self, page: str) -> nodes.reference:
        """A page's title, as a link."""
        address = self.app.builder.get_relative_uri(self.env.docname, page)
        return nodes.reference("", self.env.titles[page].astext(), internal=True, refuri=address)


def tell(app, exception) -> None:
    """Say in the log of a build that ended well how long the pages took."""
    if exception is None and not app._warncount:
        seconds = seconds_of(app.env)
        rows = [*seconds.items(), ("all pages", sum(seconds.values()))]
        lines = "\n".join(f"{name:<20}{taken:8.0f} s" for name, taken in rows)
        logger.info("\nSeconds when last run:\n%s\n", lines)


def setup(app) -> dict:
    """Connect both."""
    app.add_post_transform(PageSeconds)
    app.connect("build-finished", tell)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
