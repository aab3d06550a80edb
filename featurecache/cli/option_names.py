"""Translate the arguments that library messages name into the options of the running command."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from typer.models import ArgumentInfo, OptionInfo

from featurecache.report.command_line import CSV_OPTIONS

OPTION_NAMES: Final = {
    "cache_dir": "cache",
    "data": "data_root",
    "heads": "head",
    "k": "top",
    "models": "model",
    "path": "out",
    "root": "data_root",
    "seed": "dataset_seed",
}
"""Arguments of the library, and the parameter that commands without one of this name have."""

_running: ContextVar[Callable[..., None] | None] = ContextVar("running", default=None)


@contextmanager
def running(command: Callable[..., None]) -> Iterator[None]:
    """Have ``with_option_names`` use the options of a command within the body."""
    token = _running.set(command)
    try:
        yield
    finally:
        _running.reset(token)


def with_option_names(message: str) -> str:
    """Replace the arguments that a message names in backticks by those of the running command.

    They become options, or, if they are positional, what the command's help calls them. An
    argument that the command does not have only loses its backticks.

    Args:
        message: A message of the library, such as "give `train_size`".

    Returns:
        The message for the user of the command line, such as "give --train-size" or "give OUT".
    """
    command = _running.get()
    parameters = {} if command is None else inspect.signature(command).parameters

    def replace(match: "re.Match[str]") -> str:
        name = match.group(1)
        names = [name, CSV_OPTIONS.get(name, name), OPTION_NAMES.get(name, name)]
        # `split` is also an option of other data sets; messages on a table speak of its columns.
        if "column" in message:
            names[:2] = names[1::-1]
        for parameter in names:
            if parameter in parameters and (written := _as_written(parameters[parameter])):
                return written
        return name

    return re.sub(r"`(\w+)`", replace, message)


def _as_written(parameter: inspect.Parameter) -> str | None:
    """Return what sets a parameter of a command: an option, or the name of a positional one."""
    for info in getattr(parameter.annotation, "__metadata__", ()):
        if isinstance(info, ArgumentInfo):
            return str(info.metavar or parameter.name.upper()).rstrip(".")
        if isinstance(info, OptionInfo):
            # In Annotated, the first declaration of an option is stored as its default.
            for declaration in (info.default, *(info.param_decls or ())):
                if isinstance(declaration, str) and declaration.startswith("--"):
                    return declaration.partition("/")[0]
            return f"--{parameter.name.replace('_', '-')}"
    return None
