"""Export a cache: choose the format, check the target, write it atomically."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from featurecache.errors import UnknownNameError, UsageError
from featurecache.export import beside, parquet
from featurecache.export.tables import MARKER
from featurecache.io.atomic import new_files, require_short_name
from featurecache.progress import Progress
from featurecache.store.open import CacheLike, open_cache


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format that caches are exported to; the module of its name writes it.

    Attributes:
        suffix: What the names of its files, or of its folders, end in; None for any name.
        marker: What an export has in its folder, if the format is a folder.
        companions: Suffixes of the files that may be written beside.
        requires: Packages that writing it needs, of the extra ``export``.
    """

    suffix: str | None = None
    marker: str | None = None
    companions: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


FORMATS: Final[Mapping[str, Format]] = {
    "parquet": Format(suffix=".parquet", companions=(parquet.TEXTS,), requires=("pyarrow",)),
    "npy": Format(suffix=".npy", companions=beside.SUFFIXES),
    "faiss": Format(suffix=".faiss", companions=beside.SUFFIXES),
    "anndata": Format(suffix=".h5ad"),
    "zarr": Format(suffix=".zarr", marker="uns/featurecache", requires=("zarr",)),
    "huggingface": Format(marker=MARKER, requires=("pyarrow",)),
    "webdataset": Format(marker=MARKER),
}


def export_cache(
    cache: CacheLike,
    out: str | os.PathLike[str],
    *,
    to: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a cache in the format of another library, block by block.

    Embeddings are written as they are stored, not normalized; tokens of an image one after the
    other, T of them, as ``tokens`` in its encoder spec says. Labels are the cells that the data
    set states, whatever the policy: 1 positive, 0 negative, -1 uncertain, and null (an empty
    cell, NaN) where blank; the header names other values. Of joined rows, whose data sets may have
    different policies, they are the labels by these.

    Args:
        cache: The cache, or what ``open_cache`` takes; a list of caches is exported with
            concatenated features.
        out: The file or folder to write.
        to: Format: "parquet", "npy", "faiss", "anndata" (.h5ad), "zarr", "huggingface" or
            "webdataset"; the last two are folders of any name. By default the suffix of ``out``
            decides.
        overwrite: Replace an existing export.
        progress: Called with the number of images written and the total.

    Returns:
        The file or folder that was written.

    Raises:
        CacheError: The cache is missing or damaged.
        UnknownNameError: There is no such format.
        UsageError: ``out`` exists, has the suffix of no format or of another one, a package
            that the format needs is missing, or tokens are to be written as "faiss".
        OSError: The disk is full or not writable.

    Example:
        >>> import featurecache as fc
        >>> fc.export_cache("cache/phantom/tiny.h5", "phantom.parquet").name
        'phantom.parquet'
    """
    target = Path(out)
    name = _choose_format(target, to)
    format = FORMATS[name]
    companions = [target.with_suffix(suffix) for suffix in format.companions]
    _check_target(target, companions, marker=format.marker, overwrite=overwrite)
    for package in format.requires:
        _require(package, name)
    opened = open_cache(cache)
    write = import_module(f"featurecache.export.{name}").write
    with new_files(target, companions) as folder:
        write(opened, folder / target.name, progress)
    return target


def _choose_format(out: Path, to: str | None) -> str:
    by_suffix = {format.suffix: name for name, format in FORMATS.items() if format.suffix}
    suffixed = by_suffix.get(out.suffix.lower())
    if to is None:
        if suffixed is None:
            raise UsageError(
                f"{out}: give a name that ends in {_either(by_suffix)}, or `to`, the format: "
                f"{_either(FORMATS)}"
            )
        return suffixed
    if to not in FORMATS:
        raise UnknownNameError("format", to, FORMATS)
    if (suffixed or to) != to or (FORMATS[to].suffix and not suffixed):
        advice = f"that ends in {FORMATS[to].suffix}" if FORMATS[to].suffix else "of a folder"
        raise UsageError(f"{out}: give a name {advice} for {to}")
    return to


def _check_target(
    out: Path, companions: Sequence[Path], *, marker: str | None, overwrite: bool
) -> None:
    for path in (out, *companions):
        require_short_name(path)
        if path.exists() and not overwrite:
            raise UsageError(f"{path} already exists: give another `out`, or `overwrite`")
    # A folder may hold anything: only what an export wrote is removed as a whole.
    if out.exists() and not ((out / marker).exists() if marker else out.is_file()):
        kind = "a folder of an export" if marker else "a file"
        raise UsageError(f"{out} is not {kind}: give another `out`, or move it away")


def _require(package: str, format: str) -> None:
    try:
        import_module(package)
    except ImportError as error:
        raise UsageError(
            f"writing {format} needs {package}: pip install 'featurecache[export]'"
        ) from error


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
