"""The directive ``api-summary``: every public name with the first line of its docstring."""

import inspect
from typing import Any

from docutils import nodes
from registry_tables import table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def summaries() -> list[tuple[str, str]]:
    """Return each name of ``featurecache.__all__`` with its summary line."""
    import featurecache

    rows = []
    for name in featurecache.__all__:
        value = getattr(featurecache, name)
        if callable(value):
            rows.append((name, (inspect.getdoc(value) or "").partition("\n")[0]))
    return rows


class ApiSummary(SphinxDirective):
    """The table."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return [table(("name", "what it does"), summaries())]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("api-summary", ApiSummary)
    return {"parallel_read_safe": True}
