"""A phantom data set as a folder: where it is, how it is generated and how it is loaded."""

import csv
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featurecache.datasets.boxes import BOX_COLUMNS, OWN, read_boxes
from featurecache.datasets.dataset import Dataset
from featurecache.datasets.label_strings import NO_FINDING
from featurecache.datasets.nih import TEST_LIST, TRAIN_LIST, list_nih
from featurecache.datasets.phantom.cohort import Radiograph, cohort, select_test_patients
from featurecache.datasets.phantom.lateral import LATERAL_FINDING
from featurecache.datasets.phantom.radiograph import LATERAL, draw_with_boxes
from featurecache.datasets.phantom.shapes import CM
from featurecache.errors import DatasetError, FeaturecacheWarning, UsageError
from featurecache.io import json as strict_json
from featurecache.io.atomic import make_folder, new_folder
from featurecache.io.user_cache import user_cache
from featurecache.progress import Progress

GENERATOR = 2
"""Version of everything that decides a pixel, a label or a box. Increase it with each change."""

N_IMAGES = 600
SEED = 0
SIZE = 224

MIN_IMAGES, MAX_IMAGES = 20, 100_000
"""With fewer images there are too few patients to split."""

RECIPE = "phantom.json"
"""File that stores how the images were generated, and that identifies a phantom folder."""

BOXES = "boxes.csv"
"""File with boxes around the findings."""

SYNTHETIC = (
    "SYNTHETIC: these images are generated, not acquired. They are for trying things out; scores "
    "on them say nothing about patients."
)

