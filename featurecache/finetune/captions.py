"""Captions: a sentence for each combination of findings."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.prompts import PLACEHOLDER, PromptSet

NORMAL = "no abnormality"


def caption(findings: Sequence[str], prompts: PromptSet) -> str:
    """The caption of a film with these findings, in the words of a prompt set's first template.

    Several findings are joined by "and". Without findings it is the set's first negative where that
    names none ("a photo of normal lungs."), else the template with "no abnormality".
    """
    if not findings:
        if prompts.negatives and PLACEHOLDER not in prompts.negatives[0]:
            return prompts.negatives[0]
        return prompts.templates[0].replace(PLACEHOLDER, NORMAL)
    phrases = " and ".join(prompts.phrase(finding) for finding in findings)
    return prompts.templates[0].replace(PLACEHOLDER, phrases)


def captions_of(
    labels: NDArray[np.int8], names: Sequence[str], prompts: PromptSet
) -> NDArray[np.str_]:
    """The caption of each row of (N, C) labels.

    Raises:
        UsageError: a label is unknown, so that the row has no true caption.
    """
    unknown = (labels < 0).any(axis=0)
    if unknown.any():
        raise UsageError(
            f"the contrastive objective needs every label known, and {names[int(unknown.argmax())]}"
            " is unknown for some image: use --objective bce, which masks unknown labels"
        )
    return np.array(
        [
            caption([name for name, value in zip(names, row, strict=True) if value], prompts)
            for row in labels
        ],
        dtype=np.str_,
    )
