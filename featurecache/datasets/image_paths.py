"""Paths of images as tables write them, and the column that has them."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from featurecache.datasets.cell_values import MISSING
from featurecache.datasets.scan import IMAGE_SUFFIXES
from featurecache.errors import DatasetError
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

    from featurecache.datasets.table_reader import Table

PATH_COLUMN: Final = "path"

HEAD_ROWS: Final = 1000
"""Rows that are looked at to find the column of paths."""

_PATH_NAMES: Final = re.compile(
    r"(image|img|file|dicom|dcm|png|jpe?g)?(path|file|name|filename|filepath|index|id|location)?"
    r"|images?|dicoms?|sopinstanceuid|patientid",
)
"""Usual names of the column of paths, in lower case, with letters only."""

_SAMPLE: Final = 200
_MAX_COLUMNS: Final = 50
_MAX_FOLDERS: Final = 8
_MAX_SUBFOLDERS: Final = 20
_SUFFIXES: Final = (".dcm", ".dicom", ".png", ".jpg", ".jpeg")

_ABSOLUTE: Final = r"/|[A-Za-z]:"


@dataclass(frozen=True)
class _Reading:
    """A way to read paths that do not exist as they are written.

    Attributes:
        n_dropped: Folders left out at the beginning.
        subfolder: Folder below the root that is put in front.
        suffix: Suffix that is added.
        up: Whether the root is the folder above.
    """

    n_dropped: int = 0
    subfolder: str = ""
    suffix: str = ""
    up: bool = False

    def apply(self, path: str) -> str:
        """Return a path relative to the root."""
        if self.n_dropped:
            path = "/".join(_parts(path)[self.n_dropped :])
        return f"{self.subfolder}/{path}{self.suffix}" if self.subfolder else path + self.suffix

    def describe(self) -> str:
        """Describe the reading in words."""
        words = []
        if self.n_dropped:
            folders = "folder" if self.n_dropped == 1 else f"{self.n_dropped} folders"
            words.append(f"without their first {folders}")
        if self.subfolder:
            words.append(f"below the folder {self.subfolder!r}")
        if self.suffix:
            words.append(f"with the suffix {self.suffix}")
        if self.up:
            words.append("relative to the folder above")
        return ", ".join(words)


def relative_paths(
    paths: "pd.Series[str]",
    root: Path,
    *,
    file: Path,
    may_move_up: bool,
    required: bool = True,
) -> "tuple[pd.Series[str], Path, list[str]]":
    """Return paths relative to the folder of the images.

    Backslashes become slashes, and absolute paths below the root become relative. If none of the
    paths exists below the root, but most do without their first folders, below one subfolder, with
    another suffix, or relative to the folder above the root, they are read so.

    Args:
        paths: (N,) paths as they are written, none empty, indexed by line of the file.
        root: Folder that they should be relative to.
        file: The file, for error messages.
        may_move_up: Whether the folder above the root may be used.
        required: Whether one of the paths must exist; otherwise they may all be kept as they are.

    Returns:
        (N,) paths, the root, and notes that say what was assumed.

    Raises:
        DatasetError: If none of the paths exists but one has to, they are absolute and lie
            elsewhere, or they may be read in several ways.
    """
    notes = []
    with_backslash = paths[paths.str.contains("\\", regex=False)]
    if len(with_backslash) and not _n_existing(root, _sample(with_backslash)):
        paths = paths.str.replace("\\", "/", regex=False)
        notes.append(
            f"{count_noun(len(with_backslash), 'path')} with backslashes: they are read as slashes."
        )
    for folder in {str(root.absolute()), os.path.realpath(root)}:
        below = paths.str.startswith(f"{folder.rstrip('/')}/").to_numpy(dtype=bool)
        if below.any():
            paths = paths.where(~below, paths.str.slice(len(folder.rstrip("/")) + 1))
            notes.append(
                f"{count_noun(int(below.sum()), 'absolute path is', 'absolute paths are')} read as "
                "relative to the images root."
            )
    sample = _sample(paths)
    if any(".." in path.split("/") for path in sample) or _n_existing(root, sample):
        return paths, root, notes
    reading = _find_reading(sample, root, may_move_up=may_move_up)
    if reading is None and all(map(os.path.isabs, sample)):
        raise DatasetError(
            f"the paths in the column {paths.name!r} of {file} are absolute, and lie below "
            f"{os.path.commonpath(sample)} instead of {root}. Give the folder of the images as "
            "`images_root`"
        )
    if reading is None and not required:
        return paths, root, notes
    if reading is None:
        raise DatasetError(
            f"none of {count_noun(len(sample), 'path')} in the column {paths.name!r} of {file} "
            f"exists below {root}, such as {sample[0]!r}. Give the folder that they are relative "
            "to as `images_root`, or the column of paths as `path`"
        )
    changed = paths.map(reading.apply).astype(paths.dtype)
    if changed.nunique() < paths.nunique():
        raise DatasetError(
            f"the paths in the column {paths.name!r} of {file} exist only {reading.describe()}, "
            "where several are the same. Give the folder that they are relative to as "
            "`images_root`"
        )
    if reading.up:
        root = root.absolute().parent
    n_existing = _n_existing(root, [reading.apply(path) for path in sample])
    notes.append(
        f"No path exists as it is written; the paths are read {reading.describe()}, where "
        f"{n_existing:,} of {len(sample):,} that were tried exist."
    )
    return changed, root, notes


def find_path_column(table: "Table", head: "pd.DataFrame", root: Path) -> tuple[str, list[str]]:
    """Return the column of image paths, and notes.

    Args:
        table: The table.
        head: Its first rows, all columns.
        root: Folder that the paths should be relative to.

    Raises:
        DatasetError: If no column, or more than one, can be it.
    """
    if PATH_COLUMN in table.header:
        return PATH_COLUMN, []
    samples = {
        column: _sample(filled.str.replace("\\", "/", regex=False))
        for column in head.columns
        if len(filled := head[column][~head[column].str.casefold().isin(list(MISSING))])
    }
    # By what the cells are, by the name of the column, and by the files that exist.
    files = [column for column, paths in samples.items() if _are_image_files(paths)]
    named = [column for column in samples if _has_usual_name(column)]
    candidates = list(dict.fromkeys(files + named) or samples)[:_MAX_COLUMNS]
    existing = [column for column in candidates if _n_existing(root, samples[column])]
    if not existing:
        existing = [
            column
            for column in (files or named)[:_MAX_COLUMNS]
            if _find_reading(samples[column], root, may_move_up=True)
        ]
    choices = existing or files or named
    if len(choices) == 1:
        return choices[0], [f"The paths of the images are those of the column {choices[0]!r}."]
    if choices:
        raise DatasetError(
            f"{table.path} has several columns that may hold the paths of the images, "
            f"{', '.join(map(repr, choices))}: give one as `path`"
        )
    raise DatasetError(
        f"{table.path} has no column {PATH_COLUMN!r}, and none of its columns names images: give "
        f"the column of paths as `path`; it has {table.names()}"
    )


def _are_image_files(paths: Sequence[str]) -> bool:
    images = [Path(path).suffix.lower() in IMAGE_SUFFIXES for path in paths]
    return sum(images) * 2 > len(images)


def _has_usual_name(column: str) -> bool:
    letters = re.sub(r"[^a-z]", "", column.casefold())
    return bool(letters) and _PATH_NAMES.fullmatch(letters) is not None


def _sample(paths: "pd.Series[str]") -> list[str]:
    """Return some of the paths, evenly spaced."""
    return list(dict.fromkeys(paths.iloc[:: max(1, len(paths) // _SAMPLE)].tolist()))[:_SAMPLE]


def _n_existing(root: Path, paths: Sequence[str]) -> int:
    """Count the paths below the root that exist; absolute ones are not below it."""
    return sum(
        re.match(_ABSOLUTE, path) is None and (root / path).is_file() for path in paths if path
    )


def _find_reading(sample: Sequence[str], root: Path, *, may_move_up: bool) -> _Reading | None:
    """Return the only reading by which most of the paths exist; None if there is none, or two."""
    best: dict[Path, _Reading] = {}
    for reading in _readings(sample, root, may_move_up=may_move_up):
        folder = root.absolute().parent if reading.up else root
        # Most readings fail at once.
        if not _n_existing(folder, [reading.apply(path) for path in sample[:5]]):
            continue
        paths = [reading.apply(path) for path in sample]
        if _n_existing(folder, paths) * 2 > len(sample):
            # Leaving out "train/" and putting it in front again is one reading.
            best.setdefault((folder / paths[0]).resolve(), reading)
    return next(iter(best.values())) if len(best) == 1 else None


def _readings(sample: Sequence[str], root: Path, *, may_move_up: bool) -> Iterator[_Reading]:
    absolute = any(re.match(_ABSOLUTE, path) for path in sample)
    n_folders = min(len(_parts(path)) for path in sample) - 1
    has_suffix = any("." in path.rpartition("/")[2] for path in sample)
    suffixes = ("",) if has_suffix else ("", *_SUFFIXES)
    with os.scandir(root) as entries:
        folders = [entry.name for entry in entries if entry.is_dir()]
    folders = sorted(name for name in folders if not name.startswith("."))[:_MAX_SUBFOLDERS]
    for suffix in suffixes:
        for n_dropped in range(min(n_folders, _MAX_FOLDERS) + 1):
            for subfolder in ("", *folders):
                # An absolute path without its first folder is still one below another root.
                if not (absolute and n_dropped == 0):
                    yield _Reading(n_dropped, subfolder, suffix)
    if may_move_up and not absolute:
        yield from (_Reading(suffix=suffix, up=True) for suffix in suffixes)


def _parts(path: str) -> list[str]:
    """Return the folders and the name in a path, without a drive or leading slash."""
    return [part for part in re.sub(r"^[A-Za-z]:", "", path).split("/") if part]
