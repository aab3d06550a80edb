import numpy as np
import pytest

from featurecache.images.contact_sheet import CAPTION_HEIGHT, GAP, contact_sheet


def test_films_stand_under_their_captions() -> None:
    films = [np.full((32, 40), grey, dtype=np.uint8) for grey in (50, 100, 150)]
    rows = [[("a", films[0]), ("b", films[1])], [("c", films[2])]]
    sheet = np.asarray(contact_sheet(rows))
    assert sheet.shape == (2 * (32 + CAPTION_HEIGHT) + GAP, 2 * 40 + GAP)
    assert (sheet[CAPTION_HEIGHT : CAPTION_HEIGHT + 32, 40 + GAP :] == 100).all()
    assert (sheet[-32:, :40] == 150).all()
    assert sheet[:CAPTION_HEIGHT].any()


def test_films_of_several_sizes_are_refused() -> None:
    films = [("", np.zeros((side, 8), dtype=np.uint8)) for side in (8, 9)]
    with pytest.raises(ValueError, match="films of one size, not of 2"):
        contact_sheet([films])


def test_a_long_caption_ends_with_its_film():
    film = np.full((20, 30), 7, dtype=np.uint8)
    sheet = np.asarray(contact_sheet([[("much too long a caption", film), ("", film)]]))
    assert sheet[:CAPTION_HEIGHT, :30].max() > 100
    assert sheet[:CAPTION_HEIGHT, 30:].max() == 0
