"""Compare the baseline head with scikit-learn's logistic regression on the same embeddings.

    python pipelines/logistic_reference.py cache/kermany/dinov2-minilm.h5

For each label, a LogisticRegression is fitted on the training images, on standardized unit-length
embeddings, with C chosen by AUROC on the validation images. Both models score the test images once;
the difference of their macro AUROC is bootstrapped over patients, on the same samples.
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import Normalizer, StandardScaler

import featurecache as fc
from featurecache.heads.io import HeadModel
from featurecache.metrics.bootstrap import bootstrap_metrics, interval, resample_patients
from featurecache.metrics.multilabel import compute_metrics
from featurecache.metrics.ranking import auroc

STRENGTHS = np.logspace(-4, 3, 15)


def logistic_probabilities(cache: fc.Cache) -> NDArray[np.float64]:
    """Return (N, C) probabilities of one regression per label; NaN for labels of one class."""
    train, val = cache.rows("train"), cache.rows("val")
    unit = Normalizer().transform(cache.embedding.astype(np.float64))
    x = StandardScaler().fit(unit[train]).transform(unit)
    probability = np.full(cache.labels.values.shape, np.nan)
    for column, truth in enumerate(cache.labels.values.T):
        known = train[truth[train] >= 0]
        if len(np.unique(truth[known])) < 2:
            continue
        candidates = []
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=5000).fit(x[known], truth[known])
            p = model.predict_proba(x)[:, 1]
            # Without both classes in validation nothing can be chosen: prefer C = 1, the default.
            score = auroc(truth[val], p[val])
            candidates.append((-abs(np.log(strength)) if np.isnan(score) else score, p))
        probability[:, column] = max(candidates, key=lambda candidate: candidate[0])[1]
    return probability


def main() -> None:
    """Fit both models, score both on the test images, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache")
    parser.add_argument("--n-bootstrap", type=int, default=1000)
    arguments = parser.parse_args()
    cache = fc.open_cache(arguments.cache)
    start = time.perf_counter()
    run = fc.train_head(cache, "baseline", n_bootstrap=0, controls=False)
    assert isinstance(run.model, HeadModel)
    head = run.model.probabilities(cache.embedding)
    trained = time.perf_counter()
    logistic = logistic_probabilities(cache)
    fitted = time.perf_counter()

    test = cache.rows("test")
    scored = np.flatnonzero(~np.isnan(logistic).any(axis=0))
    grid = np.ix_(test, scored)
    truth = cache.labels.values[grid]
    samples = resample_patients(cache.patients[test], n_bootstrap=arguments.n_bootstrap, seed=0)
    scores, resampled = [], []
    for name, p in (("baseline head", head[grid]), ("logistic regression", logistic[grid])):
        scores.append(float(compute_metrics(truth, p >= 0.5, p).macro["auroc"]))
        resampled.append(bootstrap_metrics(truth, p >= 0.5, p, samples).macro["auroc"])
        low, high = interval(resampled[-1]) or (np.nan, np.nan)
        print(f"{name:20s} test macro AUROC {scores[-1]:.4f} [{low:.4f}, {high:.4f}]")
    low, high = interval(resampled[0] - resampled[1]) or (np.nan, np.nan)
    difference = scores[0] - scores[1]
    print(f"{'difference':20s}                 {difference:+.4f} [{low:+.4f}, {high:+.4f}]")
    print(f"{trained - start:.1f} s for the head, {fitted - trained:.1f} s for the regressions")


if __name__ == "__main__":
    main()
