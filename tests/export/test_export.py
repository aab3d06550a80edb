"""Caches in other formats, read back by the libraries of these."""

import signal
from pathlib import Path

import numpy as np
import pytest

import featurecache as fc
from featurecache.export import export, tables
from featurecache.export.export import FORMATS
from tests.audit.audit_caches import make_cache
from tests.evaluation.toy_caches import toy_texts
from tests.export.read_back import READERS

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


def target(folder: Path, name: str) -> Path:
    return folder / f"out{FORMATS[name].suffix or ''}"


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_read_by_its_own_library_equals_the_cache(
    name: str, full: fc.Cache, tmp_path: Path
) -> None:
    out = fc.export_cache(full.path, target(tmp_path, name), to=name)
    read = READERS[name](out)
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
def test_a_cache_without_labels_and_texts_is_exported(
    name: str, bare: fc.Cache, tmp_path: Path
) -> None:
    out = fc.export_cache(bare, target(tmp_path, name), to=name)
    read = READERS[name](out)
    np.testing.assert_array_equal(read.embedding, bare.embedding)
    assert read.table["id"].tolist() == bare.ids.tolist()
    assert list(read.table.columns) == list(tables.METADATA)
    assert read.texts is None


@pytest.mark.parametrize("name", FORMATS)
def test_exports_are_the_same_bytes_and_replaced_only_when_asked(
    name: str, full: fc.Cache, bare: fc.Cache, tmp_path: Path
) -> None:
    first = fc.export_cache(full, target(tmp_path / "1", name), to=name)
    second = fc.export_cache(bare, target(tmp_path / "2", name), to=name)
    with pytest.raises(ValueError, match="already exists: give another `out`, or `overwrite`"):
        fc.export_cache(full, second, to=name)
    fc.export_cache(full, second, to=name, overwrite=True)
    assert contents(first.parent) == contents(second.parent)
    fc.export_cache(bare, second, to=name, overwrite=True)
    assert READERS[name](second).texts is None


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_export_leaves_nothing(name: str, full: fc.Cache, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fc.export_cache(full, target(tmp_path / "out", name), to=name, progress=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


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
        ("folder.parquet", None, "folder.parquet is a folder: give another `out`"),
        ("a/b.parquet", None, ""),
    ],
)
def test_what_to_write_where_has_to_be_clear(
    out: str, to: str | None, message: str, bare: fc.Cache, tmp_path: Path
) -> None:
    (tmp_path / "folder.parquet").mkdir()
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
