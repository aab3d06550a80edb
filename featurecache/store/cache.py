"""A finished cache: the embeddings, labels and metadata of a data set's images."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError, UnknownNameError, UsageError
from featurecache.features import PROJECTED
from featurecache.label_cells import UNKNOWN, LabelPolicy
from featurecache.prompts import PromptSet
from featurecache.provenance.leaks import SplitCopies, copies_across_splits
from featurecache.provenance.provenance import Provenance
from featurecache.provenance.records import ImageRecords
from featurecache.store.checksums import Sums, read_checksums, read_verified
from featurecache.store.hdf5 import dataset, opened
from featurecache.store.layout import CHUNK_ROWS, EMBEDDING, FORMAT
from featurecache.store.records import (
    METADATA,
    Header,
    ImageTable,
    Labels,
    TextSet,
    count_by_reason,
    format_counts,
    from_utf8,
    label_columns,
    split_conflicts,
)
from featurecache.store.validation import attribute, descriptor
from featurecache.store.validity import embedding_problems, require_valid, text_problems
from featurecache.units import STUDY, Units
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    from anndata import AnnData
    from torch.utils.data import TensorDataset

BLOCK_ROWS = 4096
"""Embedding rows that are converted at a time, to need little memory beside the result."""


@dataclass(frozen=True, eq=False, repr=False)
class Cache:
    """The stored embeddings of a data set's images, with their labels and metadata.

    Open one with ``open_cache``, or make one with ``extract``. Everything is in memory except the
    embeddings, which stay in the file until they are used.

    Attributes:
        path: The cache file.
        header: Model, data set and provenance.
        fingerprint: SHA-256 of the encoder spec, in hex. Caches with different fingerprints hold
            embeddings that cannot be compared.
        created: When the file was written, in ISO 8601, UTC.
        images: Metadata of the N images, ordered by id.
        dim: Length D of an embedding.
        labels: Label names (C,) and, by the policy, values (N, C): 1 positive, 0 negative, -1
            unknown. C is 0 for images without labels.
        texts: Encoded prompt sets by name.
        failures: Reason why an image has no embedding, by image id.
        state: Inode, size in bytes and mtime_ns of the file that was read. Later reads check that
            they are of the same file.
        sums: Checksums of the embedding, one per block of rows.
        units: What the rows are: all images, unless ``open_cache`` was given ``level`` or
            ``views``.
        notes: Sentences on how the rows were made from images: what was left out or assumed.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.open_cache("cache/phantom/tiny.h5")
        >>> X, y, groups = cache.arrays("train")
        >>> X.shape[1], y.shape[1]
        (128, 14)
    """

    path: Path
    header: Header
    fingerprint: str
    created: str
    images: ImageTable
    dim: int
    labels: Labels
    texts: Mapping[str, TextSet]
    failures: Mapping[str, str]
    state: tuple[int, int, int]
    sums: Sums
    units: Units = field(default=Units(), kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    def __len__(self) -> int:
        """Return the number of rows, which are images, or studies where it was opened so."""
        return len(self.images)

    def __repr__(self) -> str:
        rows = "\n".join(f"  {name}: {value}" for name, value in self._summary().items())
        return f"{type(self).__name__}({str(self.path)!r})\n{rows}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th>"
            f"<td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self._summary().items()
        )
        return f"<table><caption>Cache {escape(str(self.path))}</caption>{rows}</table>"

    def _summary(self) -> dict[str, str]:
        splits, counts = np.unique(self.splits, return_counts=True)
        split_sizes = ", ".join(
            f"{split} {count}" for split, count in zip(splits, counts, strict=True)
        )
        summary = {
            "model": self.header.model,
            "dataset": self.header.dataset,
            **({} if self.features is None else {"features": self.features}),
            "images": f"{len(self)} ({split_sizes})" if len(self) else "0",
            "embeddings": (
                f"{self.dim}-d float16"
                if self.n_tokens is None
                else f"{self.n_tokens} tokens of {self.dim // self.n_tokens} float16"
            ),
            "labels": (
                f"{len(self.labels.names)} ({_shorten(self.labels.names)})"
                if self.labels.names
                else "none"
            ),
            "prompt sets": _shorten(sorted(self.prompt_sets)) or "none",
        }
        if self.excluded:
            summary["excluded images"] = format_counts(self.excluded)
        return summary

    @property
    def excluded(self) -> dict[str, int]:
        """Number of images that the data set has but the cache lacks, by reason.

        The data set left them out, or they have no usable embedding.
        """
        return {**self.header.excluded, **count_by_reason(self.failures)}

    @property
    def n_images(self) -> int:
        """Number of images that the rows are made of."""
        return len(self)

    @property
    def prompt_sets(self) -> frozenset[str]:
        """Names of the prompt sets that the cache holds text embeddings of."""
        return frozenset(self.texts)

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """Image ids, (N,), ascending."""
        return from_utf8(self.images.id)

    @cached_property
    def patients(self) -> NDArray[np.str_]:
        """Patient ids, (N,)."""
        return from_utf8(self.images.patient)

    @cached_property
    def studies(self) -> NDArray[np.str_]:
        """Studies, (N,), each of one patient; empty where unknown."""
        return from_utf8(self.images.study)

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """Splits, (N,): train, val or test."""
        return from_utf8(self.images.split)

    @cached_property
    def views(self) -> NDArray[np.str_]:
        """View positions, (N,); empty where unknown."""
        return from_utf8(self.images.view)

    @cached_property
    def embedding(self) -> NDArray[np.float16]:
        """Embeddings, (N, D) float16, not normalized, memory-mapped.

        Rows take memory only when they are used. At the first use all are checked to be finite and
        not zero, but not against the checksums; use ``read_rows`` or ``arrays`` for that.

        A finished cache is only ever replaced, never modified, so the mapping keeps the file that
        was opened. Writes to the array stay in memory.

        Raises:
            UsageError: There are tokens instead; see ``tokens``.
            CacheError: The file is gone, damaged, or not the one that was opened, or an embedding
                cannot be used.
        """
        self.require_vectors()
        for _ in self.iter_embeddings(np.arange(len(self))):
            pass
        return self.mapped

    def iter_embeddings(
        self, rows: NDArray[np.intp]
    ) -> Iterator[tuple[slice, NDArray[np.float16]]]:
        """Yield the embeddings of some rows block by block, for one pass in little memory.

        Args:
            rows: Rows of the cache, (M,).

        Yields:
            A slice of ``rows`` and the embeddings of these, (n, D) float16, which are checked as
            ``embedding`` is.

        Raises:
            CacheError: See ``embedding``.
        """
        stored = np.asarray(self.mapped)  # indexing a memmap itself is slower
        for start in range(0, len(rows), CHUNK_ROWS):
            block = slice(start, start + CHUNK_ROWS)
            embedding = stored[rows[block]]
            self.require_usable(embedding, rows[block])
            yield block, embedding

    def require_usable(self, embedding: NDArray[np.float16], rows: NDArray[np.intp]) -> None:
        """Check that the embeddings (n, D) of n rows are finite and not zero.

        Raises:
            CacheError: One is not; the message names it.
        """
        require_valid(self.path, embedding_problems(embedding, self.images.id, rows))

    @cached_property
    def mapped(self) -> NDArray[np.float16]:
        """``embedding`` before its rows are checked with ``require_usable``.

        Raises:
            CacheError: The file is gone, damaged, or not the one that was opened.
        """
        with self._stored() as stored:
            offset = stored.id.get_offset()
            if offset is None:  # chunked storage, as other programs may write it
                rows: NDArray[np.float16] = stored[:]
                return rows
            # Not by the path, where another file may be by now.
            with os.fdopen(os.dup(descriptor(stored.file)), "rb") as stream:
                return np.memmap(
                    stream, dtype=stored.dtype, mode="c", offset=offset, shape=stored.shape
                )

    @property
    def features(self) -> str | None:
        """What of the image network is stored; None for the embedding that it has by default."""
        return self.header.encoder_spec.get("features")

    @property
    def n_tokens(self) -> int | None:
        """Number T of tokens of an image; None if there is one vector for each image."""
        return self.header.encoder_spec.get("tokens")

    @cached_property
    def tokens(self) -> NDArray[np.float16]:
        """Tokens of the images, (N, T, D / T) float16, not normalized, memory-mapped.

        The class token comes first where the network has one, then the patch tokens row by row.
        Like those of ``embedding``, rows take memory only when they are used.

        Raises:
            UsageError: The cache holds one vector for each image.
            CacheError: See ``embedding``.
        """
        if self.n_tokens is None:
            raise UsageError(
                f"{self.path} holds one vector for each image, but this needs tokens: extract them "
                "as `features`, such as tokens:7"
            )
        for _ in self.iter_embeddings(np.arange(len(self))):
            pass
        return self.mapped.reshape(len(self), self.n_tokens, -1)

    @property
    def values(self) -> NDArray[np.float16]:
        """The ``embedding`` or the ``tokens``, for a model that takes what the cache holds."""
        return self.embedding if self.n_tokens is None else self.tokens

    def require_vectors(self, advice: str = "") -> None:
        """Check that there is one vector for each image.

        Args:
            advice: What to do instead, for the message; by default, what always helps.

        Raises:
            UsageError: There are tokens.
        """
        if self.n_tokens is not None:
            advice = advice or (
                f"give the cache of {self.header.model} that was extracted without `features`"
            )
            raise UsageError(
                f"{self.path} holds {self.n_tokens} tokens of each image, but this needs one "
                f"vector: {advice}"
            )

    def require_text_space(self) -> None:
        """Check that no features are stored that texts cannot be compared with.

        Raises:
            UsageError: There are features of another space than the projected ones.
        """
        if self.features not in (None, PROJECTED.name):
            raise UsageError(
                f"{self.path} holds the `features` {self.features}, which are not in the space of "
                "any texts: fit an `alignment` and give it, or use the cache of an aligned model, "
                "such as xraysiglip, that was extracted without `features`"
            )

    @property
    def cells(self) -> NDArray[np.int8]:
        """Cells of labels as the data set states them, (N, C).

        1 positive, 0 negative, -1 uncertain, -2 blank.
        """
        return self.labels.cells

    @property
    def policy(self) -> LabelPolicy:
        """What uncertain and blank cells count as in ``labels``, and in all that is made of it."""
        return self.labels.policy

    def with_policy(self, policy: LabelPolicy) -> "Cache":
        """Return the cache with labels by another policy; nothing is read or encoded again."""
        return replace(self, labels=replace(self.labels, policy=policy))

    @property
    def inputs(self) -> "Cache":
        """The cache whose rows models take: this one, unless scores of images are joined."""
        return self

    def join_scores(
        self, scores: NDArray[np.float64], label_names: Sequence[str]
    ) -> NDArray[np.float64]:
        """Return scores of the rows, (N, C), from those of the rows of ``inputs``, (M, C).

        Args:
            scores: Scores of these labels.
            label_names: The C labels.
        """
        return scores

    def rows_of_inputs(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the rows that rows of ``inputs`` belong to."""
        return rows

    @property
    def members(self) -> "tuple[Cache, ...]":
        """The caches of one encoder each: this cache itself, unless it concatenates several."""
        return (self,)

    @property
    def sources(self) -> "tuple[Cache, ...]":
        """The caches of one data set each: this cache itself, unless it joins rows of several."""
        return (self,)

    def arrays(
        self, split: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.str_]]:
        """Return features, targets and groups as scikit-learn expects them.

        All images of a split are among them, also copies of test images in "train", which
        ``train_head`` leaves out; ``audit`` lists them.

        Args:
            split: Only the images of this split (train, val or test); all images if None.

        Returns:
            Embeddings (n, D) float32, not normalized; labels (n, C) float32 with 1 for positive,
            0 for negative and NaN for unknown; patient ids (n,), to keep the images of a patient
            together in cross-validation. Rows are ordered by image id.

        Raises:
            UnknownNameError: The cache has no such split.
            UsageError: There are tokens instead; see ``tokens``.
            CacheError: The file is gone, damaged, or not the one that was opened.

        Example:
            >>> import featurecache as fc
            >>> cache = fc.open_cache("cache/phantom/tiny.h5")
            >>> X, y, groups = cache.arrays("train")
            >>> X.shape[1], y.shape[1], len(groups) == len(X)
            (128, 14, True)
        """
        self.require_vectors()
        rows = np.arange(len(self)) if split is None else self.require_rows(split)
        embedding = np.empty((len(rows), self.dim), dtype=np.float32)
        for start in range(0, len(self), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(self))
            low, high = np.searchsorted(rows, [start, stop])
            if low < high:
                embedding[low:high] = self.read_rows(start, stop)[rows[low:high] - start]
        return embedding, self.labels.to_float(rows), self.patients[rows]

    def to_pandas(self, *, embeddings: bool = False) -> "pd.DataFrame":
        """Return one row per image: its id, metadata and labels.

        Args:
            embeddings: Add a column ``embedding`` of float32 arrays of shape (D,).

        Returns:
            A DataFrame with the columns ``id``, ``patient``, ``study``, ``split``, ``view``,
            ``sex``, ``age`` (years) and one float column per label: 1 for positive, 0 for negative,
            NaN for unknown. Unknown metadata is NaN, too.

        Raises:
            CacheError: The embeddings are asked for, and the file is gone, damaged, or not the one
                that was opened.

        Example:
            >>> import featurecache as fc
            >>> cache = fc.open_cache("cache/phantom/tiny.h5")
            >>> cache.to_pandas().columns[:8].tolist()
            ['id', 'patient', 'study', 'split', 'view', 'sex', 'age', 'Atelectasis']
        """
        import pandas as pd

        labels = pd.DataFrame(self.labels.to_float(), columns=label_columns(self.labels.names))
        frame = pd.concat([self.images.to_pandas(), labels], axis=1)
        if embeddings:
            frame["embedding"] = list(self.arrays()[0])
        return frame

    def to_torch(self, split: str | None = None) -> "TensorDataset":
        """Return embeddings and labels as a data set of PyTorch, for a ``DataLoader``.

        Args:
            split: Only the images of this split (train, val or test); all images if None.

        Returns:
            A ``TensorDataset`` of embeddings (n, D) float16, not normalized, and labels (n, C)
            float32 with 1 for positive, 0 for negative and NaN for unknown. All images are not
            copied but memory-mapped; see ``embedding``.

        Raises:
            UnknownNameError: The cache has no such split.
            CacheError: The file is gone, damaged, or not the one that was opened.

        Example:
            >>> import featurecache as fc
            >>> cache = fc.open_cache("cache/phantom/tiny.h5")
            >>> embedding, labels = cache.to_torch("train")[0]
            >>> embedding.shape, labels.shape
            (torch.Size([128]), torch.Size([14]))
        """
        import torch
        from torch.utils.data import TensorDataset

        rows = slice(None) if split is None else self.require_rows(split)
        vectors = torch.from_numpy(np.asarray(self.embedding)[rows])
        return TensorDataset(vectors, torch.from_numpy(self.labels.to_float(rows)))

    def to_anndata(self) -> "AnnData":
        """Return the cache as an AnnData object, for scanpy and the like.

        Returns:
            ``X``: embeddings, (N, D) float16, not normalized, memory-mapped. ``obs``: the metadata
            and labels of ``to_pandas``, by image id, with "" for unknown texts, and "/" in the name
            of a label replaced by "_", which AnnData could not write.

        Raises:
            CacheError: The file is gone, damaged, or not the one that was opened.
            UsageError: anndata is not installed.

        Example:
            >>> import featurecache as fc
            >>> cache = fc.open_cache("cache/phantom/tiny.h5")
            >>> cache.to_anndata().obs["split"].iloc[0] in ("train", "val", "test")
            True
        """
        import pandas as pd

        try:
            from anndata import AnnData
        except ImportError as error:
            raise UsageError(
                "`to_anndata` needs anndata: pip install 'featurecache[export]'"
            ) from error
        # AnnData 0.12 writes neither the text type of pandas 3 nor memmaps.
        frame = self.to_pandas()
        texts = frame[list(METADATA[1:-1])].astype(object).fillna("")
        labels = frame[frame.columns[len(METADATA) :]].set_axis(
            label_columns(name.replace("/", "_") for name in self.labels.names), axis=1
        )
        obs = pd.concat([texts, frame["age"], labels], axis=1)
        obs.index = pd.Index(self.ids.tolist(), dtype=object, name="id")
        dimensions = pd.Index([str(number) for number in range(self.dim)], dtype=object)
        var = pd.DataFrame(index=dimensions)
        return AnnData(np.asarray(self.embedding), obs=obs, var=var)

    def text_embeddings(self, prompts: str | PromptSet | None = None) -> NDArray[np.float32]:
        """Return one text embedding per label: the mean over the prompts of a set.

        Args:
            prompts: Prompt set, or its name; may be None if the cache holds only one.

        Returns:
            Ensembles (C, D) float32 of unit length, in the order of the cache's labels:
            ``t_c = norm(mean_k norm(e_ck))`` over the K prompts of label c.

        Raises:
            CacheError: The cache holds no text, holds several sets and none was named, or the set
                lacks a label.
            UnknownNameError: There is no prompt set of that name.

        Example:
            >>> import featurecache as fc
            >>> cache = fc.open_cache("cache/phantom/tiny.h5")
            >>> cache.text_embeddings("signs").shape
            (14, 128)
        """
        return self.text(prompts).positive.ensemble

    def read_rows(self, start: int, stop: int) -> NDArray[np.float16]:
        """Read embeddings from the file and check them against their checksums.

        Args:
            start: First row.
            stop: Row after the last.

        Returns:
            Embeddings (stop - start, D) float16, not normalized.

        Raises:
            CacheError: The file is gone, damaged, or not the one that was opened, or an embedding
                cannot be used.
        """
        with self._stored() as stored:
            rows: NDArray[np.float16] = read_verified(stored, self.sums, start, stop)
        self.require_usable(rows, np.arange(start, stop))
        return rows

    @contextmanager
    def _stored(self) -> "Iterator[h5py.Dataset]":
        """Open the embeddings in the file."""
        with opened(self.path, FORMAT) as file:
            # An extraction may have replaced the file by one with other images. Not all file
            # systems have reliable inodes and times.
            same = (
                file_state(file) == self.state
                and attribute(file, "fingerprint") == self.fingerprint
                and np.array_equal(read_checksums(file).rows[EMBEDDING], self.sums)
            )
            if not same:
                raise CacheError(f"{self.path} has changed since it was opened: open it again")
            yield dataset(file["images"], "embedding")

    def require_images(self) -> None:
        """Check that the rows are images and not studies.

        Raises:
            UsageError: They are studies.
        """
        if self.units.level == STUDY:
            raise UsageError(
                f"the rows of {self.path} are studies, but this is about images: open the cache "
                "with `level` image"
            )

    def require_labels(self) -> None:
        """Check that a label of at least one image is known.

        Raises:
            UsageError: None is.
        """
        if (self.labels.values == UNKNOWN).all():
            raise UsageError(
                f"the cache {self.path} has no labels: extract the same images again from a data "
                f"set with labels, such as a CSV file, and with the `name` {self.header.dataset}. "
                "It takes seconds, because the embeddings are kept"
            )

    def rows(self, split: str) -> NDArray[np.intp]:
        """Return the row indices of one split, ascending; empty if there is no such split.

        Raises:
            CacheError: A patient is in two splits, although the split is not by image.
        """
        if self.mixed_patients:
            raise CacheError(
                f"{self.path}: images of {count_noun(len(self.mixed_patients), 'patient')} are in "
                f"more than one split, patient {self.mixed_patients[0]!r} the first, so scores "
                "would be optimistic: extract again from a data set in which each patient is in "
                "one split. The embeddings are kept"
            )
        return np.flatnonzero(self.splits == split)

    def require_rows(self, split: str) -> NDArray[np.intp]:
        """Return the row indices of one split, ascending.

        Raises:
            UnknownNameError: No image is in it.
            CacheError: See ``rows``.
        """
        rows = self.rows(split)
        if not len(rows):
            raise UnknownNameError("split", split, set(self.splits.tolist()))
        return rows

    @cached_property
    def mixed_patients(self) -> list[str]:
        """Patients in more than one split; empty if the split is by image and says so."""
        if self.header.image_level_split:
            return []
        return [patient.decode() for patient in split_conflicts(self.images).tolist()]

    @property
    def patients_known(self) -> bool:
        """Whether patients are known; if not, each image counts as its own patient."""
        return not np.array_equal(self.images.patient, self.images.id)

    def records(self, rows: NDArray[np.intp]) -> list[ImageRecords]:
        """Return what identifies the images of these rows, by collection."""
        return [self._records(rows)]

    def _records(self, rows: NDArray[np.intp]) -> ImageRecords:
        patient = self.images.patient[rows]
        return ImageRecords(
            collection=self.header.collection,
            id=self.images.id[rows],
            patient=patient if self.patients_known else np.zeros_like(patient),
            sha256=self.images.sha256[rows],
            perceptual_hash=self.images.perceptual_hash[rows],
        )

    @cached_property
    def copies(self) -> SplitCopies:
        """Training and validation images of which a later split has a copy."""
        return copies_across_splits(self._records(np.arange(len(self))), self.splits)

    def learning_rows(self, split: str) -> NDArray[np.intp]:
        """Return the rows of "train" or "val" to learn from or choose on: without ``copies``."""
        return self.copies.without(self.rows(split))

    def training_provenance(self, train: NDArray[np.intp]) -> Provenance:
        """Return the provenance of a model trained on these rows and selected on validation."""
        rows = np.concatenate([train, self.learning_rows("val")])
        provenance = Provenance(trained_on=self.header.trained_on)
        for records in self.records(rows):
            provenance = provenance.with_training(records)
        return provenance

    def text(self, prompts: str | PromptSet | None = None) -> TextSet:
        """Return an encoded prompt set, with the cache's labels in the cache's order.

        Args:
            prompts: The set, or its name; may be None if the cache holds only one.

        Raises:
            CacheError: The cache holds no text, holds several sets and none was named, or the set
                lacks a label or has a value that cannot be used.
            UnknownNameError: There is no prompt set of that name.
            UsageError: The cache has no labels.
        """
        prompts = self.prompt_set_name(prompts)
        if not self.labels.names:
            self.require_labels()
        if not self.texts:
            raise CacheError(
                f"{self.path} holds no text embeddings, because its encoder has no text tower or "
                "no prompts were encoded: use a head without text, such as baseline, or extract "
                "with a model that encodes text"
            )
        if prompts is None:
            if len(self.texts) > 1:
                raise CacheError(
                    "give `prompts`: the cache holds several prompt sets "
                    f"({', '.join(sorted(self.texts))})"
                )
            prompts = next(iter(self.texts))
        if prompts not in self.texts:
            raise UnknownNameError(
                f"prompt set of {self.path}",
                prompts,
                self.texts,
                hint="to add one, extract again with it",
            )
        text = self.texts[prompts]
        require_valid(self.path, text_problems(text))
        return text.select(self.labels.names)

    def prompt_set_name(self, prompts: str | PromptSet | None) -> str | None:
        """Return the name of a prompt set after checking that the cache holds these very prompts.

        Args:
            prompts: A prompt set; a name or None is returned as it is.

        Raises:
            CacheError: The cache holds other prompts of that name, or no text.
            UnknownNameError: There is no prompt set of that name.
        """
        if not isinstance(prompts, PromptSet):
            return prompts
        text = self.text(prompts.name)
        stored = (text.positive.prompts, () if text.negative is None else text.negative.prompts)
        given = (prompts.positive_texts(text.labels), prompts.negative_texts(text.labels) or ())
        if stored != tuple(tuple(map(tuple, texts)) for texts in given):
            raise CacheError(
                f"{self.path} holds other prompts named {prompts.name!r}: extract again with this "
                "prompt set"
            )
        return prompts.name


def file_state(file: "h5py.File") -> tuple[int, int, int]:
    """Return an open file's inode, its size in bytes and its mtime_ns."""
    status = os.fstat(descriptor(file))
    return status.st_ino, status.st_size, status.st_mtime_ns


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
