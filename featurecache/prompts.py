"""Prompt sets: templates that turn labels into texts, and the ensembles of their embeddings.

A template contains ``{pathology}``, which is replaced by the label as a radiologist would write it
(``Pleural_Thickening`` becomes "pleural thickening"). For each label, the K prompts of a set are
encoded and averaged into one ensemble embedding. The ensembles of all labels, concatenated, are
the mega-vector.
"""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from featurecache.errors import PromptError, UnknownNameError
from featurecache.io import json as strict_json
from featurecache.io.text import read_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PLACEHOLDER = "{pathology}"
_BRACES = re.compile("[{}]")

PHRASES: Mapping[str, str] = MappingProxyType(
    {
        "Edema": "pulmonary edema",
        "Effusion": "pleural effusion",
        "Fibrosis": "pulmonary fibrosis",
        "Hernia": "hiatal hernia",
        "Infiltration": "pulmonary infiltration",
        "Mass": "pulmonary mass",
        "Nodule": "pulmonary nodule",
    }
)
"""Labels whose own name, lower-cased, is not what a radiologist would write."""


@dataclass(frozen=True)
class PromptSet:
    """Prompt templates for all labels, with exceptions for single labels.

    Attributes:
        name: Up to 64 letters, digits, ``.``, ``_`` and ``-``.
        templates: Templates for the presence of a finding; each contains ``{pathology}``.
        negatives: Templates for its absence; may be empty.
        phrases: How labels are written in a sentence; other labels are lower-cased.
        prompts: Complete texts that replace the templates for a label, as many as there are
            templates: for findings that fit none grammatically.
        negative_prompts: The same for ``negatives``, such as "heart size is normal".

    Raises:
        PromptError: The name, a template or a text cannot be used; the message says why.

    Example:
        >>> import featurecache as fc
        >>> prompts = fc.PromptSet("mine", ("signs of {pathology}",), ("no {pathology}",))
        >>> prompts.positive_texts(["Mass", "Pneumonia"])
        [['signs of pulmonary mass'], ['signs of pneumonia']]
        >>> prompts.negative_texts(["Pneumonia"])
        [['no pneumonia']]
    """

    name: str
    templates: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    phrases: Mapping[str, str] = field(default_factory=lambda: PHRASES)
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    negative_prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise PromptError(
                f"prompt set name {self.name!r}: use up to 64 letters, digits, '.', '_' and '-'"
            )
        if not self.templates:
            raise self._error("has no templates")
        for template in (*self.templates, *self.negatives):
            if not template.strip():
                raise self._error("has an empty template")
            if _BRACES.search(template.replace(PLACEHOLDER, "")):
                raise self._error(
                    f"has the template {template!r}: only {PLACEHOLDER} is replaced, so remove "
                    "other braces"
                )
        for template in self.templates:
            if PLACEHOLDER not in template:
                raise self._error(
                    f"has the template {template!r} without {PLACEHOLDER}: every label would get "
                    "the same text"
                )
        self._check_texts("prompts", self.prompts, len(self.templates))
        self._check_texts("negative_prompts", self.negative_prompts, len(self.negatives))

    def _error(self, problem: str) -> PromptError:
        return PromptError(f"prompt set {self.name!r} {problem}")

    def _check_texts(
        self, attribute: str, texts_by_label: Mapping[str, tuple[str, ...]], count: int
    ) -> None:
        for label, texts in texts_by_label.items():
            if len(texts) != count:
                raise self._error(
                    f"has {len(texts)} {attribute} for {label!r}: give {count}, as many as there "
                    "are templates"
                )
            for text in texts:
                if not text.strip() or _BRACES.search(text):
                    raise self._error(
                        f"has {attribute} for {label!r} with the text {text!r}: give a complete "
                        "text without braces"
                    )

    def phrase(self, label: str) -> str:
        """Return a label as it is written in a sentence."""
        return self.phrases.get(label) or label.replace("_", " ").strip().lower()

    def positive_texts(self, labels: Sequence[str]) -> list[list[str]]:
        """Return the texts that say a finding is present: C lists of K texts."""
        return [self._texts(label, self.templates, self.prompts) for label in labels]

    def negative_texts(self, labels: Sequence[str]) -> list[list[str]]:
        """Return the texts that say a finding is absent: C lists of K' texts, or an empty list."""
        if not self.negatives:
            return []
        return [self._texts(label, self.negatives, self.negative_prompts) for label in labels]

    def _texts(
        self, label: str, templates: tuple[str, ...], exceptions: Mapping[str, tuple[str, ...]]
    ) -> list[str]:
        if label in exceptions:
            return list(exceptions[label])
        return [template.replace(PLACEHOLDER, self.phrase(label)) for template in templates]


