"""The leak check itself, on records made by hand."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.errors import UsageError
from featurecache.provenance.leaks import (
    SplitCopies,
    copies_across_splits,
    find_leaks,
    require_unseen,
)
from featurecache.provenance.perceptual_hash import MAX_DISTANCE, is_copy
from featurecache.provenance.records import ImageRecords

RNG = np.random.default_rng(0)
HASHES = RNG.integers(0, 256, (20, 32), dtype=np.uint8)


def flipped(hashes: np.ndarray, bits: int) -> np.ndarray:
    """Return hashes with this many bits changed."""
    changed = np.unpackbits(hashes, axis=1)
    changed[:, :bits] ^= 1
    return np.packbits(changed, axis=1)


def records(rows, collection="nih", *, name="{}.png", patient="{}", sha="{}", hashes=HASHES):
    return ImageRecords.of(
        collection,
        [name.format(row) for row in rows],
        patients=[patient.format(row) for row in rows],
        sha256=[sha.format(f"{row:064x}") if sha else "" for row in rows],
        perceptual_hash=hashes[list(rows)],
    )


def trained_on(*images):
    return {image.collection: image for image in images}


def found(leaks):
    return {name: np.flatnonzero(mask).tolist() for name, mask in vars(leaks).items() if mask.any()}


@given(data=st.data(), seed=st.integers(0, 2**32 - 1), size=st.tuples(*[st.integers(0, 12)] * 2))
@settings(max_examples=50, deadline=None)
def test_search_finds_what_all_pairs_find(data, seed, size):
    """Near copies at all distances, repeated hashes and none, with more hashes or more others."""
    rng = np.random.default_rng(seed)
    hashes, others = (rng.integers(0, 256, (n, 32), dtype=np.uint8) for n in size)
    if min(size):
        indices = st.tuples(st.integers(0, size[0] - 1), st.integers(0, size[1] - 1))
        for row, other in data.draw(st.lists(indices, max_size=12)):
            bits = np.unpackbits(others[other])
            # Anywhere, in neighboring bits, or two in each of the 16 bands.
            distance, step = data.draw(st.integers(0, 40)), data.draw(st.sampled_from([0, 1, 8]))
            changed = rng.integers(256) + step * np.arange(distance)
            bits[changed % 256 if step else rng.choice(256, distance, replace=False)] ^= 1
            hashes[row] = np.packbits(bits)
    for array in (hashes, others):
        for row in data.draw(st.lists(st.integers(0, 11), max_size=2)):
            array[row:] = array[row : row + 1] if data.draw(st.booleans()) else 0
    distance = np.bitwise_count(hashes[:, None] ^ others[None]).sum(axis=2)
    usable = hashes.any(axis=1)[:, None] & others.any(axis=1)[None]
    expected = ((distance <= MAX_DISTANCE) & usable).any(axis=1)
    assert is_copy(hashes, others).tolist() == expected.tolist()


def test_search_finds_copies_that_one_band_only_leads_to():
    """All ways for 32 bits to differ in at least 3 of the first band, 2 of others, or one less."""
    differences = []
    for first in combinations(range(16), 2):
        bits = np.zeros((16, 16), dtype=np.uint8)
        bits[1:, :2] = 1
        bits[0, list(first)] = 1
        differences.append(bits.ravel())
    for band, bit in product(range(1, 16), range(16)):
        bits = np.zeros((16, 16), dtype=np.uint8)
        bits[0, :3] = bits[1:, :2] = 1
        bits[band] = np.arange(16) == bit
        differences.append(bits.ravel())
    changes = np.packbits(differences, axis=1)
    others = np.random.default_rng(0).integers(0, 256, changes.shape, dtype=np.uint8)
    assert is_copy(others ^ changes, others).all()
    half = len(others) // 2
    assert (
        is_copy(others ^ changes, others[:half]).tolist() == (np.arange(2 * half) < half).tolist()
    )


@pytest.mark.parametrize("n", [3, 200])
def test_search_in_clusters_of_nearly_equal_images_takes_bounded_memory(n, monkeypatch):
    monkeypatch.setattr("featurecache.provenance.perceptual_hash._CANDIDATES", 100)
    rng = np.random.default_rng(0)
    bits = np.unpackbits(np.tile(HASHES[0], (n + 100, 1)), axis=1)
    cluster = np.packbits(bits ^ (rng.random(bits.shape) < 0.06), axis=1)
    hashes, others = cluster[:n], cluster[n:]
    distance = np.bitwise_count(hashes[:, None] ^ others[None]).sum(axis=2)
    sizes = []
    count = np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", lambda x: (sizes.append(x.size), count(x))[1])
    assert is_copy(hashes, others).tolist() == (distance.min(axis=1) <= MAX_DISTANCE).tolist()
    assert 0 < max(sizes) <= 100 + max(hashes.shape[0], others.shape[0])


def test_an_image_is_no_copy_of_nothing():
    assert not is_copy(HASHES, HASHES[:0]).any()


def test_flat_images_are_not_copies_of_each_other():
    flat = np.zeros((2, 32), dtype=np.uint8)
    assert not is_copy(flat, flat).any()


def test_a_file_is_found_in_another_collection_under_another_name():
    images = records(range(10), "table", name="x{}", patient="q{}")
    assert found(find_leaks(images, trained_on(records([3, 5])))) == {"same_file": [3, 5]}


@pytest.mark.parametrize(("bits", "is_found"), [(MAX_DISTANCE, True), (MAX_DISTANCE + 1, False)])
def test_a_reencoded_copy_is_found_by_its_content(bits, is_found):
    copies = records(
        range(10), "table", name="x{}", patient="q{}", sha="", hashes=flipped(HASHES, bits)
    )
    leaks = find_leaks(copies, trained_on(records([3, 5])))
    assert found(leaks) == ({"same_content": [3, 5]} if is_found else {})


def test_another_image_of_a_training_patient_is_found_in_the_same_published_collection_only():
    images = records(range(10), patient="p")
    trained = records([15], patient="P")
    assert found(find_leaks(images, trained_on(trained))) == {"same_patient": list(range(10))}
    elsewhere = records([15], "other", patient="p")
    assert found(find_leaks(images, trained_on(elsewhere))) == {"same_name": list(range(10))}


def test_the_name_of_a_table_is_no_evidence_of_the_same_people():
    """Was refused: "trained on other images of 171 patients" of another hospital."""
    images = records(range(10), "train", name="b{}")
    trained = records(range(10, 20), "train", name="a{}", patient="{}")
    same_names = ImageRecords.of(
        "train",
        np.char.decode(trained.id, "utf-8").tolist(),
        patients=np.char.decode(images.patient, "utf-8").tolist(),
        perceptual_hash=trained.perceptual_hash,
    )
    assert found(find_leaks(images, trained_on(same_names))) == {"same_name": list(range(10))}
    (warning,) = require_unseen(images, trained_on(same_names), by="the head")
    assert "patients with the same names as 10 patients in 10 of the 10 images" in warning


@pytest.mark.parametrize(
    ("scored", "trained", "warns"),
    [
        (("b", "p{}"), ("a#0123", "q{}"), True),
        (("b#0123", "p{}"), ("a", "q{}"), True),
        (("b#0123", "p{}"), ("a#4567", "q{}"), True),
        (("b#0123", "p{}"), ("a#0123", "q{}"), False),
        (("b", ""), ("a", "q{}"), True),
        (("b", "p{}"), ("a", ""), True),
        (("b", "p{}"), ("nih", ""), True),
        (("b", "p{}"), ("a", "q{}"), False),
        (("kermany#0123", "p{}"), ("nih", "q{}"), False),
        (("phantom-3", "p{}"), ("a#0123", "q{}"), False),
        (("phantom-x", "p{}"), ("a#0123", "q{}"), True),
    ],
)
def test_patients_that_cannot_be_compared_are_a_warning(scored, trained, warns):
    images = records(range(5), scored[0], name="b{}", patient=scored[1])
    others = records(range(10, 15), trained[0], name="a{}", patient=trained[1])
    more = records(range(15, 20), "more#89", name="c{}", patient="r{}")
    for training in (trained_on(others), trained_on(others, more) if warns else {}):
        warnings = require_unseen(images, training, by="the head")
        assert len(warnings) == (warns and len(training) > 0)
        assert not warnings or "cannot be compared" in warnings[0]


@pytest.mark.parametrize(
    ("scored", "trained", "shared"),
    [
        ("siim-acr", "nih", True),
        ("nih", "chestx-det", True),
        ("siim-acr#01", "rsna#01", True),
        ("kermany", "covid-radiography", True),
        ("covidx", "covid-radiography", True),
        ("covidx", "kermany", False),
        ("nih", "kermany", False),
        ("chexpert", "padchest", False),
        ("table", "nih", False),
    ],
)
def test_images_of_one_source_under_other_ids_are_refused_by_name(scored, trained, shared):
    images = records(range(5), scored, name="b{}", patient="p{}")
    training = trained_on(records(range(10, 15), trained, name="a{}", patient="q{}"))
    if not shared:
        assert require_unseen(images, training, by="the head") == []
        return
    with pytest.raises(UsageError, match=r"which shares images and patients .* ruled out: score"):
        require_unseen(images, training, by="the head")
    # Copies that are found are named, with their number.
    with pytest.raises(UsageError, match=r"trained on 1 of the 5 images"):
        require_unseen(images, trained_on(records([3], trained)), by="the head")


def test_unknown_patients_are_not_one_patient():
    assert not found(find_leaks(records([1], patient=""), trained_on(records([2], patient=""))))


def test_two_collections_of_one_name_are_told_apart_by_content():
    """Two hospitals' train.csv with im/1.png, of patient 1."""
    first = records(range(10), "train", name="im/{}.png")
    other = HASHES[::-1]
    second = records(range(10), "train", name="im/{}.png", sha="f{}", hashes=other)
    assert found(find_leaks(second, trained_on(first))) == {"same_name": list(range(10))}
    assert (
        "10 patients in 10 of the 10 images"
        in require_unseen(second, trained_on(first), by="the head")[0]
    )


