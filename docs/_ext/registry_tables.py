"""Tables of what the registries hold, made when the site is built.

In a page::

    ```{registry} models
    ```

with ``models``, ``datasets``, ``dataset-options``, ``prompts`` or ``heads``. What is listed is
what the commands of the same name list, so that a page cannot fall behind the code.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Rows = Iterable[Sequence[str]]
"""Cells as text; those of the first column are names."""


def models() -> tuple[tuple[str, ...], Rows]:
    """The encoders of ``--model``."""
    from featurecache.encoders.registry import SPECS

    def row(name: str) -> tuple[str, ...]:
        spec = SPECS[name]
        note = spec.note
        if spec.parts:
            note = f"{' and '.join(spec.parts)}; {note}"
        if spec.extra:
            note = f"extra {spec.extra}; {note}"
        return (
            name,
            ", ".join(spec.hub_ids) or ("ships with the package" if spec.embedded else "–"),
            str(spec.dim),
            "–" if spec.pixels is None else str(spec.pixels),
            "yes" if spec.aligned else "no",
            spec.license,
            ", ".join(spec.exposed_to) or "–",
            note,
        )

    columns = ("name", "hub", "values", "pixels", "aligned", "license", "may have seen", "note")
    return columns, map(row, SPECS)


def datasets() -> tuple[tuple[str, ...], Rows]:
    """The data sets of ``--dataset``."""
    from featurecache.datasets.registry import DATASETS

    rows = ((spec.name, spec.description, spec.terms) for spec in DATASETS.values())
    return ("name", "what it is", "terms"), rows


def dataset_options() -> tuple[tuple[str, ...], Rows]:
    """What ``load_dataset`` takes for each data set."""
    from featurecache.datasets.registry import DATASETS

    rows = ((spec.name, ", ".join(spec.options), str(spec.loader)) for spec in DATASETS.values())
    return ("name", "options of load_dataset", "loader"), rows


def prompts() -> tuple[tuple[str, ...], Rows]:
    """The prompt sets of ``--prompts``."""
    from featurecache.prompts import PROMPT_SETS

    rows = (
        (name, "; ".join(chosen.templates), "; ".join(chosen.negatives) or "–")
        for name, chosen in PROMPT_SETS.items()
    )
    return ("name", "says that it is there", "says that it is not"), rows


def heads() -> tuple[tuple[str, ...], Rows]:
    """The heads of ``--head``."""
    from featurecache.heads.registry import HEADS

    said = {"none": "–", "constant": "a constant", "aligned": "compared"}
    rows = (
        (spec.name, spec.summary, said[spec.text], "yes" if spec.has_epochs else "no")
        for spec in HEADS.values()
    )
    return ("name", "what it is", "text", "in epochs"), rows


TABLES: dict[str, Callable[[], tuple[tuple[str, ...], Rows]]] = {
    "models": models,
    "datasets": datasets,
    "dataset-options": dataset_options,
    "prompts": prompts,
    "heads": heads,
}


class Registry(SphinxDirective):
    """The directive."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """The table."""
        if self.arguments[0] not in TABLES:
            raise self.error(f"no registry {self.arguments[0]!r}: take {', '.join(TABLES)}")
        columns, rows = TABLES[self.arguments[0]]()
        group = nodes.tgroup(cols=len(columns))
        group += [nodes.colspec(colwidth=1) for _ in columns]
        head, body = nodes.thead(), nodes.tbody()
        head += _row(columns, named=False)
        body += [_row(row, named=True) for row in rows]
        group += [head, body]
        return [nodes.table("", group)]


def _row(cells: Sequence[str], *, named: bool) -> nodes.row:
    row = nodes.row()
    for column, text in enumerate(cells):
        inline: nodes.Node = nodes.Text(text)
        if named and column == 0:
            inline = nodes.literal(text, text)
        row += nodes.entry("", nodes.paragraph("", "", inline))
    return row


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("registry", Registry)
    return {"parallel_read_safe": True}
