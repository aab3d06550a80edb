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

    The decorated command receives the options that were given, by field name, as its parameter
    ``settings``; the defaults are those of the dataclass.

    Args:
        config: A dataclass whose fields are declared with ``settings.setting``.
        without: Fields that the command declares itself or does not offer.
        panel: Heading of the options in the help.
    """
    options = [
        _option(field, annotation, panel)
        for field, annotation in zip(dataclasses.fields(config), _annotations(config), strict=True)
        if field.name not in without
    ]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:
            values = {option.name: given.pop(option.name) for option in options}
            settings = {name: value for name, value in values.items() if value is not None}
            command(**given, settings={n: _parse(config, n, v) for n, v in settings.items()})

        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            parameters += options if parameter.name == "settings" else [parameter]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        )
        return run

    return decorate


def _annotations(config: "type[DataclassInstance]") -> list[Any]:
    hints = get_type_hints(config)
    return [hints[field.name] for field in dataclasses.fields(config)]


def _option(field: "dataclasses.Field[Any]", annotation: Any, panel: str) -> inspect.Parameter:
    kind = _option_type(annotation)
    default = field.default
    has_default = default not in (dataclasses.MISSING, None)
    help_text = str(field.metadata["help"])
    if values := choices(annotation):
        help_text = f"{help_text.rstrip('.')}: {', '.join(values)}."
    declarations: tuple[str, ...] = ()
    if kind is bool:
        name = field.name.replace("_", "-")
        declarations = (f"--{name}/--no-{name}",)
    option = typer.Option(
        *declarations,
        help=help_text,
        rich_help_panel=panel,
        show_default=str(default) if has_default else False,
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,  # an option that was not given leaves the dataclass its default
        annotation=Annotated[kind | None, option],
    )


def _option_type(annotation: Any) -> Any:
    """Return the type that the command line parses: bool, int, float or str."""
    members = [one for one in get_args(annotation) if one is not NoneType]
    if get_origin(annotation) is not None and NoneType in get_args(annotation):
        return _option_type(members[0])
    return annotation if annotation in (bool, int, float) else str


def _parse(config: "type[DataclassInstance]", name: str, value: Any) -> Any:
    """Parse numbers joined by commas where the field is a tuple of numbers."""
    annotation = get_type_hints(config)[name]
    if not any(get_origin(one) is tuple for one in (annotation, *get_args(annotation))):
        return value
    try:
        return tuple(int(part) for part in str(value).split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{value!r}: give whole numbers joined by commas, such as 512,256",
            param_hint=f"--{name.replace('_', '-')}",
        ) from None
