"""What an evaluation takes from a cache."""

import numpy as np

from featurecache.evaluation.from_cache import predictions_from, split_data_from
from tests.evaluation.toy_caches import write_toy_cache


def test_predictions_are_of_validation_then_test(tmp_path):
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < 0.5).astype(np.int8)
    cache = write_toy_cache(
        tmp_path / "toy.h5", rng.normal(size=(200, 8)), labels, names=("Mass", "Edema", "Nodule")
    )
    probability = rng.random((200, 3))
    data = split_data_from(cache, train=cache.rows("train"))
    predictions = predictions_from(cache, data, probability)
    assert predictions.splits.tolist() == ["val"] * 50 + ["test"] * 50
    assert predictions.ids.tolist() == [f"{row:04d}.png" for row in range(100, 200)]
    assert np.array_equal(predictions.probability, probability[100:])
    assert np.array_equal(predictions.truth, labels[100:])
