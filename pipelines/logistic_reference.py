"""Compare the baseline head with scikit-learn's logistic regression on the same embeddings.

    python pipelines/logistic_reference.py cache/kermany/dinov2-minilm.h5

For each label, a LogisticRegression is fitted on the training images, on standardized unit-length
embeddings, with C chosen by AUROC on the validation images. The head is trained with several seeds,
since one training may come out on either side: another processor rounds differently, and so do
another seed's initial weights. All models score the test images; the difference of their macro
AUROC is bootstrapped over patients, on the same samples, and pooled over the seeds, so that its
interval includes both kinds of chance.
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
    train, val = cache.learning_rows("train"), cache.learning_rows("val")
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
    """Fit all models, score them on the test images, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--n-bootstrap", type=int, default=1000)
    arguments = parser.parse_args()
    cache = fc.open_cache(arguments.cache)
    start = time.perf_counter()
    heads = []
    for seed in range(arguments.seeds):
        run = fc.train_head(cache, "baseline", seed=seed, n_bootstrap=0, controls=False)
        assert isinstance(run.model, HeadModel)
        heads.append(run.model.probabilities(cache.embedding))
    trained = time.perf_counter()
    logistic = logistic_probabilities(cache)
    fitted = time.perf_counter()

    test = cache.rows("test")
    grid = np.ix_(test, np.flatnonzero(~np.isnan(logistic).any(axis=0)))
    truth = cache.labels.values[grid]
    samples = resample_patients(cache.patients[test], n_bootstrap=arguments.n_bootstrap, seed=0)

    def macro_auroc(p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return macro AUROC on the test images, then on each bootstrap sample of them."""
        p = p[grid]
        point = compute_metrics(truth, p >= 0.5, p).macro["auroc"]
        return np.concatenate(
            [[point], bootstrap_metrics(truth, p >= 0.5, p, samples).macro["auroc"]]
        )

    reference = macro_auroc(logistic)
    of_heads = np.stack([macro_auroc(head) for head in heads])
    print_row("baseline head", of_heads)
    print_row("logistic regression", reference[np.newaxis])
    low, high = print_row("difference", of_heads - reference, sign="+")
    answer = "are not distinguished" if low <= 0 <= high else "differ"
    print(f"the two {answer} (95 % interval over patients and {arguments.seeds} seeds)")
    print(f"{trained - start:.1f} s for the heads, {fitted - trained:.1f} s for the regressions")


def print_row(name: str, values: NDArray[np.float64], *, sign: str = "") -> tuple[float, float]:
    """Print the mean over seeds, its standard deviation, and the pooled interval; return that.

    Args:
        name: What the values are of.
        values: (seeds, 1 + n_bootstrap): of the data, then of each bootstrap sample.
        sign: "+" to print positive values with their sign.
    """
    points = values[:, 0]
    low, high = interval(values[:, 1:].ravel()) or (np.nan, np.nan)
    spread = f" ± {points.std(ddof=1):.4f}" if len(points) > 1 else ""
    mean, bounds = f"{points.mean():{sign}.4f}", f"[{low:{sign}.4f}, {high:{sign}.4f}]"
    print(f"{name:20s} test macro AUROC {mean}{spread} {bounds}")
    return low, high


if __name__ == "__main__":
    main()
