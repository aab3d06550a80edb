"""Make a cache of embeddings from elsewhere."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.csv import TableColumns
from featurecache.datasets.dataset import Dataset, safe_name
from featurecache.datasets.label_columns import patient_columns
from featurecache.datasets.mimic_cxr import parse_image_paths
from featurecache.datasets.table_reader import TABLE_SUFFIXES, Table, open_table
from featurecache.encoders.registry import ENCODERS
from featurecache.errors import DatasetError, UsageError
from featurecache.extraction.provenance import is_exposed
from featurecache.importing.own_exports import OwnExport, find_own_export, open_texts
from featurecache.importing.texts import read_texts
from featurecache.importing.vectors import Vectors, open_vectors
from featurecache.io.atomic import require_absent, scratch_folder
from featurecache.io.fingerprint import sha256_of_file
from featurecache.progress import Progress
from featurecache.provenance.names import may_hold_same
from featurecache.provenance.perceptual_hash import HASH_BYTES
from featurecache.provenance.provenance import Provenance
from featurecache.store.cache import Cache
from featurecache.store.layout import cache_path
from featurecache.store.lock import cache_lock
from featurecache.store.reader import read_cache
from featurecache.store.records import (
    Header,
    ImageTable,
    Labels,
    TextSet,
    Utf8,
    to_utf8,
    usable_rows,
)
from featurecache.store.writer import write_cache
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

_ID_COLUMNS: Final = (
    *("id", "image_id", "dicom_id", "image", "image_path", "path", "filename", "file"),
)
"""Columns that are taken for the ids of images, unless one is given."""

_SEVERAL_PER_PATIENT: Final = re.compile(
    r"(?:^|/)(?:\d{8}_\d{3}(?:\.\w+)?$|patient\d{3,}/|p\d{8}/)", re.IGNORECASE
)
"""Ids as in ChestX-ray14, CheXpert and MIMIC-CXR, which name a patient with several images."""

_LARGEST: Final = float(np.finfo(np.float16).max)


def import_cache(
    source: str | os.PathLike[str],
    *,
    model: str | None = None,
    name: str | None = None,
    cache_dir: str | os.PathLike[str] = "cache",
    table: str | os.PathLike[str] | None = None,
    embedding: str | Sequence[str] = (),
    texts: str | os.PathLike[str] | None = None,
    labels: str | Sequence[str] | None = None,
    multilabel: str | None = None,
    classes: str | None = None,
    id: str | None = None,
    patient: str | None = None,
    study: str | None = None,
    split: str | None = None,
    view: str | None = None,
    sex: str | None = None,
    age: str | None = None,
    positive: str | Sequence[str] = (),
    negative: str | Sequence[str] = (),
    label_separator: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Cache:
    """Make a cache of embeddings that another program made, or of an export of a cache.

    Everything that needs no images works on it: training heads, zero-shot if texts are given,
    retrieval, evaluation, the audit of labels and splits. ``extract`` does not add to it. The
    embeddings are read block by block and stored as float16.

    Args:
        source: File or folder with the embeddings: an export as parquet or .npy, which states
            everything else itself; an array (.npy) whose rows are those of a table; a parquet
            file with a column of vectors; a CSV file with a column for each dimension; an .npz
            file with one matrix, or with an array for each image, named by its id; a TFRecord file
            with an embedding in each record; the output folder of clip-retrieval; or a folder with
            an .npz or .npy file for each image, or with TFRecord files.
        model: Name of the encoder that made the embeddings; needed unless ``source`` is an export.
            Embeddings of two imports can be compared if it is the same.
        name: Name of the data set. By default that of the export, or of the file or folder.
        cache_dir: Directory of the caches; the cache is ``CACHE_DIR/NAME/MODEL.h5``.
        table: Table of the images, as ``load_dataset`` reads it, with one row for each embedding,
            in the same order; or, if the embeddings have ids, with their ids. By default the table
            in or beside ``source``.
        embedding: Column of the embeddings in a parquet file, columns of single numbers or patterns
            of them, such as "emb_*"; or the name of an array in an .npz file, or of a feature in a
            TFRecord file.
        texts: Embeddings of prompts by the same encoder, for zero-shot classification: a parquet
            file or an .npy file with a table beside it, with the columns ``label``, ``prompt`` and
            optionally ``statement`` and ``set``, as exports have them.
        labels: Columns of one label each, or patterns; see ``load_dataset`` for these and the
            following.
        multilabel: Column of joined labels.
        classes: Column of classes.
        id: Column of ids. By default ``id``, or the only one of the usual names.
        patient: Column of patients; that of the ids if every image is of another patient.
        study: Column of studies.
        split: Column of splits. By default the images are split by patient.
        view: Column of views.
        sex: Column of sexes.
        age: Column of ages.
        positive: Words for positive in the columns ``labels``.
        negative: Words for negative.
        label_separator: What joins the labels of ``multilabel``.
        separator: Separator of the columns of a text file.
        encoding: Encoding of a text file.
        folds: Number of folds, by patient, instead of a column of splits.
        fold: The fold that is test.
        seed: Seed of what the column of splits does not state.
        progress: Called with the number of embeddings read and the total; before that, with the
            number of TFRecord files whose ids were read and their total.

    Returns:
        The cache.

    Raises:
        DatasetError: A file is missing or cannot be read; an id is repeated; there are more or
            fewer embeddings than rows; an embedding has another length than the others, or a value
            that is not finite or too large, or is all zero. The message names the row.
        UsageError: The cache exists already; it is not known which column has the ids, or which
            images are of one patient; or an argument is missing.
        OSError: The disk is full or not writable.

    Example:
        >>> import featurecache as fc
        >>> exported = fc.export_cache("cache/phantom/tiny.h5", "phantom.parquet")
        >>> cache = fc.import_cache(exported, name="copy")
        >>> cache.path.name, len(cache) == len(fc.open_cache("cache/phantom/tiny.h5"))
        ('tiny.h5', True)
    """
    source = Path(source).expanduser()
    columns: dict[str, Any] = {
        "labels": labels,
        "multilabel": multilabel,
        "classes": classes,
        "positive": positive,
        "negative": negative,
        "label_separator": label_separator,
    }
    roles = {
        **{"id": id, "patient": patient, "study": study, "split": split},
        **{"view": view, "sex": sex, "age": age},
    }
    splits = {"folds": folds, "fold": fold}
    export = find_own_export(source) if table is None else None
    if export is not None:
        given = {**columns, **roles, **splits, "embedding": embedding, "texts": texts}
        if chosen := [argument for argument, value in given.items() if value not in (None, (), [])]:
            raise UsageError(
                f"{source} is an export, which states everything itself: leave out "
                f"{', '.join(f'`{argument}`' for argument in chosen)}"
            )
        images = _of_export(export, name)
        model = model or export.header["model"]
    else:
        vectors = open_vectors(
            source,
            _as_list(embedding),
            separator=separator,
            encoding=encoding,
            progress=progress,
        )
        if not model:
            raise UsageError("give `model`, the name of the encoder that made the embeddings")
        listing = _find_table(vectors, table, separator=separator, encoding=encoding)
        images = _describe(
            vectors, listing, name, columns=columns, roles=roles, **splits, seed=seed
        )
    target = cache_path(Path(cache_dir), images.dataset.name, model)
    require_absent(target, argument="name")
    prompt_sets = _read_texts(export, texts, images.dataset.label_names, model)
    header = _header(images, export, model, texts=None if texts is None else Path(texts))
    with cache_lock(target), scratch_folder(target) as folder:
        require_absent(target, argument="name")
        dim = _store(images, folder / "embedding", progress)
        _require_same_space(prompt_sets, dim)

        def read(start: int, stop: int) -> NDArray[np.float16]:
            # Mapped anew, so that pages that were read do not stay mapped.
            stored = np.memmap(folder / "embedding", np.float16, "r").reshape(-1, dim)
            return np.asarray(stored[images.rows[start:stop]])

        write_cache(
            target,
            header=header,
            images=images.table(),
            dim=dim,
            embedding=read,
            labels=Labels(images.dataset.label_names, images.dataset.cells, images.dataset.policy),
            texts=prompt_sets,
            failures={},
        )
    return read_cache(target)


@dataclass(frozen=True)
class _Images:
    """The images to import.

    Attributes:
        dataset: The images; their paths are the numbers of their embeddings.
        vectors: The embeddings.
        ids: Ids in the order of the embeddings.
        read: All files that were read, in order.
        known_files: For each embedding, the columns ``path``, ``sha256`` and ``perceptual_hash``;
            None if nothing is known of the image files.
    """

    dataset: Dataset
    vectors: Vectors
    ids: Sequence[str]
    read: tuple[Path, ...]
    known_files: "pd.DataFrame | None" = None

    @property
    def rows(self) -> NDArray[np.intp]:
        """The embedding of each image of the data set, (N,)."""
        return self.dataset.images["path"].to_numpy(str).astype(np.intp)

    def table(self) -> ImageTable:
        """Return the images as a cache stores them."""
        images = self.dataset.images
        unknown: Utf8 = np.zeros(len(images), dtype="S1")
        hashes = np.zeros((len(images), HASH_BYTES), dtype=np.uint8)
        path = sha256 = unknown
        if self.known_files is not None:
            files = self.known_files.iloc[self.rows]
            path, sha256 = to_utf8(files["path"]), to_utf8(files["sha256"])
            hashes = _parse_hashes(files["perceptual_hash"])
        return ImageTable(
            **{
                column: to_utf8(images[column])
                for column in ("id", "patient", "study", "split", "view", "sex", "age")
            },
            path=path,
            sha256=sha256,
            perceptual_hash=hashes,
            size=np.zeros(len(images), dtype=np.int64),
            mtime_ns=np.zeros(len(images), dtype=np.int64),
        )


def _parse_hashes(texts: Iterable[str]) -> NDArray[np.uint8]:
    try:
        hashes = [bytes.fromhex(text or "00" * HASH_BYTES) for text in texts]
        return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, HASH_BYTES)
    except ValueError as error:
        raise DatasetError(f"the column perceptual_hash has an invalid value: {error}") from error


def _of_export(export: OwnExport, name: str | None) -> _Images:
    dataset, files = export.dataset(name)
    vectors = open_vectors(export.path)
    texts = () if export.texts is None else (export.texts, open_texts(export.texts).path)
    read = dict.fromkeys((export.path, export.table.path, *texts))
    return _Images(dataset, vectors, files["id"].tolist(), tuple(read), files)


def _find_table(
    vectors: Vectors,
    table: str | os.PathLike[str] | None,
    *,
    separator: str | None,
    encoding: str | None,
) -> Table | None:
    """Return the table of images: the given one, that of the embeddings, or the one beside them."""
    if table is not None:
        return open_table(Path(table).expanduser(), separator=separator, encoding=encoding)
    if vectors.table is not None:
        return vectors.table
    stem = vectors.source.with_suffix("") if vectors.source.is_file() else vectors.source
    beside = [path for suffix in TABLE_SUFFIXES if (path := Path(f"{stem}{suffix}")).is_file()]
    if len(beside) == 1:
        return open_table(beside[0], separator=separator, encoding=encoding)
    if vectors.ids is None or beside:
        raise UsageError(
            f"{vectors.source}: give `table`, the table that lists its images"
            + (f"; {' and '.join(map(str, beside))} are beside it" if beside else "")
        )
    return None


def _describe(
    vectors: Vectors,
    table: Table | None,
    name: str | None,
    *,
    columns: Mapping[str, Any],
    roles: Mapping[str, str | None],
    folds: int | None,
    fold: int | None,
    seed: int,
) -> _Images:
    """Read what a table states of the images."""
    import pandas as pd

    own_name = safe_name(name or vectors.source.name.partition(".")[0])
    notes = list(vectors.notes)
    excluded = 0
    ids = vectors.ids
    mimic = None if ids is None else parse_image_paths(ids)
    if mimic is not None:
        ids = tuple(mimic["id"])
        notes.append(
            "The embeddings are named like the images of MIMIC-CXR: ids, patients and studies are "
            "those in the names."
        )
    if ids is not None and len(set(ids)) < len(ids):
        repeated, _ = Counter(ids).most_common(1)[0]
        raise DatasetError(
            f"{vectors.source} has several embeddings of {repeated!r}: keep one for each image"
        )
    if table is None:
        assert ids is not None
        if any(value for value in (*roles.values(), *columns.values())):
            raise UsageError(
                f"{vectors.source} has no table beside it: give it as `table`, or leave out its "
                "columns"
            )
        rows = _Listed(ids)
        table, id_column = Table(vectors.source, ("id",), (), rows), "id"
    else:
        id_column, id_notes = _find_id_column(table, roles["id"])
        notes += [*table.notes, *id_notes]
    chosen = TableColumns.of(table, **columns, roles={**roles, "id": id_column})
    cells = table.read(chosen.names())
    if ids is not None:
        cells, excluded, match_notes = _match(cells, table, id_column, ids, vectors.source)
        notes += match_notes
    elif vectors.rows is not None and len(cells) != vectors.rows:
        raise DatasetError(
            f"{vectors.source} has {count_noun(vectors.rows, 'embedding')}, but {table.path} has "
            f"{count_noun(len(cells), 'row')}: give the table with one row for each embedding, in "
            "the same order"
        )
    stated = chosen.read(cells, used=id_column)
    images = stated.images
    if mimic is None:
        _require_known_patients(table, images["id"], roles)
    else:
        for role in mimic.columns:
            if role == "id" or not roles[role]:
                images[role] = mimic[role].to_numpy()
    images["path"] = pd.Series(np.arange(len(images)).astype(str), images.index)
    patient_notes, completed = chosen.complete(
        images,
        stated.cells,
        stated.label_names,
        used=id_column,
        folds=folds,
        fold=fold,
        seed=seed,
    )
    images["split"] = completed.names
    dataset = Dataset(
        name=own_name,
        root=vectors.source,
        images=images.astype(str),
        labels=stated.cells,
        label_names=stated.label_names,
        notes=[*notes, *stated.notes, *patient_notes, *completed.notes],
        collection="" if mimic is None else "mimic-cxr-jpg",
        split_draw=completed.draw,
        excluded={"row without an embedding": excluded},
    )
    read = dict.fromkeys((*vectors.files, *([] if table.path.is_dir() else [table.path])))
    return _Images(dataset, vectors, images["id"].tolist(), tuple(read))


class _Listed:
    """Ids as a table of one column.

    Args:
        ids: The ids.
    """

    rounded: Mapping[int, int] = MappingProxyType({})

    def __init__(self, ids: Sequence[str]) -> None:
        self.header = ["id"]
        self.notes: list[str] = []
        self._ids = ids

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        return ((number, [image]) for number, image in enumerate(self._ids, 1))


def _find_id_column(table: Table, column: str | None) -> tuple[str, list[str]]:
    if column:
        return column, []
    usual = [name for name in _ID_COLUMNS if name in table.header]
    if "id" in usual:
        return "id", []
    if len(usual) == 1:
        return usual[0], [f"The ids of the images are those of the column {usual[0]!r}."]
    reason = f"several columns that may be ids, {', '.join(usual)}" if usual else "no column 'id'"
    raise UsageError(f"{table.path} has {reason}: give `id`; it has {table.names()}")


def _match(
    cells: "pd.DataFrame", table: Table, column: str, wanted: Sequence[str], source: Path
) -> "tuple[pd.DataFrame, int, list[str]]":
    """Return the rows of a table in the order of embeddings that have ids.

    Returns:
        The rows; the number of those without an embedding; and notes.
    """
    import pandas as pd

    ids, names, notes = cells[column], pd.Series(wanted, dtype=str), []
    if not ids.isin(names).any():
        stems, file_stems = _without_suffix(ids), _without_suffix(_file_name(ids))
        image_stems = _without_suffix(_file_name(names))
        if stems.isin(names).any():
            ids = stems
            notes.append("The ids are matched without the suffixes that the table has.")
        elif file_stems.isin(image_stems).any() and file_stems.is_unique and image_stems.is_unique:
            ids, names = file_stems, image_stems
            notes.append("The ids are matched by the names of files, without folder and suffix.")
    if ids.duplicated().any():
        repeated = ids[ids.duplicated()]
        raise DatasetError(
            f"{table.path}, line {repeated.index[0]}: the id {repeated.iloc[0]!r} occurs twice: "
            "keep one row for each image"
        )
    rows = pd.Index(ids).get_indexer(pd.Index(names))
    if (missing := np.flatnonzero(rows < 0)).size:
        raise DatasetError(
            f"{table.path} has no row for {count_noun(len(missing), 'embedding')} of "
            f"{source}, {wanted[missing[0]]!r} the first: add it"
        )
    excluded = len(cells) - len(rows)
    if excluded:
        notes.append(
            f"{count_noun(excluded, 'row')} of the table without an embedding "
            f"{'is' if excluded == 1 else 'are'} left out."
        )
    return cells.iloc[rows], excluded, notes


def _file_name(ids: "pd.Series[str]") -> "pd.Series[str]":
    return ids.str.replace(r"^.*/", "", regex=True)


def _without_suffix(ids: "pd.Series[str]") -> "pd.Series[str]":
    return ids.str.replace(r"\.\w+$", "", regex=True)


def _require_known_patients(
    table: Table, ids: "pd.Series[str]", roles: Mapping[str, str | None]
) -> None:
    """Check that each image may be taken to be of another patient, if no patients are given."""
    if roles["patient"] or roles["study"]:
        return
    looks = patient_columns(name for name in table.header if name not in roles.values())
    evident = ids[ids.str.contains(_SEVERAL_PER_PATIENT)]
    if looks or len(evident) > 1:
        reason = (
            f"the column {looks[0]!r} of {table.path} looks like patients"
            if looks
            else f"ids such as {evident.iloc[0]!r} are of patients with several images"
        )
        raise UsageError(
            f"{reason}: give `patient`, the column of patients, as images of one patient must not "
            "be in two splits. If each image is of another patient, give the column of ids"
        )


def _header(images: _Images, export: OwnExport | None, model: str, *, texts: Path | None) -> Header:
    dataset = images.dataset
    header = Header(
        model=model,
        dataset=dataset.name,
        notes=tuple(dataset.notes),
        image_level_split=dataset.image_level_split,
        exposed=False,
        encoder_spec={"imported": {"model": model}},
        collection=dataset.collection,
        trained_on={},
        excluded=dataset.excluded,
        bit_depth=dataset.bit_depth,
        split_draw="" if dataset.split_draw is None else str(dataset.split_draw),
        policy=dataset.policy,
        imported=_fingerprints(images, texts),
    )
    if export is not None:
        stated = export.header
        return replace(
            header,
            exposed=stated["exposed"]
            or any(may_hold_same(dataset.collection, other) for other in stated["trained_on"]),
            encoder_spec=stated["spec"],
            revision=stated["revision"],
        )
    registered = ENCODERS.get(model)
    exposed_to = () if registered is None else registered.exposed_to
    training = (
        "What it was trained on is not known."
        if registered is None
        else "What it was trained on is taken to be that of the registered model of this name."
    )
    return replace(
        header,
        notes=(*header.notes, f"Another program made the embeddings, with {model}. {training}"),
        exposed=is_exposed(dataset, Provenance(exposed_to=exposed_to)),
    )


def _fingerprints(images: _Images, texts: Path | None) -> dict[str, str]:
    """Return the SHA-256 of what was read, by name; of a folder, that of its list of files."""
    source = images.vectors.source
    inside = [path for path in images.read if source.is_dir() and path.is_relative_to(source)]
    outside = {*images.read, *([] if texts is None else [texts])}.difference(inside)
    prints = {path.name: sha256_of_file(path) for path in sorted(outside)}
    if inside:
        listing = "".join(
            f"{sha256_of_file(path)}  {path.relative_to(source).as_posix()}\n" for path in inside
        )
        prints[source.name] = hashlib.sha256(listing.encode()).hexdigest()
    return prints


def _store(images: _Images, path: Path, progress: Progress | None) -> int:
    """Write the embeddings as float16 to a file, in the order of the source; return their length.

    Raises:
        DatasetError: An embedding cannot be used, or there are more or fewer than ids.
    """
    source, total = images.vectors.source, len(images.ids)
    done, dim = 0, 0
    with path.open("wb") as file:
        for block in images.vectors.blocks():
            with np.errstate(over="ignore"):
                half = block.astype(np.float16)
            dim = half.shape[1]
            for row in np.flatnonzero(~usable_rows(np.ascontiguousarray(half))).tolist():
                image = f" ({images.ids[done + row]!r})" if done + row < total else ""
                raise DatasetError(
                    f"{source}, row {done + row + 1}{image}: the embedding "
                    f"{_problem(block[row])}: leave the image out, or embed it again"
                )
            done += len(half)
            if done > total:
                break
            file.write(half.tobytes())
            if progress is not None:
                progress(done, total)
    if done != total:
        more = "more" if done > total else f"{done:,}"
        raise DatasetError(f"{source} has {more} embeddings than the {total:,} rows of its table")
    return dim


def _problem(vector: NDArray[Any]) -> str:
    if not np.isfinite(vector).all():
        return "has a value that is not finite"
    if np.abs(vector).max() > _LARGEST:
        return f"has a value beyond {_LARGEST:.0f}, the largest float16"
    return "is all zero" + (" in float16" if vector.any() else "")


def _read_texts(
    export: OwnExport | None,
    texts: str | os.PathLike[str] | None,
    labels: Sequence[str],
    model: str,
) -> dict[str, TextSet]:
    if export is not None:
        if export.texts is None:
            return {}
        vectors, table = open_vectors(export.texts), open_texts(export.texts)
        return read_texts(
            vectors,
            table,
            labels,
            stated=export.header["texts"],
            prompts_sha256=export.header.get("prompts_sha256"),
        )
    if texts is None:
        return {}
    path = Path(texts).expanduser()
    vectors = open_vectors(path)
    listing = _find_table(vectors, None, separator=None, encoding=None)
    if listing is None:
        raise UsageError(f"{path} has no table of its texts: give a parquet or .npy file")
    return read_texts(vectors, listing, labels, encoder=model)


def _require_same_space(texts: Mapping[str, TextSet], dim: int) -> None:
    for text in texts.values():
        of_texts = text.positive.embedding.shape[2]
        if text.aligned and of_texts != dim:
            raise DatasetError(
                f"the texts {text.name!r} have {of_texts} dimensions, and the images {dim}: give "
                "embeddings by one encoder"
            )


def _as_list(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
