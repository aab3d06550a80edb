"""Load a data set by name, from a folder, or from a table."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.datasets.registry import DATASETS, DatasetSpec, get_dataset_spec
from featurecache.datasets.scan import only_folders
from featurecache.datasets.table_reader import TABLE_SUFFIXES, tables_in
from featurecache.errors import DatasetError, UsageError
from featurecache.io.fingerprint import canonical_json
from featurecache.progress import Progress
from featurecache.provenance.provenance import Source

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset


class UnknownFolderError(DatasetError):
    """The folder of a data set was not given, and is not in ``$FEATURECACHE_DATA``.

    Args:
        dataset: Name of the data set.
        reason: Why it is not found.
        how: How the folder is given.
    """

    def __init__(self, dataset: str, reason: str, *, how: str = "the folder of the data set"):
        super().__init__(
            f"{reason}: give {how}, or set FEATURECACHE_DATA to the folder that contains {dataset}/"
        )
        self.reason = reason


def load_dataset(
    source: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    /,
    *,
    name: str | None = None,
    follow_links: bool = True,
    pseudonymize: str | os.PathLike[str] | None = None,
    corrections: str | os.PathLike[str] | None = None,
    only_labels: str | Sequence[str] | None = None,
    require_images: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> "Dataset":
    """Load a data set.

    Args:
        source: Name of a data set (a key of ``DATASETS``, such as "nih", "csv" or "images", or one
            that was registered), or the path of a folder or of a table (CSV, TSV, Excel, parquet).
            A folder in the layout of a public data set is recognized, and so are subfolders that
            are classes beyond doubt ("folder"); of any other folder, all images are taken
            ("images").
        root: If ``source`` is a name: the folder of the data set (for "csv" the file), or a folder
            that contains it under that name. By default ``$FEATURECACHE_DATA/<name>``; "phantom"
            is generated in the user's cache folder.
        name: Name of the data set, and so of the folder of its caches, instead of the loader's.
        follow_links: Follow symbolic links that lead out of the root, to another disk for example;
            if False, they are refused.
        pseudonymize: Key file. Ids and patients are replaced by keyed hashes in the data set and
            in everything that is made from it. Use the same file whenever the data is read again.
        corrections: Table of labels that replace those of the data set: with the columns ``id``,
            ``label`` and ``corrected``, as ``audit`` writes it, or ``id`` and columns of labels, as
            ``suggest`` does. Empty cells change nothing.
        only_labels: Labels to keep, one or more; all others are dropped. Images and splits stay.
        require_images: If False, a data set that is listed in tables is loaded from these alone,
            with all images that they list, for ``Dataset.describe``.
        progress: Called with the number of images done and the total while images of "phantom"
            are generated, or headers of DICOM files are read.
        **options: Options of the loader. nih: ``split``, ``seed``; kermany: ``subset``, ``split``,
            ``seed``; mimic-cxr-jpg: ``labeler``; chexpert-plus: ``section``; these and other public
            data sets: ``split``, ``folds``, ``fold``, ``seed``; phantom: ``n_images``, ``n_views``,
            ``split``, ``seed``; folder, images: ``patient_level``, ``folds``, ``fold``, ``seed``;
            csv: ``labels``,
            ``multilabel`` or ``classes``, ``path``, ``id``, ``patient``, ``study``, ``split``,
            ``view``, ``sex``, ``age``, ``metadata``, ``images_root``, ``positive``, ``negative``,
            ``label_separator``, ``separator``, ``encoding``, ``folds``, ``fold``, ``seed``.

    Returns:
        The data set.

    Raises:
        UnknownNameError: If there is no data set, or label, of this name.
        UsageError: If the loader does not take an option, or the key file cannot be used.
        DatasetError: If the data set is missing, malformed or contradicts itself.

    Example:
        >>> import featurecache as fc
        >>> phantom = fc.load_dataset("phantom", n_images=40)
        >>> len(phantom)
        40
        >>> nih = fc.load_dataset("nih", "~/data/nih")  # doctest: +SKIP
        >>> xrays = fc.load_dataset("~/xrays")  # doctest: +SKIP
        >>> export = fc.load_dataset(
        ...     "export.csv", labels=["Effusion", "Edema"], patient="pid"
        ... )  # doctest: +SKIP
    """
    from featurecache.datasets.corrections import correct_labels
    from featurecache.datasets.pseudonymize import read_key, redact_errors

    if root is None and (path := _as_path(source)):
        spec = get_dataset_spec(recognize_dataset(path, options))
        root = path
    else:
        spec = get_dataset_spec(os.fspath(source))
    key = None if pseudonymize is None else read_key(pseudonymize)
    folder = find_root(spec.name, root, progress=progress, **options)
    common = {
        "name": name,
        "follow_links": None if follow_links else False,
        "only_labels": only_labels,
    }

    def load() -> "Dataset":
        dataset = _adjust(spec.load(folder, arguments), name, follow_links)
        dataset = dataset if key is None else dataset.pseudonymize(key)
        # By the ids that everything made from the data set has.
        dataset = dataset if corrections is None else correct_labels(dataset, corrections)
        return dataset if only_labels is None else dataset.with_labels(only_labels)

    arguments = dict(options)
    if not require_images and "require_images" in spec.options:
        arguments["require_images"] = False
    if progress is not None and "progress" in spec.options:
        arguments["progress"] = progress
    if key is None:
        described = _describe_source(spec, root, {**common, "corrections": corrections, **options})
        return replace(load(), source=described)
    with redact_errors(spec.name):
        dataset = load()
    # Names of files and folders may identify people, too.
    kept = {option: value for option, value in options.items() if not spec.takes_path(option)}
    described = _describe_source(spec, None, {**common, **kept}, pseudonymized=True)
    return replace(dataset, source=described)


def _adjust(dataset: "Dataset", name: str | None, follow_links: bool) -> "Dataset":
    """Apply the options that all data sets have."""
    if not follow_links:
        dataset = replace(dataset, follow_links=False)
    return dataset if name is None else dataset.with_name(name)


def _describe_source(
    spec: DatasetSpec,
    root: str | os.PathLike[str] | None,
    options: Mapping[str, Any],
    *,
    pseudonymized: bool = False,
) -> Source | None:
    """Return how a data set was loaded, as JSON; None if an option has no JSON form."""
    source: Source = {
        "dataset": spec.name,
        "root": None if root is None else os.fspath(root),
        "options": {
            name: os.fspath(value) if isinstance(value, os.PathLike) else value
            for name, value in options.items()
            # What is shown of the images does not belong to what is made from them.
            if value is not None and name != "metadata"
        },
        "pseudonymized": pseudonymized,
    }
    try:
        parsed: Source = json.loads(canonical_json(source))
    except (TypeError, ValueError):
        return None
    return parsed


def load_source(
    source: Source | None,
    root: str | os.PathLike[str] | None = None,
    /,
    *,
    used_by: str,
    pseudonymize: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> "Dataset":
    """Load a data set again as it was loaded before.

    Args:
        source: How it was loaded; see ``Dataset.source``.
        root: Its folder or file, if it is no longer where it was.
        used_by: What was made from it, for messages, such as the path of a cache.
        pseudonymize: Key file; needed if its ids were pseudonymized.
        progress: See ``load_dataset``.
        **options: Options of the loader that replace the previous ones.

    Returns:
        The data set.

    Raises:
        UsageError: It was made in Python, or the key file is needed.
        DatasetError: It is no longer there, or cannot be read.
    """
    if source is None:
        raise UsageError(
            f"the data set of {used_by} was made in Python, or joined from several, so it cannot "
            "be loaded again: give it as `data`"
        )
    if source["pseudonymized"] and pseudonymize is None:
        raise UsageError(
            f"the ids in {used_by} are pseudonymized: give the same key file as `pseudonymize`, "
            "and the folder or file of the data set as `root`"
        )
    if root is None and source["root"] is not None:
        root = source["root"]
        if not Path(root).expanduser().exists():
            raise DatasetError(
                f"{used_by} was made from {root}, which is no longer there: give the folder or "
                "file of the data set as `root`"
            )
    elif source["dataset"] == "csv" and root is not None:
        folder = Path(root).expanduser()
        if folder.is_dir() and not tables_in(folder):
            table = f"the table {source['root']}" if source["root"] else "a table"
            raise DatasetError(
                f"{used_by} was made from {table}, but {root} is a folder "
                "without a table: give the table as `root`; if only the images have moved, give "
                "their folder as `images_root` instead"
            )
    return load_dataset(
        source["dataset"],
        root,
        pseudonymize=pseudonymize,
        progress=progress,
        **{**source["options"], **options},
    )


def recognize_dataset(
    path: str | os.PathLike[str], options: Mapping[str, Any] | None = None
) -> str:
    """Return the name of the data set that a folder or file holds.

    Args:
        path: A folder, or a table.
        options: Options for the loader: with ``labels``, ``multilabel`` or ``classes``, a
            folder is taken to hold a table.

    Returns:
        A key of ``DATASETS``.

    Raises:
        DatasetError: If there is nothing at this path, or a file of another kind.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if options and not options.keys().isdisjoint({"labels", "multilabel", "classes"}):
            return "csv"
        # A phantom has the layout of nih, and a file that identifies it.
        if DATASETS["phantom"].recognizes(path):
            return "phantom"
        for name, spec in DATASETS.items():
            if any(map(spec.recognizes, only_folders(path))):
                return name
        return "images"
    if not path.exists():
        raise DatasetError(
            f"{path} does not exist: give a folder of images, a table, or one of the "
            f"data sets {', '.join(DATASETS)}"
        )
    if not path.name.lower().endswith(TABLE_SUFFIXES):
        raise DatasetError(
            f"{path} is not a data set: give a folder of images, or a file whose name ends in "
            f"{', '.join(TABLE_SUFFIXES)}; save other tables, such as .xls and .ods, as one of "
            "these"
        )
    return "csv"


