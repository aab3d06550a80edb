import numpy as np
from PIL import Image

from featurecache.images.contact_sheet import THUMBNAIL, contact_sheet
from featurecache.images.heatmap import (
    COLOR,
    OPACITY,
    draw_heatmap,
    draw_plain,
    read_size_and_thumbnail,
    size_and_thumbnail,
)

GRAY = np.full((THUMBNAIL, THUMBNAIL), 100, dtype=np.uint8)


def test_color_is_where_the_map_is_high():
    drawn = draw_heatmap(GRAY, np.array([[0.0, 0.0], [0.0, 0.5]]), (0, 0, 1, 1))
    highest = [round((1 - OPACITY) * 100 + OPACITY * color) for color in COLOR]
    assert drawn[-1, -1].tolist() == highest
    assert drawn[0, 0].tolist() == [100, 100, 100]
    assert drawn.shape == (THUMBNAIL, THUMBNAIL, 3)


def test_map_covers_only_the_part_that_the_network_sees():
    crop = draw_heatmap(GRAY, np.ones((2, 2)), (0.25, 0.5, 0.75, 1))
    is_colored = (crop != 100).any(axis=2)
    rows, columns = np.nonzero(is_colored)
    side = THUMBNAIL
    assert (rows.min(), columns.min(), columns.max()) == (side // 2, side // 4, 3 * side // 4 - 1)
    # The image is the last sixteenth of the map.
    padded = draw_heatmap(GRAY, np.array([[1.0, 0], [0, 0]]), (-3, -3, 1, 1))
    assert (padded == 100).all()


def test_pictures_keep_proportions_and_sheets_have_color():
    image = Image.new("L", (400, 200), 50)
    (width, height), pixels = read_size_and_thumbnail(size_and_thumbnail(image))
    assert (width, height) == (400, 200)
    assert pixels.shape == (THUMBNAIL // 2, THUMBNAIL)
    plain = draw_plain(pixels)
    assert (plain[0] == 0).all()
    assert (plain[THUMBNAIL // 2] == 50).all()
    assert contact_sheet([[("a", plain), ("b", plain)]], title="c").mode == "RGB"
