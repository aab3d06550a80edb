from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from featurecache.audit.image_similarity import IDENTICAL, SIDE, likeness, miniature, spectrum
from featurecache.images.decode import read_image
from tests.audit.changed import CHANGES


def films(root: Path) -> list[Image.Image]:
    return [read_image(path) for path in sorted((root / "images").iterdir())]


def alike(one: Image.Image, two: Image.Image) -> float:
    (value,) = likeness(miniature(one), [miniature(two)])
    return value


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_film_is_near_identical_whichever_comes_first(phantom: Path, change: str) -> None:
    rng = np.random.default_rng(0)
    for film in films(phantom)[::12]:
        other = CHANGES[change](film, rng)
        assert alike(film, other) >= IDENTICAL
        assert alike(other, film) >= IDENTICAL


def test_films_of_two_patients_are_not_near_identical(phantom: Path) -> None:
    first_visits = sorted((phantom / "images").glob("*_000.png"))
    small = [miniature(read_image(path)) for path in first_visits]
    others = [value for row, one in enumerate(small) for value in likeness(one, small[:row])]
    assert max(others) < IDENTICAL


def test_two_real_films_of_one_patient_are_not_near_identical(shared_data: Path) -> None:
    patients: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted((shared_data / "nih" / "images").iterdir()):
        patients[path.name[:8]].append(path)
    alike_most = 0.0
    for paths in patients.values():
        small = [miniature(read_image(path)) for path in paths]
        for row, one in enumerate(small):
            alike_most = max([alike_most, *likeness(one, small[:row])])
    assert 0.8 < alike_most < IDENTICAL


def test_changed_copies_of_real_films_are_found_by_spectrum_and_near_identical(
    shared_data: Path,
) -> None:
    rng = np.random.default_rng(0)
    paths = [
        *sorted((shared_data / "nih" / "images").iterdir())[::4],
        *sorted((shared_data / "kermany").rglob("*.jpeg"))[::20],
    ]
    small = [miniature(read_image(path)) for path in paths]
    gallery = np.stack([spectrum(film) for film in small])
    for row in range(0, len(paths), 5):
        for change in CHANGES.values():
            copy = miniature(change(read_image(paths[row]).convert("L"), rng))
            assert int(np.argmax(gallery @ spectrum(copy))) == row
            (value,) = likeness(small[row], [copy])
            assert value >= IDENTICAL


def test_a_film_is_exactly_like_itself_and_like_no_film_without_detail(phantom: Path) -> None:
    film = films(phantom)[0]
    assert alike(film, film) == pytest.approx(1, abs=1e-5)
    grey = Image.new("L", (300, 200), 90)
    assert alike(film, grey) == pytest.approx(0, abs=1e-3)
    assert alike(grey, grey) == pytest.approx(0, abs=1e-3)


def test_the_likeness_of_unlike_films_is_the_greatest_correlation_of_windows(
    phantom: Path,
) -> None:
    one, two = (miniature(film) for film in films(phantom)[:30:29])
    (found,) = likeness(one, [two])
    assert found < 0.6  # beyond, finer zooms are tried

    def detail(film: np.ndarray) -> np.ndarray:
        from scipy.ndimage import gaussian_filter

        return film.astype(float) - gaussian_filter(film.astype(float), 2, mode="nearest")

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


def test_a_spectrum_does_not_move_with_the_film(phantom: Path) -> None:
    pixels = np.asarray(films(phantom)[0].filter(ImageFilter.GaussianBlur(1)))
    framed = np.pad(pixels[40:-40, 40:-40], 40)  # on black, so that nothing comes in
    one, two, other = (
        spectrum(miniature(Image.fromarray(film)))
        for film in (framed, np.roll(framed, (7, -10), (0, 1)), np.rot90(framed))
    )
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6)
    assert one @ two > 0.95 > one @ other
    assert not spectrum(np.full((SIDE, SIDE), 7, dtype=np.uint8)).any()
