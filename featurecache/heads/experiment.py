"""Train a head from a cache, choose its thresholds on validation, score it on test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError, UsageError
from featurecache.evaluation.controls import (
    N_SHUFFLES,
    random_features,
    shuffle_labels,
    summarize_control,
    text_gain,
)
from featurecache.evaluation.evaluate import evaluate
from featurecache.evaluation.from_cache import cache_caveats, split_data_from
from featurecache.evaluation.repeated_runs import Trial
from featurecache.heads.config import MANY_ROWS, HeadConfig
from featurecache.heads.registry import head_spec
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.training import (
    predict_probabilities,
    train_heads,
)
from featurecache.heads.types import HeadData, TrainedHead, Training
from featurecache.metrics.metrics import Metrics, RankingSummary, SeedSpread, Spread
from featurecache.schedule import Epoch
from featurecache.store.cache import Cache
from featurecache.store.layout import UNKNOWN
from featurecache.store.records import TextSet


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
    metrics: Metrics
    warnings: tuple[str, ...]


def run_experiment(
    cache: Cache,
    config: HeadConfig,
    *,
    seeds: int = 1,
    n_bootstrap: int = 1000,
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
        n_bootstrap: number of bootstrap samples over patients.
        controls: whether to train the first seed's head anew on other images' labels, five times,
            and on random features, and say what these score; and every seed's, where there is text,
            on permuted texts, to say under ``text_gain`` what the real ones bring.
        on_epoch: told of every epoch of a seed, with the seed.

    Raises:
        CacheError: the cache has no labels, or no text and the head needs it.
        UsageError: a split is missing, or a setting cannot be met by the data.
        UnknownNameError: there is no such head or prompt set.
    """
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: must be at least 1")
    data = training_data_from(cache, config)
    text = cache.text(config.prompts) if data.text is not None else None
    chosen = [replace(config, seed=seed) for seed in range(config.seed, config.seed + seeds)]
    permuted = (
        [replace(one, text_ablation="permuted") for one in chosen]
        if controls and _text_can_be_permuted(data, config)
        else []
    )
    trained = train_heads(
        [Training(data, one, _reporting(one.seed, on_epoch)) for one in chosen]
        + [Training(data, one) for one in permuted]
    )
    heads, with_others = trained[:seeds], trained[seeds:]
    trials = [predict_on(cache, head, data) for head in heads]
    _, rows = trials[0].data.scored
    # Controls only now: random features for a large data set take longer than a first epoch.
    control_scores = _control_scores(cache, data, config, n_bootstrap) if controls else {}
    permuted_trials = [predict_on(cache, head, data) for head in with_others]
    warnings = tuple(_warnings(cache, heads, config))
    metrics = evaluate(
        trials[0].data,
        trials[0].score,
        controls=control_scores,
        text_gain=text_gain(trials, permuted_trials, rows, n_bootstrap=n_bootstrap),
        warnings=warnings,
        n_bootstrap=n_bootstrap,
    )
    if seeds > 1:
        others = [evaluate(trial.data, trial.score, n_bootstrap=0) for trial in trials[1:]]
        metrics = metrics.replace(seeds=_spread([metrics, *others], config.seed))
    probability = trials[0].score.astype(np.float64, copy=False)
    return Experiment(heads[0], text, probability, metrics, warnings)


def training_data_from(cache: Cache, config: HeadConfig) -> HeadData:
    """What a cache gives a head to learn from.

    Raises:
        CacheError: the cache has no labels, or no text and the head needs it.
        UnknownNameError: there is no such head or prompt set.
    """
    if not cache.labels.names or (cache.labels.values == UNKNOWN).all():
        raise CacheError(
            f"{cache.path} holds no labels to train on: run extract again with a labelled data set"
        )
    uses_text = head_spec(config.head).uses_text
    several = cache.members if len(cache.members) > 1 else ()
    return HeadData(
        embedding=cache.embedding,
        labels=cache.labels.values,
        train=cache.rows("train"),
        val=cache.rows("val"),
        text=LabelTexts.of(cache.text(config.prompts)) if uses_text else None,
        dims=tuple(one.dim for one in several),
        part_texts=tuple(LabelTexts.of(one.text(config.prompts)) for one in several if uses_text),
    )


