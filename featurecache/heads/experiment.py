"""Train a head from a cache, choose its thresholds on validation, score it on test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError, UsageError
from featurecache.heads.config import MANY_ROWS, HeadConfig
from featurecache.heads.registry import head_spec
from featurecache.heads.training import (
    Epoch,
    HeadData,
    TrainedHead,
    predict_probabilities,
    train_head,
)
from featurecache.scoring.cached import cache_warnings, scored_rows
from featurecache.scoring.controls import (
    SHUFFLES,
    Trial,
    control_figures,
    random_features,
    shuffled_labels,
)
from featurecache.scoring.evaluation import evaluate
from featurecache.store.contents import TextSet
from featurecache.store.reader import Cache
from featurecache.store.schema import UNKNOWN


@dataclass(frozen=True)
class Experiment:
    """A trained head and everything that was measured of it.

    Attributes:
        head: the head of the first seed.
        text: the prompt set it was given; None for a head that uses none.
        probability: (N, C) its probabilities for every row of the cache.
        metrics: the document of ``metrics.json``.
        warnings: what a reader of the figures has to know.
    """

    head: TrainedHead
    text: TextSet | None
    probability: NDArray[np.float64]
    metrics: dict[str, Any]
    warnings: tuple[str, ...]


def run_experiment(
    cache: Cache,
    config: HeadConfig,
    *,
    seeds: int = 1,
    draws: int = 1000,
    controls: bool = True,
    on_epoch: Callable[[int, Epoch], None] | None = None,
) -> Experiment:
    """Train one head per seed and measure it.

    The figures are those of the first seed, ``config.seed``; with several seeds, mean and standard
    deviation over ``config.seed``, ``config.seed + 1``, ... stand under ``seeds``.

    Args:
        cache: embeddings, labels, splits and, for a head that uses it, text.
        config: settings of the training.
        seeds: how many seeds to train.
        draws: bootstrap draws over patients for the intervals.
        controls: whether to train the first seed's head anew on other images' labels, five times,
            and on random features, and say what these score.
        on_epoch: told of every epoch of a seed, with the seed.

    Raises:
        CacheError: the cache has no labels, or no text and the head needs it.
        UsageError: a split is missing, or a setting cannot be met by the data.
        UnknownNameError: there is no such head or prompt set.
    """
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: must be at least 1")
    spec = head_spec(config.head)
    if not cache.labels.names or (cache.labels.values == UNKNOWN).all():
        raise CacheError(
            f"{cache.path} holds no labels to train on: run extract again with a labelled data set"
        )
    text = cache.text(config.prompts) if spec.uses_text else None
    data = HeadData(
        embedding=cache.embedding,
        labels=cache.labels.values,
        train=cache.rows("train"),
        val=cache.rows("val"),
        text=None if text is None else text.positive.ensemble,
    )
    heads: list[tuple[TrainedHead, NDArray[np.float64]]] = []
    documents: list[dict[str, Any]] = []
    for seed in range(config.seed, config.seed + seeds):
        report = None if on_epoch is None else (lambda epoch, seed=seed: on_epoch(seed, epoch))
        head = train_head(data, replace(config, seed=seed), on_epoch=report)
        probability = predict_probabilities(head.module, cache.embedding)
        rows = scored_rows(cache, train=head.train_rows, learned=_learned(cache, head))
        documents.append(evaluate(rows, probability, draws=0 if heads else draws))
        heads.append((head, probability))
    first, probability = heads[0]
    metrics = documents[0]
    if controls:
        metrics["controls"] |= _controls(cache, data, config, draws=draws)
    if seeds > 1:
        metrics["seeds"] = _spread(documents, config.seed)
    warnings = tuple(_warnings(cache, [head for head, _ in heads], config))
    metrics["warnings"] = list(warnings)
    return Experiment(first, text, probability, metrics, warnings)


def _controls(
    cache: Cache, data: HeadData, config: HeadConfig, *, draws: int
) -> dict[str, dict[str, Any]]:
    """What the same training scores where there is nothing to learn."""

    def trial(untaught: HeadData) -> Trial:
        head = train_head(untaught, config)
        rows = scored_rows(cache, train=head.train_rows, learned=_learned(cache, head))
        return Trial(rows, predict_probabilities(head.module, untaught.embedding))

    splits = [data.train, data.val]
    shuffled = [
        trial(replace(data, labels=shuffled_labels(data.labels, splits, seed=config.seed + number)))
        for number in range(SHUFFLES)
    ]
    random = trial(replace(data, embedding=random_features(data.embedding.shape, seed=config.seed)))
    _, scored = random.rows.scored
    return {
        "shuffled_labels": control_figures(shuffled, scored, draws=draws),
        "random_features": control_figures([random], scored, draws=draws),
    }


def _spread(documents: Sequence[dict[str, Any]], first_seed: int) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over seeds, None where a seed's figure is undefined."""

    def over(values: list[float | None]) -> dict[str, Any]:
        known = [value for value in values if value is not None]
        whole = len(known) == len(values)
        return {
            "mean": float(np.mean(known)) if whole else None,
            "sd": float(np.std(known, ddof=1)) if whole else None,
            "values": values,
        }

    spread: dict[str, Any] = {"seeds": list(range(first_seed, first_seed + len(documents)))}
    for group in ("macro", "micro"):
        spread[group] = {
            name: over([document[group][name] for document in documents])
            for name in documents[0][group]
        }
    for name in ("exact_match", "hamming_loss"):
        spread[name] = over([document[name] for document in documents])
    return spread


def _learned(cache: Cache, head: TrainedHead) -> NDArray[np.bool_]:
    """(C,) the labels that had a positive and a negative to learn from."""
    seen = cache.labels.values[head.train_rows]
    learned: NDArray[np.bool_] = (seen == 1).any(axis=0) & (seen == 0).any(axis=0)
    return learned


def _short(config: HeadConfig, head: TrainedHead) -> bool:
    """Whether the number of epochs was left to the number of rows, and is small by design."""
    return config.epochs is None and len(head.train_rows) >= MANY_ROWS


def _warnings(cache: Cache, heads: Sequence[TrainedHead], config: HeadConfig) -> list[str]:
    warnings = cache_warnings(cache)

    def with_seeds(concerned: Sequence[TrainedHead]) -> str:
        if len(concerned) == len(heads):
            return ""
        return f" with seed {', '.join(str(head.config.seed) for head in concerned)}"

    for column, name in enumerate(cache.labels.names):
        truth = cache.labels.values[:, column]
        for value, what in ((1, "positives"), (0, "negatives")):
            if lacking := [head for head in heads if not (truth[head.train_rows] == value).any()]:
                warnings.append(
                    f"{name} has no {what} in training{with_seeds(lacking)}: its figures are null"
                )
    if unfinished := [
        head for head in heads if head.best_epoch == head.config.epochs and not _short(config, head)
    ]:
        warnings.append(
            f"validation loss was still falling at the last epoch ({heads[0].config.epochs})"
            f"{with_seeds(unfinished)}: give more with --epochs"
        )
    return warnings
