"""Arguments of a wrong kind give a UsageError that says what to give, not a raw error."""

from collections.abc import Callable
from typing import Any

import pytest

import featurecache as fc
from featurecache.errors import UsageError
from tests.extraction.stub_encoder import StubEncoder, write_images

CALLS: dict[str, tuple[Callable[..., Any], str]] = {
    "no data": (lambda data, cache: fc.extract(None, "tiny"), "`data` is None"),
    "data of three": (lambda data, cache: fc.extract(("a", "b", "c"), "tiny"), "name, path"),
    "no model": (lambda data, cache: fc.extract(data, None), "`model` is None"),
    "shard as a tuple": (
        lambda data, cache: fc.extract(data, StubEncoder(), shard=(3, 2)),
        r"`shard` is \(3, 2\): give I/N",
    ),
    "no neighbors": (lambda data, cache: fc.audit(cache, neighbors=0), "`neighbors` is 0"),
    "no sizes": (lambda data, cache: fc.learning_curve(cache, "knn", sizes=[]), "`sizes` is empty"),
    "no loader": (lambda data, cache: fc.register_encoder("mine", "tiny"), "`loader` is 'tiny'"),
}


@pytest.mark.parametrize(("call", "message"), CALLS.values(), ids=CALLS)
def test_wrong_argument_is_refused_with_advice(call, message, tmp_path):
    for name in ("ill", "well"):
        write_images(tmp_path / "images" / name, 6)
    data = fc.load_dataset("folder", tmp_path / "images")
    cache = fc.extract(data, StubEncoder(), cache_dir=tmp_path / "cache")
    with pytest.raises(UsageError, match=message):
        call(data, cache)