_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the pixels and labels of a phantom, as stored in its folder.

    Attributes:
        images: Number of images.
        size: Height and width of an image in pixels.
        seed: Seed of all random numbers.
        generator: Version of the generator.
        n_views: Images of each study: 1, frontal, or 2, frontal and lateral.

    Raises:
        UsageError: If the number of images is out of bounds, the seed is negative, or there is no
            whole number of studies.
    """

    images: int = N_IMAGES
    size: int = SIZE
    seed: int = SEED
    generator: int = GENERATOR
    n_views: int = 1

    def __post_init__(self) -> None:
        if not MIN_IMAGES <= self.images <= MAX_IMAGES:
            raise UsageError(
                f"`n_images` is {self.images}: the data set phantom can have from {MIN_IMAGES} to "
                f"{MAX_IMAGES} images"
            )
        if self.seed < 0:
            raise UsageError(f"the seed is {self.seed}: give 0 or more")
        if self.n_views not in (1, 2) or self.images % self.n_views:
            raise UsageError(
                f"`n_views` is {self.n_views} and `n_images` {self.images}: give 1, or 2 and an "
                "even number of images"
            )

    @property
    def folder_name(self) -> str:
        """A folder name that differs between recipes."""
        views = "" if self.n_views == 1 else f"-views{self.n_views}"
        return f"phantom-v{self.generator}-{self.images}-{self.size}-seed{self.seed}{views}"


def load_phantom(
    root: str | os.PathLike[str],
    *,
    n_images: int | None = None,
    split: str = "auto",
    seed: int | None = None,
    n_views: int | None = None,
) -> Dataset:
    """Load images that ``generate_phantom`` has generated.

    Args:
        root: Folder of the phantom.
        n_images: Required number of images; None accepts any.
        split: "patient" for a split by patient; "auto" and "official" use the fifth of the
            patients that was generated for testing.
        seed: Required seed of the images, which also selects the validation patients; None accepts
            any.
        n_views: Required number of images of each study, 1 or 2; None accepts any.

    Returns:
        The data set "phantom", with the 14 labels of ChestX-ray14.

    Raises:
        DatasetError: If the folder contains no phantom, or another one than required.
        UnknownNameError: If there is no such split.
    """
    root = Path(root)
    recipe = _read_recipe(root)
    for what, required, actual in (
        ("number of images", n_images, recipe.images),
        ("seed", seed, recipe.seed),
        ("number of views", n_views, recipe.n_views),
    ):
        if required is not None and required != actual:
            raise DatasetError(
                f"the {what} of the phantom in {root} is {actual}, not {required}: choose a folder "
                "that does not exist yet, or no folder to generate it in the user's cache"
            )
    notes: list[str] = []
    boxes = read_boxes(root / BOXES, OWN, notes)
    dataset = list_nih(root).dataset("phantom", root, split=split, seed=recipe.seed)
    collection = f"phantom-{recipe.seed}"
    images = dataset.images
    if recipe.n_views == 2:
        collection += "-views2"
        images = images.assign(study=images["id"].str.replace(r"(_lateral)?\.png$", "", regex=True))
    return replace(
        dataset,
        images=images,
        boxes=boxes,
        # Phantoms of another seed have the same ids, but other images.
        collection=collection,
        notes=(SYNTHETIC, *dataset.notes, *notes),
    )


def phantom_root(
    root: Path | None, options: Mapping[str, Any], progress: Progress | None = None
) -> Path:
    """Return the folder of a phantom, and generate the phantom if it does not exist yet.

    Args:
        root: Folder that is or contains (as ``phantom``) a phantom, or that does not exist yet.
            None stands for a folder in the user's cache, one for each number of images and seed.
        options: Options of ``load_phantom``; ``n_images``, ``n_views`` and ``seed`` matter here.
        progress: Called after each generated image.

    Raises:
        UsageError: If the number of images is out of bounds.
        DatasetError: If the folder contains something else, or cannot be written.
    """
    n_images, seed, n_views = (options.get(name) for name in ("n_images", "seed", "n_views"))
    recipe = Recipe(
        images=N_IMAGES if n_images is None else n_images,
        seed=SEED if seed is None else seed,
        n_views=1 if n_views is None else n_views,
    )
    if root is None:
        root = _default_root(recipe)
    for folder in (root, root / "phantom"):
        if is_phantom(folder):
            return folder
    if root.exists():
        raise DatasetError(
            f"{root} contains no phantom: choose a folder that does not exist yet to generate it "
            "there, or no folder to generate it in the user's cache"
        )
    generate_phantom(
        root,
        n_images=recipe.images,
        n_views=recipe.n_views,
        seed=recipe.seed,
        progress=progress,
    )
    return root


def generate_phantom(
    root: str | os.PathLike[str],
    *,
    n_images: int = N_IMAGES,
    n_views: int = 1,
    seed: int = SEED,
    size: int = SIZE,
    progress: Progress | None = None,
) -> None:
    """Generate synthetic chest radiographs in the layout of ChestX-ray14.

    With two views, each frontal image has a lateral one of the same study and with the same labels.
    An effusion shows on the lateral image alone, and all other findings on the frontal image alone.

    The folder appears only once it is complete. If two processes generate it at the same time,
    both succeed and the images of the first are kept.

    Args:
        root: Folder to create.
        n_images: Number of images.
        n_views: Images of each study: 1, frontal, or 2, frontal and lateral.
        seed: Seed of all random numbers.
        size: Height and width of an image in pixels.
        progress: Called after each image.

    Raises:
        UsageError: If the number or size of the images is out of bounds.
        DatasetError: If the folder exists and is not a phantom, or cannot be written.
    """
    root = Path(root)
    recipe = Recipe(images=n_images, size=size, seed=seed, n_views=n_views)
    try:
        with new_folder(root) as folder:
            _write(folder, recipe, progress)
    except OSError as error:
        if not is_phantom(root):
            raise DatasetError(
                f"the data set phantom cannot be written to {root} ({error.strerror or error}): "
                "choose a folder that does not exist yet"
            ) from error


def is_phantom(folder: Path) -> bool:
    """Return whether a folder contains a phantom."""
    return (folder / RECIPE).is_file()


def _write(folder: Path, recipe: Recipe, progress: Progress | None) -> None:
    images = cohort(recipe.images // recipe.n_views, seed=recipe.seed)
    if recipe.n_views == 2:
        images = [view for image in images for view in (image, replace(image, view=LATERAL))]
    _keep_freed_memory()
    (folder / "images").mkdir()
    boxes: list[tuple[Any, ...]] = []
    for done, image in enumerate(images, start=1):
        hidden = LATERAL_FINDING if recipe.n_views == 2 and image.view != LATERAL else None
        shown = {name: value for name, value in image.findings.items() if name != hidden}
        pixels, drawn_boxes = draw_with_boxes(
            image.patient, shown, view=image.view, seed=image.seed, size=recipe.size
        )
        boxes += [(image.name, *box, recipe.size, recipe.size) for box in drawn_boxes]
        # Noise does not compress, so a higher level costs time and saves nothing.
        Image.fromarray(pixels).save(folder / "images" / image.name, compress_level=1)
        if progress is not None:
            progress(done, len(images))
    with (folder / "Data_Entry_2017_v2020.csv").open("w", newline="", encoding="utf-8") as file:
        file.write(f"{_HEADER}\n")
        csv.writer(file, lineterminator="\n").writerows(
            _row(image, recipe.size) for image in images
        )
    with (folder / BOXES).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([BOX_COLUMNS, *boxes])
    test = select_test_patients(images, seed=recipe.seed)
    for file_name, names in (
        (TEST_LIST, [image.name for image in images if image.number in test]),
        (TRAIN_LIST, [image.name for image in images if image.number not in test]),
    ):
        (folder / file_name).write_text("\n".join(names) + "\n", encoding="utf-8")
    (folder / "README.txt").write_text(_readme(recipe), encoding="utf-8")
    (folder / RECIPE).write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system.

    glibc keeps blocks up to the size of the largest one freed so far. Without this, the hundreds of
    arrays of an image are requested from the system again, which takes as long as the drawing.
    """
    np.empty(2**24, dtype=np.uint8)


