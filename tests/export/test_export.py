"""Caches in other formats, read back by the libraries of these."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import featurecache as fc
from featurecache.export import export, tables
from featurecache.export.export import FORMATS
from tests.audit.audit_caches import make_cache
from tests.evaluation.toy_caches import toy_texts, write_toy_cache
from tests.export.read_back import READERS

Exported = Callable[[str], Path]

IDS = ["'quoted'.png", "0007", "=1+1", "a.b/c d.png", "a.b/c,d.png", 'q"uote', "ç/日本.dcm", "😀"]
CELLS = np.array(
    [[1, 0, -1], [0, -2, 1], [-1, -2, -2], [-2, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, -1], [1, 0, -2]]
)
LABELS = ("Nodule/Mass", "sex", "Pleural Effusion")
METADATA = {
    "patient": ["p1", "p1", "p2", "p3", "p4", "ß", "p6", "p7"],
    "study": ["", "s1", "", "s2", "s 3", "", "", ""],
    "view": ["PA", "", "AP", "LATERAL", "", "", "", "PA"],
    "sex": ["M", "F", "", "", "", "O", "M", "F"],
    "age": ["58", "", "0.25", "", "90", "1", "", "7"],
    "path": [f"images/{name}" for name in IDS],
}
SPLIT = ["train", "train", "val", "train", "test", "test", "train", "val"]


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK_ROWS", 3)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> fc.Cache:
    """Odd ids, unknown metadata, all kinds of cells, and texts."""
    rng = np.random.default_rng(5)
    texts = toy_texts(rng.normal(size=(3, 8)), rng.normal(size=(3, 8)), LABELS)
    columns = {"id": IDS, "labels": CELLS, "label_names": LABELS, **METADATA}
    folder = tmp_path_factory.mktemp("full")
    return make_cache(folder, SPLIT, texts={"signs": texts}, **columns)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> fc.Cache:
    """Neither labels nor texts nor metadata."""
    folder = tmp_path_factory.mktemp("bare")
    return make_cache(folder, SPLIT, labels=np.empty((8, 0)), label_names=())


@pytest.fixture(scope="module")
def exported(full: fc.Cache, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exports the full cache in a format, once."""

    @cache
    def export_to(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "BLOCK_ROWS", 3)
            return fc.export_cache(full.path, target(folder, name), to=name)

    return export_to


def target(folder: Path, name: str) -> Path:
    return folder / f"out{FORMATS[name].suffix or ''}"


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_read_by_its_own_library_equals_the_cache(
    name: str, exported: Exported, full: fc.Cache
) -> None:
    read = READERS[name](exported(name))
    if name == "faiss":  # which holds vectors of unit length
        expected = full.embedding / np.linalg.norm(full.embedding.astype(float), axis=1)[:, None]
        np.testing.assert_allclose(read.embedding, expected, rtol=1e-6)
    else:
        assert read.embedding.dtype == np.float16
        np.testing.assert_array_equal(read.embedding, full.embedding)
    assert read.table["id"].tolist() == IDS
    assert read.table["split"].tolist() == SPLIT
    for column in ("patient", "study", "view", "sex", "path"):
        assert read.table[column].tolist() == METADATA[column], column
    ages = [float(age or "nan") for age in METADATA["age"]]
    np.testing.assert_array_equal(read.table["age"], ages)
    assert read.table["sha256"].tolist() == [f"{row:064d}" for row in range(8)]
    assert read.header["labels"] == list(LABELS)
    columns = read.header["label_columns"]
    cells = np.where(CELLS == -2, np.nan, CELLS)
    np.testing.assert_array_equal(read.table[columns].to_numpy(float), cells)
    assert read.header["spec"] == full.header.encoder_spec
    assert read.header["fingerprint"] == full.fingerprint
    assert read.texts is not None
    text = full.texts["signs"]
    assert text.negative is not None
    for statement, texts in (("positive", text.positive), ("negative", text.negative)):
        for c, label in enumerate(LABELS):
            rows = (read.texts["statement"] == statement) & (read.texts["label"] == label)
            prompts = read.texts["prompt"][rows]
            assert [p for p in prompts if isinstance(p, str) and p] == list(texts.prompts[c])
            stored = [*texts.embedding[c], texts.ensemble[c]]
            np.testing.assert_array_equal(read.text_embedding[rows], stored)


