"""Read the objects of JSON files of releases."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.errors import DatasetError
from featurecache.io.text import read_text

if TYPE_CHECKING:
    import pandas as pd


def read_objects(
    file: Path, fields: Sequence[str] = (), *, per_line: bool = False
) -> list[dict[str, Any]]:
    """Read the objects in a JSON file.

    Args:
        file: A list of objects.
        fields: Fields that each of them must have.
        per_line: Whether the file has one object on each line instead.

    Raises:
        DatasetError: The file cannot be read, has no object, or one that lacks a field.
    """
    try:
        text = read_text(file)
        lines = filter(str.strip, text.split("\n"))
        objects = [json.loads(line) for line in lines] if per_line else json.loads(text)
        objects = [{**{name: entry[name] for name in fields}, **entry} for entry in objects]
    except FileNotFoundError as error:
        raise DatasetError(f"{file} does not exist: check the path") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        named = f" with {', '.join(fields)}" if fields else ""
        raise DatasetError(f"{file} cannot be read as JSON objects{named}: {error!r}") from error
    if not objects:
        raise DatasetError(f"{file} lists nothing: copy it again from the release")
    return objects


def read_records(file: Path, fields: Sequence[str], *, per_line: bool = False) -> "pd.DataFrame":
    """Read fields of the objects in a JSON file of a release.

    Args:
        file: See ``read_objects``.
        fields: Fields that each of them must have.
        per_line: See ``read_objects``.

    Returns:
        The fields, one column each. The index, named "line", counts the objects from 1.

    Raises:
        DatasetError: See ``read_objects``.
    """
    import pandas as pd

    rows = [
        [entry[name] for name in fields] for entry in read_objects(file, fields, per_line=per_line)
    ]
    index = pd.RangeIndex(1, len(rows) + 1, name="line")
    return pd.DataFrame(rows, index, columns=list(fields), dtype=object)
