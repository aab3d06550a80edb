"""Train a head on a cache, choose its thresholds on validation, and score it on test."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.evaluation.controls import (
    N_SHUFFLES,
    random_features,
    shuffle_labels,
    summarize_control,
    text_gain,
)
from featurecache.evaluation.evaluate import evaluate, spread_over_seeds
from featurecache.evaluation.from_cache import (
    cache_caveats,
    cache_reference,
    cohort_from,
    learning_caveats,
    predictions_from,
    run_name,
    scored_rows,
    split_data_from,
)
from featurecache.evaluation.repeated_runs import Trial
from featurecache.evaluation.simple_predictors import any_finding_from_embeddings
from featurecache.heads.config import MANY_IMAGES, HeadConfig
from featurecache.heads.fit import fit_heads, predict_members, predict_probabilities
from featurecache.heads.io import KIND, HeadModel, encoder_references
from featurecache.heads.models.ensemble import SeedEnsemble, join_seeds
from featurecache.heads.registry import head_spec
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import Head, TrainedHead, TrainingData, TrainingJob
from featurecache.metrics.conformal import DEFAULT_COVERAGE, read_answers
from featurecache.metrics.familiarity import (
    MIN_IMAGES,
    Familiarity,
    FamiliarityScores,
    fit_familiarity,
)
from featurecache.metrics.metrics import Control, Metrics
from featurecache.metrics.platt_scaling import read_calibration
from featurecache.metrics.thresholds import OperatingPoint
from featurecache.progress import Progress
from featurecache.runs.run import Run
from featurecache.schedule import Epoch
from featurecache.settings import accept_settings, check_names
from featurecache.store.cache import Cache
from featurecache.store.open import CacheLike, open_cache
from featurecache.tracking.tracker import check_trackers
from featurecache.wording import count_noun, undefined_metrics


@overload
def train_head(cache: CacheLike, head: str = "weighted_sum", **options: Any) -> Run: ...


@overload
def train_head(cache: CacheLike, head: Sequence[str], **options: Any) -> list[Run]: ...


@accept_settings(HeadConfig)
def train_head(
    cache: CacheLike,
    head: str | Sequence[str] = "weighted_sum",
    *,
    seeds: int = 1,
    ensemble: int = 1,
    coverage: float = DEFAULT_COVERAGE,
    n_bootstrap: int = 1000,
    operating_point: str | OperatingPoint = "f1",
    controls: bool = True,
    log: str | Sequence[str] = (),
    on_start: Callable[[str], None] | None = None,
    on_epoch: Callable[[int, Epoch], None] | None = None,
    on_control: Progress | None = None,
    **settings: Any,
) -> Run | list[Run]:
    """Train a head on cached embeddings and evaluate it on the test images.

    The epoch and the thresholds are chosen on validation images; the settings of heads without
    epochs there too, or by cross-validation on training images. Test images are only scored.

    Example:
        >>> import featurecache as fc
        >>> run = fc.train_head("cache/phantom/tiny.h5", "prototype", controls=False)
        >>> run.metrics.macro.auroc > 0.85
        True
        >>> run.config["settings"]["head"]
        'prototype'

    Args:
        cache: A cache with labels and splits, and with text embeddings for a head that uses text;
            or its path.
        head: Name of the head, a built-in or a registered one; or a list of names, of which each
            head is trained on its own.
        seeds: Number of trainings, with the seeds ``seed``, ``seed + 1``, ... The metrics are those
            of the first, which is saved; ``metrics.seeds`` and ``metrics.headline`` have the means
            over all, with intervals over patients and seeds.
        ensemble: Number of heads, with the seeds ``seed``, ``seed + 1``, ..., whose mean
            probability is one model. Metrics, thresholds, calibration and answers are those of the
            mean, and ``predict`` has the standard deviation of the members beside it, with n - 1
            in the denominator. It costs as much as ``seeds``, which train the same head several
            times to measure how much its metrics depend on the seed; only one of the two may be
            given.
        coverage: Share of the positive images, and of the negative ones, for which the answer,
            "present", "absent" or "unsure", is not wrong. What it takes for an answer is learned
            from validation patients; see ``metrics.answers``.
        n_bootstrap: Number of bootstrap samples over patients.
        operating_point: The rule by which thresholds are chosen on validation images: "f1" for the
            best F1, "youden" for the highest sum of sensitivity and specificity, or a sensitivity
            or specificity to reach, such as "sensitivity=0.95".
        controls: Whether to train negative controls, too: the first seed's head on shuffled labels,
            five times, and on random features, without an ensemble; and every seed's head, or the
            ensemble, on permuted texts, for ``metrics.text_gain``. The other controls are always
            there.
        log: Tracking tools, one or more of "tensorboard", "mlflow" and "wandb", that a run is
            logged to when it is saved, under the name of its folder.
        on_start: Called before each head is trained, with its name.
        on_epoch: Called after every epoch, with the seed and the epoch.
        on_control: Called before the negative controls are trained and after each, with the number
            that is trained and their total.
        **settings: see ``HeadConfig``.

    Returns:
        A run of kind "head", which is not saved yet; for a list of heads, a list of runs.

    Raises:
        CacheError: The cache has no text embeddings and the head needs them.
        UsageError: The cache has no labels, a split is missing, a head is given twice, a setting
            is out of range, has no effect on a head, or cannot be met by the data, or the package
            of a tracking tool is not installed.
        UnknownNameError: There is no such head, prompt set, operating point or tracking tool.
    """
    point = OperatingPoint.parse(operating_point)
    trackers = check_trackers(log)
    cache = open_cache(cache)
    check_names(HeadConfig, settings)
    names = [head] if isinstance(head, str) else list(head)
    if not names or len(set(names)) < len(names):
        raise UsageError("`head` must name one or more heads, each once")
    prompts = cache.prompt_set_name(settings.get("prompts"))
    configs = [HeadConfig(head=name, **{**settings, "prompts": prompts}) for name in names]
    check_repeats(seeds=seeds, ensemble=ensemble, coverage=coverage)
    for config in configs:  # before the first of them is trained
        head_spec(config.head).check(config)
    runs = []
    for config in configs:
        if on_start is not None:
            on_start(config.head)
        run = _train(
            cache,
            config,
            seeds,
            ensemble=ensemble,
            coverage=coverage,
            n_bootstrap=n_bootstrap,
            operating_point=point,
            controls=controls,
            on_epoch=on_epoch,
            on_control=on_control,
        )
        runs.append(replace(run, log=trackers))
    return runs[0] if isinstance(head, str) else runs


def check_repeats(*, seeds: int, ensemble: int, coverage: float) -> None:
    """Check the numbers that ``train_head`` takes beside the settings of a head.

    Args:
        seeds: See ``train_head``.
        ensemble: See ``train_head``.
        coverage: See ``train_head``.

    Raises:
        UsageError: One is out of its range, or there are several seeds of an ensemble.
    """
    for argument, number in (("seeds", seeds), ("ensemble", ensemble)):
        if number < 1:
            raise UsageError(f"`{argument}` is {number}: must be at least 1")
    if seeds > 1 and ensemble > 1:
        raise UsageError(
            "`seeds` and `ensemble` are both given: an ensemble is one model of several seeds, and "
            "`seeds` trains a model several times. Leave one of them out"
        )
    if not 0 < coverage < 1:
        raise UsageError(f"`coverage` is {coverage}: must be above 0 and below 1")


def _train(
    cache: Cache,
    config: HeadConfig,
    seeds: int,
    *,
    ensemble: int,
    coverage: float,
    n_bootstrap: int,
    operating_point: OperatingPoint,
    controls: bool,
    on_epoch: Callable[[int, Epoch], None] | None,
    on_control: Progress | None,
) -> Run:
    """Train and evaluate one head with several seeds, or an ensemble of them."""
    data = training_data_from(cache, config)
    # Before the training, because they may refuse the test images.
    caveats = cache_caveats(cache, scored_rows(cache))
    of_learning = learning_caveats(cache)
    n_seeds = seeds * ensemble  # one of them is 1
    configs = [replace(config, seed=seed) for seed in range(config.seed, config.seed + n_seeds)]
    permuted: list[HeadConfig] = []
    several_texts = data.texts is not None and len(data.texts.positive) > 1
    if controls and several_texts and config.text_ablation == "none":
        permuted = [replace(config, text_ablation="permuted") for config in configs]
    trained = fit_heads(
        [TrainingJob(data, config, _with_seed(on_epoch, config.seed)) for config in configs]
    )
    heads = [join_seeds(trained)] if ensemble > 1 else trained
    trials = [predict_on(cache, head, data) for head in heads]
    trials[0].data.require_scorable()
    _, rows = trials[0].data.scored
    spread = None
    if seeds > 1:
        numbers = [config.seed for config in configs]
        spread = spread_over_seeds(
            trials, numbers, operating_point=operating_point, n_bootstrap=n_bootstrap
        )
    permuted_trials: list[Trial] = []
    control_metrics: Mapping[str, Control | None] = {}
    if controls:
        on_head = _report_each(on_control, len(permuted) + N_SHUFFLES + 1)
        permuted_heads = fit_heads(
            [TrainingJob(data, config) for config in permuted], on_head=on_head
        )
        if permuted_heads and ensemble > 1:
            permuted_heads = [join_seeds(permuted_heads)]
        permuted_trials = [predict_on(cache, head, data) for head in permuted_heads]
        control_metrics = _score_controls(cache, data, config, n_bootstrap, on_head=on_head)
    inputs = cache.inputs
    any_finding = any_finding_from_embeddings(
        split_data_from(inputs, train=heads[0].train_rows, learned=trials[0].data.learned),
        _vectors(inputs),
    )
    if any_finding is not None:
        any_finding = cache.join_scores(any_finding, cache.labels.names)
    familiarity, unfamiliar = None, "the head takes tokens, and one vector per image is compared"
    if inputs.n_tokens is None:
        unfamiliar = f"fewer than {MIN_IMAGES} training patients are too few to compare with"
        familiarity = fit_familiarity(
            inputs.embedding, heads[0].train_rows, inputs.patients, seed=config.seed
        )
    metrics = evaluate(
        trials[0].data,
        trials[0].score,
        coverage=coverage,
        operating_point=operating_point,
        any_finding=any_finding,
        trials=trials,
        seeds=spread,
        controls=control_metrics,
        familiarity=FamiliarityScores(n=len(scored_rows(inputs)), reason=unfamiliar)
        if familiarity is None
        else familiarity.measure(inputs.embedding[scored_rows(inputs)]),
        text_gain=text_gain(trials, permuted_trials, rows),
        warnings=[
            *caveats,
            *of_learning,
            *inputs.copies.warnings(),
            *_warnings(inputs, trained, config),
            *_all_alike(heads[0].module, data),
        ],
        n_bootstrap=n_bootstrap,
    )
    arguments = {
        "seeds": seeds,
        "ensemble": ensemble,
        "coverage": coverage,
        "n_bootstrap": n_bootstrap,
        "operating_point": str(operating_point),
        "controls": controls,
    }
    return _make_run(
        cache, heads[0], metrics, trials[0], familiarity, arguments, tuple(of_learning)
    )


def training_data_from(cache: Cache, config: HeadConfig) -> TrainingData:
    """Return the training data that a cache holds for a head: the rows of ``cache.inputs``.

    Raises:
        CacheError: The cache has no text embeddings and the head needs them.
        UsageError: The cache has no labels, all training images are copies of images of later
            splits, or the head needs tokens and the cache has none, or the other way round.
        UnknownNameError: There is no such head or prompt set.
    """
    cache.require_labels()
    cache = cache.inputs
    train, n_train = cache.learning_rows("train"), len(cache.rows("train"))
    if n_train and not len(train):
        raise UsageError(
            f"all {n_train} training images of {cache.path} are copies of validation or test "
            "images, by file or by content, so nothing is left to learn from"
        )
    spec = head_spec(config.head)
    uses_text = spec.uses_text
    members = cache.members if len(cache.members) > 1 else ()

    if not spec.takes_tokens:
        cache.require_vectors(
            "choose the head attentive, or give the cache of "
            f"{cache.header.model} that was extracted without `features`"
        )

    def texts_of(cache: Cache) -> LabelTexts:
        return LabelTexts.from_text_set(cache.text(config.prompts))

    return TrainingData(
        embedding=cache.tokens if spec.takes_tokens else cache.embedding,
        labels=cache.labels.values,
        train=train,
        val=cache.learning_rows("val"),
        texts=texts_of(cache) if uses_text else None,
        encoder_dims=tuple(member.dim for member in members),
        encoder_texts=tuple(texts_of(member) for member in members if uses_text),
        patient=np.unique(cache.patients, return_inverse=True)[1],
    )


def _vectors(cache: Cache) -> NDArray[np.floating]:
    """Return one vector for each image, (N, D): its embedding, or the mean of its tokens."""
    if cache.n_tokens is None:
        return cache.embedding
    return np.concatenate(
        [
            block.reshape(len(block), cache.n_tokens, -1).mean(axis=1, dtype=np.float32)
            for _, block in cache.iter_embeddings(np.arange(len(cache)))
        ]
    )


def predict_on(cache: Cache, head: TrainedHead, data: TrainingData) -> Trial:
    """Return the predictions of a head for the validation and test rows of its cache.

    Those of other rows, which nothing is chosen or scored on, are NaN: of a large cache they
    would take most of the time, once more for each control.

    Args:
        cache: The cache.
        head: The head.
        data: The data that the head was trained on, which may be a control's.
    """
    inputs = cache.inputs
    # Members of an ensemble may learn from different images, and each has to learn a label.
    of_members = [inputs.labels.values[one.train_rows] for one in head.members or (head,)]
    learned = np.logical_and.reduce(
        [(labels == 1).any(axis=0) & (labels == 0).any(axis=0) for labels in of_members]
    )
    split_data = split_data_from(cache, train=head.train_rows, learned=learned)
    rows = np.concatenate([inputs.learning_rows("val"), inputs.rows("test")])
    score = np.full((len(inputs), len(cache.labels.names)), np.nan)
    score[rows] = predict_probabilities(head.module, data.embedding, rows)
    return Trial(split_data, cache.join_scores(score, cache.labels.names))


def _with_seed(
    on_epoch: Callable[[int, Epoch], None] | None, seed: int
) -> Callable[[Epoch], None] | None:
    return None if on_epoch is None else (lambda epoch: on_epoch(seed, epoch))


def _report_each(progress: Progress | None, total: int) -> Callable[[], None]:
    """Report that none of the items is done, and return a function that reports one more."""
    numbers = count()

    def advance() -> None:
        if progress is not None:
            progress(next(numbers), total)

    advance()
    return advance


def _score_controls(
    cache: Cache,
    data: TrainingData,
    config: HeadConfig,
    n_bootstrap: int,
    *,
    on_head: Callable[[], None],
) -> dict[str, Control | None]:
    """Train the same head where there is nothing to learn, and score it."""
    splits = [data.train, data.val]
    uninformative = [
        *(
            replace(data, labels=shuffle_labels(data.labels, splits, seed=config.seed + shuffle))
            for shuffle in range(N_SHUFFLES)
        ),
        replace(data, embedding=random_features(data.embedding.shape, seed=config.seed)),
    ]
    heads = fit_heads([TrainingJob(control, config) for control in uninformative], on_head=on_head)
    trials = list(map(partial(predict_on, cache), heads, uninformative))
    _, rows = trials[-1].data.scored
    summarize = partial(summarize_control, rows=rows, n_bootstrap=n_bootstrap)
    return {
        "shuffled_labels": summarize(trials[:N_SHUFFLES]),
        "random_features": summarize(trials[N_SHUFFLES:]),
    }


def _warnings(cache: Cache, heads: Sequence[TrainedHead], config: HeadConfig) -> list[str]:

    def with_seeds(affected: Sequence[TrainedHead]) -> str:
        if len(affected) == len(heads):
            return ""
        return f" with seed {', '.join(str(head.config.seed) for head in affected)}"

    undefined: dict[str, list[str]] = {}
    for column, name in enumerate(cache.labels.names):
        labels = cache.labels.values[:, column]
        for value, kind in ((1, "positives"), (0, "negatives")):
            if lacking := [head for head in heads if not (labels[head.train_rows] == value).any()]:
                reason = f"no {kind} in training{with_seeds(lacking)}"
                undefined.setdefault(reason, []).append(name)
    warnings = [
        undefined_metrics(names, ("has", "have"), reason) for reason, names in undefined.items()
    ]
    if unfinished := [head for head in heads if _stopped_too_early(config, head)]:
        warnings.append(
            f"the validation loss was still falling at the last epoch ({heads[0].config.epochs})"
            f"{with_seeds(unfinished)}: give more `epochs`"
        )
    if unconverged := [head for head in heads if not head.converged]:
        warnings.append(
            f"the fit of {config.head} stopped before its optimum{with_seeds(unconverged)}"
        )
    return warnings


def _all_alike(module: Head, data: TrainingData) -> list[str]:
    """Return a warning if all members of an ensemble predict the same."""
    if not isinstance(module, SeedEnsemble):
        return []
    members = predict_members(module, data.embedding, data.val)
    if (members != members[:, :1]).any():
        return []
    return [
        f"all {count_noun(len(module.members), 'member')} of the ensemble predict the same: "
        "training gave the same head with each of their seeds. So the ensemble is no better than "
        "that head alone, and its standard deviation is 0"
    ]


def _stopped_too_early(config: HeadConfig, head: TrainedHead) -> bool:
    """Return whether more epochs might have helped, unless the short schedule was the default."""
    if config.epochs is None and len(head.train_rows) >= MANY_IMAGES:
        return False
    return any(
        member.best_epoch is not None and member.best_epoch == member.config.epochs
        for member in head.members or (head,)
    )


def _make_run(
    cache: Cache,
    head: TrainedHead,
    metrics: Metrics,
    trial: Trial,
    familiarity: Familiarity | None,
    arguments: Mapping[str, Any],
    of_learning: tuple[str, ...],
) -> Run:
    config = head.config
    thresholds = {name: metrics.per_label[name].threshold for name in cache.labels.names}
    provenance = cache.inputs.training_provenance(head.train_rows)
    reference = cache_reference(cache)
    text_set = cache.text(config.prompts) if head_spec(config.head).uses_text else None
    model = HeadModel(
        module=head.module,
        config=config,
        labels=cache.labels.names,
        thresholds=tuple(thresholds.values()),
        thresholds_chosen=tuple(
            metrics.per_label[name].threshold_chosen for name in cache.labels.names
        ),
        operating_point=OperatingPoint.parse(arguments["operating_point"]),
        encoders=encoder_references(reference),
        learned=tuple(trial.data.learned.tolist()),
        calibration=read_calibration(metrics, cache.labels.names),
        limits=read_answers(metrics.answers, cache.labels.names),
        familiarity=familiarity,
        provenance=provenance,
        bit_depth=cache.header.bit_depth,
        learning_caveats=of_learning,
        source=run_name(cache, config.head),
        units=cache.units,
    )
    return Run(
        kind=KIND,
        config={
            "settings": asdict(config),
            **arguments,
            "labels": list(cache.labels.names),
            "label_policy": cache.labels.applied_policy,
            "units": cache.units.to_config(),
            "thresholds": thresholds,
            "cache": reference,
            "cohort": cohort_from(cache, trial.data).to_json(),
            "prompts": None
            if text_set is None
            else {"name": text_set.name, "fingerprint": text_set.fingerprint},
            "best_epoch": head.best_epoch,
            "chosen": head.chosen,
            "n_train": len(head.train_rows),
            "learning_caveats": list(of_learning),
        },
        metrics=metrics,
        scored=predictions_from(cache, trial.data, trial.score.astype(np.float64, copy=False)),
        default_name=run_name(cache, config.head),
        history=_history_lines(cache, head),
        provenance=provenance,
        load_model=partial(_same, model),
    )


def _same(model: HeadModel) -> HeadModel:
    """Return the model; unlike a lambda, it can be pickled with its run."""
    return model


def _history_lines(cache: Cache, head: TrainedHead) -> list[dict[str, Any]]:
    """Return the lines of ``history.csv``, with the seed or the encoder of each member."""
    if isinstance(head.module, SeedEnsemble):
        return [
            {"seed": member.config.seed, **line}
            for member in head.members
            for line in _history_lines(cache, member)
        ]
    if not head.members:
        return [asdict(line) for line in head.history]
    return [
        {"model": cache_member.header.model, **asdict(line)}
        for cache_member, member in zip(cache.members, head.members, strict=True)
        for line in member.history
    ]
