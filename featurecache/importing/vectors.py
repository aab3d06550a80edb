"""Embeddings in the files of other programs, read block by block."""

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.table_reader import TABLE_SUFFIXES, Table, open_table
from featurecache.datasets.typed_table import holds_vectors
from featurecache.errors import DatasetError, UsageError
from featurecache.export.tables import MARKER
from featurecache.importing import tfrecord
from featurecache.progress import Progress
from featurecache.store.cache import BLOCK_ROWS
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pyarrow as pa

Block = NDArray[np.floating[Any]]
"""(n, D) embeddings of consecutive rows."""

COLUMN: Final = "embedding"
"""The column or array of embeddings where there are several, unless another one is given."""
_IMAGE_ID: Final = "image/id"
"""The feature of a TFRecord with the id of the image, as Google's CXR Foundation names it."""
_FOR_OTHER_TOOLS: Final = (".faiss", ".h5ad", ".zarr")
"""Exports that are not imported, beside those that are folders with ``MARKER``."""
_READ_BYTES: Final = 2**20
_SHARD: Final = re.compile(r"img_emb_?(\d+)\.npy")
"""Arrays of clip-retrieval: img_emb/img_emb_0.npy, img_emb_1.npy, ..."""
_LISTING: Final = re.compile(r"metadata_?(\d+)\.parquet")
"""Tables of clip-retrieval: metadata/metadata_0.parquet, ..."""
_NUMBERED: Final = re.compile(r"(.*?)([0-9]+)", re.DOTALL)


@dataclass(frozen=True)
class Vectors:
    """The embeddings of N images in a file or folder.

    Attributes:
        source: The file or folder.
        files: Files that are read, in order.
        blocks: Function that reads the embeddings, in blocks, from the first.
        rows: N; None if only reading all of them would tell.
        ids: Ids of the images, if the embeddings are named by them; None where a table has one row
            for each embedding.
        table: The table that is in the same file or folder; None without one.
        notes: Sentences on how they are read.
    """

    source: Path
    files: tuple[Path, ...]
    blocks: Callable[[], Iterator[Block]]
    rows: int | None = None
    ids: tuple[str, ...] | None = None
    table: Table | None = None
    notes: tuple[str, ...] = ()


def open_vectors(
    source: Path,
    embedding: Sequence[str] = (),
    *,
    separator: str | None = None,
    encoding: str | None = None,
    progress: Progress | None = None,
) -> Vectors:
    """Open the embeddings in a file or folder.

    Args:
        source: An array (.npy), arrays (.npz), a table (.parquet, .csv, ...), the output folder of
            clip-retrieval, a TFRecord file, or a folder with .npz or .npy files for each image, or
            with TFRecord files.
        embedding: Columns of a table, or patterns of them, or the name of an array in .npz files or
            of a feature in TFRecord files.
        separator: See ``open_table``.
        encoding: See ``open_table``.
        progress: Called with the number of TFRecord files whose ids were read and the total.

    Raises:
        DatasetError: The file or folder is missing, is of another kind, or cannot be read.
        UsageError: It can be read in several ways.
    """
    name = source.name.lower()
    if name.endswith(_FOR_OTHER_TOOLS) or (source / MARKER).is_file():
        raise DatasetError(
            f"{source} is of a format that is not read: export a cache as parquet or .npy, which "
            "can be imported, and save embeddings of another program as .npy with a table beside it"
        )
    if source.is_dir():
        if not (source / "img_emb").is_dir():
            return _folder(source, embedding, progress)
        if embedding:
            raise UsageError(f"{source} is of clip-retrieval: leave out `embedding`")
        return _clip_retrieval(source)
    if not source.exists():
        raise DatasetError(f"{source} does not exist: check the path")
    if name.endswith(".npy"):
        if embedding:
            raise UsageError(f"{source} is one array: leave out `embedding`")
        return _arrays(source, [source])
    if name.endswith(".npz"):
        return _named_arrays(source, embedding)
    if name.endswith(TABLE_SUFFIXES):
        table = open_table(source, separator=separator, encoding=encoding)
        if name.endswith(".parquet"):
            return _vector_column(table, embedding)
        if not embedding:
            raise UsageError(
                f"{source}: give `embedding`, the columns of the embeddings, such as 'emb_*'"
            )
        return _number_columns(table, embedding)
    if tfrecord.SUFFIX.search(name):
        return _examples(source, [source], embedding, progress)
    raise DatasetError(
        f"{source} holds no embeddings that can be read: give a folder, or a file whose name ends "
        f"in .npy, .npz, .tfrecord, {', '.join(TABLE_SUFFIXES)}"
    )