def _reporting(
    seed: int, on_epoch: Callable[[int, Epoch], None] | None
) -> Callable[[Epoch], None] | None:
    return None if on_epoch is None else (lambda epoch: on_epoch(seed, epoch))


def predict_on(cache: Cache, head: TrainedHead, data: HeadData) -> Trial:
    """What a head predicts of the images that it was trained on part of."""
    rows = split_data_from(cache, train=head.train_rows, learned=_learned(cache, head))
    return Trial(rows, predict_probabilities(head.module, data.embedding))


def _text_can_be_permuted(data: HeadData, config: HeadConfig) -> bool:
    return data.text is not None and config.text_ablation == "none" and len(data.text.positive) > 1


def _control_scores(
    cache: Cache, data: HeadData, config: HeadConfig, n_bootstrap: int
) -> dict[str, RankingSummary | None]:
    """Train the same head where there is nothing to learn, and score it."""
    splits = [data.train, data.val]
    uninformative = [
        *(
            replace(data, labels=shuffle_labels(data.labels, splits, seed=config.seed + number))
            for number in range(N_SHUFFLES)
        ),
        replace(data, embedding=random_features(data.embedding.shape, seed=config.seed)),
    ]
    heads = train_heads([Training(one, config) for one in uninformative])
    trials = [predict_on(cache, head, one) for head, one in zip(heads, uninformative, strict=True)]
    _, rows = trials[-1].data.scored
    return {
        "shuffled_labels": summarize_control(trials[:N_SHUFFLES], rows, n_bootstrap=n_bootstrap),
        "random_features": summarize_control(trials[N_SHUFFLES:], rows, n_bootstrap=n_bootstrap),
    }


def _spread(metrics: Sequence[Metrics], first_seed: int) -> SeedSpread:
    """Return mean and standard deviation (n - 1) over seeds; None where a value is undefined."""

    def spread(values: list[float | None]) -> Spread:
        known = [value for value in values if value is not None]
        defined = len(known) == len(values)
        return Spread(
            mean=float(np.mean(known)) if defined else None,
            sd=float(np.std(known, ddof=1)) if defined else None,
            values=values,
        )

    def spread_of(group: str) -> dict[str, Spread]:
        return {
            name: spread([getattr(getattr(one, group), name) for one in metrics])
            for name in type(metrics[0].macro).model_fields
        }

    return SeedSpread(
        seeds=list(range(first_seed, first_seed + len(metrics))),
        macro=spread_of("macro"),
        micro=spread_of("micro"),
        exact_match=spread([one.exact_match for one in metrics]),
        hamming_loss=spread([one.hamming_loss for one in metrics]),
    )


def _learned(cache: Cache, head: TrainedHead) -> NDArray[np.bool_]:
    """(C,) the labels that had a positive and a negative to learn from."""
    seen = cache.labels.values[head.train_rows]
    learned: NDArray[np.bool_] = (seen == 1).any(axis=0) & (seen == 0).any(axis=0)
    return learned


def _unfinished(config: HeadConfig, head: TrainedHead) -> bool:
    """Whether more epochs might have done better, and it was not meant to have few."""
    if config.epochs is None and len(head.train_rows) >= MANY_ROWS:
        return False
    members = head.members or (head,)
    return any(
        one.best_epoch is not None and one.best_epoch == one.config.epochs for one in members
    )


def _warnings(cache: Cache, heads: Sequence[TrainedHead], config: HeadConfig) -> list[str]:
    warnings = cache_caveats(cache)

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
    if unfinished := [head for head in heads if _unfinished(config, head)]:
        warnings.append(
            f"validation loss was still falling at the last epoch ({heads[0].config.epochs})"
            f"{with_seeds(unfinished)}: give more with --epochs"
        )
    return warnings