def test_ids_decide_where_content_is_unknown():
    unread = ImageRecords.of("nih", ["3.png", "99.png"])
    assert found(find_leaks(unread, trained_on(records(range(10))))) == {"same_id": [0]}


def test_an_edited_image_does_not_make_another_collection():
    hashes = HASHES.copy()
    hashes[2] = flipped(HASHES[2:3], 100)
    images = records(range(10), sha="f{}", hashes=hashes)
    leaks = find_leaks(images, trained_on(records(range(10))))
    assert np.flatnonzero(leaks.same_id).tolist() == [0, 1, *range(3, 10)]
    assert np.flatnonzero(leaks.same_patient).tolist() == [2]


@pytest.mark.parametrize(("scored", "trained"), [("b", "a"), ("b", "nih"), ("nih", "b")])
def test_images_without_hashes_cannot_be_compared_with_training_images(scored, trained):
    """Was silent: evaluating on a second import of the training images under another name."""
    unhashed = {"sha": "", "hashes": np.zeros_like(HASHES)}
    images = records(range(10), scored, patient="", **unhashed)
    training = trained_on(records(range(5, 15), trained, patient=""))
    assert found(find_leaks(images, training)) == {"same_id_elsewhere": list(range(5, 10))}
    (warning,) = require_unseen(images, training, by="the head")
    assert f"because {scored} came without hashes of the image files" in warning
    assert "; 5 of the 10 have the ids of training images: if" in warning
    other_ids = records(range(10), scored, name="x{}", patient="", **unhashed)
    (warning,) = require_unseen(other_ids, training, by="the head")
    assert "imports and shared caches do: if some are the same images" in warning
    # With hashes on both sides, equal ids of two collections are chance.
    hashed = records(range(10), scored, sha="f{}", hashes=HASHES[::-1], patient="")
    assert require_unseen(hashed.take(np.arange(5)), training, by="the head") == []


