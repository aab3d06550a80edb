"""A number agrees with its noun."""

import pytest

from featurecache.wording import count_noun, count_scored, format_size


@pytest.mark.parametrize(
    ("number", "nouns", "expected"),
    [
        (1, ["class"], "1 class"),
        (3, ["class"], "3 classes"),
        (0, ["test image"], "0 test images"),
        (2048, ["query"], "2,048 queries"),
        (2, ["key"], "2 keys"),
        (1, ["image is", "images are"], "1 image is"),
        (2, ["image is", "images are"], "2 images are"),
    ],
)
def test_number_agrees_with_its_noun(number: int, nouns: list[str], expected: str) -> None:
    assert count_noun(number, *nouns) == expected


def test_what_was_scored_is_of_a_split_or_all() -> None:
    assert count_scored(12, "test", "study", 1) == "12 test studies of 1 patient"
    assert count_scored(12, "all", "image", 7) == "all 12 images of 7 patients"


@pytest.mark.parametrize(
    ("n_bytes", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (15_360, "15.0 KiB"),
        (2**20, "1.0 MiB"),
        (2**41, "2,048.0 GiB"),
    ],
)
def test_sizes_have_a_unit_that_shows_them(n_bytes: int, expected: str) -> None:
    assert format_size(n_bytes) == expected
