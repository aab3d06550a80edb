import hashlib
import hmac
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.pseudonymize import IdKey, read_key, redact_errors
from featurecache.errors import DatasetError, UnknownNameError, UsageError
from featurecache.provenance.names import (
    base_name,
    key_fingerprint,
    patient_key,
    require_same_id_key,
)
from featurecache.provenance.provenance import Provenance
from featurecache.provenance.records import ImageRecords

names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
)
clean_names = names.filter(lambda name: patient_key(name) == name)
secrets = st.binary(min_size=16, max_size=80)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    ids = draw(st.lists(clean_names, min_size=1, max_size=12, unique=True))
    patients = draw(st.lists(clean_names, min_size=len(ids), max_size=len(ids)))
    split_of = {p: draw(st.sampled_from(["train", "val", "test"])) for p in sorted(set(patients))}
    images = pd.DataFrame(
        {
            "id": ids,
            "path": [f"{number}.png" for number in range(len(ids))],
            "patient": patients,
            "split": [split_of[patient] for patient in patients],
            "view": "",
        },
        dtype=str,
    )
    labels = np.array([[number % 2] for number in range(len(ids))], dtype=np.int8)
    return Dataset(
        name="set", root=Path("/nowhere"), images=images, labels=labels, label_names=("L",)
    )


@given(names, secrets)
def test_hash_is_truncated_hmac_sha256(name: str, secret: bytes) -> None:
    whole = hmac.new(secret, f"name {name}".encode(), hashlib.sha256).hexdigest()
    assert IdKey(secret).hash(name) == whole[:32]


@settings(max_examples=40, deadline=None)
@given(datasets(), secrets)
def test_rows_are_kept_and_sorted_by_hashed_id(dataset: Dataset, secret: bytes) -> None:
    key = IdKey(secret)
    hashed = dataset.pseudonymize(key)
    assert hashed.images["id"].is_monotonic_increasing
    before = dataset.images.assign(label=dataset.label_values[:, 0])
    before["id"] = [key.hash(name) for name in before["id"]]
    hash_patient = key.hash_patient if dataset.patients_known else key.hash
    before["patient"] = [hash_patient(name) for name in before["patient"]]
    after = hashed.images.assign(label=hashed.label_values[:, 0])
    assert sorted(after.itertuples(index=False)) == sorted(before.itertuples(index=False))
    assert hashed.images["patient"].nunique() == dataset.images["patient"].nunique()


@settings(max_examples=40, deadline=None)
@given(st.lists(names, min_size=2, max_size=20, unique=True), secrets, secrets)
def test_hashes_differ_by_name_and_key(several: list[str], one: bytes, other: bytes) -> None:
    hashed = {IdKey(one).hash(name) for name in several}
    assert len(hashed) == len(several)
    # HMAC ignores trailing zero bytes of a key.
    if one.rstrip(b"\0") != other.rstrip(b"\0"):
        assert not hashed & {IdKey(other).hash(name) for name in several}
        assert IdKey(one).fingerprint != IdKey(other).fingerprint


def test_collection_contains_the_fingerprint_and_repr_hides_the_secret() -> None:
    key = IdKey(b"a secret of mine")
    images = pd.DataFrame(
        {"id": ["a"], "path": ["a"], "patient": ["p"], "split": ["test"], "view": [""]}, dtype=str
    )
    dataset = Dataset(
        name="set",
        root=Path("/nowhere"),
        images=images,
        labels=np.array([[1]], dtype=np.int8),
        label_names=("L",),
        collection="xrays",
    )
    hashed = dataset.pseudonymize(key)
    assert (base_name(hashed.collection), key_fingerprint(hashed.collection)) == (
        "xrays",
        key.fingerprint,
    )
    assert len(key.fingerprint) == 16
    assert hashed.take(np.array([0])).collection == hashed.collection
    assert "secret of mine" not in repr(hashed)


def test_provenance_is_hashed_once() -> None:
    key = IdKey(b"0123456789abcdef")
    mine = f"xrays#{key.fingerprint}"
    provenance = Provenance(("nih",))
    for records in (
        ImageRecords.of("xrays", ["a", "b"], patients=["P012", "12.0"], sha256=["1" * 64, ""]),
        ImageRecords.of(mine, [key.hash("c")]),
        ImageRecords.of("x#1", ["d"]),
    ):
        provenance = provenance.with_training(records)
    hashed = key.pseudonymize_provenance(provenance)
    assert hashed.exposed_to == ("nih",)
    assert hashed.trained_on.keys() == {mine, "x#1"}
    document = hashed.trained_on[mine].to_json()
    assert document["id"] == sorted(map(key.hash, "abc"))
    assert set(document["patient"]) == {key.hash("p012"), key.hash("12"), ""}
    assert set(document["sha256"]) == {"1" * 64, ""}
    assert hashed.trained_on["x#1"] == ImageRecords.of("x#1", ["d"])


def test_incomparable_ids_of_a_published_data_set_are_refused() -> None:
    require_same_id_key("nih", ["nih", "kermany#1"])
    require_same_id_key("nih#1", ["nih#1", "kermany"])
    require_same_id_key("train#1", ["train", "train#2"])  # of two hospitals, perhaps
    for there, here in (("nih", "nih#1"), ("nih#1", "nih"), ("nih#1", "nih#2")):
        with pytest.raises(UsageError, match="extract with the same"):
            require_same_id_key(here, [there])


@pytest.mark.parametrize(
    ("data", "words"),
    [(None, "no key file"), (b"fifteen bytes..", "has 15 bytes"), (b"x" * 65_537, "over 65,536")],
)
def test_invalid_key_file_is_refused_with_advice(
    tmp_path: Path, data: bytes | None, words: str
) -> None:
    path = tmp_path / "key"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=rf"{words}.*/dev/urandom"):
        read_key(path)


def test_key_is_all_bytes_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\0\xff, and a new line\n")
    assert read_key(tmp_path / "key").secret == b"\0\xff, and a new line\n"


@pytest.mark.parametrize(
    "error", [DatasetError("Smith"), OSError(2, "gone", "Smith.png"), KeyError("Smith")]
)
def test_error_that_may_name_a_patient_is_redacted(error: Exception) -> None:
    with (
        pytest.raises(DatasetError, match="without `pseudonymize`") as caught,
        redact_errors("set"),
    ):
        raise error
    assert "Smith" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_unknown_option_value_is_not_redacted() -> None:
    error = UnknownNameError("split", "offical", ["official"])
    with pytest.raises(UnknownNameError, match="did you mean official"), redact_errors("set"):
        raise error
