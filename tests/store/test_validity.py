"""Reading and ``verify`` agree on what a cache may hold, and name the data set, row and id."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.errors import CacheError
from featurecache.store.reader import read_cache
from featurecache.store.records import usable_rows
from featurecache.store.verify import verify_cache
from tests.store import handwritten
from tests.store.test_malformed import Change, attribute, put, texts


def embedding(value: object) -> Change:
    def change(file: h5py.File) -> None:
        file["images/embedding"][1] = value

    return change


def text(name: str, value: object) -> Change:
    def change(file: h5py.File) -> None:
        file[f"text/signs/{name}"][0] = value

    return change


OPENED: dict[str, tuple[Change, str]] = {
    "zero width": (put("images/embedding", np.ones((3, 0), "f2")), "embedding has no columns"),
    "empty patient": (
        texts("images/patient", ["p1", "", "p2"]),
        r"/images/patient in row 1 \('b/1'\) is empty",
    ),
    "negative age": (
        texts("images/age", ["40", "", "-7"]),
        r"/images/age in row 2 \('ç'\) is '-7', not a number of years",
    ),
    "age in words": (texts("images/age", ["forty", "", "7"]), "age in row 0 .*'forty'"),
    "age without end": (texts("images/age", ["40", "inf", "7"]), "age in row 1 .*'inf'"),
    "unnamed label": (texts("labels/names", ["Mass", ""]), "/labels/names has no name for label 1"),
}
USED: dict[str, tuple[Change, str]] = {
    "all zero": (embedding(0), r"/images/embedding in row 1 \('b/1'\) is all zero"),
    "negative zero": (embedding(-0.0), r"embedding in row 1 \('b/1'\) is all zero"),
    "NaN": (embedding([1, np.nan, 1, 1]), r"embedding in row 1 \('b/1'\) is not finite"),
    "infinite": (embedding([1, -np.inf, 1, 1]), r"embedding in row 1 \('b/1'\) is not finite"),
    "scale 0": (attribute("text/signs", "scale", 0.0), "scale of /text/signs is 0.0"),
    "unnamed text label": (texts("text/signs/labels", ["Mass", " "]), "no name for label 1"),
    "text NaN": (text("embedding", np.nan), "'Mass', prompt 0 has norm nan"),
    "text infinite": (text("embedding", np.inf), "'Mass', prompt 0 has norm inf"),
    "text zero": (text("embedding", 0), "/text/signs/embedding of label 'Mass', prompt 0 has no"),
    "text vanishing": (text("embedding", 1e-30), "prompt 0 has norm 2e-30"),
    "text huge": (text("embedding", 1e30), "prompt 0 has norm 2e"),
    "ensemble zero": (text("ensemble", 0), "/text/signs/ensemble of label 'Mass' has norm 0"),
    "negative NaN": (text("negatives/ensemble", np.nan), "/negatives/ensemble of label 'Mass'"),
}


@pytest.mark.parametrize("what", OPENED)
def test_opening_and_verify_refuse_what_is_in_memory(cache_file: Path, what: str) -> None:
    change, message = OPENED[what]
    with handwritten.edit(cache_file) as file:
        change(file)
    for read in (read_cache, verify_cache):
        with pytest.raises(CacheError, match=message) as caught:
            read(cache_file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", USED)
def test_use_and_verify_refuse_embeddings_and_texts(cache_file: Path, what: str) -> None:
    change, message = USED[what]
    with handwritten.edit(cache_file) as file:
        change(file)
    assert re.search(message, "\n".join(verify_cache(cache_file)))
    cache = read_cache(cache_file)  # stays fast: it reads no embedding
    uses = (
        [lambda: cache.embedding, lambda: cache.read_rows(0, 3), lambda: cache.arrays("test")]
        if "images" in message or "embedding in row" in message
        else [lambda: cache.text("signs"), cache.text_embeddings]
    )
    for use in uses:
        with pytest.raises(CacheError, match=message):
            use()


def test_every_float16_is_judged_as_numpy_does() -> None:
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)[:, np.newaxis]
    expected = np.isfinite(values[:, 0]) & (values[:, 0] != 0)
    np.testing.assert_array_equal(usable_rows(values), expected)
    finite = np.isfinite(values[:, 0])
    np.testing.assert_array_equal(usable_rows(np.hstack([values, np.ones_like(values)])), finite)
