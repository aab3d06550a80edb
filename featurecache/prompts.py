"""Prompts: named sets of templates, positive and negative, and the ensembles made of them.

A template holds ``{pathology}``, which becomes the label as a radiologist would write it
(``Pleural_Thickening`` is "pleural thickening"). Per label, the K prompts of a set are encoded and
averaged into one ensemble embedding; the ensembles of all labels, flattened, are the mega-vector.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

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
    """Templates for all labels, with exceptions for single ones.

    ``prompts`` and ``negative_prompts`` replace a label's prompts outright, for findings whose
    grammar fits no template ("heart size is normal"); each holds as many as the templates give.
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
            raise PromptError(f"prompt set {self.name!r} has no templates")
        for template in (*self.templates, *self.negatives):
            if not template.strip():
                raise PromptError(f"prompt set {self.name!r} has an empty template")
            if _BRACES.search(template.replace(PLACEHOLDER, "")):
                raise PromptError(
                    f"prompt set {self.name!r}: template {template!r} has braces around something "
                    f"else than {PLACEHOLDER}, which would be encoded as they stand"
                )
        for template in self.templates:
            if PLACEHOLDER not in template:
                raise PromptError(
                    f"prompt set {self.name!r}: template {template!r} lacks {PLACEHOLDER}, "
                    "so that every label would get the same text"
                )
        self._check_given("prompts", self.prompts, len(self.templates))
        self._check_given("negative_prompts", self.negative_prompts, len(self.negatives))

    def _check_given(self, what: str, given: Mapping[str, tuple[str, ...]], count: int) -> None:
        for label, prompts in given.items():
            if len(prompts) != count:
                raise PromptError(
                    f"prompt set {self.name!r}: {what} of {label!r} must hold {count} texts, "
                    f"as many as there are templates; found {len(prompts)}"
                )
            for prompt in prompts:
                if not prompt.strip() or _BRACES.search(prompt):
                    raise PromptError(
                        f"prompt set {self.name!r}: {what} of {label!r} hold {prompt!r}; they are "
                        "used as they stand, so write whole texts without braces"
                    )

    def phrase(self, label: str) -> str:
        """A label as it is written in a sentence."""
        return self.phrases.get(label) or label.replace("_", " ").strip().lower()

    def positive_prompts(self, labels: Sequence[str]) -> list[list[str]]:
        """The prompts that say a finding is there: C lists of K texts."""
        return [self._fill(label, self.templates, self.prompts) for label in labels]

    def negative_prompts_of(self, labels: Sequence[str]) -> list[list[str]]:
        """The prompts that say a finding is absent: C lists of K' texts, or no list at all."""
        if not self.negatives:
            return []
        return [self._fill(label, self.negatives, self.negative_prompts) for label in labels]

    def _fill(
        self, label: str, templates: tuple[str, ...], given: Mapping[str, tuple[str, ...]]
    ) -> list[str]:
        if label in given:
            return list(given[label])
        return [template.replace(PLACEHOLDER, self.phrase(label)) for template in templates]


