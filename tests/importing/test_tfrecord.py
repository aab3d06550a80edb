"""TFRecord files, as Google's CXR Foundation writes them, become caches."""

import builtins
import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import featurecache as fc
from featurecache.importing import tfrecord, vectors
from featurecache.importing.tfrecord import read_examples
from tests.importing.tfrecords import crc32c, example, field, frame, masked, write

RNG = np.random.default_rng(3)
N, DIM = 6, 5
VECTORS = RNG.normal(size=(N, DIM)).astype(np.float32)
FLOATS = [vector.tolist() for vector in VECTORS]
DICOMS = [f"{n:08x}-00000000-11111111-22222222-3333333{n}" for n in (4, 2, 5, 0, 1, 3)]
PATIENTS = ["10000032", "10000032", "10000764", "10000898", "19999987", "19999987"]
STUDIES = ["50414267", "53189527", "57375967", "50771383", "55368167", "55368167"]
PATHS = [
    f"files/p{patient[:2]}/p{patient}/s{study}/{dicom}"
    for patient, study, dicom in zip(PATIENTS, STUDIES, DICOMS, strict=True)
]
NAMES = [f"{name}.png" for name in "dbface"]
PATIENT_OF = dict(zip(NAMES, "112233", strict=True))


@pytest.fixture(autouse=True)
def in_small_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vectors, "BLOCK_ROWS", 4)
    monkeypatch.chdir(tmp_path)


def release(root: str = "set") -> None:
    """The embeddings of MIMIC-CXR on PhysioNet: a file for each image."""
    for path, floats in zip(PATHS, FLOATS, strict=True):
        write(f"{root}/{path}.tfrecord", [{"embedding": floats}])
    Path(root, "SHA256SUMS.txt").touch()


def shards() -> list[Path]:
    """Two files of several images, named by the feature image/id."""
    files = [Path("set", f"out-0000{shard}-of-00002.tfrecord") for shard in range(2)]
    for file, rows in zip(files, (slice(4), slice(4, None)), strict=True):
        named = zip(NAMES[rows], FLOATS[rows], strict=True)
        write(file, ({"image/id": f"gs://b/{n}".encode(), "embedding": v} for n, v in named))
    return files


def table(**columns: Any) -> str:
    rows = {"image": NAMES, "pid": list(PATIENT_OF.values()), "Edema": ["1", "0"] * 3, **columns}
    pd.DataFrame(rows).to_csv("set.csv", index=False)
    return "set.csv"


def assert_rows(cache: fc.Cache, ids: list[str]) -> list[int]:
    """Check the order and content; return the row of each image in ``VECTORS``."""
    rows = [ids.index(image) for image in cache.ids.tolist()]
    assert sorted(rows) == list(range(N))
    np.testing.assert_array_equal(cache.embedding, VECTORS.astype(np.float16)[rows])
    return rows