def _arrays(source: Path, files: Sequence[Path], table: Table | None = None) -> Vectors:
    """Open .npy files whose rows are those of a table, in this order."""
    shapes = [_open_array(file).shape for file in files]
    for file, shape in zip(files, shapes, strict=True):
        if len(shape) < 2:
            raise DatasetError(
                f"{file} is an array of shape {shape}: give one of shape (images, dimensions)"
            )

    def blocks() -> Iterator[Block]:
        for file, (rows, *_) in zip(files, shapes, strict=True):
            for start in range(0, rows, BLOCK_ROWS):
                # Opened anew, so that pages that were read do not stay mapped.
                block = np.asarray(_open_array(file)[start : start + BLOCK_ROWS])
                yield block.reshape(len(block), -1)

    rows = sum(shape[0] for shape in shapes)
    return Vectors(source, tuple(files), blocks, rows, table=table, notes=_flattened(shapes[0][1:]))


def _open_array(file: Path) -> NDArray[Any]:
    with _read_errors(file):
        array: NDArray[Any] = np.load(file, mmap_mode="r")
    _require_numbers(file, array.dtype)
    return array


def _clip_retrieval(folder: Path) -> Vectors:
    """Open the folders img_emb and metadata, which have one file for each shard."""
    from pyarrow.parquet import ParquetFile

    matches = {file: _SHARD.fullmatch(file.name) for file in (folder / "img_emb").glob("*.npy")}
    shards = sorted((int(match[1]), file) for file, match in matches.items() if match)
    if not shards or len(shards) < len(matches):
        raise DatasetError(f"{folder}/img_emb has no arrays, or others than img_emb_NUMBER.npy")
    _require_all_shards(folder, [number for number, _ in shards])
    tables = []
    for _, file in shards:
        stem = re.sub(r"^img_emb", "metadata", file.stem)
        path = folder / "metadata" / f"{stem}.parquet"
        if not path.is_file():
            raise DatasetError(f"{path} is missing, which lists the images of {file}")
        table = open_table(path)
        rows = len(_open_array(file))
        with _read_errors(path), ParquetFile(path) as opened:
            listed = opened.metadata.num_rows
        if listed != rows:
            raise DatasetError(
                f"{path} has {count_noun(listed, 'row')}, but {file} has "
                f"{count_noun(rows, 'embedding')}: one of them is not complete"
            )
        tables.append(table)
    if different := [table for table in tables if table.header != tables[0].header]:
        raise DatasetError(
            f"{different[0].path} has other columns than {tables[0].path}: "
            f"{', '.join(different[0].header)} instead of {', '.join(tables[0].header)}"
        )
    files = [file for _, file in shards]
    listing = Table(folder / "metadata", tables[0].header, (), _ConcatenatedRows(tables))
    vectors = _arrays(folder, files, listing)
    return replace(vectors, files=(*files, *(table.path for table in tables)))


def _require_all_shards(folder: Path, numbers: Sequence[int]) -> None:
    """Check the numbers of arrays of clip-retrieval, which are counted from 0.

    Raises:
        DatasetError: One is missing, also if only its table is there, or occurs twice.
    """
    matches = (_LISTING.fullmatch(path.name) for path in (folder / "metadata").glob("*.parquet"))
    listed = [int(match[1]) for match in matches if match]
    total = max(*numbers, *listed) + 1
    if missing := sorted(set(range(total)).difference(numbers)):
        raise DatasetError(
            f"{folder}/img_emb: {len(set(numbers))} of {count_noun(total, 'array')} are there, "
            f"without number {missing[0]}: copy or download all of them"
        )
    if len(numbers) > total:
        raise DatasetError(f"{folder}/img_emb has several arrays of one number: keep one of each")


class _ConcatenatedRows:
    """The rows of several tables with the same columns, numbered on.

    Args:
        tables: The tables.
    """

    rounded: Mapping[int, int] = MappingProxyType({})

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        self.header = list(tables[0].header)
        self.notes: list[str] = []

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        rows = (row for table in self._tables for _, row in table.iter_rows(self.header))
        return enumerate(rows, 1)


