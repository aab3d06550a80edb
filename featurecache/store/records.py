"""The content of a cache as arrays and records."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from typing_extensions import TypedDict

from featurecache.errors import CacheError
from featurecache.execution import Probe
from featurecache.label_cells import UNKNOWN, LabelPolicy
from featurecache.prompts import ensemble
from featurecache.provenance.names import base_name
from featurecache.provenance.provenance import Source, TrainingImages
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

Utf8 = NDArray[np.bytes_]
"""Strings as in a cache file: fixed-length UTF-8, a quarter of the memory of numpy's ``str_``. They
sort like the strings themselves."""

BLOCK_STRINGS = 65_536
"""Strings that are converted at a time."""

_INFINITY_BITS = 0x7C00
"""Those of a float16; of NaN, they are higher."""

METADATA = ("id", "patient", "study", "split", "view", "sex", "age")
"""Columns of tables of images."""

NON_FINITE_EMBEDDING = "its embedding is not finite in float16, or is all zero"


@dataclass(frozen=True)
class ImageTable:
    """Metadata of the N cached images, ordered by id; arrays have shape (N,) unless stated.

    Attributes:
        id: Image ids, unique and ascending.
        sha256: SHA-256 of the image files, in hex.
        perceptual_hash: Hashes of the decoded images, (N, 32); see ``images.perceptual_hash``.
        patient: Patient ids.
        study: Studies, each of one patient; empty where unknown.
        split: train, val or test.
        view: View position; empty where unknown.
        sex: Empty where unknown.
        age: In years; empty where unknown.
        path: Paths of the image files, relative to the root of the data set; keyed hashes of them
            where ids are pseudonymized. Together with ``size`` and ``mtime_ns``, a cheap check
            whether an image has changed.
        size: Bytes of the image files.
        mtime_ns: Modification times of the image files.
    """

    id: Utf8
    sha256: Utf8
    perceptual_hash: NDArray[np.uint8]
    patient: Utf8
    study: Utf8
    split: Utf8
    view: Utf8
    sex: Utf8
    age: Utf8
    path: Utf8
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: NDArray[np.intp] | slice) -> "ImageTable":
        """Return the table with these rows only."""
        return ImageTable(**{name: column[rows] for name, column in vars(self).items()})

    def to_pandas(self) -> "pd.DataFrame":
        """Return the columns ``METADATA``, with NaN where unknown; age is in years."""
        import pandas as pd

        texts = METADATA[:-1]
        frame = pd.DataFrame({name: from_utf8(getattr(self, name)) for name in texts})
        frame = frame.mask(frame == "")
        frame["age"] = pd.to_numeric(pd.Series(from_utf8(self.age)), errors="coerce")
        return frame


def split_conflicts(images: ImageTable) -> Utf8:
    """Return the patients whose images are in more than one split, sorted."""
    order = np.argsort(images.patient, kind="stable")
    patient, split = images.patient[order], images.split[order]
    return np.unique(patient[1:][(patient[1:] == patient[:-1]) & (split[1:] != split[:-1])])


def study_conflicts(images: ImageTable) -> Utf8:
    """Return the studies whose images are of more than one patient, sorted."""
    rows = np.flatnonzero(images.study != b"")
    order = rows[np.argsort(images.study[rows], kind="stable")]
    study, patient = images.study[order], images.patient[order]
    return np.unique(study[1:][(study[1:] == study[:-1]) & (patient[1:] != patient[:-1])])


@dataclass(frozen=True)
class Labels:
    """The labels of N images.

    Attributes:
        names: Label names, (C,).
        cells: What the data set states, (N, C) int8: 1 positive, 0 negative, -1 uncertain, -2
            blank.
        policy: What uncertain and blank cells count as.
    """

    names: tuple[str, ...]
    cells: NDArray[np.int8]
    policy: LabelPolicy = field(default_factory=LabelPolicy)

    @cached_property
    def values(self) -> NDArray[np.int8]:
        """The labels by the policy, (N, C) int8: 1 positive, 0 negative, -1 unknown."""
        return self.policy.resolve(self.cells, self.names)

    @property
    def applied_policy(self) -> dict[str, str]:
        """The fields of the policy that matter for these cells; see ``LabelPolicy.applied_to``."""
        return self.policy.applied_to(self.cells, self.names)

    def to_float(self, rows: "NDArray[np.intp] | slice" = slice(None)) -> NDArray[np.float32]:
        """Return the values of these rows as (n, C) float32, NaN where unknown."""
        values = self.values[rows].astype(np.float32)
        values[values == UNKNOWN] = np.nan
        return values


@dataclass(frozen=True)
class TextEmbeddings:
    """The prompts of C labels, K per label, and their embeddings.

    Attributes:
        prompts: C tuples of K texts.
        embedding: Text embeddings, (C, K, D) float32, not normalized.
        ensemble: Mean of a label's embeddings on the unit sphere, (C, D) float32.
    """

    prompts: tuple[tuple[str, ...], ...]
    embedding: NDArray[np.float32]
    ensemble: NDArray[np.float32]


@dataclass(frozen=True)
class TextSet:
    """One encoded prompt set: ``/text/<name>``.

    Attributes:
        name: Name of the prompt set.
        fingerprint: Fingerprint of the text encoder, the labels and all prompts.
        templates: Positive templates, then negative ones.
        labels: Label names (C,).
        positive: Prompts that state a finding.
        negative: Prompts that deny it, if the set has any.
        aligned: Whether texts and images share an embedding space, so that cosines between them
            are meaningful.
        scale: Factor on the cosine in the model's own score, if it has one.
        bias: Summand of the model's own sigmoid score, if it has one.
        encoder_spec: Everything that decides a text's embedding; None for sets that concatenate
            several encoders.
        n_cut: Number of prompts of which the encoder read only the first ``max_tokens`` tokens.
        max_tokens: See ``n_cut``; None if unknown.
    """

    name: str
    fingerprint: str
    templates: tuple[str, ...]
    labels: tuple[str, ...]
    positive: TextEmbeddings
    negative: TextEmbeddings | None
    aligned: bool
    scale: float | None
    bias: float | None
    encoder_spec: Mapping[str, Any] | None = None
    n_cut: int = 0
    max_tokens: int | None = None

    @property
    def warnings(self) -> list[str]:
        """What a reader of scores against these texts has to know."""
        if not self.n_cut:
            return []
        return [
            f"the encoder reads {self.max_tokens} tokens of a text, and the end of "
            f"{count_noun(self.n_cut, 'prompt')} of {self.name!r} is cut"
        ]

    @property
    def alone(self) -> "list[TextSet]":
        """Each positive template as a set of its own, in order.

        It has the negative template of the same position, or all negative ones where there are not
        as many.
        """

        def one(texts: TextEmbeddings, k: int) -> TextEmbeddings:
            prompts = tuple((of_label[k],) for of_label in texts.prompts)
            embedding = texts.embedding[:, [k]]
            return TextEmbeddings(prompts, embedding, ensemble(embedding))

        number, negative = self.positive.embedding.shape[1], self.negative
        positives, negatives = self.templates[:number], self.templates[number:]
        paired = negative is not None and len(negatives) == number
        return [
            replace(
                self,
                templates=(template, *((negatives[k],) if paired else negatives)),
                positive=one(self.positive, k),
                negative=one(negative, k) if paired and negative is not None else negative,
            )
            for k, template in enumerate(positives)
        ]

    def select(self, labels: tuple[str, ...]) -> "TextSet":
        """Return the set for these labels, in this order.

        Raises:
            CacheError: A label has no prompts in this set.
        """
        if labels == self.labels:
            return self
        if missing := [label for label in labels if label not in self.labels]:
            raise CacheError(
                f"prompt set {self.name!r} in the cache has no text for label {missing[0]!r}: "
                "extract again with this prompt set"
            )
        rows = [self.labels.index(label) for label in labels]

        def pick(texts: TextEmbeddings) -> TextEmbeddings:
            prompts = tuple(texts.prompts[row] for row in rows)
            return TextEmbeddings(prompts, texts.embedding[rows], texts.ensemble[rows])

        return replace(
            self,
            labels=labels,
            positive=pick(self.positive),
            negative=None if self.negative is None else pick(self.negative),
        )


Count = Annotated[int, Ge(1), Le(2**53)]
"""A number of images or patients, up to what a float64 counts exactly."""

Counts = dict[str, Count]
"""Numbers of images by reason."""


class Listed(TypedDict):
    """How many images and patients a data set has, whether or not they are in the cache.

    ``patients`` is None where patients are unknown. Images that the data set left out when it was
    loaded, ``Header.excluded``, are not counted.
    """

    images: Count
    patients: Count | None


class Extraction(TypedDict, total=False):
    """Arguments of ``extract`` that matter to its result; see ``Header.extraction``."""

    data: Source | None
    model: str | None
    weights: str | None
    prompts: dict[str, str | None]
    device: str
    backend: str
    precision: str
    resize: str
    features: str | None
    views: int | None
    bit_depth: int | None
    batch_size: int
    limit: int | None
    shard: str | None


@dataclass(frozen=True)
class Header:
    """Which encoder and which data set a cache is about.

    Attributes:
        model: Name of the encoder.
        dataset: Name of the data set.
        notes: Sentences for readers: what was left out, which split was used.
        image_level_split: Whether images of one patient may be in two splits, which makes scores
            optimistic.
        exposed: Whether the encoder's published training may have included these images.
        encoder_spec: Everything that decides an image's embedding; its fingerprint is the cache's.
        collection: The published images that these are; data sets of one collection share ids.
        trained_on: The images that the encoder was fine-tuned on, by collection.
        probe: The measurement that decided how the encoder was executed, if one did.
        revision: Commit of the hub repository that the weights came from, if they did.
        excluded: Number of images that the data set left out, by reason.
        listed: Images and patients of the whole data set; None if unknown.
        bit_depth: Number of bits in use, 8 to 16, in files that do not define the range of their
            gray values; None if no embedding is of such a file.
        libraries: Versions of the libraries, other than those of the encoder spec, that embedded a
            sample of the cached images alike, so that images were added with them.
        split_draw: How the splits were drawn that the data set does not state; empty if it states
            all. If an extraction draws them alike, the cached patients keep theirs.
        policy: What uncertain and blank cells of labels count as by default.
        table: In a shard, hashes of the whole data set that it was cut from, by what they are of:
            ids, paths, patients, splits and labels. Shards of one data set have the same ones.
        extraction: Arguments of ``extract`` that matter to its result, to repeat it. ``data`` and
            ``model`` are None where they were made in Python, and so is the value of such a prompt
            set; others have their name or file.
        imported: SHA-256, in hex, of the files or folders that the embeddings were imported from,
            by name; empty for those that were extracted.
    """

    model: str
    dataset: str
    notes: tuple[str, ...]
    image_level_split: bool
    exposed: bool
    encoder_spec: Mapping[str, Any]
    collection: str
    trained_on: TrainingImages = field(repr=False)
    probe: Probe | None = None
    revision: str | None = None
    excluded: Mapping[str, int] = field(default_factory=dict)
    listed: Listed | None = None
    bit_depth: int | None = None
    libraries: tuple[Mapping[str, str], ...] = ()
    split_draw: str = ""
    policy: LabelPolicy = field(default_factory=LabelPolicy)
    table: Mapping[str, str] = field(default_factory=dict)
    extraction: Extraction = field(default_factory=Extraction)
    imported: Mapping[str, str] = field(default_factory=dict)

    @property
    def vocabulary_names(self) -> tuple[str, ...]:
        """The data sets whose labels these may be, by the names that the vocabulary has for them.

        Under a name of the user's own, a data set still has the labels of what it was loaded as.
        """
        source = self.extraction.get("data")
        loaded_as = [] if source is None else [source["dataset"]]
        return tuple(dict.fromkeys([*loaded_as, self.dataset, base_name(self.collection)]))


def label_columns(names: Iterable[str]) -> list[str]:
    """Return the column of each label: its name, after "label " if another column has that."""
    taken = {*METADATA, "path", "sha256", "perceptual_hash", "embedding"}
    columns = []
    for name in names:
        while name in taken:
            name = f"label {name}"
        taken.add(name)
        columns.append(name)
    return columns


def count_by_reason(failures: Mapping[str, str]) -> dict[str, int]:
    """Count failed images by the kind of reason.

    Args:
        failures: Reasons by image id, such as "damaged: broken PNG file" or "40 x 9 is too small".

    Returns:
        Numbers of images by reason without details and numbers: "damaged" or "N x N is too small".
        The most frequent come first.
    """
    kinds = (re.sub(r"\d[\d,.]*", "N", re.split(r": | \(", text)[0]) for text in failures.values())
    return dict(Counter(kinds).most_common())


def format_counts(counts: Mapping[str, int]) -> str:
    """Format numbers of images by reason: "14 (12 damaged; 2 missing)"."""
    reasons = "; ".join(f"{number:,} {reason}" for reason, number in counts.items())
    return f"{sum(counts.values()):,} ({reasons})" if counts else "0"


def text_fingerprints(texts: Mapping[str, TextSet]) -> dict[str, str]:
    """Return the fingerprint of each encoded prompt set, by name."""
    return {name: text.fingerprint for name, text in texts.items()}


def to_utf8(strings: "Sequence[Any] | NDArray[np.str_] | pd.Series[str]") -> Utf8:
    """Return strings, or rows of strings, as a cache file stores them."""
    blocks = [
        np.char.encode(np.asarray(strings[start : start + BLOCK_STRINGS], dtype=np.str_), "utf-8")
        for start in range(0, len(strings), BLOCK_STRINGS)
    ]
    return np.concatenate(blocks) if blocks else np.empty(0, dtype="S1")


def from_utf8(strings: Utf8) -> NDArray[np.str_]:
    """Return stored strings as ``str_``, in the same shape."""
    decoded: NDArray[np.str_] = np.char.decode(strings, "utf-8")
    return decoded


def positions(ids: Utf8, wanted: Utf8) -> NDArray[np.intp]:
    """Return the index of each wanted id among sorted ids, -1 where it is missing."""
    if len(ids) == 0:
        return np.full(len(wanted), -1, dtype=np.intp)
    at = np.searchsorted(ids, wanted)
    at[at == len(ids)] = 0
    at[ids[at] != wanted] = -1
    return at


def to_float16_checked(
    embedding: NDArray[np.float32],
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Return embeddings as a cache stores them, and which of them are usable.

    Args:
        embedding: (B, D).

    Returns:
        The embeddings, (B, D) float16, and a mask (B,). Rows with a value beyond 65504, the
        largest float16, are not usable, nor are rows of zeros, which have no direction.
    """
    with np.errstate(over="ignore"):
        half = embedding.astype(np.float16)
    return half, usable_rows(half)


def usable_rows(embedding: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Return which of the embeddings (B, D) are finite and not all zero, (B,)."""
    if embedding.shape[1] == 0:
        return np.zeros(len(embedding), dtype=np.bool_)
    # The bits of a float16 without its sign are in the order of its absolute value, and comparing
    # integers is several times as fast.
    largest = (embedding.view(np.uint16) & 0x7FFF).max(axis=1)
    usable: NDArray[np.bool_] = (largest > 0) & (largest < _INFINITY_BITS)
    return usable