def find_root(
    name: str,
    root: str | os.PathLike[str] | None = None,
    /,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Return the folder of a data set; a phantom that does not exist yet is generated.

    Args:
        name: A key of ``DATASETS``.
        root: As for ``load_dataset``.
        progress: As for ``load_dataset``.
        **options: The options that ``load_dataset`` will be given; they decide what is generated.

    Raises:
        UnknownNameError: If there is no data set of this name.
        UsageError: If the loader does not take an option, or not this value.
        DatasetError: If there is nothing, or a file where a folder is needed.
    """
    spec = get_dataset_spec(name)
    spec.check_options(options)
    root = None if root is None else Path(root).expanduser()
    if spec.root_finder:
        return spec.find_root(root, options, progress)
    if root is None:
        return _default_root(spec.name)
    # Anybody's folder may contain one that happens to be called images, or csv.
    if not spec.reads_any_folder and (root / spec.name).is_dir():
        return root / spec.name
    if root.is_dir():
        nested = only_folders(root) if spec.recognizer else []
        return next(filter(spec.recognizes, nested), root)
    if spec.reads_file and root.is_file():
        return root
    if root.is_file():
        reason = "is a file, not a folder"
    else:
        reason = "is a pipe or a device" if root.exists() else "does not exist"
    raise DatasetError(f"the data set {spec.name} cannot be read: {root} {reason}")


def _default_root(name: str) -> Path:
    data = os.environ.get("FEATURECACHE_DATA")
    if not data:
        raise UnknownFolderError(name, f"the folder of the data set {name} is unknown")
    root = Path(data).expanduser() / name
    if not root.is_dir():
        raise UnknownFolderError(
            name, f"FEATURECACHE_DATA is {data}, but there is no folder {root}"
        )
    return root


def _as_path(source: str | os.PathLike[str]) -> Path | None:
    """Return the path that the source is, or None if it is a name."""
    if not isinstance(source, str):
        return Path(source)
    path = Path(source).expanduser()
    if source in DATASETS:
        # A folder may be called "images"; without a root, that name can only mean the folder.
        return path if DATASETS[source].reads_any_folder and path.exists() else None
    looks_like_path = len(path.parts) > 1 or source.startswith((".", "~"))
    looks_like_file = source.lower().endswith(TABLE_SUFFIXES)
    return path if looks_like_path or looks_like_file or path.exists() else None
