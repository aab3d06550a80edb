"""The data sets that can be asked for by name."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from featurecache.errors import DatasetError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from featurecache.datasets.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One data set that can be asked for by name.

    Attributes:
        name: What it is asked for by.
        description: One line for people.
        terms: Licence or terms of use.
        options: Names of the options that its loader takes.
        loader: The loader, as "module:function", so that listing data sets imports none.
        reads_file: Whether its root may be a file rather than a folder.
    """

    name: str
    description: str
    terms: str
    options: tuple[str, ...]
    loader: str
    reads_file: bool = False

    def load(self, root: Path, options: Mapping[str, Any]) -> "Manifest":
        """Call the loader."""
        module, _, function = self.loader.partition(":")
        loader = cast("Callable[..., Manifest]", getattr(import_module(module), function))
        return loader(root, **options)


_SPECS = (
    DatasetSpec(
        name="nih",
        description="NIH ChestX-ray14: 112,120 frontal films of 30,805 adults, 14 findings",
        terms="NIH Clinical Center: free use, name the source",
        options=("split", "seed"),
        loader="featurecache.datasets.nih:load_nih",
    ),
    DatasetSpec(
        name="kermany",
        description="UCSD paediatric pneumonia (Kermany 2018): 5,856 films, pneumonia or normal",
        terms="CC BY 4.0",
        options=("subset", "split", "seed"),
        loader="featurecache.datasets.kermany:load_kermany",
    ),
    DatasetSpec(
        name="table",
        description="any CSV file with one row per image",
        terms="those of your data",
        options=(
            "root",
            "path_column",
            "label_columns",
            "labels_column",
            "id_column",
            "patient_column",
            "split_column",
            "view_column",
            "seed",
        ),
        loader="featurecache.datasets.table:load_table",
        reads_file=True,
    ),
    DatasetSpec(
        name="folder",
        description="any folder with one folder of images per class",
        terms="those of your data",
        options=("seed",),
        loader="featurecache.datasets.folder:load_folder",
    ),
)

DATASETS: Mapping[str, DatasetSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})


def load_dataset(name: str, root: Path, /, **options: Any) -> "Manifest":
    """Load a data set by name.

    Args:
        name: A key of ``DATASETS``.
        root: Its folder, as ``find_root`` gives it; for "table" perhaps the CSV file.
        **options: Options of that data set's loader.

    Raises:
        UnknownNameError: there is no such data set.
        UsageError: the data set does not take an option.
        DatasetError: the data set is missing, malformed or contradicts itself.
    """
    spec = _spec(name)
    for option in options:
        if option not in spec.options:
            near = get_close_matches(option, spec.options, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(spec.options)}"
            raise UsageError(f"the data set {name} takes no option {option!r}: {hint}")
    return spec.load(root, options)


def find_root(name: str, root: Path | None) -> Path:
    """Where a data set lies.

    Args:
        name: A key of ``DATASETS``.
        root: The folder of the data set, or one that holds it under its name; for "table" perhaps
            the CSV file. None looks in the folder that ``FEATURECACHE_DATA`` names.

    Raises:
        UnknownNameError: there is no such data set.
        DatasetError: nothing is there, or a file where a folder is needed.
    """
    spec = _spec(name)
    if root is None:
        data = os.environ.get("FEATURECACHE_DATA")
        if not data:
            raise DatasetError(
                f"no folder is given for the data set {name}: give --data-root, or set "
                f"FEATURECACHE_DATA to the folder that holds {name}/"
            )
        found = Path(data) / name
        if not found.is_dir():
            raise DatasetError(
                f"FEATURECACHE_DATA is {data}, and {found} is no folder: give --data-root, or set "
                f"FEATURECACHE_DATA to the folder that holds {name}/"
            )
        return found
    if (root / name).is_dir():
        return root / name
    if root.is_dir() or (spec.reads_file and root.is_file()):
        return root
    reason = "is a file, a folder is needed" if root.is_file() else "does not exist"
    raise DatasetError(f"the data set {name} cannot be read, {root} {reason}: check --data-root")


def _spec(name: str) -> DatasetSpec:
    if name not in DATASETS:
        raise UnknownNameError("data set", name, DATASETS)
    return DATASETS[name]
