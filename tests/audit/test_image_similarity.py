from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from featurecache.audit.image_similarity import (
    MIN_SIMILARITY,
    SIDE,
    miniature,
    similarities,
    spectrum,
)
from featurecache.images.decode import read_image
from tests.audit.changed import CHANGES


def read_images(root: Path, rows: slice) -> list[Image.Image]:
    return [read_image(path) for path in sorted((root / "images").iterdir())[rows]]


def similarity(first: Image.Image, second: Image.Image) -> float:
    (value,) = similarities(miniature(first), [miniature(second)])
    return value


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copy_is_a_near_duplicate_in_either_order(any_phantom: Path, change: str) -> None:
    rng = np.random.default_rng(0)
    for image in read_images(any_phantom, slice(None, None, 12)):
        other = CHANGES[change](image, rng)
        assert similarity(image, other) >= MIN_SIMILARITY
        assert similarity(other, image) >= MIN_SIMILARITY


def test_images_of_different_patients_are_not_near_duplicates(any_phantom: Path) -> None:
    first_visits = sorted((any_phantom / "images").glob("*_000.png"))
    small = [miniature(read_image(path)) for path in first_visits]
    others = [value for row, one in enumerate(small) for value in similarities(one, small[:row])]
    assert max(others) < MIN_SIMILARITY


def test_real_images_of_one_patient_are_not_near_duplicates(shared_data: Path) -> None:
    patients: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted((shared_data / "nih" / "images").iterdir()):
        patients[path.name[:8]].append(path)
    highest = 0.0
    for paths in patients.values():
        small = [miniature(read_image(path)) for path in paths]
        for row, one in enumerate(small):
            highest = max([highest, *similarities(one, small[:row])])
    assert 0.8 < highest < MIN_SIMILARITY


def test_changed_copies_of_real_images_are_found_by_spectrum_and_confirmed(
    shared_data: Path,
) -> None:
    rng = np.random.default_rng(0)
    paths = [
        *sorted((shared_data / "nih" / "images").iterdir())[::4],
        *sorted((shared_data / "kermany").rglob("*.jpeg"))[::20],
    ]
    small = [miniature(read_image(path)) for path in paths]
    gallery = np.stack([spectrum(image) for image in small])
    for row in range(0, len(paths), 5):
        for change in CHANGES.values():
            copy = miniature(change(read_image(paths[row]).convert("L"), rng))
            assert int(np.argmax(gallery @ spectrum(copy))) == row
            (value,) = similarities(small[row], [copy])
            assert value >= MIN_SIMILARITY


def test_similarity_is_1_for_the_same_image_and_0_without_detail(phantom: Path) -> None:
    (image,) = read_images(phantom, slice(1))
    assert similarity(image, image) == pytest.approx(1, abs=1e-5)
    gray = Image.new("L", (300, 200), 90)
    assert similarity(image, gray) == pytest.approx(0, abs=1e-3)
    assert similarity(gray, gray) == pytest.approx(0, abs=1e-3)


def test_similarity_of_different_images_is_the_highest_window_correlation(
    phantom: Path,
) -> None:
    one, two = (miniature(image) for image in read_images(phantom, slice(0, 30, 29)))
    (found,) = similarities(one, [two])
    assert found < 0.6  # above that, finer zooms are tried

    def detail(image: np.ndarray) -> np.ndarray:
        from scipy.ndimage import gaussian_filter

        return image.astype(float) - gaussian_filter(image.astype(float), 2, mode="nearest")

    there, best = detail(two), -1.0
    for down, across in product((0.94, 1, 1.06), repeat=2):
        x, y = 24 / across, 24 / down
        box = (32 - x, 32 - y, 32 + x, 32 + y)
        image = Image.fromarray(detail(one).astype(np.float32))
        middle = np.asarray(image.resize((48, 48), Image.Resampling.BICUBIC, box=box)).ravel()
        for top, left in product(range(17), repeat=2):
            window = there[top : top + 48, left : left + 48].ravel()
            best = max(best, float(np.corrcoef(middle, window)[0, 1]))
    assert found == pytest.approx(best, abs=1e-4)


def test_spectrum_is_invariant_to_shifts(phantom: Path) -> None:
    (image,) = read_images(phantom, slice(1))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(1)))
    framed = np.pad(pixels[40:-40, 40:-40], 40)  # black frame, so that a shift adds nothing
    one, two, other = (
        spectrum(miniature(Image.fromarray(image)))
        for image in (framed, np.roll(framed, (7, -10), (0, 1)), np.rot90(framed))
    )
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6)
    assert one @ two > 0.95 > one @ other
    assert not spectrum(np.full((SIDE, SIDE), 7, dtype=np.uint8)).any()
