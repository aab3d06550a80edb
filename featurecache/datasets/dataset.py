"""The Dataset: a table of images, a table of labels, and notes on how they were read."""

import copy
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featurecache.datasets.boxes import BOX_COLUMNS, count_boxes
from featurecache.datasets.path_safety import links_leaving_root
from featurecache.datasets.spelling import normalize_names
from featurecache.datasets.splits import SPLITS, SplitDraw, keep_patients
from featurecache.errors import DatasetError, UnknownNameError, UsageError
from featurecache.label_cells import BLANK, CELLS, UNKNOWN, VALID_CELLS, LabelPolicy, count_cells
from featurecache.provenance.names import own_collection, pseudonymized_collection
from featurecache.provenance.provenance import Source
from featurecache.provenance.records import ImageRecords
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

    from featurecache.datasets.pseudonymize import IdKey

COLUMNS = ("id", "path", "patient", "study", "split", "view", "sex", "age")

OPTIONAL_COLUMNS = ("study", "view", "sex", "age")

MAX_AGE = 120
"""Years; anything above is a data entry error. Early ChestX-ray14 releases have ages above 400."""

UNKNOWN_PATIENTS = (
    "Patients are unknown: each image counts as its own patient, so images of one person may be "
    "in more than one split, and confidence intervals over patients are intervals over images."
)

IMAGE_LEVEL_SPLIT = (
    "IMAGE-LEVEL SPLIT: images of one patient may be in both the training and the test split, so "
    "scores are optimistic and not comparable with those of a split by patient."
)

KEPT_SPLITS = (
    "Patients that were cached before keep their split, although the data set has changed; only "
    "the splits of new patients are drawn."
)


