"""Is the baseline head as good as scikit-learn's logistic regression on the same embeddings?

    python pipelines/logistic_reference.py cache/kermany/dinov2-minilm.h5

For each label a LogisticRegression is fitted on the training images, on unit-length standardised
embeddings, with C chosen by AUROC on the validation images. The test images are scored once, by
both models, and the difference of their macro AUROC is bootstrapped over patients, on the same
draws.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import Normalizer, StandardScaler

from featurecache.heads.io import HeadModel
from featurecache.heads.train import train_head
from featurecache.metrics.bootstrap import bootstrap_metrics, interval, resample_patients
from featurecache.metrics.ranking import auroc, macro
from featurecache.store.cache import Cache
from featurecache.store.reader import read_cache

STRENGTHS = np.logspace(-4, 3, 15)


def logistic_probabilities(cache: Cache) -> NDArray[np.float64]:
    """(N, C) probabilities of one regression per label; NaN where a label cannot be fitted."""
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
            # Without both classes in validation there is nothing to choose by: keep the default.
            score = auroc(truth[val], p[val])
            candidates.append((-abs(np.log(strength)) if np.isnan(score) else score, p))
        probability[:, column] = max(candidates, key=lambda candidate: candidate[0])[1]
    return probability


def main() -> None:
    """Fit both, score both on the test images, print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--n-bootstrap", type=int, default=1000)
    arguments = parser.parse_args()
    cache = read_cache(arguments.cache)
    start = time.perf_counter()
    run = train_head(cache, "baseline", n_bootstrap=0, controls=False)
    assert isinstance(run.model, HeadModel)
    head = run.model.probabilities(cache.embedding)
    trained = time.perf_counter()
    logistic = logistic_probabilities(cache)
    fitted = time.perf_counter()

    test = cache.rows("test")
    scored = np.flatnonzero(~np.isnan(logistic).any(axis=0))
    grid = np.ix_(test, scored)
    truth = cache.labels.values[grid]
    n_bootstrap = resample_patients(cache.patients[test], n_bootstrap=arguments.n_bootstrap, seed=0)
    figures, drawn = {}, {}
    for name, p in (("baseline head", head[grid]), ("logistic regression", logistic[grid])):
        columns = range(len(scored))
        figures[name] = float(macro(np.array([auroc(truth[:, c], p[:, c]) for c in columns])))
        drawn[name] = bootstrap_metrics(truth, p >= 0.5, p, n_bootstrap).macro["auroc"]
        low, high = interval(drawn[name]) or (float("nan"), float("nan"))
        print(f"{name:20s} test macro AUROC {figures[name]:.4f} [{low:.4f}, {high:.4f}]")
    first, second = figures
    low, high = interval(drawn[first] - drawn[second]) or (float("nan"), float("nan"))
    difference = figures[first] - figures[second]
    print(f"{'difference':20s}                 {difference:+.4f} [{low:+.4f}, {high:+.4f}]")
    print(f"{trained - start:.1f} s for the head, {fitted - trained:.1f} s for the regressions")


if __name__ == "__main__":
    main()
