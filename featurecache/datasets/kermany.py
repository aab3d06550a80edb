"""The UCSD paediatric pneumonia films: Kermany et al., Cell 172 (2018), CC BY 4.0."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.duplicates import identical_files
from featurecache.datasets.scan import scan_folder
from featurecache.datasets.splits import VALIDATION_FRACTION, carve_validation
from featurecache.errors import DatasetError, UnknownNameError, UsageError

CLASSES = ("NORMAL", "PNEUMONIA")

SUBSETS = ("all", "viral")

IMAGE_LEVEL_PROTOCOL = "image-level-1967-493-616"

PUBLISHED = "published"

SPLIT_CHOICES = ("official", PUBLISHED, IMAGE_LEVEL_PROTOCOL)

AS_PUBLISHED = (
    "The split is that of the folders as published: byte-identical copies stay, and so do training "
    "images of patients whose number is in test."
)

_NAME_PATTERNS = {
    "NORMAL": re.compile(r"(?P<patient>(NORMAL2-)?IM-\d{4})-\d{4}(-\d{4})?"),
    "PNEUMONIA": re.compile(r"(?P<patient>person\d+)_(?P<germ>virus|bacteria)_\d+(_\d+)?"),
}


@dataclass(frozen=True)
class _Film:
    """One image: its folders and what its name says."""

    id: str
    folder: str
    label: int
    patient: str
    viral: bool


def load_kermany(
    root: str | os.PathLike[str],
    *,
    subset: str = "all",
    split: str = "official",
    seed: int = 0,
) -> Dataset:
    """Load the paediatric pneumonia films, with the one label ``Pneumonia``.

    The official test folder stays as it is. Byte-identical copies are dropped, and so are the
    training images of patients whose number is in test as well: the two may or may not be the
    same child, because numbers repeat between germs, and leaving them out is the safe reading.
    The official validation folder holds 16 images, too few to choose anything by: its patients
    are validation, and further patients are carved out of train until validation has a tenth of
    the images that are not test.

    Args:
        root: Folder of ``train``, ``test`` and perhaps ``val``, or one that holds it as
            ``chest_xray``; each with ``NORMAL`` and ``PNEUMONIA``.
        subset: "all", or "viral": all normals, and of the pneumonias only the viral ones.
        split: "official"; "published": the folders as they are, with copies and shared patients,
            for an audit to look at; or "image-level-1967-493-616": the published protocol that
            pools the folders of the viral subset and splits images, not patients. It counts
            duplicates, so they stay. Scores on the last two are optimistic.
        seed: Decides the parts of the split that no folder decides.

    Returns:
        The manifest "kermany" or "kermany-viral", with "-published" or "-image-level" behind it
        for the splits of these names.

    Raises:
        DatasetError: a folder is missing or without images, a file's name does not tell its
            patient, or, in the official split, identical files have different labels.
        UnknownNameError: there is no such subset or split.
        UsageError: the image-level protocol is asked for another subset than "viral".
    """
    import pandas as pd

    if subset not in SUBSETS:
        raise UnknownNameError("Kermany subset", subset, SUBSETS)
    if split not in SPLIT_CHOICES:
        raise UnknownNameError("Kermany split", split, SPLIT_CHOICES)
    if split == IMAGE_LEVEL_PROTOCOL and subset != "viral":
        raise UsageError(f"the split {split} was published for the subset viral: choose it too")

    root = _find_root(Path(root))
    films = _films(root)
    notes = []
    if subset == "viral":
        viral = [film for film in films if film.label == 0 or film.viral]
        notes.append(
            f"The subset is viral: {len(films) - len(viral):,} bacterial pneumonias are left out."
        )
        films = viral
    # Each set of images has a name, and with it a cache, of its own: two splits keep the copies.
    name = "kermany" if subset == "all" else "kermany-viral"
    if split == IMAGE_LEVEL_PROTOCOL:
        name += "-image-level"
        assigned, more = _image_level_split(films, seed)
    elif split == PUBLISHED:
        name += "-published"
        assigned, more = np.array([film.folder for film in films]), [AS_PUBLISHED]
    else:
        films, more = _without_copies(root, films)
        notes += more
        films, more = _without_test_patients(films)
        notes += more
        assigned, more = _official_split(films, seed)
    return Dataset(
        name=name,
        root=root,
        images=pd.DataFrame(
            {
                "id": [film.id for film in films],
                "path": [film.id for film in films],
                "patient": [film.patient for film in films],
                "split": assigned,
                "view": "",
            },
            dtype=str,
        ),
        labels=_labels(films),
        label_names=("Pneumonia",),
        notes=(*notes, *more),
        image_level_split=split != "official",
        collection="kermany",
    )


def is_kermany(folder: Path) -> bool:
    """Return whether a folder has the layout and the file names of the Kermany data set."""
    root = _nested_root(folder)
    if root is None:
        return False
    for class_name, pattern in _NAME_PATTERNS.items():
        class_folder = root / "train" / class_name
        if not class_folder.is_dir():
            return False
        names = scan_folder(class_folder).images
        if not any(pattern.fullmatch(Path(name).stem) for name in names):
            return False
    return True


def _nested_root(root: Path) -> Path | None:
    """Return the folder with train and test; the archive nests chest_xray in chest_xray."""
    nested = root / "chest_xray"
    for folder in (root, nested, nested / "chest_xray"):
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            return folder
    return None


def _find_root(root: Path) -> Path:
    folder = _nested_root(root)
    if folder is None:
        raise DatasetError(
            f"no folders train and test in {root} or {root / 'chest_xray'}: unpack them there"
        )
    return folder


def _films(root: Path) -> list[_Film]:
    """All images, sorted by id."""
    films = []
    for folder in ("train", "val", "test"):
        # The official val folder is optional: copies of the data set often lack it.
        if folder == "val" and not (root / folder).is_dir():
            continue
        for label, name in enumerate(CLASSES):
            images = scan_folder(root / folder / name).images
            if not images:
                raise DatasetError(f"no images in {root / folder / name}: unpack them there")
            films += [_film(folder, name, label, image) for image in images]
    return sorted(films, key=lambda film: film.id)


def _film(folder: str, class_name: str, label: int, image: str) -> _Film:
    match = _NAME_PATTERNS[class_name].fullmatch(Path(image).stem)
    if match is None:
        example = "person1_virus_6.jpeg" if label else "IM-0115-0001.jpeg"
        raise DatasetError(
            f"the name of {folder}/{class_name}/{image} does not tell its patient: "
            f"a name in {class_name} looks like {example}; move the file away or rename it"
        )
    return _Film(
        id=f"{folder}/{class_name}/{image}",
        folder=folder,
        label=label,
        patient=match["patient"],
        viral=bool(label) and match["germ"] == "virus",
    )


def _labels(films: list[_Film]) -> npt.NDArray[np.int8]:
    return np.array([[film.label] for film in films], dtype=np.int8)


def _without_copies(root: Path, films: list[_Film]) -> tuple[list[_Film], list[str]]:
    """Keep one of each group of identical files: one in test where there is one."""
    by_path = {root / film.id: film for film in films}
    groups = [[by_path[path] for path in group] for group in identical_files(list(by_path))]
    dropped: dict[_Film, _Film] = {}
    for group in groups:
        # Films come sorted by id, and so "test/" before "train/" and "val/": the test folder stays
        # as complete as it can be.
        kept, *copies = group
        for copy in copies:
            if copy.label != kept.label:
                raise DatasetError(
                    f"{kept.id} and {copy.id} in {root} are the same file with different labels: "
                    "remove the wrong one"
                )
            dropped[copy] = kept
    if not dropped:
        return films, []
    # Notes travel into caches and reports, so they name no file.
    note = (
        f"{len(dropped):,} byte-identical copies are left out; extracted with --split published "
        "they stay, and audit lists them."
    )
    return [film for film in films if film not in dropped], [note]


def _without_test_patients(films: list[_Film]) -> tuple[list[_Film], list[str]]:
    test = {film.patient for film in films if film.folder == "test"}
    kept = [film for film in films if film.folder == "test" or film.patient not in test]
    if len(kept) == len(films):
        return films, []
    shared = test & {film.patient for film in films if film.folder != "test"}
    note = (
        f"{len(films) - len(kept):,} training images of {len(shared):,} patients are left out "
        "because the same patient number is in test; numbers repeat between germs, so they may or "
        "may not be the same child."
    )
    return kept, [note]


def _official_split(films: list[_Film], seed: int) -> tuple[npt.NDArray[np.str_], list[str]]:
    official = {film.patient for film in films if film.folder == "val"}
    split = np.array(
        [
            "test" if film.folder == "test" else "val" if film.patient in official else "train"
            for film in films
        ]
    )
    counts = Counter(split.tolist())
    given = (
        f" The official val folder is part of it, with all images of its {len(official)} patients."
        if official
        else ""
    )
    # A tenth of all images outside test, less what the official val folder brings already.
    wanted = VALIDATION_FRACTION * (counts["train"] + counts["val"]) - counts["val"]
    if wanted > 0:
        split = carve_validation(
            [film.patient for film in films],
            _labels(films),
            split,
            fraction=wanted / counts["train"],
            seed=seed,
        )
    note = (
        "The split is the official one: the test folder is test, and a tenth of the others is "
        f"validation, by patient.{given}"
    )
    return split, [note]


def _image_level_split(films: list[_Film], seed: int) -> tuple[npt.NDArray[np.str_], list[str]]:
    """Per class, ceil(20 %) to test and ceil(20 %) of the rest to validation."""
    rng = np.random.default_rng(seed)
    labels = _labels(films)[:, 0]
    split = np.full(len(films), "train")
    for label in range(len(CLASSES)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        n_test = _fifth(len(rows))
        n_val = _fifth(len(rows) - n_test)
        split[rows[:n_test]] = "test"
        split[rows[n_test : n_test + n_val]] = "val"
    counts = Counter(split.tolist())
    note = (
        f"The split is {IMAGE_LEVEL_PROTOCOL}: the folders are pooled and images, not patients, "
        f"are drawn; here it gives {counts['train']:,} train, {counts['val']:,} validation and "
        f"{counts['test']:,} test. Byte-identical copies stay, because the published counts "
        "include them."
    )
    return split, [note]


def _fifth(count: int) -> int:
    """20 %, rounded up, in whole numbers: 0.2 * 15 is more than 3 as a float."""
    return -(-count // 5)
