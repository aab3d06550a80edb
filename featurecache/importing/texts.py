"""Prompt sets whose embeddings are in a file."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.table_reader import Table
from featurecache.errors import DatasetError
from featurecache.export.tables import ExportedTexts, hash_prompts
from featurecache.importing.vectors import Vectors
from featurecache.io.fingerprint import fingerprint
from featurecache.prompts import ensemble
from featurecache.store.records import TextEmbeddings, TextSet
from featurecache.store.validity import text_problems

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS: Final = {"set": "imported", "label": None, "statement": "positive", "prompt": None}
"""Columns of a table of texts, with their values where the table lacks them."""
_STATEMENTS: Final = ("positive", "negative")


def read_texts(
    vectors: Vectors,
    table: Table,
    labels: Sequence[str],
    *,
    stated: Mapping[str, ExportedTexts] | None = None,
    prompts_sha256: str | None = None,
    encoder: str = "",
) -> dict[str, TextSet]:
    """Return the prompt sets in a file, by name.

    Args:
        vectors: Embeddings of texts, (P, D).
        table: P rows with the columns ``label`` and ``prompt`` and, optionally, ``set`` and
            ``statement`` ("positive" or "negative"). A row without a prompt is the mean of a
            label's prompts, which is computed where there is none.
        labels: Labels that each set has to have.
        stated: What an export says of its sets; None for the file of another program.
        prompts_sha256: What an export says of its rows and their order; None if nothing.
        encoder: Name of the encoder, for the latter.

    Raises:
        DatasetError: The file is malformed; the message names what is wrong.
    """
    import pandas as pd

    columns = [name for name in _COLUMNS if name in table.header or _COLUMNS[name] is None]
    rows = table.read(columns).reset_index(drop=True)
    for name, default in _COLUMNS.items():
        if name not in rows:
            rows[name] = pd.Series(default, rows.index)
    is_beside = table.path != vectors.source  # and may have been sorted without the embeddings
    if is_beside and prompts_sha256 is not None and hash_prompts(rows) != prompts_sha256:
        raise DatasetError(
            f"{table.path} does not have the prompts of the export in their order: restore it"
        )
    if unknown := set(rows["statement"]) - set(_STATEMENTS):
        raise DatasetError(
            f"{table.path}: {min(unknown)!r} in the column 'statement' is neither positive nor "
            "negative"
        )
    embedding = np.concatenate(list(vectors.blocks())).astype(np.float32)
    if len(embedding) != len(rows):
        raise DatasetError(
            f"{vectors.source} has {len(embedding)} embeddings, but {table.path} has {len(rows)} "
            "rows"
        )
    sets: dict[str, TextSet] = {}
    for name in rows["set"].unique().tolist():
        of_set = rows[rows["set"] == name]
        where = f"the prompt set {name!r} of {table.path}"
        names = tuple(of_set["label"].unique().tolist())
        if missing := [label for label in labels if label not in names]:
            raise DatasetError(f"{where} has no texts for the label {missing[0]!r}")
        by_statement: dict[str, TextEmbeddings] = {
            str(statement): _read_statement(group, names, embedding, f"{where}, {statement}")
            for statement, group in of_set.groupby("statement")
        }
        if "positive" not in by_statement:
            raise DatasetError(f"{where} has no positive texts")
        sets[name] = _text_set(name, names, by_statement, stated, encoder)
        if problem := next(text_problems(sets[name]), None):
            raise DatasetError(f"{where} cannot be used: {problem}")
    return sets


def _read_statement(
    rows: "pd.DataFrame", labels: Sequence[str], embedding: NDArray[np.float32], where: str
) -> TextEmbeddings:
    """Return the prompts of a statement and their embeddings, for each of C labels."""
    import pandas as pd

    is_mean = rows["prompt"] == ""
    of_label = [rows[(rows["label"] == label) & ~is_mean] for label in labels]
    numbers = [len(texts) for texts in of_label]
    if min(numbers) == 0 or min(numbers) != max(numbers):
        raise DatasetError(
            f"{where}: {labels[int(np.argmin(numbers))]!r} has {min(numbers)} prompts and "
            f"{labels[int(np.argmax(numbers))]!r} {max(numbers)}: give every label equally many, "
            "at least one"
        )
    stacked = np.stack([embedding[texts.index] for texts in of_label])
    means = rows[is_mean].drop_duplicates("label").set_index("label")
    try:
        mean = (
            embedding[rows.index[is_mean]][means.index.get_indexer(pd.Index(labels))]
            if len(means) == len(labels) == int(is_mean.sum())
            else ensemble(stacked)
        )
    except ValueError as error:
        raise DatasetError(f"{where}: {error}") from error
    return TextEmbeddings(tuple(tuple(texts["prompt"]) for texts in of_label), stacked, mean)


def _text_set(
    name: str,
    labels: tuple[str, ...],
    texts: Mapping[str, TextEmbeddings],
    stated: Mapping[str, ExportedTexts] | None,
    encoder: str,
) -> TextSet:
    positive, negative = texts["positive"], texts.get("negative")
    common: dict[str, Any] = {
        "name": name,
        "labels": labels,
        "positive": positive,
        "negative": negative,
    }
    if stated is not None and name in stated:
        document = stated[name]
        return TextSet(
            **common,
            fingerprint=document["fingerprint"],
            templates=tuple(document["templates"]),
            aligned=document["aligned"],
            scale=document["scale"],
            bias=document["bias"],
            encoder_spec=document["spec"],
            n_cut=document["n_cut"],
            max_tokens=document["max_tokens"],
        )
    spec = {"imported": {"model": encoder}}
    prompts = [None if part is None else part.prompts for part in (positive, negative)]
    return TextSet(
        **common,
        fingerprint=fingerprint({"encoder": spec, "labels": labels, "prompts": prompts}),
        templates=(),
        aligned=True,
        scale=None,
        bias=None,
        encoder_spec=spec,
    )
