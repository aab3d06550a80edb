"""The text embeddings that a head uses: the real ones, or an ablation of them.

    none       the embeddings of each label's own prompts
    permuted   the same embeddings, each at another label
    random     random directions
    zero       zeros

A gain over the image alone that remains with permuted texts is not a gain from the text's meaning.
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
    """Prompt embeddings of C labels, each (C, D_text) float32 and averaged over a label's prompts.

    Attributes:
        positive: Embeddings of the prompts that state a finding.
        negative: Embeddings of the prompts that deny it; None without such prompts.
        scale: The encoder's factor on cosine similarities; None if it has none.
        bias: The encoder's bias on scaled similarities; None if it has none.
        aligned: Whether texts and images share one embedding space.
    """

    positive: NDArray[np.float32]
    negative: NDArray[np.float32] | None = None
    scale: float | None = None
    bias: float | None = None
    aligned: bool = False

    @classmethod
    def from_text_set(cls, text_set: TextSet) -> "LabelTexts":
        """Return the embeddings of a cached prompt set."""
        negative = None if text_set.negative is None else text_set.negative.ensemble
        return cls(
            text_set.positive.ensemble, negative, text_set.scale, text_set.bias, text_set.aligned
        )

    @property
    def factor(self) -> float:
        """The scale, or 1 if the encoder has none."""
        return 1.0 if self.scale is None else self.scale

    def contrast(self) -> NDArray[np.float32]:
        """Return positive minus negative embeddings, (C, D); positive ones without negatives."""
        return self.positive if self.negative is None else self.positive - self.negative


def ablate_texts(texts: LabelTexts, ablation: TextAblation, *, seed: int) -> LabelTexts:
    """Return the embeddings that a head uses under an ablation.

    Args:
        texts: The real embeddings.
        ablation: One of the ablations of this module.
        seed: Random seed of the permutation or the directions.

    Raises:
        UsageError: The texts of a single label cannot be permuted.
    """
    if ablation == "none":
        return texts
    generator = np.random.default_rng(seed)
    if ablation == "permuted":
        if len(texts.positive) < 2:
            raise UsageError(
                "`text_ablation` is permuted, which needs two labels or more: use random or zero"
                " for a single label"
            )
        others = derangement(len(texts.positive), seed=seed)

    def ablate(ensemble: NDArray[np.float32]) -> NDArray[np.float32]:
        if ablation == "zero":
            return np.zeros_like(ensemble)
        if ablation == "random":
            directions = generator.standard_normal(ensemble.shape)
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            return directions.astype(np.float32)
        return ensemble[others]

    # Positive texts come first so that they do not depend on whether there are negative ones.
    positive = ablate(texts.positive)
    negative = None if texts.negative is None else ablate(texts.negative)
    return replace(texts, positive=positive, negative=negative)
