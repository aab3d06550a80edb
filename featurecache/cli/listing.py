"""A group of commands that lists things by itself, and of which one describes one of them."""

from difflib import get_close_matches
from typing import Any, ClassVar

from typer.core import TyperGroup


class Listing(TyperGroup):
    """Says how to describe a thing where its name is given in place of a command."""

    describing: ClassVar[str]
    """The command that describes one thing."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments name; see ``TyperGroup``."""
        name = args[0]
        if self.get_command(ctx, name) is None and not get_close_matches(name, self.commands):
            ctx.fail(
                f"{name!r} is not a command: to describe it, run "
                f"'{ctx.command_path} {self.describing} {name}'"
            )
        return super().resolve_command(ctx, args)
