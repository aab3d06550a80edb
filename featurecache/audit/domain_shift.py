"""Domain shift: how unlike the images of one cache are to those of another one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.audit.probe import MIN_PATIENTS
from featurecache.audit.shortcuts import ValueScore, score_value
from featurecache.encoders.compatibility import check_encoder_specs
from featurecache.errors import UsageError
from featurecache.metrics.bootstrap import resample_patients
from featurecache.metrics.familiarity import COLUMNS, fit_familiarity, sample_patients
from featurecache.metrics.similarity import normalize_rows
from featurecache.store.cache import Cache
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

N_FOREIGN: Final = 100
"""Maximum number of foreign images that are listed."""

_SAMPLE_SIZE: Final = 2000
"""Patients of each cache that the probe is fitted to, with one image each."""


@dataclass(frozen=True)
class ForeignImage:
    """An image that is unlike those of the other cache.

    Attributes:
        image: Its id.
        split: Its split.
        knn: Its percentile by the distance to its fifth nearest image there; see ``Familiarity``.
        mahalanobis: Its percentile by the Mahalanobis distance from them.
    """

    image: str
    split: str
    knn: float
    mahalanobis: float


@dataclass(frozen=True)
class DomainShift:
    """How unlike the images of a cache are to those of another one, by the same encoder.

    Attributes:
        against: File of the other cache.
        dataset: Name of its data set.
        n: Number of images of the cache that are classified, one each of as many patients.
        n_against: Number of those of the other cache.
        auroc: How well a linear classifier distinguishes images of either cache, of unseen
            patients: 0.5 if not at all, as for two samples of one hospital; 1 if always.
        ci95: Its interval over patients; None without bootstrap samples.
        n_reference: Number of images of the other cache that familiarity compares with.
        knn: Median percentile of all images of the cache by nearest neighbors; about 50 for images
            like those of the other cache.
        mahalanobis: The same by Mahalanobis distance.
        foreign: The images with the lowest percentiles, most foreign first, at most 100.
        notes: Differences between the caches that matter less, such as library versions.
    """

    against: str
    dataset: str
    n: int
    n_against: int
    auroc: float
    ci95: tuple[float, float] | None
    n_reference: int
    knn: float
    mahalanobis: float
    foreign: tuple[ForeignImage, ...]
    notes: tuple[str, ...] = ()

    def to_pandas(self) -> "pd.DataFrame":
        """Return a DataFrame of ``foreign`` with a row for each image."""
        import pandas as pd

        columns = ["image", "split", "knn", "mahalanobis"]
        return pd.DataFrame([vars(image) for image in self.foreign], columns=columns)


def domain_shift(
    cache: Cache, against: Cache, *, n_bootstrap: int = 1000, seed: int = 0
) -> DomainShift:
    """Compare the images of a cache with those of another one.

    The probe learns from one random image each of at most 2,000 random patients of either cache,
    in five folds of patients; see ``probe.cross_val_predict``. Patients of the same name are one
    person if both caches are of one collection. The interval of its AUROC does not include the
    randomness of fitting and folds.

    Args:
        cache: The cache.
        against: The cache that its images are compared with.
        n_bootstrap: Number of bootstrap samples of patients; 0 for no interval.
        seed: Seed of the choice of images, the folds and the bootstrap.

    Raises:
        RunError: The caches are of different encoders; the message names the field.
        UsageError: A cache has too few patients, or its rows are studies or tokens.
    """
    notes = check_encoder_specs(
        [member.header.encoder_spec for member in against.members],
        [member.header.encoder_spec for member in cache.members],
        source=against.path,
    )
    for one in (cache, against):
        one.require_images()
        one.require_vectors()
        number = len(np.unique(one.patients))
        if number < MIN_PATIENTS:
            raise UsageError(
                f"{one.path} has {count_noun(number, 'patient')}, and at least {MIN_PATIENTS} are "
                "needed to compare it with another cache"
            )
    probed = _probe(cache, against, n_bootstrap=n_bootstrap, seed=seed)
    familiarity = fit_familiarity(
        against.embedding, np.arange(len(against)), against.patients, seed=seed
    )
    assert familiarity is not None  # it needs no more patients than the probe
    distances = familiarity.distances(cache.embedding)
    percentiles = familiarity.percentiles_of(distances)
    # Beyond all images there, percentiles are equal, but distances are not.
    ranks = np.argsort(np.argsort(-distances, axis=0), axis=0).min(axis=1)
    order = np.lexsort((ranks, percentiles.min(axis=1)))[:N_FOREIGN]
    medians = dict(zip(COLUMNS, np.median(percentiles, axis=0).tolist(), strict=True))
    return DomainShift(
        against=str(against.path),
        dataset=against.header.dataset,
        n=probed[1].n,
        n_against=probed[0] - probed[1].n,
        auroc=probed[1].auroc,
        ci95=probed[1].ci95,
        n_reference=len(familiarity.reference),
        knn=medians[COLUMNS[0]],
        mahalanobis=medians[COLUMNS[1]],
        foreign=tuple(
            ForeignImage(str(cache.ids[row]), str(cache.splits[row]), *percentiles[row].tolist())
            for row in order
        ),
        notes=tuple(notes),
    )


def _probe(cache: Cache, against: Cache, *, n_bootstrap: int, seed: int) -> tuple[int, ValueScore]:
    """Return the number of images, and how well those of the cache are distinguished."""
    rows = [sample_patients(one.patients, size=_SAMPLE_SIZE, seed=seed) for one in (cache, against)]
    pairs = list(zip((cache, against), rows, strict=True))
    embeddings = np.concatenate([normalize_rows(one.embedding[of]) for one, of in pairs])
    truth = np.repeat([1, 0], [len(of) for of in rows]).astype(np.int8)
    patients = np.concatenate([_persons(one)[of] for one, of in pairs])
    resamples = resample_patients(patients, n_bootstrap=n_bootstrap, seed=seed)
    return len(truth), score_value(embeddings, truth, patients, resamples, seed=seed)


def _persons(cache: Cache) -> NDArray[np.str_]:
    """Return the patient of each row, with the collection, whose names they are."""
    if not cache.patients_known:
        return np.char.add(f"{cache.path}: ", cache.patients)
    return np.char.add(f"{cache.header.collection}: ", cache.patients)