@pytest.mark.parametrize("name", FORMATS)
def test_tokens_are_exported_one_after_the_other(name: str, tmp_path: Path) -> None:
    cache = make_cache(tmp_path, SPLIT, spec={"features": "tokens:1", "tokens": 2})
    if name == "faiss":
        with pytest.raises(ValueError, match="this needs one vector"):
            fc.export_cache(cache, target(tmp_path, name), to=name)
        return
    read = READERS[name](fc.export_cache(cache, target(tmp_path, name), to=name))
    tokens = read.embedding.reshape(len(cache), read.header["spec"]["tokens"], -1)
    np.testing.assert_array_equal(tokens, cache.tokens)


@pytest.mark.parametrize("name", FORMATS)
def test_a_cache_without_labels_and_texts_is_exported_and_replaced_only_when_asked(
    name: str, exported: Exported, full: fc.Cache, bare: fc.Cache, tmp_path: Path
) -> None:
    out = fc.export_cache(bare, target(tmp_path, name), to=name)
    read = READERS[name](out)
    assert read.embedding.shape == bare.embedding.shape
    assert read.table["id"].tolist() == bare.ids.tolist()
    assert list(read.table.columns) == list(tables.IMAGE_COLUMNS)
    assert read.texts is None
    with pytest.raises(ValueError, match="already exists: give another `out`, or `overwrite`"):
        fc.export_cache(full, out, to=name)
    fc.export_cache(full, out, to=name, overwrite=True)
    assert contents(tmp_path) == contents(exported(name).parent)


def test_the_header_names_units_policies_and_all_values(tmp_path: Path) -> None:
    cells = np.array([[2, 32], [3, -2], [0, 1], [1, 0]])
    texts = toy_texts(np.ones((2, 8)), np.ones((2, 8)), ("Mass", "Edema"))
    sides = {"view": ["PA", "LATERAL"] * 2, "study": ["s", "s", "t", "t"], "patient": ["p"] * 4}
    columns = {"labels": cells, "label_names": ("Mass", "Edema"), "texts": {"signs": texts}}
    cache = make_cache(tmp_path, ["train"] * 4, **columns, **sides)
    studies = fc.open_cache(cache, level="study", study_features="frontal+lateral")
    read = READERS["npy"](fc.export_cache(studies, tmp_path / "studies.npy"))
    np.testing.assert_array_equal(read.embedding, studies.embedding)
    assert read.text_embedding.shape == (2 * 2 * 2, 8)
    values = {"positive": 1, "negative": 0, "uncertain": -1, "blank": None}
    by_model = {"positive by a model": 3, "positive by 2 of 3 readers": 32}
    assert read.header["label_values"] == values | by_model
    assert read.header["units"] == studies.units.to_config()
    other = replace(cache.header, dataset="other", collection="other", encoder_spec={})
    rows = [replace(cache, header=replace(other, collection=name)) for name in ("a", "b")]
    rows[0] = rows[0].with_policy(fc.LabelPolicy(blank="negative"))
    joined = fc.open_cache(rows, join="rows")
    read = READERS["npy"](fc.export_cache(joined, tmp_path / "joined.npy"))
    assert "label_policy" not in read.header
    policies = read.header["label_policies"]
    assert {name: policy["blank"] for name, policy in policies.items()} == {
        "a": "negative",
        "b": "unknown",
    }