def _folder(folder: Path, embedding: Sequence[str], progress: Progress | None) -> Vectors:
    """Open a folder with a file for each image, or with TFRecord files."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        kind = "TFRecord" if tfrecord.SUFFIX.search(path.name) else path.suffix
        if kind in (".npz", ".npy", "TFRecord"):
            files.setdefault(kind, []).append(path)
    if not files:
        raise DatasetError(
            f"{folder} holds no embeddings: give a file, the output folder of clip-retrieval, or a "
            "folder with an .npz or .npy file for each image, or with TFRecord files"
        )
    if len(files) > 1:
        raise UsageError(
            f"{folder} has {' and '.join(files)} files: give a folder with files of one kind"
        )
    ((kind, paths),) = files.items()
    if kind == "TFRecord":
        tfrecord.require_all_shards(paths)
        return _examples(folder, paths, embedding, progress)
    if embedding and kind == ".npy":
        raise UsageError(f"{folder} has .npy files, of one array each: leave out `embedding`")
    return _file_per_image(folder, paths, embedding)


def _file_per_image(folder: Path, files: Sequence[Path], embedding: Sequence[str]) -> Vectors:
    """Open files of one image each, whose id is its path without the suffix."""

    def vector(file: Path) -> NDArray[Any]:
        with _read_errors(file):
            array = np.load(file)
            if file.suffix == ".npz":
                with array:
                    array = array[_only_array(file, array.files, embedding)]
        _require_numbers(file, array.dtype)
        return np.asarray(array)

    ids = tuple(str(file.relative_to(folder).with_suffix("").as_posix()) for file in files)
    shape = vector(files[0]).shape

    def blocks() -> Iterator[Block]:
        yield from _stack((str(file), vector(file)) for file in files)

    return Vectors(folder, tuple(files), blocks, len(ids), ids, notes=_flattened(shape))


def _only_array(file: Path, names: Sequence[str], embedding: Sequence[str]) -> str:
    wanted = embedding[0] if embedding else COLUMN
    if wanted in names:
        return wanted
    if embedding or len(names) != 1:
        raise UsageError(
            f"{file} has the arrays {', '.join(names) or 'none'}: give the name of the one of the "
            "embedding as `embedding`"
        )
    return names[0]


def _examples(
    source: Path, files: Sequence[Path], embedding: Sequence[str], progress: Progress | None
) -> Vectors:
    """Open TFRecord files with an embedding in each record.

    The id of an image is the feature ``image/id``, or, if a file has a single record without it,
    the path of the file without the suffix.
    """
    if len(embedding) > 1:
        raise UsageError("`embedding` names one feature of TFRecord files")
    folder = source if source.is_dir() else source.parent
    ids: list[str] = []
    for number, file in enumerate(files, 1):
        ids += _example_ids(file, folder)
        if progress is not None:
            progress(number, len(files))

    def vectors() -> Iterator[tuple[str, NDArray[np.float32]]]:
        for file in files:
            with _read_errors(file):
                for number, features in enumerate(tfrecord.read_examples(file), 1):
                    where = f"{file}, record {number}"
                    yield where, _float_feature(where, features, embedding)

    return Vectors(source, tuple(files), lambda: _stack(vectors()), len(ids), tuple(ids))


def _example_ids(file: Path, folder: Path) -> list[str]:
    with _read_errors(file):
        stated = [features.get(_IMAGE_ID, []) for features in tfrecord.read_examples(file)]
        if [len(values) for values in stated] == [0]:
            return [tfrecord.SUFFIX.sub("", file.relative_to(folder).as_posix())]
        for number, values in enumerate(stated, 1):
            if len(values) != 1 or not isinstance(values, list):
                raise DatasetError(
                    f"{file}, record {number}, has no id in the feature {_IMAGE_ID!r}: add it, or "
                    "save each image in a file of its own, named by its id"
                )
        ids = (values[0] for values in stated)
        return [image.decode() if isinstance(image, bytes) else str(image) for image in ids]


def _float_feature(
    where: str, features: tfrecord.Features, embedding: Sequence[str]
) -> NDArray[np.float32]:
    floats = {name: value for name, value in features.items() if isinstance(value, np.ndarray)}
    names = embedding or ([COLUMN] if COLUMN in floats else list(floats))
    if len(names) != 1 or names[0] not in floats:
        raise UsageError(
            f"{where}, has the features of floating-point numbers {', '.join(floats) or 'none'}: "
            "give the name of the one of the embedding as `embedding`"
        )
    return floats[names[0]]


def _named_arrays(file: Path, embedding: Sequence[str]) -> Vectors:
    """Open an .npz file: a matrix, with columns beside it, or an array for each image."""
    with _read_errors(file), zipfile.ZipFile(file) as archive:
        arrays = {}
        for member in archive.namelist():
            with archive.open(member) as opened:
                arrays[member.removesuffix(".npy")] = _read_header(opened)
    if len(embedding) > 1:
        raise UsageError("`embedding` names one array of an .npz file")
    matrices = [name for name, (shape, _, _) in arrays.items() if len(shape) > 1]
    wanted = embedding[0] if embedding else COLUMN
    if embedding and wanted not in arrays:
        raise UsageError(f"{file} has no array {wanted!r}: it has {', '.join(arrays)}")
    if wanted not in matrices:
        shapes = {shape for shape, _, _ in arrays.values()}
        if embedding or (len(matrices) != 1 and len(shapes) != 1):
            raise UsageError(
                f"{file} has {count_noun(len(arrays), 'array')}, which are neither one matrix nor "
                "vectors of one length: give the name of the matrix as `embedding`"
            )
        if len(shapes) == 1 and not (len(arrays) == 1 and matrices):
            return _array_per_image(file, arrays)
        (wanted,) = matrices
    shape, is_fortran, dtype = arrays[wanted]
    _require_numbers(file, dtype)
    columns = [
        name
        for name, (other, _, kind) in arrays.items()
        if other == shape[:1] and name != wanted and kind.kind in "UiufbS"
    ]
    if is_fortran:
        raise DatasetError(f"{file}: the array {wanted!r} is in Fortran order: save it in C order")

    def blocks() -> Iterator[Block]:
        size = dtype.itemsize * int(np.prod(shape[1:]))
        with (
            _read_errors(file),
            zipfile.ZipFile(file) as archive,
            archive.open(f"{wanted}.npy") as opened,
        ):
            _read_header(opened)
            for start in range(0, shape[0], BLOCK_ROWS):
                rows = min(BLOCK_ROWS, shape[0] - start)
                yield np.frombuffer(opened.read(rows * size), dtype).reshape(rows, -1)

    table = Table(file, tuple(columns), (), _ArrayRows(file, columns)) if columns else None
    return Vectors(file, (file,), blocks, shape[0], table=table, notes=_flattened(shape[1:]))


def _array_per_image(file: Path, arrays: Mapping[str, tuple[Any, bool, np.dtype[Any]]]) -> Vectors:
    """Open an .npz file of arrays of one shape, named by the ids of the images."""
    shape, _, _ = next(iter(arrays.values()))
    for _, _, dtype in arrays.values():
        _require_numbers(file, dtype)

    def blocks() -> Iterator[Block]:
        with _read_errors(file), np.load(file) as opened:
            yield from _stack((f"{file}, {name}", opened[name]) for name in arrays)

    return Vectors(file, (file,), blocks, len(arrays), tuple(arrays), notes=_flattened(shape))


class _ArrayRows:
    """One-dimensional arrays of an .npz file, as the columns of a table.

    Args:
        file: The file.
        columns: Names of the arrays.
    """

    rounded: Mapping[int, int] = MappingProxyType({})

    def __init__(self, file: Path, columns: Sequence[str]) -> None:
        self._file = file
        self.header = list(columns)
        self.notes: list[str] = []

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        with np.load(self._file) as opened:
            columns = [_as_texts(opened[name]) for name in self.header]
        return enumerate(map(list, zip(*columns, strict=True)), 1)


def _as_texts(column: NDArray[Any]) -> list[str]:
    if column.dtype.kind == "S":
        column = np.char.decode(column, "utf-8")
    if column.dtype.kind == "f":
        return [
            "" if np.isnan(value) else str(int(value)) if value.is_integer() else str(value)
            for value in column.astype(np.float64)
        ]
    return [str(value) for value in column.tolist()]


def _vector_column(table: Table, embedding: Sequence[str]) -> Vectors:
    """Open a parquet file with a column of vectors, or with a column for each dimension."""
    import pyarrow.compute as pc
    from pyarrow.parquet import ParquetFile

    path = table.path
    with _read_errors(path), ParquetFile(path) as file:
        columns = [field.name for field in file.schema_arrow if holds_vectors(field.type)]
        rows = file.metadata.num_rows
    if embedding and not set(embedding) & set(columns):
        return _number_columns(table, embedding, rows=rows)
    if not embedding:
        embedding = [COLUMN] if COLUMN in columns else columns
    if len(embedding) != 1:
        listed = ", ".join(map(repr, columns))
        reason = f"several columns of vectors, {listed}" if columns else "no column of vectors"
        raise UsageError(
            f"{path} has {reason}: give `embedding`, the column, or the columns of single numbers, "
            "such as 'emb_*'"
        )
    (column,) = embedding

    def blocks() -> Iterator[Block]:
        dim, start = None, 0
        # By default, whole columns are buffered.
        buffering: dict[str, Any] = {"pre_buffer": False, "buffer_size": _READ_BYTES}
        with _read_errors(path), ParquetFile(path, **buffering) as file:
            for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=[column]):
                lists: pa.Array = batch.column(0)
                lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
                dim = int(lengths[0]) if dim is None else dim
                if (wrong := np.flatnonzero((lengths != dim) | (lengths == 0))).size:
                    raise DatasetError(
                        f"{path}, row {start + int(wrong[0]) + 1}: the embedding has "
                        f"{count_noun(int(lengths[wrong[0]]), 'number')}"
                        + (f", the first one {dim}" if dim else "")
                    )
                start += len(lists)
                yield lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)

    return Vectors(path, (path,), blocks, rows, table=table)


def _number_columns(table: Table, embedding: Sequence[str], rows: int | None = None) -> Vectors:
    """Open a table with a column for each dimension, or with one of texts such as "[0.1, 0.2]"."""
    columns, notes = _in_numeric_order(table, embedding)

    def blocks() -> Iterator[Block]:
        cells = table.iter_rows(columns)
        while block := list(islice(cells, BLOCK_ROWS)):
            if len(columns) == 1:
                block = [
                    (line, re.sub(r"[\[\](),;]", " ", text).split()) for line, (text,) in block
                ]
            yield from _stack(
                (f"{table.path}, line {line}", _as_numbers(table.path, line, texts))
                for line, texts in block
            )

    return Vectors(table.path, (table.path,), blocks, rows, table=table, notes=notes)


def _in_numeric_order(table: Table, embedding: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the columns of the dimensions, and a note if the file has them in another order.

    A file may have them sorted as texts: emb_0, emb_1, emb_10, emb_2. Columns that are all given by
    name stay in the given order.
    """
    columns = table.expand(embedding)
    matches = [match for column in columns if (match := _NUMBERED.fullmatch(column))]
    numbers = [int(match[2]) for match in matches]
    is_one_sequence = (
        len(matches) == len(columns) == len(set(numbers))
        and len({match[1] for match in matches}) == 1
    )
    if columns == list(embedding) or not is_one_sequence or numbers == sorted(numbers):
        return columns, ()
    ordered = [columns[position] for position in np.argsort(numbers).tolist()]
    note = (
        f"The columns of the embedding, {ordered[0]} to {ordered[-1]}, are taken in the order of "
        "their numbers, which is not that of the file."
    )
    return ordered, (note,)


