"""The data set as a folder: where it lies, drawing it there, and reading what was drawn."""

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.label_strings import NO_FINDING
from featurecache.datasets.nih import TEST_LIST, TRAIN_LIST, load_nih
from featurecache.datasets.phantom.cohort import Film, cohort, held_out
from featurecache.datasets.phantom.radiograph import draw_film
from featurecache.datasets.phantom.shapes import CM
from featurecache.errors import DatasetError, UsageError
from featurecache.io import json as strict_json
from featurecache.io.atomic import new_folder
from featurecache.progress import Progress

GENERATOR = 1
"""Version of everything that decides a pixel or a label: to be raised whenever one changes."""

IMAGES = 600
SEED = 0
SIZE = 224

FEWEST, MOST = 20, 100_000
"""Bounds of the number of films: with fewer there is nothing to split by patient."""

RECIPE = "phantom.json"
"""The file that says how the films were drawn, and by which a folder is known."""

SYNTHETIC = (
    "SYNTHETIC: these films are drawn, not taken. They are for trying things out; scores on them "
    "say nothing about patients."
)

_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides every pixel and label of a phantom.

    Raises:
        UsageError: the number of films is out of bounds, or the seed is below 0.
    """

    images: int = IMAGES
    size: int = SIZE
    seed: int = SEED
    generator: int = GENERATOR

    def __post_init__(self) -> None:
        if not FEWEST <= self.images <= MOST:
            raise UsageError(
                f"--n-images {self.images} is not from {FEWEST} to {MOST}: the data set phantom "
                "can be drawn with as many films as that"
            )
        if self.seed < 0:
            raise UsageError(f"--dataset-seed {self.seed} is below 0: give 0 or more")

    @property
    def folder_name(self) -> str:
        """A folder's name, different for each recipe."""
        return f"phantom-v{self.generator}-{self.images}-{self.size}-seed{self.seed}"


def load_phantom(
    root: Path, *, images: int | None = None, split: str = "auto", seed: int | None = None
) -> Dataset:
    """Load films that ``generate_phantom`` has drawn.

    Args:
        root: Their folder.
        images: How many there have to be; None takes as many as there are.
        split: As for ``load_nih``: "auto" and "official" take the fifth of the patients that was
            drawn for testing.
        seed: The seed they have to be drawn from, which also carves out validation; None takes
            the seed that they were drawn from.

    Returns:
        The manifest "phantom", with the 14 labels of ChestX-ray14.

    Raises:
        DatasetError: there is no phantom in that folder, or another one than was asked for.
        UnknownNameError: there is no such choice of split.
    """
    recipe = _recipe(root)
    for option, asked, there in (("images", images, recipe.images), ("seed", seed, recipe.seed)):
        if asked is not None and asked != there:
            raise DatasetError(
                f"{root} holds a phantom of {option} {there}, not {asked}: give --data-root a "
                "folder that does not exist yet, or leave it out"
            )
    manifest = load_nih(root, split=split, seed=recipe.seed)
    return replace(manifest, name="phantom", notes=(SYNTHETIC, *manifest.notes))


def phantom_root(
    root: Path | None, options: Mapping[str, Any], progress: Progress | None = None
) -> Path:
    """The folder of a phantom, which is drawn where it is not there yet.

    Args:
        root: A folder that holds a phantom, itself or under the name ``phantom``, or one that
            does not exist and is to hold it. None is a folder of the user's cache, one for each
            number of films and seed.
        options: Those of ``load_phantom``; ``images`` and ``seed`` matter here.
        progress: Called while films are drawn.

    Raises:
        UsageError: the number of films is out of bounds.
        DatasetError: the folder holds something else, or cannot be written.
    """
    recipe = Recipe(images=options.get("images", IMAGES), seed=options.get("seed", SEED))
    if root is None:
        root = _user_cache() / recipe.folder_name
    for folder in (root, root / "phantom"):
        if _is_phantom(folder):
            return folder
    if root.exists():
        raise DatasetError(
            f"{root} holds no phantom: give --data-root a folder that does not exist yet to draw "
            "it there, or leave it out"
        )
    generate_phantom(root, images=recipe.images, seed=recipe.seed, progress=progress)
    return root


