"""UCSD pediatric pneumonia data set: Kermany et al., Cell 172 (2018), CC BY 4.0."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
    "The split is that of the published folders: byte-identical copies are kept, and so are "
    "training images of patients whose number is also in test."
)

_NAME_PATTERNS = {
    "NORMAL": re.compile(r"(?P<patient>(NORMAL2-)?IM-\d{4})-\d{4}(-\d{4})?"),
    "PNEUMONIA": re.compile(r"(?P<patient>person\d+)_(?P<germ>virus|bacteria)_\d+(_\d+)?"),
}


@dataclass(frozen=True)
class _Image:
    """One image: its folder, and what its name contains."""

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
    """Load the pediatric pneumonia data set, with the single label ``Pneumonia``.

    In the official split, the test folder is kept as it is. Byte-identical copies are dropped, and
    so are training images of patients whose number is also in test: they may or may not be the
    same child, because numbers repeat between germs, so dropping them is the safe choice. The
    official validation folder has only 16 images. Its patients are validation, and further
    patients are moved from train until validation has a tenth of the images outside test.

    Args:
        root: Folder with ``train``, ``test`` and optionally ``val``, each with ``NORMAL`` and
            ``PNEUMONIA``; or the folder that contains it as ``chest_xray``.
        subset: "all", or "viral" for all normal images and the viral pneumonias only.
        split: "official"; "published" for the folders as they are, with copies and shared patients
            (for an audit); or "image-level-1967-493-616" for the published protocol that pools the
            folders of the viral subset and splits images, not patients. That protocol counts
            duplicates, so they are kept. Scores on the last two are optimistic.
        seed: Seed of the splits that no folder defines.

    Returns:
        The data set "kermany" or "kermany-viral", followed by "-published" or "-image-level" for
        these splits.

    Raises:
        DatasetError: If a folder is missing or has no images, the patient cannot be derived from a
            file name, or, in the official split, identical files have different labels.
        UnknownNameError: If there is no such subset or split.
        UsageError: If the image-level protocol is requested for another subset than "viral".
    """
    import pandas as pd

    if subset not in SUBSETS:
        raise UnknownNameError("Kermany subset", subset, SUBSETS)
    if split not in SPLIT_CHOICES:
        raise UnknownNameError("Kermany split", split, SPLIT_CHOICES)
    if split == IMAGE_LEVEL_PROTOCOL and subset != "viral":
        raise UsageError(f"the split {split} requires `subset` viral")

    root = _find_root(Path(root))
    images = _list_images(root)
    notes = []
    if subset == "viral":
        viral = [image for image in images if image.label == 0 or image.viral]
        notes.append(
            f"The subset is viral: {len(images) - len(viral):,} bacterial pneumonias are left out."
        )
        images = viral
    # A different set of images needs a different name, and so a different cache.
    name = "kermany" if subset == "all" else "kermany-viral"
    if split == IMAGE_LEVEL_PROTOCOL:
        name += "-image-level"
        assigned, more = _image_level_split(images, seed)
    elif split == PUBLISHED:
        name += "-published"
        assigned, more = np.array([image.folder for image in images]), [AS_PUBLISHED]
    else:
        images, more = _drop_copies(root, images)
        notes += more
        images, more = _drop_test_patients(images)
        notes += more
        assigned, more = _official_split(images, seed)
    return Dataset(
        name=name,
        root=root,
        images=pd.DataFrame(
            {
                "id": [image.id for image in images],
                "path": [image.id for image in images],
                "patient": [image.patient for image in images],
                "split": assigned,
            },
            dtype=str,
        ),
        labels=_labels(images),
        label_names=("Pneumonia",),
        notes=(*notes, *more),
        image_level_split=split in (PUBLISHED, IMAGE_LEVEL_PROTOCOL),
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


def _list_images(root: Path) -> list[_Image]:
    """Return all images, sorted by id."""
    images = []
    for folder in ("train", "val", "test"):
        # Copies of the data set often lack the official val folder.
        if folder == "val" and not (root / folder).is_dir():
            continue
        for label, class_name in enumerate(CLASSES):
            names = scan_folder(root / folder / class_name).images
            if not names:
                raise DatasetError(f"no images in {root / folder / class_name}: unpack them there")
            images += [_parse_name(folder, class_name, label, name) for name in names]
    return sorted(images, key=lambda image: image.id)


def _parse_name(folder: str, class_name: str, label: int, name: str) -> _Image:
    match = _NAME_PATTERNS[class_name].fullmatch(Path(name).stem)
    if match is None:
        example = "person1_virus_6.jpeg" if label else "IM-0115-0001.jpeg"
        raise DatasetError(
            f"cannot derive the patient from the name of {folder}/{class_name}/{name}: names in "
            f"{class_name} look like {example}. Move the file away or rename it"
        )
    return _Image(
        id=f"{folder}/{class_name}/{name}",
        folder=folder,
        label=label,
        patient=match["patient"],
        viral=bool(label) and match["germ"] == "virus",
    )


def _labels(images: list[_Image]) -> NDArray[np.int8]:
    return np.array([[image.label] for image in images], dtype=np.int8)


def _drop_copies(root: Path, images: list[_Image]) -> tuple[list[_Image], list[str]]:
    """Keep one of each group of identical files, preferably one in test."""
    by_path = {root / image.id: image for image in images}
    groups = [[by_path[path] for path in group] for group in identical_files(list(by_path))]
    dropped: set[_Image] = set()
    for group in groups:
        # Images are sorted by id, and so "test/" before "train/" and "val/": the test folder stays
        # as complete as possible.
        kept, *copies = group
        for copy in copies:
            if copy.label != kept.label:
                raise DatasetError(
                    f"{kept.id} and {copy.id} in {root} are the same file with different labels: "
                    "remove the wrong one"
                )
            dropped.add(copy)
    if not dropped:
        return images, []
    # Notes end up in caches and reports, so they name no file.
    note = (
        f"{len(dropped):,} byte-identical copies are left out. The split published keeps them, and "
        "an audit lists them."
    )
    return [image for image in images if image not in dropped], [note]


def _drop_test_patients(images: list[_Image]) -> tuple[list[_Image], list[str]]:
    """Drop images outside test of patients whose number is in test."""
    test = {image.patient for image in images if image.folder == "test"}
    kept = [image for image in images if image.folder == "test" or image.patient not in test]
    if len(kept) == len(images):
        return images, []
    shared = test & {image.patient for image in images if image.folder != "test"}
    note = (
        f"{len(images) - len(kept):,} training images of {len(shared):,} patients are left out "
        "because the same patient number is in test; numbers repeat between germs, so it may or "
        "may not be the same child."
    )
    return kept, [note]


def _official_split(images: list[_Image], seed: int) -> tuple[NDArray[np.str_], list[str]]:
    val_patients = {image.patient for image in images if image.folder == "val"}
    split = np.array(
        [
            "test"
            if image.folder == "test"
            else "val"
            if image.patient in val_patients
            else "train"
            for image in images
        ]
    )
    counts = Counter(split.tolist())
    # A tenth of all images outside test, less those that the official val folder provides.
    missing = VALIDATION_FRACTION * (counts["train"] + counts["val"]) - counts["val"]
    if missing > 0:
        split = carve_validation(
            [image.patient for image in images],
            _labels(images),
            split,
            fraction=missing / counts["train"],
            seed=seed,
        )
    note = (
        "The split is the official one: the test folder is test, and a tenth of the other images "
        "is validation, by patient."
    )
    if val_patients:
        note += f" This includes all images of the {len(val_patients)} patients in the val folder."
    return split, [note]


def _image_level_split(images: list[_Image], seed: int) -> tuple[NDArray[np.str_], list[str]]:
    """Per class, assign ceil(20 %) to test and ceil(20 %) of the rest to validation."""
    rng = np.random.default_rng(seed)
    labels = _labels(images)[:, 0]
    split = np.full(len(images), "train")
    for label in range(len(CLASSES)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        n_test = _ceil_fifth(len(rows))
        n_val = _ceil_fifth(len(rows) - n_test)
        split[rows[:n_test]] = "test"
        split[rows[n_test : n_test + n_val]] = "val"
    counts = Counter(split.tolist())
    note = (
        f"The split is {IMAGE_LEVEL_PROTOCOL}: the folders are pooled and images, not patients, "
        f"are split, here into {counts['train']:,} train, {counts['val']:,} validation and "
        f"{counts['test']:,} test. Byte-identical copies are kept, because the published counts "
        "include them."
    )
    return split, [note]


def _ceil_fifth(count: int) -> int:
    """Return 20 %, rounded up, in integers: the float 0.2 * 15 is above 3."""
    return -(-count // 5)
