"""Build a cache: chunk files, resuming from them, and the finished file read with plain h5py."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.errors import CacheError
from featurecache.provenance.records import ImageRecords
from featurecache.store.builder import CacheBuilder
from featurecache.store.checksums import write_checksums
from featurecache.store.chunks import EncodedRows
from featurecache.store.layout import cache_path, chunks_path, lock_path, to_file_name
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, ImageTable, Labels, TextEmbeddings, TextSet, to_utf8

HEADER = Header(
    model="hf:org/m",
    dataset="nih",
    notes=("größer",),
    image_level_split=False,
    exposed=False,
    encoder_spec={"model": "m", "size": [2, 3], "precision": "fp32"},
    collection="chest-images",
    listed={"images": 9, "patients": None},
    trained_on={
        "kermany": ImageRecords.of("kermany", ["train/b.jpeg", "train/größer.jpeg"]),
        "nih": ImageRecords.of("nih", []),
    },
)
TEXT = TextSet(
    name="signs",
    fingerprint="f" * 64,
    templates=("signs of {pathology}",),
    labels=("Mass",),
    positive=TextEmbeddings(
        (("signs of mass",),), np.float32([[[3, 4]]]), np.float32([[0.6, 0.8]])
    ),
    negative=TextEmbeddings((("no mass",),), np.float32([[[0, 2]]]), np.float32([[0, 1]])),
    aligned=True,
    scale=10.0,
    bias=None,
)


def rows(ids: Sequence[str], *, version: int = 0, dim: int = 2) -> EncodedRows:
    """Rows whose values say which id and version they are of."""
    numbers = [int("".join(filter(str.isdigit, image_id))) for image_id in ids]
    return EncodedRows(
        id=to_utf8(ids),
        sha256=to_utf8([f"{version}-{image_id}" for image_id in ids]),
        perceptual_hash=np.array([[number % 250 + version] * 32 for number in numbers], np.uint8),
        path=to_utf8([f"{version}/{image_id}.png" for image_id in ids]),
        size=np.array(numbers, dtype=np.int64),
        mtime_ns=np.full(len(ids), version, dtype=np.int64),
        embedding=np.array(
            [[number + 1, *[version] * (dim - 1)] for number in numbers], np.float16
        ),
    )


def build(
    path: Path, header: Header = HEADER, ids: Sequence[str] = ("i1", "i2", "i3")
) -> CacheBuilder:
    return CacheBuilder(path, header, to_utf8(ids))


def finish(builder: CacheBuilder, ids: Sequence[str], *, version: int = 0) -> bool:
    of = rows(ids, version=version)
    return builder.finish(
        images=ImageTable(
            id=of.id,
            sha256=of.sha256,
            perceptual_hash=of.perceptual_hash,
            patient=of.id,
            split=np.full(len(ids), b"train"),
            study=np.full(len(ids), b""),
            view=np.full(len(ids), b""),
            sex=np.full(len(ids), b"F"),
            age=np.full(len(ids), b"40"),
            path=of.path,
            size=of.size,
            mtime_ns=of.mtime_ns,
        ),
        labels=Labels(("Mass",), np.resize(np.array([1, 0, -1], np.int8), (len(ids), 1))),
        texts={"signs": TEXT},
        failures={"x9": "the file is empty", "x10": "missing"},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return cache_path(tmp_path, "nih", "hf:org/m")


def test_paths_follow_the_published_format(tmp_path: Path) -> None:
    path = cache_path(tmp_path, "nih", "hf:org/m")
    assert path == tmp_path / "nih" / "hf--org--m.h5"
    assert chunks_path(path) == tmp_path / "nih" / "hf--org--m.h5.parts"
    assert lock_path(path) == tmp_path / "nih" / "hf--org--m.h5.lock"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("dinov2-small", "dinov2-small"),
        ("../../etc/passwd", "etc--passwd"),
        ("a b:c\\d", "a--b--c--d"),
        ("a/", "a"),
        ("..", "unnamed"),
        ("胸部", "胸部"),
    ],
)
def test_file_names_stay_in_their_folder(name: str, safe: str) -> None:
    assert to_file_name(name) == safe


def test_finished_file_follows_the_published_format(path: Path) -> None:
    builder = build(path)
    builder.add(rows(["i3", "i1"]))
    builder.add(rows(["i2"]))
    assert finish(builder, ["i1", "i2", "i3"])
    with h5py.File(path) as file:
        spec = '{"model":"m","precision":"fp32","size":[2,3]}'
        attributes = {name: file.attrs[name] for name in file.attrs}
        texts = {
            name: value.decode() for name, value in attributes.items() if isinstance(value, bytes)
        }
        assert attributes | texts | {"created": ""} == {
            "format": "featurecache",
            "version": 1,
            "fingerprint": hashlib.sha256(spec.encode()).hexdigest(),
            "spec": spec,
            "model": "hf:org/m",
            "dataset": "nih",
            "notes": '["größer"]',
            "image_level_split": False,
            "exposed": False,
            "collection": "chest-images",
            "excluded": "{}",
            "listed": '{"images":9,"patients":null}',
            "extraction": "{}",
            "created": "",
        }
        assert set(file) == {"trained_on", "images", "labels", "text", "failures", "checksums"}
        trained_on = file["trained_on"]
        ids = trained_on["kermany/id"].asstr()[()].tolist()
        assert ids == ["train/b.jpeg", "train/größer.jpeg"]
        assert trained_on["kermany/perceptual_hash"].shape == (2, 32)
        assert trained_on["nih/id"].shape == (0,)
        assert set(file["images"]) == {
            *("id", "embedding", "sha256", "patient", "split", "view", "sex", "age"),
            *("perceptual_hash", "path", "size", "mtime_ns"),
        }
        assert file["images/id"].asstr()[()].tolist() == ["i1", "i2", "i3"]
        assert file["images/sha256"].asstr()[()].tolist() == ["0-i1", "0-i2", "0-i3"]
        assert file["images/path"].asstr()[()].tolist() == ["0/i1.png", "0/i2.png", "0/i3.png"]
        hashes = file["images/perceptual_hash"]
        assert (hashes.dtype, hashes[:, 0].tolist()) == (np.uint8, [1, 2, 3])
        embedding = file["images/embedding"]
        assert (embedding.dtype, embedding.chunks) == (np.float16, None)
        assert embedding[()].tolist() == [[2, 0], [3, 0], [4, 0]]
        mapped = np.memmap(path, np.float16, "r", embedding.id.get_offset(), embedding.shape)
        assert mapped.tolist() == embedding[()].tolist()
        assert file["labels/names"].asstr()[()].tolist() == ["Mass"]
        assert file["labels/values"].dtype == np.int8
        assert file["labels/values"][()].tolist() == [[1], [0], [-1]]
        text = file["text/signs"]
        assert dict(text.attrs) == {
            "fingerprint": b"f" * 64,
            "templates": b'["signs of {pathology}"]',
            "aligned": True,
            "scale": 10.0,
        }
        assert set(text) == {"labels", "prompts", "embedding", "ensemble", "negatives"}
        assert text["prompts"].asstr()[()].tolist() == [["signs of mass"]]
        assert text["embedding"][()].tolist() == [[[3, 4]]]
        assert text["ensemble"][()].tolist() == np.float32([[0.6, 0.8]]).tolist()
        assert set(text["negatives"]) == {"prompts", "embedding", "ensemble"}
        assert text["negatives/embedding"][()].tolist() == [[[0, 2]]]
        assert file["failures/id"].asstr()[()].tolist() == ["x10", "x9"]
        reasons = file["failures/reason"].asstr()[()].tolist()
        assert reasons == ["missing", "the file is empty"]
    assert sorted(p.name for p in path.parent.iterdir()) == ["hf--org--m.h5"]


def test_written_cache_is_read_back(path: Path) -> None:
    builder = build(path)
    builder.add(rows(["i1", "i2"]))
    finish(builder, ["i1", "i2"])
    cache = read_cache(path)
    assert cache.header == HEADER
    assert cache.failures == {"x9": "the file is empty", "x10": "missing"}
    text = cache.texts["signs"]
    assert (text.scale, text.bias, text.aligned) == (10.0, None, True)
    assert text.positive.embedding.tolist() == [[[3, 4]]]


def test_chunk_files_are_chunked_and_numbered(path: Path) -> None:
    builder = build(path)
    for ids in (["i1", "i2"], ["i3"]):
        builder.add(rows(ids))
        builder.flush()
    parts = sorted(chunks_path(path).iterdir())
    assert [chunk.name for chunk in parts] == ["part-00000000.h5", "part-00000001.h5"]
    with h5py.File(parts[0]) as file:
        assert file["embedding"].chunks == (2, 2)
        assert file["embedding"].dtype == np.float16
        assert file["id"].asstr()[()].tolist() == ["i1", "i2"]
    assert not path.exists()


def test_chunk_file_is_written_at_512_rows(path: Path) -> None:
    builder = build(path)
    for start in range(0, 520, 8):
        builder.add(rows([f"i{number}" for number in range(start, start + 8)]))
    (chunk,) = chunks_path(path).iterdir()
    with h5py.File(chunk) as file:
        assert len(file["id"]) == 512
        assert file["embedding"].chunks == (512, 2)


def test_new_builder_resumes_from_chunk_files(path: Path) -> None:
    first = build(path)
    first.add(rows(["i2", "i3"]))
    first.flush()
    first.add(rows(["i9"]))  # not flushed: lost, as after a kill
    second = build(path, ids=["i1", "i2", "i3", "i9"])
    assert second.stored.present().tolist() == [False, True, True, False]
    assert second.stored.sha256.tolist() == [b"", b"0-i2", b"0-i3", b""]
    assert second.stored.size.tolist()[1:3] == [2, 3]
    second.add(rows(["i1"]))
    assert finish(second, ["i1", "i2", "i3"])
    assert read_cache(path).embedding[:, 0].tolist() == [2, 3, 4]
    assert not chunks_path(path).exists()


def test_new_builder_has_stored_nothing(path: Path) -> None:
    builder = build(path)
    assert builder.cache is None
    assert not builder.stored.present().any()
    assert builder.outside.tolist() == []
    assert list(path.parent.parent.iterdir()) == []


def test_unrequested_ids_are_reported_once(path: Path) -> None:
    builder = build(path, ids=["i2", "i4", "i6", "i9"])
    builder.add(rows(["i2", "i4", "i6"]))
    finish(builder, ["i2", "i4", "i6"])
    builder = build(path, ids=["i2", "i9"])
    builder.add(rows(["i9", "i4"]))
    builder.flush()
    builder = build(path, ids=["i1", "i4", "i5"])
    assert builder.outside.tolist() == [b"i2", b"i6", b"i9"]
    assert builder.stored.present().tolist() == [False, True, False]


def test_newest_row_of_an_image_wins(path: Path) -> None:
    builder = build(path)
    builder.add(rows(["i1", "i2", "i3"], version=1))
    finish(builder, ["i1", "i2", "i3"], version=1)
    for version, ids in ((2, ["i1", "i2"]), (3, ["i2"])):
        builder = build(path)
        builder.add(rows(ids, version=version))
        builder.flush()
    builder = build(path)
    assert builder.stored.sha256.tolist() == [b"2-i1", b"3-i2", b"1-i3"]
    assert finish(builder, ["i1", "i2", "i3"])
    assert read_cache(path).embedding.tolist() == [[2, 2], [3, 3], [4, 1]]


def test_rows_are_gathered_from_cache_and_chunk_files_in_any_order(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurecache.store.writer.BLOCK_ROWS", 7)
    ids = [f"i{number:03d}" for number in range(100)]
    order = np.random.default_rng(1).permutation(ids).tolist()
    builder = build(path, ids=ids)
    builder.add(rows(sorted(order[:40])))
    finish(builder, sorted(order[:40]))
    builder = build(path, ids=ids)
    for start in range(40, 100, 13):
        builder.add(rows(order[start : start + 13]))
        builder.flush()
    finish(builder, ids)
    assert read_cache(path).embedding[:, 0].tolist() == list(range(1, 101))


def test_rows_are_dropped_only_on_request(path: Path) -> None:
    builder = build(path)
    builder.add(rows(["i1", "i2", "i3"]))
    finish(builder, ["i1", "i2", "i3"])
    assert finish(build(path), ["i2"])
    cache = read_cache(path)
    assert (cache.ids.tolist(), cache.embedding.tolist()) == (["i2"], [[3, 0]])


def test_unchanged_cache_is_not_rewritten(path: Path) -> None:
    builder = build(path)
    builder.add(rows(["i1"]))
    assert finish(builder, ["i1"])
    before = path.stat()
    assert not finish(build(path), ["i1"])
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert finish(build(path, replace(HEADER, notes=("other",))), ["i1"])


def test_row_without_an_embedding_is_refused(path: Path) -> None:
    builder = build(path)
    builder.add(rows(["i1"]))
    with pytest.raises(ValueError, match="no embedding is stored for 'i2'"):
        finish(builder, ["i1", "i2"])
    assert not path.exists()


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"precision": "bf16"}, "precision: 'fp32' against 'bf16'"),
        ({"size": [2, 4]}, r"size: \[2, 3\] against \[2, 4\]"),
        ({"pooling": "cls"}, "pooling: no value against 'cls'"),
    ],
)
def test_other_encoder_spec_is_refused_naming_the_field(
    path: Path, finished: bool, changed: dict[str, object], difference: str
) -> None:
    builder = build(path)
    builder.add(rows(["i1"]))
    if finished:
        finish(builder, ["i1"])
    else:
        builder.flush()
    before = sorted(file.read_bytes() for file in path.parent.rglob("*.h5"))
    other = replace(HEADER, encoder_spec=dict(HEADER.encoder_spec) | changed)
    with pytest.raises(CacheError, match=f"other settings.*{difference}"):
        build(path, other)
    assert sorted(file.read_bytes() for file in path.parent.rglob("*.h5")) == before


def test_tuple_in_an_encoder_spec_equals_a_list(path: Path) -> None:
    header = replace(HEADER, encoder_spec={"size": (2, (3, 4))})
    builder = build(path, header)
    builder.add(rows(["i1"]))
    builder.flush()
    finish(build(path, header), ["i1"])
    assert not finish(build(path, header), ["i1"])


def test_embeddings_of_different_lengths_are_refused(path: Path) -> None:
    builder = build(path)
    builder.add(rows(["i1"], dim=2))
    builder.flush()
    builder.add(rows(["i2"], dim=3))
    with pytest.raises(CacheError, match=r"different lengths: \[2, 3\]"):
        finish(builder, ["i1", "i2"])
    assert not path.exists()


def damage(chunk: Path, name: str, value: object) -> None:
    with h5py.File(chunk, "a") as file:
        del file[name]
        if value is not None:
            file[name] = value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", None),
        ("sha256", np.array([b"a"])),
        ("size", np.ones(2)),
        ("embedding", np.ones((2, 2), "f4")),
        ("embedding", np.ones((3, 2), "f2")),
        ("embedding", h5py.SoftLink("/size")),
    ],
)
def test_damaged_chunk_file_is_named(path: Path, name: str, value: object) -> None:
    builder = build(path)
    builder.add(rows(["i1", "i2"]))
    builder.flush()
    (chunk,) = chunks_path(path).iterdir()
    damage(chunk, name, value)
    with pytest.raises(CacheError, match=f"{chunk.name}.*/{name}"):
        build(path)


def test_truncated_chunk_file_is_named(path: Path) -> None:
    builder = build(path)
    builder.add(rows(["i1", "i2"]))
    builder.flush()
    (chunk,) = chunks_path(path).iterdir()
    intact = chunk.read_bytes()
    for length in (0, 100, len(intact) // 2, len(intact) - 1):
        chunk.write_bytes(intact[:length])
        with pytest.raises(CacheError, match=chunk.name):
            build(path)


def test_corrupt_embedding_is_not_copied(path: Path) -> None:
    builder = build(path)
    builder.add(rows(["i1", "i2"]))
    builder.flush()
    (chunk,) = chunks_path(path).iterdir()
    damage(chunk, "embedding", np.array([[1, 2], [np.nan, 1]], "f2"))
    with pytest.raises(CacheError, match=r"/embedding do not match their checksum"):
        finish(build(path), ["i1", "i2"])
    with h5py.File(chunk, "a") as file:
        del file["checksums"]
        write_checksums(file, {})
    with pytest.raises(CacheError, match=r"'i2' is not finite.*extract again"):
        finish(build(path), ["i1", "i2"])
    assert not path.exists()
    assert list(chunks_path(path).iterdir()) == [chunk]


def test_spec_attribute_is_json_of_the_encoder_spec(path: Path) -> None:
    builder = build(path)
    builder.add(rows(["i1"]))
    builder.flush()
    (chunk,) = chunks_path(path).iterdir()
    with h5py.File(chunk) as file:
        assert json.loads(file.attrs["spec"]) == HEADER.encoder_spec
        assert file.attrs["format"] == b"featurecache-part"
        assert file.attrs["version"] == 1