def test_the_checksum_of_the_tests_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_an_example_of_tensorflow_is_read() -> None:
    """The message in TensorFlow's tutorial, framed by TensorBoard."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    message = (
        b"\nR\n\x11\n\x08feature0\x12\x05\x1a\x03\n\x01\x00\n\x11\n\x08feature1\x12\x05\x1a\x03\n"
        b"\x01\x04\n\x14\n\x08feature2\x12\x08\n\x06\n\x04goat\n\x14\n\x08feature3\x12\x08\x12\x06"
        b"\n\x04[\xd3|?"
    )
    with open("a.tfrecord", "wb") as file:  # noqa: PTH123 - what RecordWriter takes
        writer = RecordWriter(file)
        writer.write(message)
        writer.write(b"")
        writer.flush()
    first, second = read_examples(Path("a.tfrecord"))
    assert first.keys() == {f"feature{n}" for n in range(4)}
    assert first["feature0"] == [0]
    assert first["feature1"] == [4]
    assert first["feature2"] == [b"goat"]
    np.testing.assert_array_equal(first["feature3"], np.array([0.9876], np.float32))
    assert second == {}
    assert Path("a.tfrecord").read_bytes() == frame(message) + frame(b"")


def test_floats_may_be_written_one_by_one() -> None:
    """Parsers of protobuf accept numbers that are not packed, too."""
    single = b"".join(b"\x0d" + struct.pack("<f", number) for number in (0.5, -2))
    entry = field(1, b"embedding") + field(2, field(2, single))
    Path("a.tfrecord").write_bytes(frame(field(1, field(1, entry))))
    (features,) = read_examples(Path("a.tfrecord"))
    assert np.asarray(features["embedding"]).tolist() == [0.5, -2]


def test_embeddings_of_mimic_cxr_keep_images_patients_and_studies() -> None:
    release()
    cache = fc.import_cache("set", model="cxr-foundation")
    rows = assert_rows(cache, DICOMS)
    assert cache.patients.tolist() == [PATIENTS[row] for row in rows]
    assert cache.to_pandas()["study"].tolist() == [STUDIES[row] for row in rows]
    assert cache.mixed_patients == []
    assert cache.header.collection == "mimic-cxr-jpg"
    assert any("ids, patients and studies are those" in note for note in cache.header.notes)


@pytest.mark.parametrize("images", [DICOMS, [f"{path}.jpg" for path in PATHS]])
def test_mimic_cxr_is_joined_with_a_table_by_image_or_path(images: list[str]) -> None:
    release()
    subjects = [*PATIENTS, "1"]
    rows = {
        "dicom_id": [*images, "lateral"],
        "subject_id": subjects,
        "Edema": ["1", "0", "-1", "", "1", "0", "1"],
    }
    pd.DataFrame(rows).iloc[::-1].to_csv("labels.csv", index=False)
    cache = fc.import_cache("set", model="m", table="labels.csv", labels="Edema")
    order = assert_rows(cache, DICOMS)
    assert cache.cells[:, 0].tolist() == [(1, 0, -1, -2, 1, 0)[row] for row in order]
    assert cache.patients.tolist() == [PATIENTS[row] for row in order]
    assert cache.header.excluded == {"row without an embedding": 1}
    assert not any("subject_id" in note for note in cache.header.notes)


def test_patients_are_known_from_ids_in_the_records() -> None:
    """Files downloaded into one folder, as in Google's notebook, with the ids of the release."""
    for path, dicom, floats in zip(PATHS, DICOMS, FLOATS, strict=True):
        uri = f"gs://bucket/inputs/mimic-cxr/{path}.dcm".encode()
        write(f"set/{dicom}.tfrecord", [{"embedding": floats, "image/id": uri}])
    cache = fc.import_cache("set", model="m")
    rows = assert_rows(cache, DICOMS)
    assert cache.patients.tolist() == [PATIENTS[row] for row in rows]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ids", [NAMES, [name.removesuffix(".png") for name in NAMES]])
def test_shards_are_joined_with_a_table_by_image_id(ids: list[str], compressed: bool) -> None:
    for file in shards():
        if compressed:
            Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    cache = fc.import_cache(
        "set", model="m", table=table(image=ids), patient="pid", labels="Edema", name="s"
    )
    rows = assert_rows(cache, ids)
    assert cache.cells[:, 0].tolist() == [1 - row % 2 for row in rows]
    assert any("by the names of files" in note for note in cache.header.notes)


def test_one_file_of_another_feature_and_numbers_as_ids() -> None:
    """A file without a suffix for its compression, which the content shows."""
    examples = (
        example({"image/id": 100 + row, "other": [1.0], "vector": floats, "name": b"x"})
        for row, floats in enumerate(FLOATS)
    )
    Path("set.tfrecord").write_bytes(gzip.compress(b"".join(map(frame, examples))))
    with pytest.raises(ValueError, match=r"record 1, has the features .* other, vector: give the"):
        fc.import_cache("set.tfrecord", model="m")
    cache = fc.import_cache("set.tfrecord", model="m", embedding="vector")
    assert_rows(cache, [str(100 + row) for row in range(N)])


def test_a_record_whose_length_looks_like_gzip_is_read() -> None:
    overhead = len(example({"image/id": bytes(35_000)})) - 35_000
    record = example({"image/id": bytes(35_615 - overhead)})
    assert frame(record).startswith(b"\x1f\x8b")
    Path("a.tfrecord").write_bytes(frame(record))
    (features,) = read_examples(Path("a.tfrecord"))
    assert features == {"image/id": [bytes(35_615 - overhead)]}


def changed(at: int, by: bytes) -> Callable[[], None]:
    """Shards of which the first has other bytes somewhere."""

    def write_changed() -> None:
        file = shards()[0]
        content = bytearray(file.read_bytes())
        content[at : at + len(by)] = by
        file.write_bytes(content)

    return write_changed


def cut_off(by: int) -> Callable[[], None]:
    def write_cut_off() -> None:
        file = shards()[1]
        file.write_bytes(file.read_bytes()[:-by])

    return write_cut_off


def replaced(record: bytes) -> Callable[[], object]:
    return lambda: shards()[1].write_bytes(frame(record))