PROMPT_SETS: Mapping[str, PromptSet] = MappingProxyType(
    {
        prompt_set.name: prompt_set
        for prompt_set in (
            PromptSet(
                name="signs",
                templates=(
                    "signs of {pathology}",
                    "indication of {pathology}",
                    "evidence of {pathology}",
                    "presence of {pathology}",
                ),
                negatives=(
                    "no signs of {pathology}",
                    "no indication of {pathology}",
                    "no evidence of {pathology}",
                    "absence of {pathology}",
                ),
                negative_prompts={
                    "Cardiomegaly": (
                        "heart size is normal",
                        "normal heart size",
                        "the heart is not enlarged",
                        "no enlargement of the heart",
                    )
                },
            ),
            PromptSet(
                name="showing",
                templates=("A chest X-ray showing {pathology}",),
                negatives=("A chest X-ray without {pathology}",),
                negative_prompts={"Cardiomegaly": ("A chest X-ray showing a normal heart size",)},
            ),
            PromptSet(
                name="lungs",
                templates=("a photo of {pathology} lungs.",),
                negatives=("a photo of normal lungs.",),
            ),
        )
    }
)
"""The built-in prompt sets.

``signs``: the four of "squeezing every drop out of CLIP features". ``showing``: that of CLIP on
ChestX-ray14. ``lungs``: that of CLIP against MedCLIP on pediatric chest X-rays.
"""


class _PromptFile(TypedDict, total=False):
    name: str
    templates: list[str]
    negatives: list[str]
    phrases: dict[str, str]
    prompts: dict[str, list[str]]
    negative_prompts: dict[str, list[str]]


def load_prompts(prompts: str | os.PathLike[str] | PromptSet) -> PromptSet:
    """Return a prompt set by name, from a file, or as it is.

    A JSON or TOML file holds ``templates`` (a list) and optionally ``name`` (by default that of the
    file), ``negatives`` (a list), ``phrases`` (label to phrase), ``prompts`` and
    ``negative_prompts`` (label to list).

    Args:
        prompts: The name of a built-in set, the path of a ``.json`` or ``.toml`` file, or a
            ``PromptSet``.

    Raises:
        UnknownNameError: There is no such set, and it is not a ``.json`` or ``.toml`` file.
        PromptError: The file is missing, malformed, or its content cannot be used.
    """
    if isinstance(prompts, PromptSet):
        return prompts
    name = os.fspath(prompts)
    if name in PROMPT_SETS:
        return PROMPT_SETS[name]
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if suffix not in (".json", ".toml"):
        raise UnknownNameError("prompt set", name, [*PROMPT_SETS, "FILE.json", "FILE.toml"])
    try:
        text = read_text(path, encoding="utf-8-sig")  # Windows editors write a byte order mark
        content = strict_json.parse(text) if suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise PromptError(f"prompt file {path}: {error.strerror}") from error
    # JSON, TOML and UTF-8 errors are ValueErrors; deeply nested TOML is a RecursionError.
    except (ValueError, RecursionError) as error:
        raise PromptError(f"prompt file {path} cannot be parsed: {error}") from error
    return _from_content(content, path)


def _from_content(content: Any, path: Path) -> PromptSet:
    try:
        file: _PromptFile = strict_json.validate(content, _PromptFile)
    except ValueError as error:
        raise PromptError(f"prompt file {path} is malformed: {error}") from error
    keys = tuple(_PromptFile.__annotations__)
    if unknown := sorted(file.keys() - set(keys)):
        raise PromptError(f"prompt file {path}: unknown key {unknown[0]!r}; use {', '.join(keys)}")
    phrases = file.get("phrases", {})
    if not all(phrase.strip() for phrase in phrases.values()):
        raise PromptError(f"prompt file {path}: a phrase is empty")
    name = file.get("name", path.stem)
    if name in PROMPT_SETS:
        raise PromptError(f"prompt file {path}: the name {name!r} is built in; choose another")

    def as_tuples(texts: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
        return {label: tuple(of_label) for label, of_label in texts.items()}

    return PromptSet(
        name=name,
        templates=tuple(file.get("templates", ())),
        negatives=tuple(file.get("negatives", ())),
        phrases={**PHRASES, **phrases},
        prompts=as_tuples(file.get("prompts", {})),
        negative_prompts=as_tuples(file.get("negative_prompts", {})),
    )


def ensemble(embeddings: "NDArray[np.floating[Any]]") -> "NDArray[np.float32]":
    """Average the prompts of each label on the unit sphere.

    ``t_c = norm(mean_k norm(e_ck))``, so that the length of an embedding does not weight its prompt
    (Radford et al. 2021, section 3.1.4).

    Args:
        embeddings: Shape (C, K, D), not necessarily normalized.

    Returns:
        float32, shape (C, D), unit length.

    Raises:
        ValueError: An embedding is zero or not finite, or the prompts of a label cancel out.
    """
    import numpy as np

    mean = _l2_normalize(np.asarray(embeddings, dtype=np.float64)).mean(axis=1)
    # The mean of vectors that cancel out is a rounding error, seldom zero.
    if (np.linalg.norm(mean, axis=-1) < 1e-6).any():
        raise ValueError("the prompts of a label cancel out: their mean has no direction")
    result: NDArray[np.float32] = _l2_normalize(mean).astype(np.float32)
    return result


def mega_vector(ensembles: "NDArray[np.floating[Any]]") -> "NDArray[np.float32]":
    """Concatenate the ensembles of all labels: (C, D) to (C * D,) float32."""
    import numpy as np

    return np.ascontiguousarray(ensembles, dtype=np.float32).reshape(-1)


def _l2_normalize(vectors: "NDArray[np.float64]") -> "NDArray[np.float64]":
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ValueError("a text embedding is zero or not finite: it has no direction")
    result: NDArray[np.float64] = vectors / lengths
    return result
