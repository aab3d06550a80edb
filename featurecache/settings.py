"""Configuration dataclasses: every setting is declared once, with its help, choices and range.

The dataclass is the only place where a setting is described: validation, the documentation and the
options of the command line are all derived from it.
"""

import inspect
import math
import operator
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from featurecache.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
Function = TypeVar("Function", bound=Callable[..., Any])


def setting(
    default: Any = MISSING,
    *,
    help: str,
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Declare one setting of a configuration dataclass.

    Args:
        default: The default value; a setting without one is required.
        help: One phrase for the documentation and for the help of the command line.
        minimum: Smallest valid value.
        above: Exclusive lower bound.
        below: Exclusive upper bound.

    Returns:
        A dataclass field.
    """
    bounds = {"minimum": minimum, "above": above, "below": below}
    return field(
        default=default,
        metadata={"help": help} | {name: b for name, b in bounds.items() if b is not None},
    )


def choices(annotation: Any) -> tuple[str, ...]:
    """Return the values that a ``Literal``, or ``Literal | None``, allows; () for other types."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    members = [member for member in get_args(annotation) if member is not NoneType]
    return choices(members[0]) if len(members) == 1 else ()


def check_names(cls: "type[DataclassInstance]", names: Iterable[str]) -> None:
    """Check that settings of these names exist.

    Raises:
        UnknownNameError: There is no such setting.
    """
    valid = {declared.name for declared in fields(cls)}
    for name in names:
        if name not in valid:
            raise UnknownNameError("setting", name, valid)


def check_settings(config: "DataclassInstance") -> None:
    """Validate every setting against its choices and its range; call it in ``__post_init__``.

    Raises:
        UnknownNameError: A setting has none of the values that its type allows.
        UsageError: A number is not finite or out of its range.
    """
    annotations = get_type_hints(type(config))
    for declared in fields(config):
        value = getattr(config, declared.name)
        allowed = choices(annotations[declared.name])
        if value is None and NoneType in get_args(annotations[declared.name]):
            continue
        if allowed and value not in allowed:
            raise UnknownNameError(declared.name.replace("_", " "), str(value), allowed)
        if isinstance(value, int | float):
            _check_range(declared, value)


_RULES: Final[Mapping[str, tuple[str, Callable[[float, float], bool]]]] = {
    "minimum": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
}


def _check_range(declared: "Field[Any]", value: float) -> None:
    bounds = {name: declared.metadata[name] for name in _RULES if name in declared.metadata}
    # NaN compares false with every bound, so it is refused as well.
    if math.isfinite(value) and all(_RULES[name][1](value, bounds[name]) for name in bounds):
        return
    limits = " and ".join(f"{_RULES[name][0]} {bound:g}" for name, bound in bounds.items())
    wanted = f"finite and {limits}" if isinstance(value, float) and limits else limits or "finite"
    raise UsageError(f"`{declared.name}` is {value}: must be {wanted}")


def describe_settings(cls: type[Config]) -> type[Config]:
    """Append the help of every setting to the docstring of a configuration dataclass."""
    cls.__doc__ = f"{cls.__doc__}\n    Attributes:\n{_help_lines(cls)}\n    "
    return cls


def accept_settings(cls: "type[DataclassInstance]") -> Callable[[Function], Function]:
    """Return a decorator that documents the ``**settings`` of a function one by one.

    The signature shows a keyword argument for every setting, and the line ``**settings: ...`` of
    the docstring becomes their help, so that ``help()``, notebooks and the reference pages show
    what the function accepts.

    Args:
        cls: The configuration dataclass. A setting that the function declares itself keeps the
            function's own default.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                declared.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty
                if declared.default is MISSING
                else declared.default,
                annotation=declared.type,
            )
            for declared in fields(cls)
            if declared.name not in signature.parameters
        ]
        function.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        names = {parameter.name for parameter in added}
        function.__doc__ = re.sub(
            r"^ *\*\*settings:.*$",
            _help_lines(cls, names).replace("\\", r"\\"),
            function.__doc__ or "",
            flags=re.MULTILINE,
        )
        return function

    return decorate


def _help_lines(cls: "type[DataclassInstance]", names: Container[str] | None = None) -> str:
    return "\n".join(
        f"        {declared.name}: {declared.metadata['help']}"
        for declared in fields(cls)
        if names is None or declared.name in names
    )
