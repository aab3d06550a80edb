"""UCSD pediatric pneumonia data set: Kermany et al., Cell 172 (2018), CC BY 4.0."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.duplicates import identical_files
from featurecache.datasets.scan import scan_folder
from featurecache.datasets.splits import SPLITS, VALIDATION_FRACTION, SplitDraw, carve_validation
from featurecache.errors import DatasetError, UnknownNameError, UsageError
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

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
    patients are moved from train until validation has a tenth of the images outside test; in an
    existing cache, patients keep the split that they have.

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
    if subset not in SUBSETS:
        raise UnknownNameError("Kermany subset", subset, SUBSETS)
    if split not in SPLIT_CHOICES:
        raise UnknownNameError("Kermany split", split, SPLIT_CHOICES)
    if split == IMAGE_LEVEL_PROTOCOL and subset != "viral":
        raise UsageError(f"the split {split} requires `subset` viral")

    if (nested := _nested_root(Path(root))) is None:
        raise DatasetError(
            f"no folders train and test in {root} or {Path(root) / 'chest_xray'}: unpack them there"
        )
    root = nested
    images = _list_images(root)
    notes: list[str] = []
    excluded: dict[str, int] = {}
    if subset == "viral":
        is_kept = (images["label"] == 0) | images["viral"]
        excluded["bacterial pneumonia, not in the subset viral"] = int((~is_kept).sum())
        notes.append(
            f"The subset is viral: {(~is_kept).sum():,} bacterial pneumonias are left out."
        )
        images = images[is_kept]
    # A different set of images needs a different name, and so a different cache.
    name = "kermany" if subset == "all" else "kermany-viral"
    draw = None
    if split == IMAGE_LEVEL_PROTOCOL:
        name += "-image-level"
        assigned = _image_level_split(images["label"].to_numpy(), seed, notes)
    elif split == PUBLISHED:
        name += "-published"
        assigned = images["folder"].to_numpy(dtype=str)
        notes.append(AS_PUBLISHED)
    else:
        n_images = len(images)
        images = _drop_copies(root, images, notes)
        excluded["byte-identical copy of another image"] = n_images - len(images)
        n_images = len(images)
        images = _drop_test_patients(images, notes)
        excluded["patient number is also in the test folder"] = n_images - len(images)
        assigned, draw = _official_split(images, seed, notes)
    return Dataset(
        name=name,
        root=root,
        images=images.assign(path=images["id"], split=assigned),
        labels=images[["label"]].to_numpy(dtype=np.int8),
        label_names=("Pneumonia",),
        notes=notes,
        image_level_split=split in (PUBLISHED, IMAGE_LEVEL_PROTOCOL),
        collection="kermany",
        split_draw=draw,
        excluded=excluded,
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


def _list_images(root: Path) -> "pd.DataFrame":
    """Return the id, folder, label, patient and germ (viral or not) of all images, by id."""
    import pandas as pd

    rows = []
    for folder in ("train", "val", "test"):
        # Copies of the data set often lack the official val folder.
        if folder == "val" and not (root / folder).is_dir():
            continue
        for label, (class_name, pattern) in enumerate(_NAME_PATTERNS.items()):
            names = scan_folder(root / folder / class_name).images
            if not names:
                raise DatasetError(f"no images in {root / folder / class_name}: unpack them there")
            for name in names:
                image_id = f"{folder}/{class_name}/{name}"
                match = pattern.fullmatch(Path(name).stem)
                if match is None:
                    example = "person1_virus_6.jpeg" if label else "IM-0115-0001.jpeg"
                    raise DatasetError(
                        f"cannot derive the patient from the name of {image_id}: names in "
                        f"{class_name} look like {example}. Move the file away or rename it"
                    )
                is_viral = match.groupdict().get("germ") == "virus"
                rows.append((image_id, folder, label, match["patient"], is_viral))
    return pd.DataFrame(sorted(rows), columns=["id", "folder", "label", "patient", "viral"])


def _drop_copies(root: Path, images: "pd.DataFrame", notes: list[str]) -> "pd.DataFrame":
    """Keep one of each group of identical files, preferably one in test."""
    labels = {root / id: label for id, label in zip(images["id"], images["label"], strict=True)}
    dropped: set[str] = set()
    for kept, *copies in identical_files(list(labels)):
        # Images are sorted by id, and so "test/" before "train/" and "val/": the test folder stays
        # as complete as possible.
        for copy in copies:
            if labels[copy] != labels[kept]:
                kept_id, copy_id = (path.relative_to(root).as_posix() for path in (kept, copy))
                raise DatasetError(
                    f"{kept_id} and {copy_id} in {root} are the same file with different labels: "
                    "remove the wrong one"
                )
            dropped.add(copy.relative_to(root).as_posix())
    if dropped:
        # Notes end up in caches and reports, so they name no file.
        notes.append(
            f"{len(dropped):,} byte-identical copies are left out. The split published keeps "
            "them, and an audit lists them."
        )
    return images[~images["id"].isin(dropped)]


def _drop_test_patients(images: "pd.DataFrame", notes: list[str]) -> "pd.DataFrame":
    """Drop images outside test of patients whose number is in test."""
    in_test = images["folder"] == "test"
    shared = images[~in_test & images["patient"].isin(images["patient"][in_test])]
    if len(shared):
        notes.append(
            f"Left out: {count_noun(len(shared), 'training image')} of "
            f"{count_noun(shared['patient'].nunique(), 'patient')}, because the same patient "
            "number is in test; numbers repeat between germs, so it may or may not be the same "
            "child."
        )
    return images.drop(index=shared.index)


def _official_split(
    images: "pd.DataFrame", seed: int, notes: list[str]
) -> tuple[NDArray[np.str_], SplitDraw | None]:
    val_patients = images["patient"][images["folder"] == "val"].unique()
    is_val = images["patient"].isin(val_patients)
    split = np.where(images["folder"] == "test", "test", np.where(is_val, "val", "train"))
    n_train, n_val = (int((split == name).sum()) for name in ("train", "val"))
    # A tenth of all images outside test, less those that the official val folder provides.
    missing = VALIDATION_FRACTION * (n_train + n_val) - n_val
    draw = None
    if missing > 0:
        draw = SplitDraw(
            (1 - VALIDATION_FRACTION, VALIDATION_FRACTION, 0.0),
            seed,
            stated=frozenset(val_patients.tolist()),
        )
        labels = images[["label"]].to_numpy(dtype=np.int8)
        split = carve_validation(
            images["patient"], labels, split, fraction=missing / n_train, seed=seed
        )
    note = (
        "The split is the official one: the test folder is test, and a tenth of the other images "
        "is validation, by patient."
    )
    if len(val_patients):
        patients = count_noun(len(val_patients), "patient")
        note += f" This includes all images of the {patients} in the val folder."
    notes.append(note)
    return split, draw


def _image_level_split(
    labels: NDArray[np.integer], seed: int, notes: list[str]
) -> NDArray[np.str_]:
    """Per class, assign ceil(20 %) to test and ceil(20 %) of the rest to validation."""
    rng = np.random.default_rng(seed)
    split = np.full(len(labels), "train")
    for label in range(len(_NAME_PATTERNS)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        n_test = _ceil_fifth(len(rows))
        n_val = _ceil_fifth(len(rows) - n_test)
        split[rows[:n_test]] = "test"
        split[rows[n_test : n_test + n_val]] = "val"
    n_train, n_val, n_test = ((split == name).sum() for name in SPLITS)
    notes.append(
        f"The split is {IMAGE_LEVEL_PROTOCOL}: the folders are pooled and images, not patients, "
        f"are split, here into {n_train:,} train, {n_val:,} validation and {n_test:,} test. "
        "Byte-identical copies are kept, because the published counts include them."
    )
    return split


def _ceil_fifth(count: int) -> int:
    """Return 20 %, rounded up, in integers: the float 0.2 * 15 is above 3."""
    return -(-count // 5)
