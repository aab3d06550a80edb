"""Make the fields of a configuration dataclass the options of a command."""

import dataclasses
import inspect
from collections.abc import Callable
from functools import wraps
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from featurecache.settings import choices

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Command = Callable[..., None]


def takes_settings(
    config: "type[DataclassInstance]", *, without: tuple[str, ...] = (), panel: str = "Training"
) -> Callable[[Command], Command]:
    """Give a command one option for each field of a configuration dataclass.

    The decorated command receives the options that the user gave, by field name, as its parameter
    ``settings``. The others are left out, so that the dataclass decides their defaults.

    Args:
        config: A dataclass whose fields are declared with ``settings.setting``.
        without: Fields that the command declares itself or does not offer.
        panel: Heading of the options in the help.
    """
    annotations = get_type_hints(config)
    options = [
        _option(field, annotations[field.name], panel)
        for field in dataclasses.fields(config)
        if field.name not in without
    ]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**arguments: Any) -> None:
            values = {option.name: arguments.pop(option.name) for option in options}
            settings = {
                name: _parse(annotations[name], name, value)
                for name, value in values.items()
                if value is not None
            }
            command(**arguments, settings=settings)

        run.__signature__ = expand_parameter(command, "settings", options)  # type: ignore[attr-defined]
        return run

    return decorate


def takes_together(name: str, options: list[inspect.Parameter]) -> Callable[[Command], Command]:
    """Give a command several options, which it receives as one dictionary.

    Args:
        name: The parameter that receives it.
        options: The options.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**arguments: Any) -> None:
            values = {option.name: arguments.pop(option.name) for option in options}
            command(**arguments, **{name: values})

        run.__signature__ = expand_parameter(command, name, options)  # type: ignore[attr-defined]
        return run

    return decorate


def expand_parameter(
    command: Command, name: str, options: list[inspect.Parameter]
) -> inspect.Signature:
    """Return the signature of a command with options in place of one of its parameters.

    Args:
        command: The command.
        name: The parameter to replace.
        options: The parameters that take its place.
    """
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        parameters += options if parameter.name == name else [parameter]
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature([parameter.replace(kind=keyword_only) for parameter in parameters])


def _option(field: "dataclasses.Field[Any]", annotation: Any, panel: str) -> inspect.Parameter:
    kind = _option_type(annotation)
    help_text = str(field.metadata["help"])
    if field.default not in (dataclasses.MISSING, None):
        is_on = "on" if field.default else "off"
        help_text += f" Default: {is_on if kind is bool else field.default}."
    declarations: tuple[str, ...] = ()
    if kind is bool:
        name = field.name.replace("_", "-")
        declarations = (f"--{name}/--no-{name}",)
    option = typer.Option(
        *declarations,
        help=help_text,
        metavar="|".join(choices(annotation)) or ("N,N,..." if _is_tuple(annotation) else None),
        rich_help_panel=panel,
        show_default=False,
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,  # not given
        annotation=Annotated[kind | None, option],
    )


def _option_type(annotation: Any) -> Any:
    """Return the type that the command line parses: bool, int, float or str."""
    members = [member for member in get_args(annotation) if member is not NoneType]
    if len(members) < len(get_args(annotation)):  # ... | None
        return _option_type(members[0])
    return annotation if annotation in (bool, int, float) else str


def _is_tuple(annotation: Any) -> bool:
    return any(get_origin(member) is tuple for member in (annotation, *get_args(annotation)))


def _parse(annotation: Any, name: str, value: Any) -> Any:
    """Parse numbers joined by commas if the field is a tuple of numbers."""
    if not _is_tuple(annotation):
        return value
    return parse_numbers(value, name, example="512,256")


def parse_numbers(text: str, name: str, *, example: str) -> tuple[int, ...]:
    """Parse whole numbers joined by commas.

    Args:
        text: What the user gave.
        name: Parameter of the option.
        example: A valid value, for the message.

    Raises:
        typer.BadParameter: The text is something else.
    """
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: give whole numbers joined by commas, such as {example}",
            param_hint=f"--{name.replace('_', '-')}",
        ) from None