def generate_phantom(
    root: Path,
    *,
    images: int = IMAGES,
    seed: int = SEED,
    size: int = SIZE,
    progress: Progress | None = None,
) -> None:
    """Draw a data set in the layout of ChestX-ray14.

    The folder appears whole or not at all. Of two processes that draw it at once both succeed,
    and the films of the first stay.

    Args:
        root: The folder to make.
        images: How many films.
        seed: Decides everything.
        size: Height and width of a film in pixels.
        progress: Called after every film.

    Raises:
        UsageError: the number of films or pixels is out of bounds.
        DatasetError: the folder is there and is no phantom, or cannot be written.
    """
    recipe = Recipe(images=images, size=size, seed=seed)
    try:
        with new_folder(root) as folder:
            _write(folder, recipe, progress)
    except OSError as error:
        if not _is_phantom(root):
            raise DatasetError(
                f"the data set phantom cannot be written to {root}: {error.strerror or error}; "
                "give --data-root a folder that does not exist yet"
            ) from error


def _write(folder: Path, recipe: Recipe, progress: Progress | None) -> None:
    films = cohort(recipe.images, seed=recipe.seed)
    _keep_memory()
    (folder / "images").mkdir()
    for done, film in enumerate(films, start=1):
        pixels = draw_film(
            film.patient, film.findings, view=film.view, seed=film.seed, size=recipe.size
        )
        # Noise does not compress: trying harder costs time and saves nothing.
        Image.fromarray(pixels).save(folder / "images" / film.name, compress_level=1)
        if progress is not None:
            progress(done, len(films))
    with (folder / "Data_Entry_2017_v2020.csv").open("w", newline="", encoding="utf-8") as file:
        file.write(f"{_HEADER}\n")
        csv.writer(file, lineterminator="\n").writerows(_row(film, recipe.size) for film in films)
    test = held_out(films, seed=recipe.seed)
    for name, part in (
        (TEST_LIST, [film.name for film in films if film.number in test]),
        (TRAIN_LIST, [film.name for film in films if film.number not in test]),
    ):
        (folder / name).write_text("\n".join(part) + "\n", encoding="utf-8")
    (folder / "README.txt").write_text(_readme(recipe), encoding="utf-8")
    (folder / RECIPE).write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")


def _keep_memory() -> None:
    """Have the C library keep freed memory of a film's size rather than give it back.

    glibc keeps blocks as large as the largest that was ever freed. Without this, each of a film's
    hundreds of arrays is fetched from the system anew, which takes as long as the drawing itself.
    """
    np.empty(2**24, dtype=np.uint8)


def _row(film: Film, size: int) -> list[Any]:
    """A row of the metadata; the two columns with a comma in their name hold two cells each."""
    millimetres = round(10 / CM / size, 4)
    return [
        film.name,
        "|".join(film.findings) or NO_FINDING,
        film.follow_up,
        film.number,
        film.patient.age,
        film.patient.sex,
        film.view,
        *(size, size),
        *(millimetres, millimetres),
    ]


def _readme(recipe: Recipe) -> str:
    return (
        f"{recipe.images} synthetic chest radiographs, drawn by featurecache.\n\n"
        "No patient was filmed: every image, label, age and sex here was drawn from random\n"
        "numbers. The films are for trying things out. Scores on them say nothing about\n"
        "patients, and no model that was trained on them may be used on one.\n\n"
        f"Drawn by generator version {recipe.generator} from seed {recipe.seed}, "
        f"{recipe.size} x {recipe.size} pixels.\n"
        "The layout is that of NIH ChestX-ray14. Licence: Apache-2.0.\n"
    )


def _recipe(root: Path) -> Recipe:
    try:
        return Recipe(**strict_json.read(root / RECIPE))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{root} holds no phantom, {RECIPE} is missing: leave out --data-root, or give it a "
            "folder that does not exist yet"
        ) from error
    except (ValueError, TypeError) as error:
        raise DatasetError(
            f"{root / RECIPE} cannot be read: remove {root}, and it is drawn again"
        ) from error


def _is_phantom(folder: Path) -> bool:
    return (folder / RECIPE).is_file()


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featurecache"
