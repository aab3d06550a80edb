"""The files that a cache holds the embeddings of."""

import numpy as np
import pytest

from featurecache.errors import UsageError
from featurecache.extraction.source import cached_files
from featurecache.extraction.update import update_caches
from featurecache.store.reader import read_cache
from tests.extraction.stub_encoder import StubEncoder, make_dataset, touch, write_image


def test_files_are_those_that_were_embedded(dataset, root, cache) -> None:
    (summary,) = update_caches(dataset, [StubEncoder()], cache_dir=cache)
    stored, files = read_cache(summary.path), dataset.files()
    assert cached_files(stored, dataset) == files
    touch(files["i003"])  # the same bytes
    (root / "i004.png").unlink()  # its reader reports that
    assert cached_files(stored, dataset) == files
    exchanged = dataset.images["path"].to_numpy()
    exchanged[[1, 8]] = exchanged[[8, 1]]
    other = make_dataset(root, dataset.images["id"], images=dataset.images.assign(path=exchanged))
    assert cached_files(stored, other, ["i007", "i002"]) == {
        image: files[image] for image in ("i002", "i007")
    }
    with pytest.raises(UsageError, match="the file of 'i001' is not the one that"):
        cached_files(stored, other)
    write_image(root / "i005.png", 77)
    with pytest.raises(UsageError, match="the file of 'i005' is not the one that"):
        cached_files(stored, dataset, ["i002", "i005"])
    with pytest.raises(UsageError, match="`data` has no image 'i009', which is in the cache"):
        cached_files(stored, dataset.take(np.arange(9)))
