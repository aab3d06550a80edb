"""Audit a data set for problems that make metrics on it misleading."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.audit.domain_shift import DomainShift, domain_shift
from featurecache.audit.doubtful_labels import DoubtfulLabels, doubtful_labels
from featurecache.audit.label_support import LabelSupport, label_support
from featurecache.audit.leakage import (
    IdenticalFiles,
    SharedPatients,
    fine_tuning_images,
    identical_files,
    shared_patients,
)
from featurecache.audit.near_duplicates import NEIGHBORS, NearDuplicates, near_duplicates
from featurecache.audit.shortcuts import Shortcuts, shortcut_probes
from featurecache.audit.view_change import ViewChange, view_change
from featurecache.datasets.splits import SPLITS
from featurecache.errors import UsageError
from featurecache.extraction.source import as_dataset, cached_files
from featurecache.progress import DetailedProgress
from featurecache.store.open import CacheLike, open_cache

if TYPE_CHECKING:
    from featurecache.extraction.source import DatasetLike


@dataclass(frozen=True, repr=False)
class Audit:
    """The result of an audit. Undefined values are None.

    Example:
        >>> import featurecache as fc
        >>> fc.audit("cache/phantom/tiny.h5", n_bootstrap=20).splits["test"] > 0
        True

    Attributes:
        dataset: Name of the data set.
        model: Name of the encoder.
        n: Number of images.
        n_patients: Number of patients; None where patients are unknown.
        splits: Number of images by split.
        shared_patients: Patients with images in several splits; None where patients are unknown.
        fine_tuning_images: Number of images, by split, that the encoder was fine-tuned on.
        identical_files: Images whose files are byte-identical.
        reencoded_copies: Number of training and validation images that are re-encoded or resized
            copies of images of a later split, by the perceptual hashes in the cache.
        near_duplicates: Nearly identical images in different splits.
        shortcuts: How well view, sex and age can be predicted from the embeddings.
        label_support: Numbers of positives and negatives by label, split and view.
        doubtful_labels: Labels that are probably wrong; None if they were not looked for.
        domain_shift: How unlike the images are to those of another cache; None without one.
        view_change: What averaging views changed; None for a cache without views.
    """

    dataset: str
    model: str
    n: int
    n_patients: int | None
    splits: Mapping[str, int]
    shared_patients: SharedPatients | None
    fine_tuning_images: Mapping[str, int]
    identical_files: IdenticalFiles
    reencoded_copies: int
    near_duplicates: NearDuplicates
    shortcuts: Shortcuts
    label_support: Mapping[str, LabelSupport]
    doubtful_labels: DoubtfulLabels | None = None
    domain_shift: DomainShift | None = None
    view_change: ViewChange | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the audit as a JSON value."""
        return asdict(self)

    def __repr__(self) -> str:
        rows = "\n".join(f"  {name}: {value}" for name, value in self._summary().items())
        return f"Audit of {self.dataset} by {self.model}\n{rows}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th>"
            f"<td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self._summary().items()
        )
        title = f"Audit of {escape(self.dataset)} by {escape(self.model)}"
        return f"<table><caption>{title}</caption>{rows}</table>"

    def _summary(self) -> dict[str, str]:
        splits = ", ".join(f"{split} {count}" for split, count in self.splits.items())
        shared, near = self.shared_patients, self.near_duplicates
        shift, change = self.domain_shift, self.view_change
        across = self.identical_files.across_splits
        probes = {
            **{f"{name} AUROC": probe.highest_auroc for name, probe in self.shortcuts.categories()},
            "age R2": None if self.shortcuts.age is None else self.shortcuts.age.r2,
        }
        weak = [
            label
            for label, support in self.label_support.items()
            if any(split.state != "enough" for split in support.splits.values())
        ]
        return {
            "images": f"{self.n} ({splits})",
            "patients in several splits": "unknown" if shared is None else str(shared.patients),
            "byte-identical images across splits": str(across.images),
            "re-encoded copies across splits": str(self.reencoded_copies),
            "near-duplicate pairs across splits": (
                f"not checked ({len(near.suspected.pairs)} suspected)"
                if near.pairs is None
                else str(len(near.pairs))
            ),
            "images that the encoder was fine-tuned on": str(sum(self.fine_tuning_images.values())),
            "predictable from embeddings": (
                ", ".join(
                    f"{name} {value:.3f}" for name, value in probes.items() if value is not None
                )
                or "unknown"
            ),
            "labels with too little support in a split": (
                f"{len(weak)} of {len(self.label_support)}" if self.label_support else "no labels"
            ),
            **(
                {}
                if self.doubtful_labels is None
                else {"doubtful labels": str(len(self.doubtful_labels.cells))}
            ),
            **({} if shift is None else {f"distinguished from {shift.dataset}": _auroc(shift)}),
            **(
                {}
                if change is None or change.cosine is None
                else {"change by views": _cosine(change)}
            ),
        }


