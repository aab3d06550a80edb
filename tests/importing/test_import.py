"""Embeddings that other programs made, and exports of caches, become caches."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

import featurecache as fc
from featurecache.evaluation.from_cache import cache_caveats
from featurecache.importing import vectors
from featurecache.provenance.records import ImageRecords
from featurecache.store.builder import CacheBuilder
from featurecache.store.verify import verify_cache
from tests.audit.audit_caches import make_cache
from tests.evaluation.toy_caches import toy_texts, write_toy_cache

RNG = np.random.default_rng(7)
N, DIM = 10, 6
VECTORS = RNG.normal(size=(N, DIM)).astype(np.float32)
IDS = [f"{name}.png" for name in "jbcdefghia"]  # not sorted
PATIENTS = [f"p{row // 2}" for row in range(N)]
TABLE = pd.DataFrame(
    {
        "image": IDS,
        "pid": PATIENTS,
        "Edema": ["1", "0", "", "-1", "1", "0", "1", "0", "0", "1"],
        "Finding": ["yes", "no"] * 5,
        "age": [str(40 + row) for row in range(N)],
    }
)
ROLES: dict[str, Any] = {"patient": "pid", "labels": ["Edema", "Finding"], "age": "age"}
CELLS = np.array([[1, 0, -2, -1, 1, 0, 1, 0, 0, 1], [1, 0] * 5]).T


@pytest.fixture(autouse=True)
def in_small_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vectors, "BLOCK_ROWS", 4)
    monkeypatch.chdir(tmp_path)


def npy(table: pd.DataFrame = TABLE, embedding: np.ndarray = VECTORS) -> dict[str, Any]:
    np.save("set.npy", embedding)
    table.to_csv("set.csv", index=False)
    return {"source": "set.npy"}


def npy_beside_another_table() -> dict[str, Any]:
    np.save("vectors.npy", np.asfortranarray(VECTORS.astype(np.float64)))
    TABLE.to_csv("set.csv", index=False)
    return {"source": "vectors.npy", "table": "set.csv", "name": "set"}


def parquet_of_lists() -> dict[str, Any]:
    TABLE.assign(vector=list(VECTORS), n=[[1]] * N).to_parquet("set.parquet")
    return {"source": "set.parquet"}


def parquet_of_half_floats() -> dict[str, Any]:
    table = pa.Table.from_pandas(TABLE)
    flat = pa.array(VECTORS.astype(np.float16).ravel())
    lists = pa.FixedSizeListArray.from_arrays(flat, DIM)
    parquet.write_table(
        table.append_column("embedding", lists).append_column("other", lists), "set.parquet"
    )
    return {"source": "set.parquet"}


def parquet_of_columns() -> dict[str, Any]:
    numbers = pd.DataFrame(VECTORS, columns=[f"emb_{dim}" for dim in range(DIM)])
    pd.concat([TABLE, numbers], axis=1).to_parquet("set.parquet")
    return {"source": "set.parquet", "embedding": "emb_*"}


def csv_of_columns() -> dict[str, Any]:
    numbers = pd.DataFrame(VECTORS, columns=[f"emb_{dim}" for dim in range(DIM)])
    pd.concat([TABLE, numbers], axis=1).to_csv("set.csv", index=False, sep=";")
    return {"source": "set.csv", "embedding": ["emb_*"]}


def csv_of_columns_sorted_as_texts() -> dict[str, Any]:
    numbers = pd.DataFrame(VECTORS, columns=[f"emb_{dim}" for dim in range(8, 8 + DIM)])
    numbers = numbers[sorted(numbers)]
    pd.concat([TABLE, numbers], axis=1).to_csv("set.csv", index=False)
    return {"source": "set.csv", "embedding": ["emb_*"]}


def csv_of_texts() -> dict[str, Any]:
    texts = [json.dumps(vector.tolist()) for vector in VECTORS]
    TABLE.assign(vector=texts).to_csv("set.csv", index=False)
    return {"source": "set.csv", "embedding": "vector"}


def npz_of_columns() -> dict[str, Any]:
    columns = {name: TABLE[name].to_numpy(str) for name in TABLE}
    columns["age"] = np.arange(40, 50).astype(float)
    np.savez("set.npz", vectors=VECTORS, **columns)
    return {"source": "set.npz"}


def npz_named_by_images() -> dict[str, Any]:
    """As Google shares vectors of its CXR Foundation model, of 32 x 128 numbers."""
    stems = [name.removesuffix(".png") for name in IDS]
    arrays = zip(stems, VECTORS.reshape(N, 2, 3), strict=True)
    np.savez_compressed("set.npz", **dict(sorted(arrays)))
    another = TABLE.iloc[:1].assign(image="k.png", pid="other")
    pd.concat([TABLE, another]).to_csv("set.csv", index=False)
    return {"source": "set.npz"}


def folder_of_npz() -> dict[str, Any]:
    for image, vector in zip(IDS, VECTORS, strict=True):
        path = Path("set", f"{image}.npz")
        path.parent.mkdir(exist_ok=True)
        np.savez(path, embedding=vector[None], path="gs://bucket")
    TABLE.to_csv("set.csv", index=False)
    return {"source": "set"}


def clip_retrieval() -> dict[str, Any]:
    table = TABLE.rename(columns={"image": "image_path"}).assign(caption="frontal")
    for number in range(11):  # the first of which has no images
        rows = slice(max(number - 1, 0), number)
        files = {"img_emb": f"img_emb_{number}.npy", "metadata": f"metadata_{number}.parquet"}
        for folder in files:
            Path("set", folder).mkdir(parents=True, exist_ok=True)
        np.save(Path("set", "img_emb", files["img_emb"]), VECTORS[rows].astype(np.float16))
        table.iloc[rows].to_parquet(Path("set", "metadata", files["metadata"]))
    return {"source": "set"}


FORMS = (
    *(npy, npy_beside_another_table, parquet_of_lists, parquet_of_half_floats),
    *(
        csv_of_columns_sorted_as_texts,
        parquet_of_columns,
        csv_of_columns,
        csv_of_texts,
        npz_of_columns,
        npz_named_by_images,
    ),
    *(folder_of_npz, clip_retrieval),
)


@pytest.mark.parametrize("write", FORMS)
def test_embeddings_of_other_programs_keep_their_ids_and_labels(
    write: Callable[[], dict[str, Any]],
) -> None:
    cache = fc.import_cache(**write(), model="org/encoder", **ROLES)
    assert cache.path == Path("cache/set/org--encoder.h5")
    assert cache.ids.tolist() == sorted(IDS)
    row_of = {image: row for row, image in enumerate(IDS)}
    rows = [row_of[image] for image in cache.ids.tolist()]
    np.testing.assert_array_equal(cache.embedding, VECTORS.astype(np.float16)[rows])
    assert cache.patients.tolist() == [PATIENTS[row] for row in rows]
    np.testing.assert_array_equal(cache.cells, CELLS[rows])
    assert cache.to_pandas()["age"].tolist() == [40 + row for row in rows]
    assert cache.mixed_patients == []  # the split is by patient
    assert set(cache.splits.tolist()) == {"train", "val", "test"}
    assert not verify_cache(cache.path)
    assert cache.header.imported
    assert all(len(sha256) == 64 for sha256 in cache.header.imported.values())


def full_cache(folder: Path) -> fc.Cache:
    """Odd ids, cells of models and readers, unknown metadata, and texts."""
    ids = ["'quoted'.png", "0007", "=1+1", "a.b/c d.png", 'q"uote', "zz", "ç/日本.dcm", "😀"]
    names = ("Nodule/Mass", "sex", "Pleural Effusion")
    texts = toy_texts(RNG.normal(size=(3, 8)), RNG.normal(size=(3, 8)), names)
    return make_cache(
        folder,
        ["train", "train", "val", "train", "test", "test", "train", "val"],
        id=ids,
        labels=np.array([[1, 0, -1], [0, -2, 3], [32, -2, 2], [-2, 1, 0]] * 2),
        label_names=names,
        texts={"signs": replace(texts, n_cut=2, max_tokens=9, encoder_spec={"text": "t"})},
        patient=["p1", "p1", "p2", "p3", "=4", "ß", "p6", "p7"],
        study=["", "s1", "", "s2", "s 3", "", "", ""],
        view=["PA", "", "AP", "LATERAL", "", "", "", "PA"],
        age=["58", "", "0.25", "", "90", "1", "", "7"],
        path=[f"images/{name}" for name in ids],
        perceptual_hash=RNG.integers(0, 256, (8, 32), dtype=np.uint8),
    )


@pytest.mark.parametrize("form", ["out.parquet", "out.npy"])
def test_an_export_comes_back_as_it_was(form: str, tmp_path: Path) -> None:
    original = full_cache(tmp_path).with_policy(fc.LabelPolicy(blank="negative"))
    cache = fc.import_cache(fc.export_cache(original, form))
    np.testing.assert_array_equal(cache.embedding, original.embedding)
    for name, column in vars(original.images).items():
        if name not in ("size", "mtime_ns"):
            np.testing.assert_array_equal(getattr(cache.images, name), column, err_msg=name)
    np.testing.assert_array_equal(cache.cells, original.cells)
    assert (cache.labels.names, cache.policy) == (original.labels.names, original.policy)
    assert cache.fingerprint == original.fingerprint
    assert cache.header.collection == original.header.collection
    text, stored = original.texts["signs"], cache.texts["signs"]
    for statement in ("positive", "negative"):
        expected, found = getattr(text, statement), getattr(stored, statement)
        assert found.prompts == expected.prompts
        np.testing.assert_array_equal(found.embedding, expected.embedding)
        np.testing.assert_array_equal(found.ensemble, expected.ensemble)
    empty = {"positive": None, "negative": None}
    assert replace(stored, **empty) == replace(text, **empty)


def test_an_npy_export_whose_rows_are_in_another_order_is_refused(tmp_path: Path) -> None:
    export = fc.export_cache(full_cache(tmp_path), "out.npy")
    images = Path("out.images.csv")
    header, *rows = images.read_text(encoding="utf-8").splitlines(keepends=True)
    images.write_text("".join([header, rows[1], rows[0], *rows[2:]]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"out.images.csv does not have the ids of out.npy in the"):
        fc.import_cache(export)
    images.write_text("".join([header, *rows]), encoding="utf-8")
    document = json.loads(Path("out.json").read_bytes())
    texts = Path("out.texts.csv")
    header, *prompts = texts.read_text(encoding="utf-8").splitlines(keepends=True)
    texts.write_text("".join([header, *reversed(prompts)]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"out.texts.csv does not have the prompts of the export"):
        fc.import_cache(export)
    del document["ids_sha256"], document["prompts_sha256"]  # as in exports that were made before
    Path("out.json").write_text(json.dumps(document), encoding="utf-8")
    assert len(fc.import_cache(export)) == len(rows)


def test_the_order_of_columns_is_that_of_their_numbers_and_said_if_it_is_not_that_of_the_file() -> (
    None
):
    cache = fc.import_cache(**csv_of_columns_sorted_as_texts(), model="m", **ROLES)
    (note,) = [note for note in cache.header.notes if "order of their numbers" in note]
    assert note.startswith("The columns of the embedding, emb_8 to emb_13, are taken in the order")
    given = {"source": "set.csv", "embedding": [f"emb_{dim}" for dim in (13, 9, 8)]}
    cache = fc.import_cache(**given, name="given", model="m", **ROLES)
    rows = [IDS.index(image) for image in cache.ids.tolist()]
    half = VECTORS.astype(np.float16)
    np.testing.assert_array_equal(cache.embedding, half[rows][:, [5, 1, 0]])


@pytest.mark.parametrize(
    ("out", "to"),
    [
        ("out.faiss", None),
        ("out.h5ad", None),
        ("out.zarr", None),
        ("out", "huggingface"),
        ("out", "webdataset"),
    ],
)
def test_exports_for_other_tools_are_refused_with_those_to_use(
    out: str, to: str | None, tmp_path: Path
) -> None:
    exported = fc.export_cache(full_cache(tmp_path), out, to=to)
    with pytest.raises(ValueError, match=r"not read: export a cache as parquet or .npy, which can"):
        fc.import_cache(exported, model="m")


def test_commands_do_the_same_on_an_import_as_on_the_original(tmp_path: Path) -> None:
    labels = RNG.integers(0, 2, (48, 2))
    embedding = RNG.normal(size=(48, 8)) + labels[:, :1]
    names = ("Edema", "Mass")
    texts = toy_texts(RNG.normal(size=(2, 8)), RNG.normal(size=(2, 8)), names)
    original = write_toy_cache(tmp_path / "toy.h5", embedding, labels, texts, names=names)
    cache = fc.import_cache(fc.export_cache(original, "toy.parquet"))
    options: dict[str, Any] = {"n_bootstrap": 0}
    both = [fc.train_head(one, "linear", controls=False, **options) for one in (original, cache)]
    pd.testing.assert_frame_equal(both[0].predictions, both[1].predictions)
    evaluated = both[0].evaluate(cache, split="test", **options)
    assert evaluated.metrics.macro.auroc == both[0].metrics.macro.auroc
    zero_shot = [fc.zero_shot(one, **options).metrics for one in (original, cache)]
    assert zero_shot[0] == zero_shot[1]


@pytest.mark.parametrize(
    ("collection", "trained_on", "exposed"),
    [("toy", "nih", True), ("nih", "kermany", False), ("nih", "nih", True), ("rsna", "nih", True)],
)
def test_an_encoder_trained_on_unlisted_images_may_have_seen_those_of_an_export(
    collection: str, trained_on: str, exposed: bool, tmp_path: Path
) -> None:
    original = full_cache(tmp_path)
    records = ImageRecords.of(trained_on, ["elsewhere.png"])
    header = replace(original.header, collection=collection, trained_on={trained_on: records})
    cache = fc.import_cache(fc.export_cache(replace(original, header=header), "out.parquet"))
    assert cache.header.exposed == exposed
    warnings = cache_caveats(cache, np.arange(len(cache)))
    named = [text for text in warnings if "were imported from out.parquet" in text]
    assert len(named) == exposed


def test_an_import_of_the_training_images_is_not_another_data_set(tmp_path: Path) -> None:
    """Was evaluated without a word, at thresholds that were chosen on it."""
    labels = RNG.integers(0, 2, (48, 2))
    embedding = RNG.normal(size=(48, 8)) + labels[:, :1]
    original = write_toy_cache(tmp_path / "toy.h5", embedding, labels, names=("Edema", "Mass"))
    cache = fc.import_cache(fc.export_cache(original, "toy.parquet"), name="received")
    head = fc.train_head(original, "linear", controls=False, n_bootstrap=0)
    metrics = head.evaluate(cache, n_bootstrap=0).metrics
    assert any("this is not external validation" in text for text in metrics.warnings)
    assert metrics.retuned is not None
    assert "on these validation images" in str(metrics.retuned.reason)


def elsewhere(**options: Any) -> fc.Cache:
    """Import vectors with texts of other programs."""
    rows = [(label, prompt) for label in ("Edema", "Finding") for prompt in ("a", "b")]
    texts = pd.DataFrame(rows, columns=["label", "prompt"])
    texts.assign(embedding=list(VECTORS[:4])).to_parquet("prompts.parquet")
    return fc.import_cache(**npy(), model="m", texts="prompts.parquet", **ROLES, **options)


def test_commands_work_without_images_and_refuse_to_embed_any() -> None:
    cache = elsewhere(name="one")
    mean = VECTORS[:2] / np.linalg.norm(VECTORS[:2], axis=1, keepdims=True)
    mean = mean.sum(axis=0) / np.linalg.norm(mean.sum(axis=0))
    np.testing.assert_allclose(cache.text_embeddings()[0], mean, rtol=1e-6)
    scored = fc.zero_shot(cache, n_bootstrap=0)
    assert fc.zero_shot(elsewhere(name="two"), n_bootstrap=0).metrics == scored.metrics
    assert len(fc.retrieve(cache, label="Edema", top=3)) == 3
    assert len(fc.retrieve(cache, image="a.png", top=3)) == 3
    audit = fc.audit(cache, n_bootstrap=0)
    assert audit.identical_files.copies == 0
    head = fc.train_head(cache, "prototype", controls=False, n_bootstrap=0)
    assert head.evaluate(fc.open_cache("cache/two/m.h5"), n_bootstrap=0, split="test")
    with pytest.raises(ValueError, match=r"another program made with m, which featurecache cannot"):
        fc.retrieve(cache, "edema")
    with pytest.raises(
        ValueError, match=r"imported from prompts.parquet, set.csv, set.npy.*none can"
    ):
        CacheBuilder(cache.path, cache.header, cache.images.id)
    assert "Another program made the embeddings, with m." in cache.header.notes[-1]


def test_unused_column_of_ages_is_named() -> None:
    (note,) = (
        note
        for note in fc.import_cache(**npy(), model="m", patient="pid").header.notes
        if "looks like" in note
    )
    assert note == "The column 'age' looks like ages: to use it, give it as `age`."


def wrong_row(value: float, dtype: type[Any] = np.float32) -> dict[str, Any]:
    embedding = VECTORS.astype(dtype)
    embedding[5] = 0 if value == 0 else embedding[5]
    embedding[5, 2] = value
    return npy(embedding=embedding)


def objects() -> dict[str, Any]:
    np.save("set.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return {"source": "set.npy"}


def ragged_npz() -> dict[str, Any]:
    arrays = dict(zip(IDS, list(VECTORS), strict=True))
    Path("set").mkdir()
    for image, vector in (arrays | {"c.png": VECTORS[0, :4]}).items():
        np.save(Path("set", f"{image}.npy"), vector)
    TABLE.to_csv("set.csv", index=False)
    return {"source": "set"}


def ragged_lists() -> dict[str, Any]:
    lists = [vector.tolist() for vector in VECTORS]
    lists[3] = None
    TABLE.assign(embedding=lists).to_parquet("set.parquet")
    return {"source": "set.parquet"}


def incomplete_shard() -> dict[str, Any]:
    arguments = clip_retrieval()
    np.save("set/img_emb/img_emb_1.npy", VECTORS[:2])
    return arguments


def without_shard(number: int, *, listed: bool = False) -> dict[str, Any]:
    arguments = clip_retrieval()
    Path(f"set/img_emb/img_emb_{number}.npy").unlink()
    if not listed:
        Path(f"set/metadata/metadata_{number}.parquet").unlink()
    return arguments


def repeated_shard() -> dict[str, Any]:
    arguments = clip_retrieval()
    for name in ("img_emb/img_emb_{}.npy", "metadata/metadata_{}.parquet"):
        Path("set", name.format("03")).write_bytes(Path("set", name.format("3")).read_bytes())
    return arguments


def unlisted_vector() -> dict[str, Any]:
    arguments = npz_named_by_images()
    TABLE.iloc[1:].to_csv("set.csv", index=False)
    return arguments


def two_matrices() -> dict[str, Any]:
    np.savez("set.npz", a=VECTORS, b=VECTORS[:3])
    return {"source": "set.npz", "table": "set.csv"}


def cut_off() -> dict[str, Any]:
    arguments = npy()
    content = Path("set.npy").read_bytes()
    Path("set.npy").write_bytes(content[:-9])
    return arguments


def named(ids: list[str]) -> pd.DataFrame:
    return TABLE.assign(image=ids)


@pytest.mark.parametrize(
    ("write", "options", "problem"),
    [
        (lambda: wrong_row(0), {}, r"row 6 \('f.png'\): the embedding is all zero:"),
        (lambda: wrong_row(np.nan), {}, r"row 6 \('f.png'\): the embedding has a value that is no"),
        (lambda: wrong_row(1e5), {}, "row 6 .* a value beyond 65504, the largest float16"),
        (lambda: npy(embedding=VECTORS * 1e-9), {}, "row 1 .* is all zero in float16"),
        (lambda: npy(embedding=VECTORS[:8]), {}, "has 8 embeddings, but set.csv has 10 rows"),
        (lambda: npy(embedding=VECTORS[0]), {}, r"array of shape \(6,\): give one of shape"),
        (lambda: npy(embedding=VECTORS.astype(np.int8)), {}, "values of type int8"),
        (objects, {}, "set.npy cannot be read: ValueError"),
        (cut_off, {}, "set.npy cannot be read: ValueError"),
        (ragged_npz, {}, "c.png.npy: the embedding has 4 numbers, the first one 6"),
        (ragged_lists, {}, "row 4: the embedding has 0 numbers, the first one 6"),
        (incomplete_shard, {}, "metadata_1.parquet has 1 row, but .* has 2 embeddings"),
        (lambda: without_shard(0), {}, "10 of 11 arrays are there, without number 0: copy"),
        (lambda: without_shard(5), {}, "10 of 11 arrays are there, without number 5: copy"),
        (lambda: without_shard(10, listed=True), {}, "10 of 11 arrays .* without number 10: copy"),
        (repeated_shard, {}, "has several arrays of one number"),
        (unlisted_vector, {}, "has no row for 1 embedding of set.npz, 'j' the first"),
        (two_matrices, {}, "has 2 arrays, which are neither .* give the name .* `embedding`"),
        (npy, {"model": None}, "give `model`, the name of the encoder"),
        (npy, {"patient": None}, "the column 'pid' of set.csv looks like patients: give `patie"),
        (lambda: npy(named(IDS[:9] + IDS[:1])), {}, r"id 'j.png' \(line 11\) occurs twice"),
        (lambda: npy(named([*IDS[:9], ""])), {}, "the id of image '' .* is empty"),
        (lambda: npy(TABLE.assign(file="x")), {}, "several columns that may be ids, image, file"),
        (lambda: npy(TABLE.assign(Edema="maybe")), {}, "line 2: 'maybe' in the column 'Edema'"),
        (
            lambda: npy(named([f"{row:08d}_001.png" for row in range(N)]).drop(columns="pid")),
            {"patient": None},
            "ids such as '00000000_001.png' are of patients with several images: give `patient`",
        ),
        (lambda: {"source": "x.npy"}, {"model": None}, "x.npy does not exist: check the path"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_the_reason_and_leaves_nothing(
    write: Callable[[], dict[str, Any]], options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        fc.import_cache(**{**write(), "model": "m", **ROLES, **options})
    assert not [path for path in Path("cache").rglob("*") if path.is_file()]


def test_existing_caches_studies_and_contradictions_are_refused(tmp_path: Path) -> None:
    original = full_cache(tmp_path)
    export = fc.export_cache(original, "out.parquet")
    fc.import_cache(export)
    with pytest.raises(ValueError, match=r"m.h5 already exists: give another `name`"):
        fc.import_cache(export)
    with pytest.raises(ValueError, match="states everything itself: leave out `labels`, `split`"):
        fc.import_cache(export, labels="sex", split="split", name="other")
    studies = fc.open_cache(original, level="study", study_features="mean")
    with pytest.raises(ValueError, match="is an export of studies"):
        fc.import_cache(fc.export_cache(studies, "studies.npy"))
    (tmp_path / "b").mkdir()
    both = full_cache(tmp_path / "b")
    with pytest.raises(ValueError, match="is an export of several caches at once"):
        fc.import_cache(fc.export_cache([original, both], "both.npy"))
    fc.export_cache(original, "bad.npy")
    document = json.loads(Path("bad.json").read_text())
    Path("bad.json").write_text(json.dumps({**document, "fingerprint": "0"}))
    with pytest.raises(ValueError, match="its fingerprint does not match its spec"):
        fc.import_cache("bad.npy", name="other")


def test_texts_need_a_common_space_and_equally_many_prompts() -> None:
    npy()
    table = pd.DataFrame({"label": ["Edema", "Edema", "Finding"], "prompt": ["a", "b", "c"]})
    table.to_csv("texts.csv", index=False)
    np.save("texts.npy", VECTORS[:3])
    options: dict[str, Any] = {"source": "set.npy", "model": "m", "texts": "texts.npy", **ROLES}
    with pytest.raises(ValueError, match="'Finding' has 1 prompts and 'Edema' 2: give every"):
        fc.import_cache(**options)
    table.iloc[:2].to_csv("texts.csv", index=False)
    np.save("texts.npy", VECTORS[:2])
    with pytest.raises(ValueError, match="no texts for the label 'Finding'"):
        fc.import_cache(**options)
    table.iloc[1:].to_csv("texts.csv", index=False)
    np.save("texts.npy", VECTORS[:2, :4])
    with pytest.raises(ValueError, match="have 4 dimensions, and the images 6"):
        fc.import_cache(**options)