def _as_numbers(path: Path, line: int, texts: Sequence[str]) -> NDArray[np.float64]:
    try:
        return np.array(texts, dtype=np.float64)
    except ValueError as error:
        raise DatasetError(
            f"{path}, line {line}: the embedding has a cell that is not a number: {error}"
        ) from error


def _stack(named: Iterator[tuple[str, NDArray[Any]]]) -> Iterator[Block]:
    """Yield vectors as blocks; arrays of more dimensions are flattened.

    Args:
        named: Where each vector is, for messages, and the vector.

    Raises:
        DatasetError: One has another length than the first, or none.
    """
    dim = None
    while block := list(islice(named, BLOCK_ROWS)):
        for where, vector in block:
            dim = vector.size if dim is None else dim
            if vector.size != dim or not dim:
                raise DatasetError(
                    f"{where}: the embedding has {count_noun(vector.size, 'number')}"
                    + (f", the first one {dim}" if dim else "")
                )
        yield np.stack([vector.reshape(-1) for _, vector in block])


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape of an array in a .npy file, whether it is in Fortran order, and its type."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _require_numbers(file: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind != "f":
        raise DatasetError(
            f"{file} holds values of type {dtype}: give embeddings as floating-point numbers"
        )


def _flattened(shape: Sequence[int]) -> tuple[str, ...]:
    if len(shape) < 2:
        return ()
    return (
        f"Each embedding is an array of {' x '.join(map(str, shape))} numbers, which are taken as "
        "one vector.",
    )


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except Exception as error:
        raise DatasetError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
