"""The directive ``registry``: a table of the models, data sets, prompt sets or heads.

In a page::

    ```{registry} models
    ```

The rows come from the registries that the commands of the same name print.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from featurecache.encoders.registry import EncoderSpec

Table = tuple[tuple[str, ...], Iterable[Sequence[str]]]
"""Column titles, and rows of text whose first cell is a name."""


def models() -> Table:
    """Return the registered encoders."""
    from featurecache.encoders.registry import ENCODERS

    def row(name: str) -> tuple[str, ...]:
        spec = ENCODERS[name]
        note = spec.note
        if spec.members:
            note = f"{' and '.join(spec.members)}; {note}"
        if spec.extra:
            note = f"extra {spec.extra}; {note}"
        return (
            name,
            ", ".join(spec.hub_ids) or _source_of(spec),
            str(spec.dim),
            "–" if spec.pixels is None else str(spec.pixels),
            "yes" if spec.aligned else "no",
            spec.license,
            ", ".join(spec.exposed_to) or "–",
            note,
        )

    columns = ("name", "hub", "dim", "pixels", "aligned", "license", "may have seen", "note")
    return columns, map(row, ENCODERS)


def _source_of(spec: "EncoderSpec") -> str:
    if spec.download:
        return "to be converted"
    return "ships with the package" if spec.embedded else "–"


def datasets() -> Table:
    """Return the registered data sets."""
    from featurecache.datasets.registry import DATASETS

    may_share = {True: "yes", False: "no", None: "not stated"}
    rows = (
        (
            *(spec.name, spec.description, spec.terms),
            may_share[spec.may_share] if spec.terms_url else "–",
            spec.terms_read if spec.terms_url else "–",
            ", ".join(spec.options),
        )
        for spec in DATASETS.values()
    )
    columns = ("name", "what it is", "terms", "embeddings may be shared", "terms known from")
    return (*columns, "options of load_dataset"), rows


def prompts() -> Table:
    """Return the prompt sets."""
    from featurecache.prompts import PROMPT_SETS

    rows = (
        (name, "; ".join(prompt_set.templates), "; ".join(prompt_set.negatives) or "–")
        for name, prompt_set in PROMPT_SETS.items()
    )
    return ("name", "finding present", "finding absent"), rows


def heads() -> Table:
    """Return the registered heads."""
    from featurecache.heads.registry import HEADS

    use_of_text = {"none": "–", "constant": "a constant", "aligned": "compared"}
    rows = (
        (spec.name, spec.summary, use_of_text[spec.text], "yes" if spec.has_epochs else "no")
        for spec in HEADS.values()
    )
    return ("name", "what it is", "text", "epochs"), rows


TABLES: dict[str, Callable[[], Table]] = {
    "models": models,
    "datasets": datasets,
    "prompts": prompts,
    "heads": heads,
}


class Registry(SphinxDirective):
    """The table of one registry."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        if self.arguments[0] not in TABLES:
            raise self.error(f"no registry {self.arguments[0]!r}: use one of {', '.join(TABLES)}")
        return [table(*TABLES[self.arguments[0]]())]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> nodes.table:
    """Build a table whose first column holds names.

    Args:
        columns: The titles.
        rows: The cells, as plain text.

    Returns:
        The docutils node.
    """
    group = nodes.tgroup(cols=len(columns))
    group += [nodes.colspec(colwidth=1) for _ in columns]
    head, body = nodes.thead(), nodes.tbody()
    head += _row(columns, first_is_name=False)
    body += [_row(row, first_is_name=True) for row in rows]
    group += [head, body]
    return nodes.table("", group)


def _row(cells: Sequence[str], *, first_is_name: bool) -> nodes.row:
    row = nodes.row()
    for column, text in enumerate(cells):
        is_name = first_is_name and column == 0
        inline: nodes.Node = nodes.literal(text, text) if is_name else nodes.Text(text)
        row += nodes.entry("", nodes.paragraph("", "", inline))
    return row


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("registry", Registry)
    return {"parallel_read_safe": True}