def _row(image: Radiograph, size: int) -> list[Any]:
    """Return a row of the metadata; two of the column names contain a comma and need two cells."""
    millimeters = round(10 / CM / size, 4)
    return [
        image.name,
        "|".join(image.findings) or NO_FINDING,
        image.follow_up,
        image.number,
        image.patient.age,
        image.patient.sex,
        image.view,
        *(size, size),
        *(millimeters, millimeters),
    ]


def _readme(recipe: Recipe) -> str:
    return (
        f"{recipe.images} synthetic chest radiographs, generated by featurecache.\n\n"
        "No image shows a patient: every image, label, age and sex was generated from random\n"
        "numbers. The images are for trying things out. Scores on them say nothing about\n"
        "patients, and no model that was trained on them may be used on one.\n\n"
        f"Generated by generator version {recipe.generator} from seed {recipe.seed}, "
        f"{recipe.size} x {recipe.size} pixels.\n"
        "The layout is that of NIH ChestX-ray14, with boxes around the findings in\n"
        f"{BOXES}. License: Apache-2.0.\n"
    )


def _read_recipe(root: Path) -> Recipe:
    try:
        return Recipe(**strict_json.read(root / RECIPE))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{root} contains no phantom, {RECIPE} is missing: choose a folder that does not exist "
            "yet, or no folder to generate it in the user's cache"
        ) from error
    except (ValueError, TypeError) as error:
        raise DatasetError(
            f"{root / RECIPE} cannot be read ({error}): remove {root} to have it generated again"
        ) from error


def _default_root(recipe: Recipe) -> Path:
    """Return a folder in the user's cache, or in a temporary one if that cannot be written."""
    name = recipe.folder_name
    try:
        cache = user_cache()
        if is_phantom(cache / name):
            return cache / name
        make_folder(cache)
        if os.access(cache, os.W_OK | os.X_OK):
            return cache / name
        reason = f"{cache} is not writable"
    except OSError as error:
        reason = str(error)
    user = os.getuid() if hasattr(os, "getuid") else ""
    root = Path(tempfile.gettempdir()) / f"featurecache-{user}" / name
    if not is_phantom(root):
        warnings.warn(
            f"no cache folder ({reason}): the data set phantom is generated in {root}; set "
            "XDG_CACHE_HOME to a folder that you may write to",
            FeaturecacheWarning,
            stacklevel=2,
        )
    return root
