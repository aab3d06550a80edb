"""Write commands of featurecache as text, from the arguments of the library functions."""

import inspect
import shlex
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, Final

CSV_OPTIONS: Final = {
    "path": "path_column",
    "labels": "label_column",
    "multilabel": "multilabel_column",
    "classes": "class_column",
    "id": "id_column",
    "patient": "patient_column",
    "study": "study_column",
    "split": "split_column",
    "view": "view_column",
    "sex": "sex_column",
    "age": "age_column",
    "metadata": "metadata_column",
    "images_root": "images_root",
    "positive": "positive",
    "negative": "negative",
    "label_separator": "label_separator",
    "separator": "separator",
    "encoding": "encoding",
}
"""Arguments that ``load_dataset`` has for CSV files, and the parameters of commands for them."""

_MAX_LINE_LENGTH = 88


def command_line(arguments: Sequence[str]) -> str:
    """Return a featurecache command for a POSIX shell, broken into lines."""
    lines = ["featurecache"]
    for argument in map(shlex.quote, arguments):
        if len(lines[-1]) + len(argument) >= _MAX_LINE_LENGTH:
            lines.append("   ")
        lines[-1] += " " + argument
    return " \\\n".join(lines)


def options(
    arguments: Mapping[str, Any], function: Callable[..., Any] | None = None
) -> Iterator[str]:
    """Yield arguments of a library function as options of its command.

    Args:
        arguments: JSON values by name. Texts in a list become repeated options, numbers in a list
            are joined by commas, and None and empty lists are left out.
        function: Arguments that equal its defaults are left out.
    """
    parameters = {} if function is None else inspect.signature(function).parameters
    for name, value in arguments.items():
        if value in (None, []) or (name in parameters and parameters[name].default == value):
            continue
        words = name.replace("_", "-")
        option = "--" + words
        if isinstance(value, bool):
            yield option if value else "--" + "no-" + words
        elif isinstance(value, list) and any(isinstance(entry, str) for entry in value):
            for entry in value:
                yield from _option(option, entry)
        else:
            yield from _option(
                option, ",".join(map(str, value)) if isinstance(value, list) else value
            )


def _option(option: str, value: Any) -> Iterator[str]:
    text = str(value)
    # A value that begins with a dash would be read as an option of its own.
    yield from [f"{option}={text}"] if text.startswith("-") else [option, text]


def dataset_options(source: Mapping[str, Any], *, without: Container[str] = ()) -> list[str]:
    """Return the options that load a data set as it was loaded.

    Args:
        source: See ``Dataset.source``.
        without: Arguments of ``load_dataset`` that the command does not have.
    """
    names = {"seed": "dataset_seed", **(CSV_OPTIONS if source["dataset"] == "csv" else {})}
    arguments = {"dataset": source["dataset"], "data_root": source["root"]}
    if source["pseudonymized"]:
        arguments |= {"data_root": "DATA_ROOT", "pseudonymize": "KEYFILE"}
    given = {
        names.get(name, name): value
        for name, value in source["options"].items()
        if name not in without
    }
    return list(options({**arguments, **given}))
