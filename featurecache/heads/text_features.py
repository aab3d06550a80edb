"""The text a head is given: real, or a control that can carry no meaning.

A gain that survives the permuted control is not a gain from text.

    real       each label's own ensembles
    permuted   the same ensembles, none at its own label
    random     random directions
    zero       nothing
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.evaluation.controls import derangement
from featurecache.heads.config import TextAblation
from featurecache.store.records import TextSet


@dataclass(frozen=True)
class LabelTexts:
    """The prompt ensembles of C labels, (C, D_text) float32 each.

    Attributes:
        positive: of the prompts that say a label is there.
        negative: of those that say it is not; None where there are none.
        scale: the encoder's factor on a cosine; None where it has none.
        bias: what it adds to that; None where it adds nothing.
        aligned: whether texts share the images' space.
    """

    positive: NDArray[np.float32]
    negative: NDArray[np.float32] | None = None
    scale: float | None = None
    bias: float | None = None
    aligned: bool = False

    @classmethod
    def of(cls, texts: TextSet) -> "LabelTexts":
        """Those of a cached prompt set."""
        negative = None if texts.negative is None else texts.negative.ensemble
        return cls(texts.positive.ensemble, negative, texts.scale, texts.bias, texts.aligned)

    @property
    def factor(self) -> float:
        """The scale, or 1 where the encoder has none."""
        return 1.0 if self.scale is None else self.scale

    def contrast(self) -> NDArray[np.float32]:
        """(C, D) positive less negative; positive alone where there are no negatives."""
        return self.positive if self.negative is None else self.positive - self.negative


def ablate_texts(texts: LabelTexts, control: TextAblation, *, seed: int) -> LabelTexts:
    """What a head is given in place of the real texts.

    Raises:
        UsageError: a single label has nothing to be permuted with.
    """
    if control == "none":
        return texts
    generator = np.random.default_rng(seed)
    if control == "permuted":
        if len(texts.positive) < 2:
            raise UsageError(
                "--text-ablation permuted needs two labels or more; use random or zero with one"
                " label"
            )
        others = derangement(len(texts.positive), seed=seed)

    def changed(ensemble: NDArray[np.float32]) -> NDArray[np.float32]:
        if control == "zero":
            return np.zeros_like(ensemble)
        if control == "random":
            drawn = generator.standard_normal(ensemble.shape)
            drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
            return drawn.astype(np.float32)
        return ensemble[others]

    # Positive texts first, so that they do not depend on whether there are negative ones.
    positive = changed(texts.positive)
    negative = None if texts.negative is None else changed(texts.negative)
    return replace(texts, positive=positive, negative=negative)
