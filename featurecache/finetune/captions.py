"""Captions: sentences on films, and of which films each is true."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurecache.prompts import PLACEHOLDER, PromptSet

NORMAL = "no abnormality"


@dataclass(frozen=True)
class Captions:
    """U different captions of N films.

    Attributes:
        texts: each caption in the words of each template; the first is that of the first.
        truth: (N, U) int8: 1 where a caption is true of a film, 0 where it is false, -1 where
            that hangs on a label that is unknown.
    """

    texts: tuple[tuple[str, ...], ...]
    truth: NDArray[np.int8]


def caption_films(labels: NDArray[np.int8], names: Sequence[str], prompts: PromptSet) -> Captions:
    """What can be said of films with these labels, in the words of a prompt set.

    For each combination of findings that a film has, a caption that names them all, true of every
    film that has them all; the one without findings is true of films that have none. For each
    finding alone its prompts, and where the set has negatives that name a finding, these, true of
    films without it.

    Args:
        labels: (N, C) of 1, 0, -1 unknown.
        names: the C labels.
        prompts: the words.
    """
    texts: dict[tuple[str, ...], NDArray[np.int8]] = {}
    for name, positive, column in zip(names, prompts.positive_texts(names), labels.T, strict=True):
        texts[tuple(positive)] = column
        negative = prompts.negative_texts([name])
        if negative and any(PLACEHOLDER in template for template in prompts.negatives):
            texts[tuple(negative[0])] = np.where(column < 0, column, 1 - column).astype(np.int8)
    for findings in np.unique(labels == 1, axis=0):
        chosen = [name for name, there in zip(names, findings, strict=True) if there]
        if len(chosen) != 1:
            texts[_combined(chosen, prompts)] = _all_hold(labels, findings)
    return Captions(tuple(texts), np.stack(list(texts.values()), axis=1))


def scored_captions(names: Sequence[str], prompts: PromptSet) -> tuple[list[str], list[str]]:
    """For each label the caption that says it is there, and one that says it is not."""
    positive = [texts[0] for texts in prompts.positive_texts(names)]
    negative = [texts[0] for texts in prompts.negative_texts(names)]
    return positive, negative or [_combined([], prompts)[0]] * len(names)


def _combined(findings: Sequence[str], prompts: PromptSet) -> tuple[str, ...]:
    """One caption for several findings, joined by "and", or for none.

    The one for none is the set's first negative where that names no finding ("a photo of normal
    lungs."), else the templates with "no abnormality".
    """
    if not findings and prompts.negatives and PLACEHOLDER not in prompts.negatives[0]:
        return (prompts.negatives[0],)
    phrases = " and ".join(prompts.phrase(finding) for finding in findings) or NORMAL
    return tuple(template.replace(PLACEHOLDER, phrases) for template in prompts.templates)


def _all_hold(labels: NDArray[np.int8], findings: NDArray[np.bool_]) -> NDArray[np.int8]:
    """(N,) whether a film has all of these findings, or, for none of them, no finding at all."""
    wanted = labels[:, findings] if findings.any() else np.where(labels < 0, -1, 1 - labels)
    certain = np.where((wanted < 0).any(axis=1), -1, 1)
    truth: NDArray[np.int8] = np.where((wanted == 0).any(axis=1), 0, certain).astype(np.int8)
    return truth
