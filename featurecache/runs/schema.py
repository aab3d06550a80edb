"""What the JSON files of a run folder have to hold, as far as anything reads it.

A run may come from a stranger, so whatever reads a figure of it can count on these shapes. Further
keys are allowed: a newer featurecache may write them.
"""

from typing import Annotated, Any, NotRequired

from annotated_types import Ge, Gt, Le, Len
from typing_extensions import TypedDict

Count = Annotated[int, Ge(0), Le(2**53)]
"""What a float still counts."""
Share = Annotated[float, Ge(0), Le(1)]
Change = Annotated[float, Ge(-1), Le(1)]
Bounds = Annotated[list[Share], Len(2, 2)]
ChangeBounds = Annotated[list[Change], Len(2, 2)]
Label = str


class Ranking(TypedDict):
    """How well scores rank; undefined is None, here and below."""

    auroc: Share | None
    auprc: Share | None


class Figures(Ranking):
    """Averages over labels, and what stands of a single one."""

    precision: Share | None
    recall: Share | None
    f1: Share | None


class LabelFigures(Figures):
    """Figures of a label; no confusion where it could not be learned."""

    n_positive: Count
    n_known: Count
    threshold: Share
    confusion: Annotated[list[Annotated[list[Count], Len(2, 2)]], Len(2, 2)] | None


class RankingBounds(TypedDict):
    """The 95 % intervals of a ranking."""

    auroc: Bounds | None
    auprc: Bounds | None


class FigureBounds(RankingBounds):
    """The 95 % intervals of figures."""

    f1: Bounds | None


class MetricsBounds(TypedDict):
    """The 95 % intervals of all figures, under the same names."""

    macro: FigureBounds
    micro: FigureBounds
    exact_match: Bounds | None
    hamming_loss: Bounds | None
    per_label: dict[Label, FigureBounds]


class Overall(TypedDict):
    """Figures of all labels together."""

    macro: Figures
    micro: Figures
    exact_match: Share | None
    hamming_loss: Share | None


class ControlBounds(TypedDict):
    """The 95 % intervals of a control."""

    macro: RankingBounds
    micro: RankingBounds


class Control(TypedDict):
    """What scores without any finding in it."""

    macro: Ranking
    micro: Ranking
    ci95: ControlBounds


class Errors(TypedDict):
    """How far probabilities are from frequencies."""

    ece: Share | None


class ErrorBounds(TypedDict):
    """The 95 % intervals of errors."""

    ece: Bounds | None


class Corrected(TypedDict):
    """Errors before Platt's correction, and after it."""

    before: Errors
    after: Errors


class CorrectedBounds(TypedDict):
    """Their 95 % intervals."""

    before: ErrorBounds
    after: ErrorBounds


class LabelCalibration(Corrected):
    """The correction of a label."""

    slope: float | None
    intercept: float | None


class Calibration(TypedDict):
    """Errors of all labels, on average and one by one."""

    macro: Corrected
    ci95: CorrectedBounds
    per_label: dict[Label, LabelCalibration]


class Gain(TypedDict):
    """A paired difference."""

    difference: Change | None
    ci95: ChangeBounds | None


class GainOfAuroc(TypedDict):
    """A paired difference in AUROC."""

    auroc: Gain


class TextGain(TypedDict):
    """What a head's own texts bring."""

    pairs: Count
    macro: GainOfAuroc


class Spread(TypedDict):
    """Of a figure over seeds."""

    mean: Share | None
    sd: Share | None


class SpreadOfAuroc(TypedDict):
    """Of AUROC over seeds."""

    auroc: Spread


class Seeds(TypedDict):
    """The seeds, and what differs between them."""

    seeds: list[int]
    macro: SpreadOfAuroc


class MetricsDocument(Overall):
    """``metrics.json``."""

    per_label: dict[Label, LabelFigures]
    ci95: MetricsBounds
    n: Count
    n_patients: Count
    split: str
    at_half: Overall
    controls: dict[str, Control | None]
    calibration: NotRequired[Calibration | None]
    text_gain: NotRequired[TextGain | None]
    seeds: NotRequired[Seeds]
    warnings: NotRequired[list[str]]


class CurveCell(TypedDict):
    """The figures of a head at a size."""

    macro: Ranking
    ci95: RankingBounds
    gain: GainOfAuroc | None
    labels: Count


class CurveDocument(TypedDict):
    """``curve.json``."""

    n: Count
    n_patients: Count
    sizes: list[Annotated[int, Gt(0), Le(2**53)]]
    cells: Annotated[dict[str, list[CurveCell]], Len(1)]
    warnings: NotRequired[list[str]]


class CacheReference(TypedDict, total=False):
    """Which cache a run was made from."""

    path: str
    dataset: str
    model: str
    fingerprint: str
    joined: Annotated[list["CacheReference"], Len(1)]


class Named(TypedDict, total=False):
    """Something with a name and a fingerprint."""

    name: str
    fingerprint: str


class _Config(TypedDict, total=False):
    cache: CacheReference
    dataset: str
    model: str
    prompts: Named | None
    alignment: Named | None
    versions: dict[str, str]
    settings: dict[str, Any]
    teacher: str | None
    label_map: dict[Label, Label]
    n_train: Count
    best_epoch: Count | None


class ConfigDocument(_Config, total=False):
    """``config.json``, of a run of any kind but a curve."""

    seeds: int


class CurveConfigDocument(_Config, total=False):
    """``config.json`` of a curve."""

    heads: list[str]
    seeds: list[int]