def test_copies_are_refused_with_their_numbers_and_examples():
    images = records(range(10), "table", name="x{}")
    with pytest.raises(
        UsageError,
        match=r"the head was trained on 2 of the 10 .*\(2 with the same file\).*'x3', 'x5'",
    ):
        require_unseen(images, trained_on(records([3, 5])), by="the head")
    copies = records(range(10), sha="", hashes=flipped(HASHES, 3), name="x{}")
    with pytest.raises(UsageError, match=r"2 re-encoded or resized"):
        require_unseen(copies, trained_on(records([3, 5], "table")), by="the head")


def test_patients_are_refused_unless_the_split_is_by_image():
    images, trained = records(range(10), patient="p"), trained_on(records([15], patient="p"))
    with pytest.raises(UsageError, match=r"other images of 1 patient in 10 of the 10 images"):
        require_unseen(images, trained, by="the head")
    (warning,) = require_unseen(images, trained, by="the head", by_patient=False)
    assert "other images of 1 patient" in warning


def test_copies_across_splits_are_left_out_of_the_earlier_split():
    hashes = HASHES.copy()
    sha = [f"{row:064x}" for row in range(20)]
    splits = np.repeat(["train", "val", "test"], [10, 5, 5])
    sha[0] = sha[16]  # train and test
    sha[1] = sha[11]  # train and val
    hashes[12] = flipped(hashes[17:18], 4)  # val and test
    hashes[2] = flipped(hashes[3:4], 4)  # within train
    images = ImageRecords.of("set", [str(n) for n in range(20)], sha256=sha, perceptual_hash=hashes)
    copies = copies_across_splits(images, splits)
    assert copies.same_file.tolist() == [0, 1]
    assert copies.same_content.tolist() == [12]
    assert copies.without(np.arange(4)).tolist() == [2, 3]
    (warning,) = copies.warnings()
    assert "3 training or validation images are left out" in warning
    assert "2 have the same file as and 1 is a re-encoded or resized copy of an image" in warning


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        ({"same_file": [0]}, "image is left out, because it has the same file as an image of"),
        ({"same_file": [0, 1]}, "images are left out, because they have the same file as an image"),
        ({"same_content": [0]}, "because it is a re-encoded or resized copy of an image of"),
    ],
)
def test_copies_are_counted_in_words(copies: dict[str, list[int]], expected: str) -> None:
    (warning,) = SplitCopies(**{kind: np.array(rows) for kind, rows in copies.items()}).warnings()
    assert expected in warning
