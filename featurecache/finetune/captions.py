"""Captions: sentences about images, and which images each is true of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurecache.prompts import PLACEHOLDER, PromptSet

NORMAL = "no abnormality"


@dataclass(frozen=True)
class CaptionTexts:
    """U different captions of N images.

    Attributes:
        texts: Each caption in the wording of each template.
        truth: (N, U): 1 where a caption is true of an image, 0 where it is false, -1 where that
            depends on an unknown label.
    """

    texts: tuple[tuple[str, ...], ...]
    truth: NDArray[np.int8]


def write_captions(
    labels: NDArray[np.int8], names: Sequence[str], prompts: PromptSet
) -> CaptionTexts:
    """Write the captions of images with these labels, in the wording of a prompt set.

    For each combination of findings that occurs, there is a caption that names all of them and is
    true of every image that has them all; the one without findings is true of images that have
    none. For each single finding there are its prompts and, if the set has negatives that name a
    finding, these, true of images without it.

    Args:
        labels: Labels of shape (N, C): 1, 0, or -1 for unknown.
        names: The C label names.
        prompts: The prompt set.

    Returns:
        The captions.
    """
    truth_by_caption: dict[tuple[str, ...], NDArray[np.int8]] = {}
    for name, positive, column in zip(names, prompts.positive_texts(names), labels.T, strict=True):
        truth_by_caption[tuple(positive)] = column
        negative = prompts.negative_texts([name])
        if negative and any(PLACEHOLDER in template for template in prompts.negatives):
            absent = np.where(column < 0, column, 1 - column).astype(np.int8)
            truth_by_caption[tuple(negative[0])] = absent
    for findings in np.unique(labels == 1, axis=0):
        present = [name for name, is_present in zip(names, findings, strict=True) if is_present]
        if len(present) != 1:
            truth_by_caption[_combined_caption(present, prompts)] = _has_all(labels, findings)
    return CaptionTexts(tuple(truth_by_caption), np.stack(list(truth_by_caption.values()), axis=1))


def scored_captions(names: Sequence[str], prompts: PromptSet) -> tuple[list[str], list[str]]:
    """Return, for each label, the caption that states it and one that states its absence."""
    positive = [texts[0] for texts in prompts.positive_texts(names)]
    negative = [texts[0] for texts in prompts.negative_texts(names)]
    return positive, negative or [_combined_caption([], prompts)[0]] * len(names)


def _combined_caption(findings: Sequence[str], prompts: PromptSet) -> tuple[str, ...]:
    """Return one caption for several findings, joined by "and", or for none.

    The caption for none is the set's first negative if that names no finding ("a photo of normal
    lungs."), otherwise the templates with "no abnormality".
    """
    if not findings and prompts.negatives and PLACEHOLDER not in prompts.negatives[0]:
        return (prompts.negatives[0],)
    phrases = " and ".join(prompts.phrase(finding) for finding in findings) or NORMAL
    return tuple(template.replace(PLACEHOLDER, phrases) for template in prompts.templates)


def _has_all(labels: NDArray[np.int8], findings: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Return (N,): whether an image has all of these findings or, for none of them, no finding."""
    required = labels[:, findings] if findings.any() else np.where(labels < 0, -1, 1 - labels)
    unless_false = np.where((required < 0).any(axis=1), -1, 1)
    truth: NDArray[np.int8] = np.where((required == 0).any(axis=1), 0, unless_false).astype(np.int8)
    return truth
