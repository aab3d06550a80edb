"""What a trained model reads back from the metrics of its run."""

import numpy as np

from featurecache.evaluation.evaluate import evaluate
from featurecache.metrics.metrics import Metrics
from featurecache.metrics.platt_scaling import fit_platt, log_odds, read_calibration
from featurecache.provenance.provenance import Provenance
from featurecache.provenance.records import ImageRecords
from tests.evaluation.toy_splits import validation_and_test


def test_platt_scaling_is_read_back_in_the_order_of_the_labels():
    rng = np.random.default_rng(5)
    truth = (rng.random((120, 3)) < 0.5).astype(np.int8)
    truth[:60, 2] = 0
    # Informative, but too extreme, so that Platt scaling helps.
    probability = 1 / (1 + np.exp(-6 * (truth - 0.5 + rng.normal(size=(120, 3)))))
    metrics = evaluate(validation_and_test(truth, ("b", "a", "c")), probability, n_bootstrap=0)
    read = read_calibration(Metrics.model_validate(metrics.to_json()), ("b", "a", "c"))
    fitted = fit_platt(truth[:60], log_odds(probability[:60]))
    np.testing.assert_array_equal(read.slope, fitted.slope)
    np.testing.assert_array_equal(read.intercept, fitted.intercept)
    assert (read.slope[:2] > 0).all()
    assert np.isnan(read.slope[2])
    assert read.reasons[:2] == (None, None)
    assert read.reasons[2].startswith("in the validation split, no patient has a positive")
    assert read_calibration(metrics.replace(calibration=None), ("b", "a", "c")) is None


def test_repr_of_a_provenance_holds_no_ids():
    provenance = Provenance(("nih",)).with_training(
        ImageRecords.of("ward", ["doe_john.png", "roe_jane.png"])
    )
    assert repr(provenance) == ("Provenance(exposed_to=('nih',), trained_on={'ward': 2} images)")
