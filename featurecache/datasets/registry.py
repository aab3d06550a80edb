"""The data sets that can be asked for by name."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from featurecache.errors import DatasetError, UnknownNameError, UsageError
from featurecache.progress import Progress

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset


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
        root_maker: What finds or makes its root, as "module:function", for a data set that needs
            none to be given; "" for one that has to be there.
    """

    name: str
    description: str
    terms: str
    options: tuple[str, ...]
    loader: str
    reads_file: bool = False
    root_maker: str = ""

    def load(self, root: Path, options: Mapping[str, Any]) -> "Dataset":
        """Call the loader."""
        return cast("Dataset", _function(self.loader)(root, **options))

    def make_root(
        self, root: Path | None, options: Mapping[str, Any], progress: Progress | None
    ) -> Path:
        """Call the root maker."""
        return cast("Path", _function(self.root_maker)(root, options, progress))

    def check(self, options: Iterable[str]) -> None:
        """Refuse options that the loader does not take.

        Raises:
            UsageError: there is one.
        """
        for option in options:
            if option not in self.options:
                near = get_close_matches(option, self.options, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(self.options)}"
                raise UsageError(f"the data set {self.name} takes no option {option!r}: {hint}")


def _function(path: str) -> Callable[..., Any]:
    module, _, function = path.partition(":")
    return cast("Callable[..., Any]", getattr(import_module(module), function))


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
            "multilabel_column",
            "id_column",
            "patient_column",
            "split_column",
            "view_column",
            "sex_column",
            "age_column",
            "seed",
        ),
        loader="featurecache.datasets.csv:load_csv",
        reads_file=True,
    ),
    DatasetSpec(
        name="folder",
        description="any folder with one folder of images per class",
        terms="those of your data",
        options=("seed",),
        loader="featurecache.datasets.folder:load_folder",
    ),
    DatasetSpec(
        name="phantom",
        description="synthetic films with the 14 findings of nih, drawn on first use: no download",
        terms="Apache-2.0, generated",
        options=("images", "split", "seed"),
        loader="featurecache.datasets.phantom.folder:load_phantom",
        root_maker="featurecache.datasets.phantom.folder:phantom_root",
    ),
)

DATASETS: Mapping[str, DatasetSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})


def load_dataset(name: str, root: Path, /, **options: Any) -> "Dataset":
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
    spec.check(options)
    return spec.load(root, options)


def find_root(
    name: str, root: Path | None, /, *, progress: Progress | None = None, **options: Any
) -> Path:
    """Where a data set lies; one that is drawn rather than downloaded is drawn here.

    Args:
        name: A key of ``DATASETS``.
        root: The folder of the data set, or one that holds it under its name; for "table" perhaps
            the CSV file. None looks in the folder that ``FEATURECACHE_DATA`` names, or, for a data
            set that is drawn, in the user's cache.
        progress: Called with the number of films drawn, and of all, while a data set is drawn.
        **options: Those that ``load_dataset`` will be given: they decide what is drawn.

    Raises:
        UnknownNameError: there is no such data set.
        UsageError: the data set does not take an option, or not that value of it.
        DatasetError: nothing is there, or a file where a folder is needed.
    """
    spec = _spec(name)
    if spec.root_maker:
        spec.check(options)
        return spec.make_root(root, options, progress)
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
    if root.is_file():
        reason = "is a file, a folder is needed"
    else:
        reason = "is a pipe or a device" if root.exists() else "does not exist"
    raise DatasetError(f"the data set {name} cannot be read, {root} {reason}: check --data-root")


def _spec(name: str) -> DatasetSpec:
    if name not in DATASETS:
        raise UnknownNameError("data set", name, DATASETS)
    return DATASETS[name]
