"""Ids and patients as keyed hashes."""

import hashlib
import hmac
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.pseudonymize import IdKey, pseudonymize_dataset, read_key, redact_errors
from featurecache.errors import DatasetError, UsageError
from featurecache.provenance import base_name, key_fingerprint, require_same_id_key

names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
)
secrets = st.binary(min_size=16, max_size=80)


@st.composite
def manifests(draw: st.DrawFn) -> Dataset:
    ids = draw(st.lists(names, min_size=1, max_size=12, unique=True))
    patients = draw(st.lists(names, min_size=len(ids), max_size=len(ids)))
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
def test_a_hash_is_that_of_the_standard_library_and_of_32_digits(name: str, secret: bytes) -> None:
    whole = hmac.new(secret, f"name {name}".encode(), hashlib.sha256).hexdigest()
    assert IdKey(secret).hash(name) == whole[:32]


@settings(max_examples=40, deadline=None)
@given(manifests(), secrets)
def test_rows_stay_whole_equal_patients_equal_and_order_is_that_of_hashed_ids(
    manifest: Dataset, secret: bytes
) -> None:
    key = IdKey(secret)
    hashed = pseudonymize_dataset(manifest, key)
    assert hashed.images["id"].is_monotonic_increasing
    before = manifest.images.assign(label=manifest.label_values[:, 0])
    before["id"] = [key.hash(name) for name in before["id"]]
    before["patient"] = [key.hash(name) for name in before["patient"]]
    after = hashed.images.assign(label=hashed.label_values[:, 0])
    assert sorted(after.itertuples(index=False)) == sorted(before.itertuples(index=False))
    assert hashed.images["patient"].nunique() == manifest.images["patient"].nunique()


@settings(max_examples=40, deadline=None)
@given(st.lists(names, min_size=2, max_size=20, unique=True), secrets, secrets)
def test_other_names_and_other_keys_give_other_hashes(
    several: list[str], one: bytes, other: bytes
) -> None:
    hashed = {IdKey(one).hash(name) for name in several}
    assert len(hashed) == len(several)
    # Keys that differ in zeros at their ends are one to HMAC.
    if one.rstrip(b"\0") != other.rstrip(b"\0"):
        assert not hashed & {IdKey(other).hash(name) for name in several}
        assert IdKey(one).fingerprint != IdKey(other).fingerprint


def test_the_collection_says_by_which_key_and_the_secret_is_not_shown() -> None:
    key = IdKey(b"a secret of mine")
    images = pd.DataFrame(
        {"id": ["a"], "path": ["a"], "patient": ["p"], "split": ["test"], "view": [""]}, dtype=str
    )
    manifest = Dataset(
        name="set",
        root=Path("/nowhere"),
        images=images,
        labels=np.array([[1]], dtype=np.int8),
        label_names=("L",),
        collection="films",
    )
    hashed = pseudonymize_dataset(manifest, key)
    assert (base_name(hashed.collection), key_fingerprint(hashed.collection)) == (
        "films",
        key.fingerprint,
    )
    assert len(key.fingerprint) == 16
    assert hashed.take(np.array([0])).collection == hashed.collection
    assert "secret of mine" not in repr(hashed)


def test_what_was_learned_from_is_hashed_once() -> None:
    key = IdKey(b"0123456789abcdef")
    mine = f"films#{key.fingerprint}"
    learned = {"films": frozenset("ab"), mine: frozenset({key.hash("c")}), "x#1": frozenset("d")}
    assert key.pseudonymize_provenance(learned) == {
        mine: frozenset(map(key.hash, "abc")),
        "x#1": frozenset("d"),
    }


def test_films_whose_ids_cannot_be_compared_with_those_of_the_training_are_refused() -> None:
    require_same_id_key("films", ["films", "other#1"])
    require_same_id_key("films#1", ["films#1", "other"])
    for there, here in (("films", "films#1"), ("films#1", "films"), ("films#1", "films#2")):
        with pytest.raises(UsageError, match="extract with the same --pseudonymize"):
            require_same_id_key(here, [there])


@pytest.mark.parametrize(
    ("data", "words"),
    [(None, "no file"), (b"fifteen bytes..", "has 15 bytes"), (b"x" * 65_537, "over 65,536")],
)
def test_a_key_that_is_none_is_refused_with_how_to_make_one(
    tmp_path: Path, data: bytes | None, words: str
) -> None:
    path = tmp_path / "key"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=rf"{words}.*/dev/urandom"):
        read_key(path)


def test_a_key_is_all_bytes_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\0\xff, and a new line\n")
    assert read_key(tmp_path / "key").secret == b"\0\xff, and a new line\n"


@pytest.mark.parametrize("error", [DatasetError("Smith"), OSError(2, "gone", "Smith.png")])
def test_an_error_that_may_name_a_patient_is_kept_back(error: Exception) -> None:
    with (
        pytest.raises(DatasetError, match="without --pseudonymize") as caught,
        redact_errors("set"),
    ):
        raise error
    assert "Smith" not in str(caught.value)
    assert caught.value.__suppress_context__
