import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from featurecache.audit.probe import FOLDS, STRENGTHS, grouped_folds
from featurecache.audit.probe import cross_val_predict as nested_ridge_predict


def test_predictions_equal_scikit_learn_with_nested_cross_validation() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 12)) * rng.uniform(0.1, 3, 12) + 5
    y = x @ rng.normal(size=12) + 10 * rng.normal(size=150)
    fold = grouped_folds(y, np.array([f"p{row // 2}" for row in range(150)]), seed=0)
    scale = ((x - x.mean(axis=0)) ** 2).sum() / x.shape[1]
    expected, chosen = np.empty(150), set()
    for number in range(FOLDS):
        held_out = fold == number
        inner = PredefinedSplit(fold[~held_out])
        errors = [
            (
                (
                    cross_val_predict(Ridge(alpha=s * scale), x[~held_out], y[~held_out], cv=inner)
                    - y[~held_out]
                )
                ** 2
            )
            for s in STRENGTHS
        ]
        best = STRENGTHS[int(np.argmin(np.sum(errors, axis=1)))]
        chosen.add(best)
        expected[held_out] = (
            Ridge(alpha=best * scale).fit(x[~held_out], y[~held_out]).predict(x[held_out])
        )
    assert chosen - {min(STRENGTHS), max(STRENGTHS)}  # not only the ends of the grid
    np.testing.assert_allclose(nested_ridge_predict(x, y, fold), expected, rtol=1e-8)


def test_folds_keep_patients_together_and_balance_the_target() -> None:
    rng = np.random.default_rng(0)
    patients = np.array([f"p{number}" for number in rng.integers(0, 100, 400)])
    target = np.array([int(name[1:]) < 20 for name in patients], dtype=np.float64)
    fold = grouped_folds(target, patients, seed=0)
    for name in np.unique(patients):
        assert len(np.unique(fold[patients == name])) == 1
    positive = [len(np.unique(patients[(fold == f) & (target == 1)])) for f in range(FOLDS)]
    assert positive == [4] * FOLDS
    assert (grouped_folds(target, patients, seed=1) != fold).any()
