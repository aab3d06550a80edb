"""Label support counts patients, and one rule says how many are enough."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from featurecache.metrics.label_support import MIN_PATIENTS, patient_support


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([-1, 0, 1])), max_size=30))
def test_patients_are_counted_once_per_label(rows):
    patients = np.array([patient for patient, _ in rows], dtype=np.intp)
    truth = np.array([[value, -value if value else 0] for _, value in rows], dtype=np.int8)
    truth = truth.reshape(-1, 2)
    support = patient_support(truth, patients)
    table = pd.DataFrame({"patient": patients, "first": truth[:, 0], "second": truth[:, 1]})
    for column, name in enumerate(["first", "second"]):
        assert support.positive[column] == table[table[name] == 1]["patient"].nunique()
        assert support.negative[column] == table[table[name] == 0]["patient"].nunique()


def test_a_label_needs_enough_patients_of_both_kinds():
    n = 2 * MIN_PATIENTS
    truth = np.zeros((n, 3), dtype=np.int8)
    truth[:MIN_PATIENTS, 0] = 1
    truth[:1, 1] = 1
    truth[:-2, 2] = 1
    support = patient_support(truth, np.arange(n))
    assert support.enough.tolist() == [True, False, False]
    assert [support.reason(column) for column in range(3)] == [
        None,
        "only 1 patient has a positive image, and at least 5 are needed",
        "only 2 patients have a negative image, and at least 5 are needed",
    ]
