"""The precision that audit.md states, in a quick version of benchmarks/doubtful_labels.py."""

import numpy as np

import featurecache as fc
from benchmarks.doubtful_labels import are_flipped, flip_labels
from featurecache.audit.doubtful_labels import doubtful_labels


def test_most_doubtful_labels_are_those_that_were_flipped(in_workspace):
    cache, flipped = flip_labels(fc.open_cache("cache/phantom/tiny.h5"), share=0.05, seed=0)
    result = doubtful_labels(cache, n_bootstrap=0)
    right = are_flipped(result, cache, flipped)
    assert right[:40].mean() > 0.9
    assert np.isclose(flipped.mean(), 0.05, atol=0.01)
    assert {doubt.reason is None for doubt in result.labels.values()} == {True, False}
