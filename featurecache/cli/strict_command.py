"""A command that refuses repeated options, and whose help can be read in a narrow terminal."""

import shutil
from collections import Counter
from typing import Any, Final

import typer
from typer.core import TyperCommand

_MIN_TABLE_WIDTH: Final = 110
"""In fewer columns, a table of options leaves its descriptions less than half of the line."""


class StrictCommand(TyperCommand):
    """A command whose options may be repeated only if they take several values.

    click would drop all but the last value.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; see ``TyperCommand``.

        Raises:
            typer.BadParameter: An option of one value is given twice.
        """
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, count in Counter(order).items():
            takes_one = parameter.param_type_name == "option" and not parameter.multiple
            if takes_one and count > 1:
                raise typer.BadParameter(
                    f"it is given {count} times, but takes one value: give it once",
                    ctx=ctx,
                    param_hint=parameter.opts[0],
                )
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help: as a table, or as click does where that would be cramped."""
        if shutil.get_terminal_size().columns >= _MIN_TABLE_WIDTH:
            super().format_help(ctx, formatter)
        else:
            super(TyperCommand, self).format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, each group under its heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                heading = getattr(parameter, "rich_help_panel", None) or usual
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)
