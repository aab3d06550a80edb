"""The directive ``metrics-schema``: the tables of the pydantic model behind ``metrics.json``.

The JSON schema itself becomes the file ``metrics.schema.json`` of the site.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from registry_tables import table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Schema = Mapping[str, Any]


def metrics_schema() -> Schema:
    """Return the JSON schema of ``metrics.json``."""
    from featurecache.metrics.metrics import Metrics

    return Metrics.model_json_schema()


def type_name(schema: Schema) -> str:
    """Describe the type of one field in a few words.

    Args:
        schema: The JSON schema of the field.

    Returns:
        For example "number or null", "list of integer" or the name of another table.
    """
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(type_name(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if "const" in schema:
        return f'"{schema["const"]}"'
    kind = str(schema.get("type", "any"))
    if kind == "array":
        items = schema.get("prefixItems")
        if items:
            return "[" + ", ".join(type_name(item) for item in items) + "]"
        return f"list of {type_name(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {type_name(schema['additionalProperties'])} by name"
    return kind


def plain_text(docstring: str) -> str:
    """Return a piece of a docstring as it reads about JSON: one line, no markup, null for None."""
    return re.sub(r"\bNone\b", "null", " ".join(docstring.replace("``", "").split()))


def models(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield the document itself and every model that it refers to, with their schemas."""
    yield str(schema["title"]), schema
    yield from schema.get("$defs", {}).items()


def field_descriptions(model_name: str) -> dict[str, str]:
    """Read what the fields of a model mean from its docstring and those of its bases.

    Args:
        model_name: Name of a model of ``featurecache.metrics``.

    Returns:
        Field name to description.
    """
    from featurecache.metrics.document import Document

    classes = [Document]
    for one in classes:  # it grows
        classes += one.__subclasses__()
    model = next(one for one in classes if one.__name__ == model_name)
    descriptions: dict[str, str] = {}
    for base in reversed(model.__mro__):
        section = (inspect.getdoc(base) or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            descriptions[name] = plain_text(text)
    return descriptions


class MetricsSchema(SphinxDirective):
    """One section with a table for each model."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return [_section(name, model) for name, model in models(metrics_schema())]


def _section(name: str, model: Schema) -> nodes.section:
    section = nodes.section(ids=[nodes.make_id(f"schema-{name}")])
    section += nodes.title(text=name)
    description = str(model.get("description", "")).partition("\n\n")[0]
    if description:
        section += nodes.paragraph("", plain_text(description))
    required = model.get("required", ())
    descriptions = field_descriptions(name)
    rows = [
        (
            field,
            type_name(schema),
            descriptions.get(field, ""),
            "yes" if field in required else "–",
        )
        for field, schema in model.get("properties", {}).items()
    ]
    section += table(("key", "type", "meaning", "required"), rows)
    return section


def write_schema(app: Sphinx) -> None:
    """Write the JSON schema to where the page's download link points."""
    folder = Path(app.srcdir) / "_build"
    folder.mkdir(exist_ok=True)
    text = json.dumps(metrics_schema(), indent=2) + "\n"
    (folder / "metrics.schema.json").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("metrics-schema", MetricsSchema)
    app.connect("builder-inited", write_schema)
    return {"parallel_read_safe": True}