def claims_length(length: int) -> Callable[[], object]:
    header = struct.pack("<Q", length)
    return lambda: shards()[0].write_bytes(header + masked(header))


def gzip_cut_off() -> None:
    file = shards()[0]
    file.write_bytes(gzip.compress(file.read_bytes())[:-20])


def duplicates() -> None:
    file = shards()[1]
    file.write_bytes(file.read_bytes() * 2)


def another_kind() -> None:
    shards()
    np.save("set/index.npy", VECTORS)


def no_ids() -> None:
    write(shards()[1], [{"embedding": floats} for floats in FLOATS[:2]])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (changed(60, b"\x00"), r"00000-of-00002.tfrecord, record 1, has another checksum than st"),
        (changed(2, b"\xff"), "record 1, has no valid header: the file is damaged"),
        (cut_off(2), "record 2, is cut off: copy or download the file again"),
        (cut_off(9), "record 2, is cut off"),
        (
            claims_length(2**63),
            "record 1, has 9,223,372,036,854,775,808 bytes, more than the 16,777,21",
        ),
        (claims_length(2**20), "record 1, is cut off"),
        (gzip_cut_off, "00000-of-00002.tfrecord cannot be read: EOFError"),
        (replaced(b"\x0a\x7f"), "record 1, is no tf.train.Example: save the embeddings in another"),
        (replaced(field(1, field(1, field(1, b"\xff")))), "record 1, is no tf.train.Example"),
        (
            replaced(field(1, b"\x0a\x00" * 10_001)),
            "record 1, has 10,001 features, more than the 10",
        ),
        (replaced(example({"image/id": b"z"})), "floating-point numbers none: give the name"),
        (replaced(example({"image/id": b"z", "embedding": b"0"})), "floating-point numbers none"),
        (replaced(example({"image/id": b"z", "embedding": [1.0]})), "1 number, the first one 5"),
        (replaced(example({"image/id": b"z", "embedding": [0.0] * 5})), "embedding is all zero"),
        (replaced(example({"image/id": [1.0], "embedding": [0.0]})), "record 1, has no id in the"),
        (replaced(example({"image/id": b"\xff", "embedding": [0.0]})), "UnicodeDecodeError"),
        (no_ids, "00001-of-00002.tfrecord, record 1, has no id in the feature 'image/id': add it"),
        (duplicates, "set has several embeddings of 'gs://b/c.png': keep one for each image"),
        (another_kind, "set has .npy and TFRecord files|set has TFRecord and .npy files"),
        (lambda: shards()[1].unlink(), r"set/out-\*.tfrecord: 1 of 2 files are there: copy or"),
        (
            lambda: shards()[0].write_bytes(b""),
            "00000-of-00002.tfrecord is empty: copy or download",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_file_and_the_reason(
    damage: Callable[[], object], problem: str
) -> None:
    damage()
    with pytest.raises(ValueError, match=problem):
        fc.import_cache("set", model="m")
    assert not [path for path in Path("cache").rglob("*") if path.is_file()]


def test_reading_ids_reports_the_files_that_are_done() -> None:
    release()
    reported: list[tuple[int, int]] = []
    fc.import_cache("set", model="m", progress=lambda done, total: reported.append((done, total)))
    files, embeddings = reported[:N], reported[N:]
    assert files == [(number, N) for number in range(1, N + 1)]
    assert embeddings == [(4, N), (N, N)]


def test_names_that_are_several_images_are_not_matched() -> None:
    for folder in "ab":
        write(f"set/{folder}.tfrecord", [{"image/id": f"{folder}/x.png".encode(), "v": FLOATS[0]}])
    pd.DataFrame({"id": ["c/x", "d/y"]}).to_csv("set.csv", index=False)
    with pytest.raises(ValueError, match=r"no row for 2 embeddings of set, 'a/x.png' the first"):
        fc.import_cache("set", model="m")


def test_without_google_crc32c_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "google_crc32c":
            raise ImportError(name)
        return real(name, *args, **options)

    release()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'featurecache\[tfrecord\]'"):
        fc.import_cache("set", model="m")


def test_records_are_read_one_by_one() -> None:
    record = frame(example({"image/id": b"x", "embedding": [0.5] * 5000}))
    Path("a.tfrecord").write_bytes(record * 500)
    next(read_examples(Path("a.tfrecord")))  # imports
    tracemalloc.start()
    assert sum(1 for _ in tfrecord.read_examples(Path("a.tfrecord"))) == 500
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * len(record) < Path("a.tfrecord").stat().st_size / 10
