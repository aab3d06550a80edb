"""Compare prompts: the zero-shot AUROC of each template of each prompt set of a cache."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.alignment.alignment import as_alignment
from featurecache.alignment.apply import check_alignment
from featurecache.evaluation.from_cache import cache_caveats, split_data_from
from featurecache.evaluation.repeated_runs import Trial, rank_trial
from featurecache.evaluation.zero_shot import prompt_texts, score_images, scoring_of
from featurecache.metrics.bootstrap import PatientResamples, resample_patients
from featurecache.metrics.document import Count, Document, Interval, Score
from featurecache.metrics.sampled_metrics import Estimate, MeanMetrics
from featurecache.prompts import PromptSet
from featurecache.store.open import CacheLike, open_cache
from featurecache.wording import count_scored

if TYPE_CHECKING:
    import pandas as pd

    from featurecache.alignment.alignment import Alignment
    from featurecache.evaluation.split_data import SplitData


class PromptAuroc(Document):
    """An AUROC of one label, or the mean over labels.

    Attributes:
        auroc: The AUROC; None where no image, or every image, is positive.
        ci95: Its 95 % interval over patients; None with too few patients, or without bootstrap
            samples.
    """

    auroc: Score | None
    ci95: Interval | None = None

    @property
    def is_reversed(self) -> bool:
        """Whether images with the finding score lower: both AUROC and interval are below 0.5."""
        return self.ci95 is not None and self.ci95[1] < 0.5


class PromptScores(Document):
    """How one template ranks images, or all templates of a prompt set together.

    Attributes:
        prompt_set: Name of the prompt set.
        template: The template; None for the mean of the embeddings of all, as ``zero_shot`` uses.
        scoring: How cosines became probabilities: "pair", "sigmoid" or "softmax".
        macro: Mean over ``PromptComparison.macro_labels``.
        per_label: By label name.
    """

    prompt_set: str
    template: str | None
    scoring: str
    macro: PromptAuroc
    per_label: dict[str, PromptAuroc]

    @property
    def title(self) -> str:
        """The template, or "all templates"."""
        return "all templates" if self.template is None else self.template

    @property
    def reversed_labels(self) -> list[str]:
        """The labels whose prompt ranks images the wrong way round."""
        return [label for label, score in self.per_label.items() if score.is_reversed]


class TemplateSpread(Document):
    """How much the macro AUROC depends on the template.

    Attributes:
        n_templates: Number of templates of the prompt set.
        sd: Standard deviation over them, with n - 1 in the denominator; None for a single one.
        lowest: The lowest macro AUROC; None where it is undefined.
        highest: The highest.
    """

    n_templates: Count
    sd: Score | None
    lowest: Score | None
    highest: Score | None


class PromptComparison(Document):
    """The zero-shot AUROC of each prompt set and template of a cache.

    Attributes:
        dataset: Name of the data set.
        model: Name of the encoder.
        split: The split that was scored.
        level: What was scored: "image" or "study".
        n: Number of images, or studies.
        n_patients: Number of their patients.
        macro_labels: The labels with a positive and a negative image, behind each ``macro``.
        rows: One for each prompt set, with all of its templates, followed by each template.
        spread: By prompt set.
        warnings: What a reader of these numbers has to know.
    """

    dataset: str
    model: str
    split: str
    level: str
    n: Count
    n_patients: Count
    macro_labels: list[str]
    rows: list[PromptScores]
    spread: dict[str, TemplateSpread]
    warnings: list[str]

    def to_pandas(self) -> "pd.DataFrame":
        """Return a DataFrame with a row for each prompt set, template and label.

        Columns are ``prompt set``, ``template`` (None for all templates of the set), ``label``
        (None for the mean over labels), ``AUROC``, ``AUROC low``, ``AUROC high`` and ``reversed``.
        """
        import pandas as pd

        columns = ["prompt set", "template", "label"]
        columns += ["AUROC", "AUROC low", "AUROC high", "reversed"]
        lines = []
        for row in self.rows:
            for label, score in ((None, row.macro), *row.per_label.items()):
                low, high = score.ci95 or (np.nan, np.nan)
                auroc = np.nan if score.auroc is None else score.auroc
                of_row = (row.prompt_set, row.template, label)
                lines.append((*of_row, auroc, low, high, score.is_reversed))
        return pd.DataFrame(lines, columns=columns)

    def __repr__(self) -> str:
        scored = count_scored(self.n, self.split, self.level, self.n_patients)
        return f"PromptComparison({self.model} on {self.dataset}, {scored}: {len(self.rows)} rows)"

    __str__ = __repr__


def compare_prompts(
    cache: CacheLike,
    *,
    prompts: str | PromptSet | None = None,
    scoring: str = "auto",
    alignment: "Alignment | str | os.PathLike[str] | None" = None,
    n_bootstrap: int = 1000,
) -> PromptComparison:
    """Score the images of a cache with each prompt set, and with each of its templates alone.

    It shows how much a zero-shot score depends on the wording, and labels whose prompt ranks images
    the wrong way round. Nothing is chosen by it: to take the best template by these numbers would
    be to tune on the images that are scored.

    Example:
        >>> import featurecache as fc
        >>> comparison = fc.compare_prompts("cache/phantom/tiny.h5", n_bootstrap=20)
        >>> [row.template for row in comparison.rows][:2]
        [None, 'signs of {pathology}']
        >>> comparison.spread["signs"].n_templates
        4

    Args:
        cache: A cache, or its path.
        prompts: The only prompt set to score, or its name; None for all of the cache.
        scoring: See ``zero_shot``. "auto" is chosen for each prompt set.
        alignment: See ``zero_shot``.
        n_bootstrap: Number of bootstrap samples over patients; 0 for no intervals.

    Returns:
        The AUROC of each row, with intervals over patients.

    Raises:
        CacheError: The cache has no text.
        UsageError: As ``zero_shot``.
        RunError: As ``zero_shot``.
        UnknownNameError: There is no such prompt set or scoring.
    """
    cache, alignment = open_cache(cache), as_alignment(alignment)
    cache.require_labels()
    cache.require_vectors()
    names = [prompts] if prompts is not None or not cache.texts else sorted(cache.texts)
    data = split_data_from(cache, train=np.empty(0, dtype=np.intp))
    split, rows = data.scored
    data.require_scorable()
    warnings = [*cache_caveats(cache, rows), *cache.copies.warnings()]
    if alignment is not None:
        warnings += check_alignment(alignment, cache, rows)
    resamples = resample_patients(data.patient[rows], n_bootstrap=n_bootstrap, seed=0)
    scored, spread = list[PromptScores](), dict[str, TemplateSpread]()
    for name in names:
        text, differences = prompt_texts(cache, name, alignment)
        warnings += [*text.warnings, *differences]
        method = scoring_of(cache, text, scoring)
        of_set = []
        for one in (text, *text.alone):
            scores = score_images(cache.inputs.embedding, one, method, alignment).logits
            ranked = _rank(data, cache.join_scores(scores, cache.labels.names), rows, resamples)
            template = None if one is text else one.templates[0]
            of_set.append(
                PromptScores(
                    prompt_set=text.name,
                    template=template,
                    scoring=method,
                    macro=_auroc(ranked.macro("auroc")),
                    per_label={
                        label: _auroc(ranked.label("auroc", column))
                        for column, label in enumerate(data.label_names)
                    },
                )
            )
        scored += of_set
        spread[text.name] = _spread([row.macro.auroc for row in of_set[1:]])
    varied = (data.truth[rows] == 1).any(axis=0) & (data.truth[rows] == 0).any(axis=0)
    return PromptComparison(
        dataset=cache.header.dataset,
        model=cache.header.model,
        split=split,
        level=data.level,
        n=len(rows),
        n_patients=resamples.counts.shape[1],
        macro_labels=np.array(data.label_names)[varied].tolist(),
        rows=scored,
        spread=spread,
        warnings=[*dict.fromkeys(warnings), *_reversed(scored)],
    )


def _rank(
    data: "SplitData",
    scores: NDArray[np.floating],
    rows: NDArray[np.intp],
    resamples: PatientResamples,
) -> MeanMetrics:
    return MeanMetrics([rank_trial(Trial(data, scores), rows, resamples).sampled])


def _auroc(estimate: Estimate) -> PromptAuroc:
    return PromptAuroc(auroc=estimate.value, ci95=estimate.ci95)


def _spread(aurocs: list[float | None]) -> TemplateSpread:
    """Return the spread of the macro AUROC over templates, which all have the same labels."""
    defined = [value for value in aurocs if value is not None]
    return TemplateSpread(
        n_templates=len(aurocs),
        sd=float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
        lowest=min(defined, default=None),
        highest=max(defined, default=None),
    )


def _reversed(rows: list[PromptScores]) -> list[str]:
    """Return a warning for each row that ranks images of a label the wrong way round."""

    def described(scores: Mapping[str, PromptAuroc], labels: list[str]) -> str:
        return ", ".join(
            f"{label} {score.auroc:.3f} [{score.ci95[0]:.3f}, {score.ci95[1]:.3f}]"
            for label in labels
            if (score := scores[label]).auroc is not None and score.ci95 is not None
        )

    return [
        f"prompt set {row.prompt_set!r}, {row.title}: images with the finding score lower than "
        f"those without it, by AUROC {described(row.per_label, row.reversed_labels)}"
        for row in rows
        if row.reversed_labels
    ]