def _cosine(change: ViewChange) -> str:
    return f"cosine {change.cosine:.4f}"


def _auroc(shift: DomainShift) -> str:
    return f"AUROC {shift.auroc:.3f}"


def audit(
    cache: CacheLike,
    data: "DatasetLike | None" = None,
    *,
    labels: bool = False,
    against: CacheLike | None = None,
    neighbors: int = NEIGHBORS,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: DetailedProgress | None = None,
) -> Audit:
    """Look for leaks between splits, shortcuts, and labels that are too rare or probably wrong.

    Args:
        cache: A cache of the data set, by any encoder, or its path.
        data: The data set, anything that ``load_dataset`` takes, or the cache, for the data set
            that it was extracted from. Its images are read to confirm near-duplicates by their
            pixels; without it they are only suspected.
        labels: Also look for labels that are probably wrong, which takes some seconds per label and
            ten thousand images; see ``Audit.doubtful_labels``.
        against: Another cache by the same encoder, or its path, such as that of the training:
            ``Audit.domain_shift`` says how well its images can be distinguished from those of
            ``cache``, and which of these are most unlike them.
        neighbors: Number of nearest images in other splits that each image is compared with.
        n_bootstrap: Number of bootstrap samples of patients; 0 for no intervals.
        seed: Seed of the folds and of the bootstrap.
        progress: Called while images are read and compared, and probes fitted.

    Returns:
        The audit.

    Raises:
        RunError: ``against`` is of another encoder; the message names the field that differs.
        UsageError: ``data`` lacks an image of the cache or has another file for one, there are no
            ``neighbors``, the rows of a cache are studies, ``labels`` are to be looked at and it
            has none, or a cache has too few patients to be compared with ``against``.
        ValueError: An embedding has norm 0, NaN or infinity.

    Example:
        >>> import featurecache as fc
        >>> result = fc.audit("cache/phantom/tiny.h5", n_bootstrap=20)
        >>> result.shared_patients.patients
        0
        >>> 0 <= result.shortcuts.sex.values["F"].auroc <= 1
        True
        >>> result = fc.audit("cache/phantom/tiny.h5", labels=True, n_bootstrap=20)
        >>> result.doubtful_labels.to_pandas().columns[4:].tolist()
        ['label', 'value', 'probability', 'corrected']
    """
    if neighbors < 1:
        raise UsageError(f"`neighbors` is {neighbors}: must be at least 1")
    cache = open_cache(cache)
    cache.require_images()
    if labels:
        cache.require_labels()
    shift = None
    if against is not None:
        other = open_cache(against)
        shift = domain_shift(cache, other, n_bootstrap=n_bootstrap, seed=seed)
    files = None if data is None else cached_files(cache, as_dataset(data))
    counts = {split: int((cache.splits == split).sum()) for split in SPLITS}
    return Audit(
        dataset=cache.header.dataset,
        model=cache.header.model,
        n=len(cache),
        n_patients=len(np.unique(cache.patients)) if cache.patients_known else None,
        splits={split: count for split, count in counts.items() if count},
        shared_patients=shared_patients(cache),
        fine_tuning_images=fine_tuning_images(cache),
        identical_files=identical_files(cache),
        reencoded_copies=len(cache.copies.same_content),
        near_duplicates=near_duplicates(cache, files, neighbors=neighbors, progress=progress),
        shortcuts=shortcut_probes(cache, n_bootstrap=n_bootstrap, seed=seed, progress=progress),
        label_support=label_support(cache),
        doubtful_labels=(
            doubtful_labels(cache, n_bootstrap=n_bootstrap, seed=seed, progress=progress)
            if labels
            else None
        ),
        domain_shift=shift,
        view_change=view_change(cache, seed=seed),
    )
