"""A command that refuses an option that is given twice, of which click would drop the first."""

from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand


class StrictCommand(TyperCommand):
    """A command whose options may be repeated only if they take several values."""

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
