"""Read exports back with the libraries that they are for."""

import gc
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pyarrow import parquet


class Export(NamedTuple):
    """What an export holds.

    Attributes:
        table: Strings, "" where unknown; age as float; labels as float, NaN where blank. Ordered by
            id.
        embedding: (N, D), in the order of the table.
        header: The JSON document.
        texts: The table of texts; None if the export has none.
        text_embedding: (P, D).
    """

    table: pd.DataFrame
    embedding: np.ndarray
    header: dict[str, Any]
    texts: pd.DataFrame | None
    text_embedding: np.ndarray | None


def from_parquet(path: Path) -> Export:
    table = parquet.read_table(path)
    texts = path.with_suffix(".texts.parquet")
    header = json.loads(table.schema.metadata[b"featurecache"])
    return export(
        *_split(table), header, *(_split(parquet.read_table(texts)) if texts.exists() else ())
    )


def from_npy(path: Path) -> Export:
    return _with_csv(path, np.load(path))


def from_faiss(path: Path) -> Export:
    """The vectors are of unit length: their factors are found in the cache."""
    import faiss

    index = faiss.read_index(str(path))
    assert isinstance(index, faiss.IndexFlatIP)
    return _with_csv(path, index.reconstruct_n(0, index.ntotal).reshape(-1, index.d))


def from_anndata(path: Path) -> Export:
    import anndata

    return _from_anndata(anndata.read_h5ad(path))


def from_zarr(folder: Path) -> Export:
    import anndata
    import zarr

    read = _from_anndata(anndata.read_zarr(folder))
    plain = zarr.open_group(folder, mode="r")
    np.testing.assert_array_equal(plain["X"][:], read.embedding)
    assert plain["obs/id"][:].tolist() == read.table["id"].tolist()
    return read


def from_huggingface(folder: Path) -> Export:
    import datasets

    with TemporaryDirectory() as cache_dir:
        splits = datasets.load_dataset(str(folder), cache_dir=cache_dir)
        for split, images in splits.items():
            assert set(images["split"]) == {split}
        table = datasets.concatenate_datasets(list(splits.values())).data.table
        parts = [_split(table)]
        if (folder / "texts.parquet").exists():
            texts = datasets.load_dataset(str(folder), "texts", cache_dir=cache_dir)["train"]
            parts.append(_split(texts.data.table))
    (images, embedding), *beside = parts
    return export(images, embedding, _marker(folder), *(beside[0] if beside else ()))


def from_webdataset(folder: Path) -> Export:
    import webdataset

    documents, vectors = [], []
    for archive in sorted(folder.glob("*.tar")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files open
            samples = list(webdataset.WebDataset(str(archive), shardshuffle=False).decode())
            gc.collect()
        assert {sample["json"]["split"] for sample in samples} == {archive.name.split("-")[0]}
        documents += [sample["json"] for sample in samples]
        vectors += [sample["npy"] for sample in samples]
    texts = _texts_csv(folder / "texts.csv")
    return export(pd.DataFrame(documents), np.stack(vectors), _marker(folder), *texts)


def export(
    table: pd.DataFrame,
    embedding: np.ndarray,
    header: dict[str, Any],
    texts: pd.DataFrame | None = None,
    text_embedding: np.ndarray | None = None,
) -> Export:
    labels = [column for column in table if column not in COLUMNS]
    numbers = ["age", *labels]
    texts_of = [column for column in table if column not in numbers]
    table = table.reset_index(drop=True)
    table[texts_of] = table[texts_of].astype(object).where(table[texts_of].notna(), "")
    table[numbers] = table[numbers].replace("", np.nan).astype(float)
    order = np.argsort(table["id"].to_numpy())
    return Export(
        table.iloc[order].reset_index(drop=True), embedding[order], header, texts, text_embedding
    )


COLUMNS = ("id", "patient", "study", "split", "view", "sex", "age", "path", "sha256")


def _split(table: Any) -> tuple[pd.DataFrame, np.ndarray]:
    column = table.column("embedding").combine_chunks()
    vectors = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    return table.drop_columns("embedding").to_pandas(), vectors


def _with_csv(path: Path, embedding: np.ndarray) -> Export:
    header = json.loads(path.with_suffix(".json").read_text())
    texts = _texts_csv(path.with_suffix(".texts.csv"))
    return export(_read_csv(path.with_suffix(".images.csv")), embedding, header, *texts)


def _texts_csv(path: Path) -> tuple[()] | tuple[pd.DataFrame, np.ndarray]:
    return (_read_csv(path), np.load(path.with_suffix(".npy"))) if path.exists() else ()


def _read_csv(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    # An apostrophe before a text that a spreadsheet would run as a formula, as documented.
    return table.map(lambda cell: cell.removeprefix("'"))


def _from_anndata(read: Any) -> Export:
    assert read.var_names.tolist() == [str(number) for number in range(read.n_vars)]
    header = json.loads(str(read.uns["featurecache"]))
    texts = (read.uns["texts"], read.uns["text_embedding"]) if "texts" in read.uns else ()
    return export(read.obs.reset_index(), read.X, header, *texts)


def _marker(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "featurecache.json").read_text())
    return document


READERS: Mapping[str, Callable[[Path], Export]] = {
    "parquet": from_parquet,
    "npy": from_npy,
    "faiss": from_faiss,
    "anndata": from_anndata,
    "zarr": from_zarr,
    "huggingface": from_huggingface,
    "webdataset": from_webdataset,
}