PROMPT_SETS: Mapping[str, PromptSet] = MappingProxyType(
    {
        prompts.name: prompts
        for prompts in (
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
"""``signs``: the four of "squeezing every drop out of CLIP features"; ``showing``: those of CLIP on
ChestX-ray14; ``lungs``: those of CLIP against MedCLIP on paediatric X-rays."""


def load_prompts(name_or_file: str) -> PromptSet:
    """A named prompt set, or one from a user's JSON or TOML file.

    The file holds ``templates`` (a list) and may hold ``name`` (else the file's), ``negatives``
    (a list), ``phrases`` (label to phrase), ``prompts`` and ``negative_prompts`` (label to list).

    Raises:
        UnknownNameError: neither a known set nor a ``.json`` or ``.toml`` file.
        PromptError: the file is missing, malformed, or its content contradicts itself.
    """
    if name_or_file in PROMPT_SETS:
        return PROMPT_SETS[name_or_file]
    path = Path(name_or_file)
    if path.suffix.lower() not in (".json", ".toml"):
        raise UnknownNameError("prompt set", name_or_file, [*PROMPT_SETS, "FILE.json", "FILE.toml"])
    try:
        text = read_text(path, encoding="utf-8-sig")  # Windows editors begin it with a mark
        parse = strict_json.parse if path.suffix.lower() == ".json" else tomllib.loads
        content = parse(text)
    except OSError as error:
        raise PromptError(f"prompt file {path}: {error.strerror}") from error
    # JSON, TOML and UTF-8 errors are ValueErrors; TOML of many brackets is a RecursionError.
    except (ValueError, RecursionError) as error:
        raise PromptError(f"prompt file {path} cannot be parsed: {error}") from error
    return _from_content(content, path)


def _from_content(content: Any, path: Path) -> PromptSet:
    known = ("name", "templates", "negatives", "phrases", "prompts", "negative_prompts")
    if not isinstance(content, dict):
        raise PromptError(f"prompt file {path} must hold an object with the key 'templates'")
    if unknown := sorted(set(content) - set(known)):
        raise PromptError(
            f"prompt file {path}: unknown key {unknown[0]!r}; known: {', '.join(known)}"
        )

    def texts(value: Any, where: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise PromptError(f"prompt file {path}: {where} must be a list of texts")
        return tuple(value)

    def table(key: str) -> dict[str, Any]:
        value = content.get(key, {})
        if not isinstance(value, dict):
            raise PromptError(f"prompt file {path}: {key!r} must map labels to texts")
        return value

    phrases = table("phrases")
    if not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases.values()):
        raise PromptError(f"prompt file {path}: 'phrases' must map labels to texts")
    name = content.get("name", path.stem)
    if not isinstance(name, str):
        raise PromptError(f"prompt file {path}: 'name' must be a text")
    if name in PROMPT_SETS:
        raise PromptError(
            f"prompt file {path}: the name {name!r} is a built-in set's; choose another"
        )
    return PromptSet(
        name=name,
        templates=texts(content.get("templates", []), "'templates'"),
        negatives=texts(content.get("negatives", []), "'negatives'"),
        phrases={**PHRASES, **phrases},
        prompts={k: texts(v, f"'prompts' of {k!r}") for k, v in table("prompts").items()},
        negative_prompts={
            k: texts(v, f"'negative_prompts' of {k!r}")
            for k, v in table("negative_prompts").items()
        },
    )


def ensemble(embeddings: "NDArray[np.floating[Any]]") -> "NDArray[np.float32]":
    """Average the prompts of each label on the unit sphere.

    ``t_c = norm(mean_k norm(e_ck))``, so that no prompt counts for more by its length
    (Radford et al. 2021, section 3.1.4).

    Args:
        embeddings: (C, K, D), of any length.

    Returns:
        (C, D) float32, of unit length.

    Raises:
        ValueError: an embedding is zero or not finite, or a label's prompts cancel out.
    """
    import numpy as np

    mean = _unit(np.asarray(embeddings, dtype=np.float64)).mean(axis=1)
    # Vectors that cancel leave a rounding error, seldom a zero.
    if (np.linalg.norm(mean, axis=-1) < 1e-6).any():
        raise ValueError("the prompts of a label cancel out: their mean has no direction")
    result: NDArray[np.float32] = _unit(mean).astype(np.float32)
    return result


def mega_vector(ensembles: "NDArray[np.floating[Any]]") -> "NDArray[np.float32]":
    """All labels' ensembles behind one another: (C, D) to (C * D,) float32."""
    import numpy as np

    return np.ascontiguousarray(ensembles, dtype=np.float32).reshape(-1)


def _unit(vectors: "NDArray[np.float64]") -> "NDArray[np.float64]":
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ValueError("a text embedding is zero or not finite: it has no direction")
    result: NDArray[np.float64] = vectors / lengths
    return result