@dataclass(frozen=True, kw_only=True, eq=False, init=False, repr=False)
class Dataset:
    """Images with their labels, if any, patients and splits.

    The constructor validates everything, gives each id and patient one spelling (see
    ``datasets.spelling``), and sorts the rows by id. If ``images`` has an index named
    "line" (line numbers of a CSV file), error messages include the line; the index is not kept.

    Args:
        name: Name of the data set: letters, digits, ``_``, ``-`` and ``.``, because it becomes a
            folder name.
        root: Folder that the image paths are relative to.
        images: N rows of strings with the columns ``id`` (unique), ``path`` (posix, relative to
            ``root``), ``patient``, ``split`` ("train", "val" or "test") and optionally ``study``
            (the examination that an image belongs to, of one patient), ``view``, ``sex`` and
            ``age`` (in years); "" where unknown. Other columns are dropped, except those in
            ``metadata``.
        labels: (N, C) labels in the same order as ``images``: 1 positive, 0 negative, -1
            uncertain, NaN or -2 blank. A DataFrame (columns are the label names) or an array; None
            for a data set without labels.
        cells: In place of ``labels``, (N, C) int8 codes, where a release states more than these:
            labels by models, or by several readers. See ``featurecache.label_cells``.
        label_names: C names; by default the columns of ``labels``.
        notes: Sentences for the user, for example which split was used and what was left out.
        image_level_split: Allow images of one patient in several splits; adds a warning to the
            notes.
        collection: Name of the image collection that the ids belong to, by default ``name``, or
            ``NAME-own`` if that is the name of a published one. Data sets of the same collection
            share ids.
        key: Key that the ids and patients were pseudonymized with, if they were.
        excluded: Number of images that exist but were left out, by reason. Caches, runs and
            reports carry these numbers.
        source: How ``load_dataset`` loaded the data set: ``dataset`` (a registered name), ``root``
            and ``options``. None for one that was made otherwise.
        bit_depth: Number of bits in use, 8 to 16, in files that do not define the range of their
            gray values; None lets ``extract`` and ``finetune`` judge it.
        follow_links: Follow symbolic links that lead out of the root, to another disk for example;
            if False, a path through one is refused.
        split_draw: How splits were drawn that the data does not state; None if it states all.
        metadata: Names of further text columns of ``images``, such as reports. No cache stores
            them, and pseudonymization does not change them.
        policy: What uncertain, blank and other cells count as by default: by this, the images are
            fine-tuned on, and caches of the data set are opened.
        boxes: Boxes around findings, one in each row: ``id`` of the image, ``label``, and ``x``,
            ``y``, ``width`` and ``height`` in pixels of the image as it is released, from its upper
            left corner; and ``image_width`` and ``image_height``, the size of that image, NaN if
            it is not stated, and 1 if boxes are in shares of it. Boxes in other images are dropped.

    Attributes:
        images: The validated table of images, sorted by id, with all columns listed above.
        labels: (N, C) float32 DataFrame, indexed by image id, as the data set states them: 1, 0,
            -1 where uncertain, NaN where blank, and other codes of ``cells``.
        cells: (N, C) int8, read-only: the same with -2 where blank.
        label_names: C label names; none for a data set without labels.

    Raises:
        DatasetError: If there are no images, a column is missing or not text, an id is repeated, a
            path leaves the root, a split is unknown, a patient is in two splits, a study has two
            patients, a label name is missing or repeated, a label is not 1, 0, -1, -2 or NaN, an
            age is not a number of years, or the name is not a valid folder name.

    Example:
        >>> import featurecache as fc
        >>> import pandas as pd
        >>> images = pd.DataFrame(
        ...     {"id": ["a", "b"], "path": ["a.png", "b.png"], "patient": ["p1", "p2"],
        ...      "split": ["train", "test"]}
        ... )
        >>> labels = pd.DataFrame({"Edema": [1, 0]})
        >>> dataset = fc.Dataset(name="ward", root="images", images=images, labels=labels)
        >>> dataset.labels["Edema"].tolist()
        [1.0, 0.0]
    """

    name: str
    root: Path
    images: "pd.DataFrame"
    cells: NDArray[np.int8]
    label_names: tuple[str, ...]
    notes: tuple[str, ...]
    image_level_split: bool
    collection: str
    key: "IdKey | None"
    excluded: Mapping[str, int]
    source: Source | None
    bit_depth: int | None
    follow_links: bool
    split_draw: SplitDraw | None
    metadata: tuple[str, ...]
    policy: LabelPolicy
    boxes: "pd.DataFrame"

    def __init__(
        self,
        *,
        name: str,
        root: str | os.PathLike[str],
        images: "pd.DataFrame",
        labels: "pd.DataFrame | NDArray[Any] | None" = None,
        cells: NDArray[np.int8] | None = None,
        label_names: Sequence[str] | None = None,
        notes: Sequence[str] = (),
        image_level_split: bool = False,
        collection: str = "",
        key: "IdKey | None" = None,
        excluded: Mapping[str, int] = MappingProxyType({}),
        source: Source | None = None,
        bit_depth: int | None = None,
        follow_links: bool = True,
        split_draw: SplitDraw | None = None,
        metadata: Sequence[str] = (),
        policy: LabelPolicy | None = None,
        boxes: "pd.DataFrame | None" = None,
    ) -> None:
        import pandas as pd

        if name != safe_name(name):
            raise DatasetError(
                f"the data set name {name!r} is not a valid folder name: "
                f"use for example {safe_name(name)!r}"
            )
        root = Path(root)
        images = images.assign(**{c: "" for c in OPTIONAL_COLUMNS if c not in images.columns})
        _check_columns(images, metadata)
        given = images
        images, changes = normalize_names(images)
        for column in ("id", "patient"):
            _refuse(given, column, images[column] == "", "is empty: fill it in")
        _check_ids(images, given)
        _check_paths(images, root, follow_links=follow_links)
        _check_splits(images)
        _check_ages(images)
        _check_studies(images)
        notes = (*notes, *changes)
        if not image_level_split:
            _check_patients(images)
        elif IMAGE_LEVEL_SPLIT not in notes:
            notes = (*notes, IMAGE_LEVEL_SPLIT)
        if labels is None and cells is not None:
            values, names, valid = np.asarray(cells), tuple(label_names or ()), VALID_CELLS
        else:
            values, names = _label_cells(given, labels, label_names)
            valid = frozenset(CELLS.values())
        _check_labels(images, values, names, valid)

        if boxes is None:
            boxes = pd.DataFrame(columns=list(BOX_COLUMNS))
        if len(boxes):
            ids = boxes["id"].map(dict(zip(given["id"], images["id"], strict=True)))
            boxes = boxes.assign(id=ids)[ids.notna()].reset_index(drop=True)
        order = images["id"].argsort().to_numpy()
        images = images.loc[:, [*COLUMNS, *metadata]].iloc[order].astype(str).reset_index(drop=True)
        cells = values[order].astype(np.int8)
        cells.flags.writeable = False
        # The attributes of a frozen dataclass cannot be assigned.
        vars(self).update(
            name=name,
            root=root,
            images=images,
            cells=cells,
            label_names=names,
            notes=notes,
            image_level_split=image_level_split,
            collection=collection or own_collection(name),
            key=key,
            excluded={reason: int(number) for reason, number in excluded.items() if number},
            source=source,
            bit_depth=bit_depth,
            follow_links=follow_links,
            split_draw=split_draw,
            metadata=tuple(metadata),
            policy=policy or LabelPolicy(),
            boxes=boxes,
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self.counts().to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>{self._headline()}</p>{self.counts().to_html()}"

    def _headline(self) -> str:
        n_labels = len(self.label_names)
        return (
            f"Dataset {self.name}: {count_noun(len(self), 'image')} of "
            f"{count_noun(self.images['patient'].nunique(), 'patient')}, "
            f"{count_noun(n_labels, 'label') if n_labels else 'no labels'}"
        )

    @cached_property
    def labels(self) -> "pd.DataFrame":
        """The labels as the data set states them; see the class."""
        import pandas as pd

        return pd.DataFrame(
            np.where(self.cells == BLANK, np.float32("nan"), self.cells.astype(np.float32)),
            index=pd.Index(self.images["id"], name="id"),
            columns=list(self.label_names),
        )

    @cached_property
    def label_values(self) -> NDArray[np.int8]:
        """The labels by the policy, (N, C) int8, read-only: 1, 0, or -1 if unknown."""
        return self.policy.resolve(self.cells, self.label_names)

    def with_policy(self, policy: LabelPolicy) -> "Dataset":
        """Return the data set with another policy for uncertain and blank labels."""
        changed = copy.copy(self)  # not validated again
        vars(changed).pop("label_values", None)
        vars(changed).update(policy=policy)
        return changed

    def with_name(self, name: str) -> "Dataset":
        """Return the data set with another name; a collection of its own has that name, too.

        Raises:
            DatasetError: If it is not a valid folder name.
        """
        is_own = self.collection == own_collection(self.name)
        collection = own_collection(name) if is_own else self.collection
        return replace(self, name=name, collection=collection)

    def with_labels(self, names: str | Sequence[str]) -> "Dataset":
        """Return the data set with these labels alone.

        Args:
            names: One or more names, in the order that the labels will have.

        Raises:
            UsageError: If there is no name.
            UnknownNameError: If there is no such label.
            DatasetError: If a name is given twice.
        """
        names = [names] if isinstance(names, str) else list(names)
        if not names:
            raise UsageError("no label is named: name one or more, or leave it out to keep all")
        for name in names:
            if name not in self.label_names:
                raise UnknownNameError("label", name, self.label_names)
        columns = list(map(self.label_names.index, names))
        return replace(self, cells=self.cells[:, columns], label_names=tuple(names))

    def counts(self) -> "pd.DataFrame":
        """Count images, patients and the positives of each label, by split.

        Returns:
            Integer DataFrame with one column per split that has images and the column "all"; the
            rows are "images", "patients" and the label names.
        """
        import pandas as pd

        rows = {split: self.rows(split) for split in SPLITS}
        rows = {split: at for split, at in rows.items() if len(at)} | {"all": np.arange(len(self))}
        patients = self.images["patient"]
        columns = {
            split: [len(at), patients.iloc[at].nunique(), *(self.label_values[at] == 1).sum(axis=0)]
            for split, at in rows.items()
        }
        return pd.DataFrame(columns, index=["images", "patients", *self.label_names])

    def describe(self) -> dict[str, Any]:
        """Return what the data set holds, as a JSON document; no image is read.

        Returns:
            ``dataset``, its name; ``root``, the folder that its paths are relative to; ``images``,
            their number, and ``on_disk``, how many of them have a file; ``patients`` and
            ``studies``, None where unknown; ``views`` and ``splits``, the number of images of each;
            ``excluded``, the number of images left out by reason; ``label_policy``, and by label,
            ``labels``, the number of positive, negative, uncertain and blank cells; ``boxes``, the
            number of boxes around findings, of images with one and of boxes by label, None where
            there are none; ``notes``.

        Example:
            >>> import featurecache as fc
            >>> phantom = fc.load_dataset("phantom", n_images=40).describe()
            >>> phantom["on_disk"], phantom["labels"]["Hernia"]["uncertain"]
            (40, 0)
        """
        files = (os.path.join(self.root, path) for path in self.images["path"])  # noqa: PTH118
        studies = self.images["study"][self.images["study"] != ""].nunique()
        views = self.images["view"].replace("", "unknown").value_counts()
        splits = {split: len(self.rows(split)) for split in SPLITS}
        return {
            "dataset": self.name,
            "root": str(self.root.absolute()),
            "images": len(self),
            "on_disk": sum(map(os.path.isfile, files)),
            "patients": self.images["patient"].nunique() if self.patients_known else None,
            "studies": studies or None,
            "views": {str(view): int(number) for view, number in views.items()},
            "splits": {split: number for split, number in splits.items() if number},
            "excluded": dict(self.excluded),
            "label_policy": asdict(self.policy),
            "labels": count_cells(self.cells, self.label_names),
            "boxes": count_boxes(self.boxes) if len(self.boxes) else None,
            "notes": list(self.notes),
        }

    def files(self) -> dict[str, Path]:
        """Return the file of each image, by image id."""
        paths = (self.root / path for path in self.images["path"])
        return dict(zip(self.images["id"], paths, strict=True))

    def require_labels(self) -> None:
        """Check that a label of at least one image is known.

        Raises:
            UsageError: None is.
        """
        if (self.label_values == UNKNOWN).all():
            raise UsageError(
                f"the data set {self.name} has no labels: load it with labels, for example from a "
                "CSV file with the columns in `labels`"
            )

    @property
    def patients_known(self) -> bool:
        """Whether patients are known; if not, each image counts as its own patient."""
        return not self.images["patient"].equals(self.images["id"])

    def records(
        self,
        rows: NDArray[np.intp],
        *,
        sha256: Sequence[str] | None = None,
        perceptual_hash: NDArray[np.uint8] | None = None,
    ) -> ImageRecords:
        """Return what identifies the images of these n rows.

        Args:
            rows: Row numbers, (n,).
            sha256: SHA-256 of their files, in hex, "" where unknown; None if they were not read.
            perceptual_hash: Their perceptual hashes, (n, 32).
        """
        images = self.images.iloc[rows]
        return ImageRecords.of(
            self.collection,
            images["id"].tolist(),
            patients=images["patient"].tolist() if self.patients_known else None,
            sha256=sha256,
            perceptual_hash=perceptual_hash,
        )

    def pseudonymize(self, key: "IdKey") -> "Dataset":
        """Replace ids, patients and studies by hashes.

        The paths are kept because the images are read from them; nothing that is written contains
        them. The splits, which were made before, are kept too.

        Args:
            key: The key, as ``read_key`` reads it.

        Returns:
            The data set, sorted by hashed id.
        """
        hash_patient = key.hash_patient if self.patients_known else key.hash
        hashed = {
            column: self.images[column].map(function).astype(self.images[column].dtype)
            for column, function in (
                *(("id", key.hash), ("patient", hash_patient)),
                ("study", key.hash_study),
            )
        }
        draw = self.split_draw
        if draw is not None:
            draw = replace(draw, stated=frozenset(map(hash_patient, draw.stated)))
        return replace(
            self,
            images=self.images.assign(**hashed),
            boxes=self.boxes.assign(id=self.boxes["id"].map(key.hash)),
            collection=pseudonymized_collection(self.collection, key.fingerprint),
            key=key,
            split_draw=draw,
        )

    def with_bit_depth(self, bit_depth: int | None, notes: Sequence[str]) -> "Dataset":
        """Return the data set with another bit depth.

        Args:
            bit_depth: See the constructor.
            notes: Sentences to add to the notes.
        """
        changed = copy.copy(self)  # not validated again
        vars(changed).update(bit_depth=bit_depth, notes=(*self.notes, *notes))
        return changed

    def keep_splits(self, splits: Mapping[str, str]) -> "Dataset":
        """Return the data set with patients kept in the splits that they had before.

        Only splits that were drawn are changed; see ``keep_patients``.

        Args:
            splits: Former split by patient; some may not be in the data set.
        """
        if self.split_draw is None:
            return self
        former = self.images["split"].to_numpy(dtype=str)
        names = keep_patients(
            self.images["patient"], self.label_values, former, draw=self.split_draw, kept=splits
        )
        if (names == former).all():
            return self
        outdated, current = (
            self.split_draw.notes(split, self.label_values, self.label_names)
            for split in (former, names)
        )
        notes = [note for note in self.notes if note not in outdated]
        if outdated[0] in self.notes:  # otherwise the data set describes its splits itself
            notes += current
        changed = copy.copy(self)  # not validated again
        vars(changed).update(
            images=self.images.assign(split=names).astype({"split": str}),
            notes=(*notes, KEPT_SPLITS),
        )
        return changed

    def take(self, rows: NDArray[np.intp]) -> "Dataset":
        """Return the data set with only these images; it has no ``source``.

        Args:
            rows: Row numbers.

        Raises:
            DatasetError: If no rows are given.
        """
        return replace(self, images=self.images.iloc[rows], cells=self.cells[rows], source=None)

    def split(self, name: str) -> "Dataset":
        """Return the data set with only the images of one split.

        Args:
            name: "train", "val" or "test".

        Raises:
            UnknownNameError: If there is no such split.
            DatasetError: If the split has no images.
        """
        return self.take(self.rows(name))

    def rows(self, split: str) -> NDArray[np.intp]:
        """Return the row numbers, ascending, of the images in one split.

        Args:
            split: "train", "val" or "test".

        Raises:
            UnknownNameError: If there is no such split.
        """
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        return np.flatnonzero(self.images["split"].to_numpy() == split)


def safe_name(text: str) -> str:
    """Return a text as a valid folder name: letters, digits, ``_``, ``-`` and inner ``.``.

    Args:
        text: For example the name of a file; other characters become ``-``.

    Raises:
        DatasetError: If no valid character is left.
    """
    name = re.sub(r"[^\w.-]+", "-", text).strip("-.")
    if not name:
        raise DatasetError(
            f"cannot derive a data set name from {text!r}: rename the file or folder"
        )
    return name


def _row(images: "pd.DataFrame", where: ArrayLike) -> str:
    """Describe the first marked row for a message: its id, and its line if known."""
    position = int(np.argmax(where))
    name = repr(images["id"].iloc[position])
    return f"{name} (line {images.index[position]})" if images.index.name == "line" else name


def _refuse(
    images: "pd.DataFrame", column: str, wrong: ArrayLike, problem: str, *, show_value: bool = False
) -> None:
    """Raise an error that names the first of the marked rows, if any."""
    wrong = np.asarray(wrong, dtype=np.bool_)
    if wrong.any():
        value = f"is {images[column].iloc[int(np.argmax(wrong))]!r}: " if show_value else ""
        raise DatasetError(f"the {column} of image {_row(images, wrong)} {value}{problem}")


def _check_columns(images: "pd.DataFrame", metadata: Sequence[str]) -> None:
    from pandas.api.types import infer_dtype

    if taken := [column for column in metadata if column in COLUMNS]:
        raise DatasetError(
            f"`metadata` has the column {taken[0]!r}, whose name has a meaning of its own: give it "
            "as that, or rename it"
        )
    required = [c for c in COLUMNS if c not in OPTIONAL_COLUMNS] + list(metadata)
    if missing := [column for column in required if column not in images.columns]:
        raise DatasetError(
            f"the table of images lacks the columns {', '.join(missing)}: it needs "
            f"{', '.join(required)}"
        )
    if images.empty:
        raise DatasetError("the data set has no images: check the folder")
    for column in (*COLUMNS, *metadata):
        # infer_dtype calls a nullable text column "string" even if it has missing values.
        if infer_dtype(images[column], skipna=False) != "string" or images[column].hasnans:
            raise DatasetError(
                f"the column {column} of the table of images is not all text: convert it with "
                "astype(str), with '' for unknown values"
            )
        _refuse(
            images,
            column,
            images[column].str.contains("\0", regex=False),
            "contains a NUL byte, which a cache cannot store: remove it",
        )
    for column in ("id", "path", "patient"):
        _refuse(images, column, images[column] == "", "is empty: fill it in")


def _check_ids(images: "pd.DataFrame", given: "pd.DataFrame") -> None:
    # Compare sorted neighbors: a hash table would take more memory than the table of images.
    ordered = images["id"].sort_values().array
    if (ordered[1:] == ordered[:-1]).any():
        repeated = images["id"].duplicated()
        spellings = given["id"][images["id"] == images["id"][repeated].iloc[0]].unique()
        written = f", written {' and '.join(map(repr, spellings))}" if len(spellings) > 1 else ""
        raise DatasetError(
            f"the id {_row(images, repeated)} occurs twice{written}: keep one row for each image"
        )


def _check_paths(images: "pd.DataFrame", root: Path, *, follow_links: bool) -> None:
    paths = images["path"]
    # A drive letter makes a path absolute on Windows.
    absolute = paths.str.match(r"/|[A-Za-z]:")
    _refuse(images, "path", absolute, f"is absolute: make it relative to the root, {root}")
    _refuse(
        images,
        "path",
        paths.str.contains(r"(?:^|/)\.\.(?:/|$)"),
        "leaves the root with '..': use a root that contains every image, or correct the path",
    )
    if not follow_links:
        _refuse(
            images,
            "path",
            links_leaving_root(root, paths),
            f"leaves the root {root} through a symbolic link: follow links with `follow_links`, or "
            "use the folder that the link points to",
        )


def _check_splits(images: "pd.DataFrame") -> None:
    valid = f"it must be {', '.join(SPLITS[:-1])} or {SPLITS[-1]}"
    _refuse(images, "split", ~images["split"].isin(SPLITS), valid, show_value=True)


def _check_ages(images: "pd.DataFrame") -> None:
    import pandas as pd

    years = pd.to_numeric(images["age"].where(images["age"] != "", "0"), errors="coerce")
    valid = f"it must be a number of years from 0 to {MAX_AGE}, or empty if unknown"
    _refuse(images, "age", ~years.between(0, MAX_AGE), valid, show_value=True)


def _check_studies(images: "pd.DataFrame") -> None:
    known = images[images["study"] != ""]
    patients = known.groupby("study", sort=False)["patient"]
    conflicts = (known["patient"] != patients.transform("first")).to_numpy(dtype=bool)
    if conflicts.any():
        study, patient = known[["study", "patient"]].iloc[int(np.argmax(conflicts))]
        other = known["patient"][(known["study"] == study) & (known["patient"] != patient)].iloc[0]
        raise DatasetError(
            f"the study {study!r} of image {_row(known, conflicts)} has two patients, {other!r} "
            f"and {patient!r}: a study belongs to one patient. If numbers of studies are not "
            "unique, put the patient in front of each"
        )


def _check_patients(images: "pd.DataFrame") -> None:
    # Compare sorted neighbors, as for the ids.
    order = images["patient"].argsort(kind="stable").to_numpy()
    patients, splits = (images[name].array.take(order) for name in ("patient", "split"))
    same_patient = np.asarray(patients[1:] == patients[:-1], dtype=np.bool_)
    other_split = np.asarray(splits[1:] != splits[:-1], dtype=np.bool_)
    conflicts = np.flatnonzero(same_patient & other_split)
    if len(conflicts):
        # Report the first in the order of the table, not of the patients' names.
        row = int(order[conflicts + 1].min())
        patient, split = images[["patient", "split"]].iloc[row]
        elsewhere = (images["patient"] == patient) & (images["split"] != split)
        raise DatasetError(
            f"patient {patient!r} is in two splits: image "
            f"{_row(images, np.arange(len(images)) == row)} is in {split}, image "
            f"{_row(images, elsewhere)} is not. Put all images of a patient into one split"
        )


def _label_cells(
    images: "pd.DataFrame",
    labels: "pd.DataFrame | NDArray[Any] | None",
    label_names: Sequence[str] | None,
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return (N, C) cells, blank for NaN, and the C names."""
    import pandas as pd

    if labels is None:
        return np.empty((len(images), 0), dtype=np.int8), ()
    if isinstance(labels, pd.DataFrame):
        # A frame that is sorted differently would attach labels to the wrong images.
        same_order = (images.index, pd.RangeIndex(len(images)), pd.Index(images["id"]))
        if len(labels) == len(images) and not any(map(labels.index.equals, same_order)):
            raise DatasetError(
                "the index of the labels is neither that of the images nor their ids: give both "
                "tables in the same order"
            )
        names = tuple(map(str, labels.columns)) if label_names is None else tuple(label_names)
        try:
            values = labels.astype("Float32").to_numpy(dtype=np.float32, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise DatasetError(
                f"the labels are not numbers ({error}): use 1, 0, -1 if uncertain, NaN if blank"
            ) from error
    elif label_names is None:
        raise DatasetError("the labels have no names: give a DataFrame, or give `label_names`")
    else:
        names, values = tuple(label_names), np.asarray(labels)
    if np.issubdtype(values.dtype, np.floating):
        values = np.where(np.isnan(values), BLANK, values)
    return values, names


def _check_labels(
    images: "pd.DataFrame", values: NDArray[Any], names: tuple[str, ...], valid: frozenset[int]
) -> None:
    if not all(names):
        raise DatasetError(f"the label names are {names}: none may be empty")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise DatasetError(f"the label {min(repeated)!r} occurs twice: name each label once")
    if values.shape != (len(images), len(names)):
        raise DatasetError(
            f"the labels have the shape {values.shape}, but {len(images)} images and {len(names)} "
            f"label names need {(len(images), len(names))}"
        )
    # One by one: PadChest has 31 million cells, and np.isin takes ten times as long.
    wrong = np.ones(values.shape, dtype=bool)
    for value in valid:
        wrong &= values != value
    if wrong.any():
        where = np.asarray(wrong.any(axis=1))
        column = int(np.argmax(wrong[np.argmax(where)]))
        raise DatasetError(
            f"the label {names[column]} of image {_row(images, where)} is "
            f"{values[np.argmax(where)][column]}: it must be 1, 0, -1 if uncertain, or NaN if "
            "blank"
        )
