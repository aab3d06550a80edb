"""Linear probe of the phantom: can its findings be seen in the embeddings of a frozen encoder?

    featurecache extract --model dinov2-minilm --dataset phantom --precision exact
    python pipelines/phantom_probe.py cache/phantom/dinov2-minilm.h5

For each label, a LogisticRegression on standardized unit-length embeddings is scored by AUROC on
held-out patients in five folds, so that every image counts; C is chosen inside each training fold,
by patient as well.
"""

import argparse

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

import featurecache as fc
from featurecache.metrics.ranking import auroc

STRENGTHS = np.logspace(-4, 0, 5)
N_FOLDS = 5


def probe(cache: fc.Cache) -> NDArray[np.float64]:
    """Return the (C,) AUROC of each label, averaged over the folds."""
    x = cache.embedding.astype(np.float64)
    folds = list(GroupKFold(N_FOLDS).split(x, groups=cache.patients))
    scores = np.full((len(cache.labels.names), N_FOLDS), np.nan)
    for column, truth in enumerate(cache.labels.values.T):
        for fold, (train, test) in enumerate(folds):
            inner = GroupKFold(3).split(x[train], groups=cache.patients[train])
            model = make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(max_iter=5000))
            search = GridSearchCV(
                model,
                {"logisticregression__C": STRENGTHS},
                scoring="roc_auc",
                cv=list(inner),
            ).fit(x[train], truth[train])
            scores[column, fold] = auroc(truth[test], search.predict_proba(x[test])[:, 1])
    mean: NDArray[np.float64] = np.nanmean(scores, axis=1)
    return mean


def main() -> None:
    """Probe a cache and print one line per label."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache")
    cache = fc.open_cache(parser.parse_args().cache)
    scores = probe(cache)
    for name, column, score in zip(cache.labels.names, cache.labels.values.T, scores, strict=True):
        print(f"{name:20s} {np.sum(column == 1):5d} positive   AUROC {score:.3f}")
    print(f"{'macro':20s} {len(cache.ids):5d} images     AUROC {np.nanmean(scores):.3f}")


if __name__ == "__main__":
    main()