@pytest.mark.parametrize("name", ["parquet", "npy"])
def test_texts_of_a_replaced_export_do_not_stay(
    name: str, full: fc.Cache, bare: fc.Cache, tmp_path: Path
) -> None:
    fc.export_cache(full, target(tmp_path, name))
    fc.export_cache(bare, target(tmp_path, name), overwrite=True)
    assert not [file for file in tmp_path.iterdir() if "texts" in file.name]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_export_leaves_nothing(name: str, full: fc.Cache, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fc.export_cache(full, target(tmp_path / "out", name), to=name, progress=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_nearest_images_in_faiss_are_those_of_retrieve(tmp_path: Path) -> None:
    import faiss

    rng = np.random.default_rng(3)
    texts = toy_texts(rng.normal(size=(2, 16)), rng.normal(size=(2, 16)), ("Mass", "Edema"))
    cells = rng.integers(0, 2, size=(400, 2))
    vectors = rng.normal(size=(400, 16)) * rng.uniform(0.1, 100, size=(400, 1))
    cache = write_toy_cache(tmp_path / "c.h5", vectors, cells, texts, names=("Mass", "Edema"))
    index = faiss.read_index(str(fc.export_cache(cache, tmp_path / "c.faiss")))
    query = cache.text_embeddings("signs")[1:]
    scores, rows = index.search(query / np.linalg.norm(query), 10)
    hits = fc.retrieve(cache, label="Edema", top=10)
    assert cache.ids[rows[0]].tolist() == hits["id"].tolist()
    np.testing.assert_allclose(scores[0], hits["cosine"], atol=1e-6)
    # The file is that of FAISS itself.
    own = faiss.IndexFlatIP(16)
    own.add(index.reconstruct_n(0, 400))
    assert (tmp_path / "c.faiss").read_bytes() == faiss.serialize_index(own).tobytes()


def test_progress_counts_images(full: fc.Cache, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    fc.export_cache(full, tmp_path / "a.parquet", progress=lambda *call: calls.append(call))
    assert calls == [(3, 8), (6, 8), (8, 8)]


@pytest.mark.parametrize(
    ("out", "to", "message"),
    [
        ("a.bin", None, r"a.bin: give a name that ends in .*\.parquet.*, or `to`, the format: "),
        ("a.h5", "parquet", r"a.h5: give a name that ends in \.parquet for parquet"),
        ("a.parquet", "parket", "unknown format 'parket': did you mean parquet"),
        ("folder.parquet", None, "folder.parquet is not a file: give another `out`"),
        ("folder", "webdataset", "folder is not a folder of an export: give another"),
        ("a.zarr", "huggingface", "a.zarr: give a name of a folder for huggingface"),
        ("a/b.parquet", None, ""),
    ],
)
def test_what_to_write_where_has_to_be_clear(
    out: str, to: str | None, message: str, bare: fc.Cache, tmp_path: Path
) -> None:
    for folder in ("folder", "folder.parquet"):
        (tmp_path / folder).mkdir()
    if not message:
        assert fc.export_cache(bare, tmp_path / out, to=to).is_file()
        return
    with pytest.raises(ValueError, match=message):
        fc.export_cache(bare, tmp_path / out, to=to, overwrite=True)


def test_a_missing_package_is_named_with_its_extra(
    bare: fc.Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(export, "import_module", missing)
    with pytest.raises(ValueError, match=r"parquet needs pyarrow: .*'featurecache\[export\]'"):
        fc.export_cache(bare, tmp_path / "a.parquet")


def test_the_card_of_hugging_face_says_what_a_pushed_cache_says(
    full: fc.Cache, tmp_path: Path
) -> None:
    note = "SYNTHETIC: these images are generated"
    header = replace(full.header, collection="phantom-0", notes=(note,), exposed=True)
    phantom = replace(full, header=header)
    card = (fc.export_cache(phantom, tmp_path / "hub", to="huggingface") / "README.md").read_text()
    front, body = card.split("---\n")[1:3]
    assert {line.partition(":")[0] for line in front.splitlines()} >= {"license", "configs"}
    assert all(f"`{column}`" in body for column in tables.IMAGE_COLUMNS)
    assert f"- {note}" in body
    assert "- phantom (images): Apache-2.0" in body
    assert "its published training may have included" in body
    assert 'load_dataset("FOLDER", "texts")' in body
