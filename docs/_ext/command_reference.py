"""The directive ``commands``: every command with its help and options.

It reads the same typer objects that print ``--help``, so that the page cannot fall behind them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.core import TyperCommand


def commands() -> Iterator[tuple[str, TyperCommand]]:
    """Yield every command, in the order of ``featurecache --help``.

    Yields:
        The command as it is typed, such as "featurecache cache ls", and the command itself.
    """
    from typer.main import get_command

    from featurecache.cli.app import app

    yield from _walk("featurecache", get_command(app))


def _walk(name: str, command: Any) -> Iterator[tuple[str, TyperCommand]]:
    if getattr(command, "invoke_without_command", False):
        yield name, command
    if hasattr(command, "commands"):
        for child_name, child in command.commands.items():
            yield from _walk(f"{name} {child_name}", child)
    else:
        yield name, command


def options(name: str, command: TyperCommand) -> list[tuple[str, str]]:
    """Return the arguments and options of a command with their help.

    Args:
        name: The command as it is typed.
        command: The command.

    Returns:
        Pairs of the declaration, such as "--top INTEGER", and the help with the default.
    """
    context = command.context_class(command, info_name=name)
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    return [record for record in records if record is not None]


class Commands(SphinxDirective):
    """One section for each command."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return [self._section(name, command) for name, command in commands()]

    def _section(self, name: str, command: TyperCommand) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(name)])
        section += nodes.title(text=name)
        context = command.context_class(command, info_name=name)
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        section += nodes.literal_block(usage, usage, language="text")
        for paragraph in (command.help or "").replace("\b", "").split("\n\n"):
            text = " ".join(paragraph.split())
            if text.startswith("Example: "):
                example = text.removeprefix("Example: ")
                section += nodes.literal_block(example, example, language="sh")
            elif text:
                section += nodes.paragraph("", text)
        section += _definitions(options(name, command))
        return section


def _definitions(rows: Sequence[tuple[str, str]]) -> nodes.definition_list:
    definitions = nodes.definition_list()
    for declaration, text in rows:
        definitions += nodes.definition_list_item(
            "",
            nodes.term("", "", nodes.literal(declaration, declaration)),
            nodes.definition("", nodes.paragraph("", " ".join(text.split()))),
        )
    return definitions


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
