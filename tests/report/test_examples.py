"""Which images a run was most certain of."""

import numpy as np
import pytest
from PIL import Image

from featurecache.errors import UsageError
from featurecache.evaluation.comparison import read_scored
from featurecache.report.examples import EACH, Films, most_certain
from tests.report.report_runs import write_run


def test_groups_hold_the_most_extreme_of_their_kind(tmp_path):
    scored = read_scored(write_run(tmp_path / "run"))
    truth, probability = scored.truth[:, 0], scored.probability[:, 0]
    called = probability >= scored.thresholds[0]
    found = most_certain(scored, 0)
    for name, rows, best in (
        ("Found", (truth == 1) & called, probability[(truth == 1) & called].max()),
        ("Missed", (truth == 1) & ~called, probability[(truth == 1) & ~called].min()),
        ("False alarm", (truth == 0) & called, probability[(truth == 0) & called].max()),
        ("Rightly absent", (truth == 0) & ~called, probability[(truth == 0) & ~called].min()),
    ):
        assert len(found[name]) == min(EACH, rows.sum())
        assert found[name][0].probability == best
        assert all(rows[one.row] and scored.ids[one.row] == one.id for one in found[name])


def test_images_of_unknown_truth_are_in_no_group(tmp_path):
    def spoil(truth):
        truth[::2, 0] = -1

    scored = read_scored(write_run(tmp_path / "run", spoil=spoil))
    found = most_certain(scored, 0, each=1000)
    assert sum(map(len, found.values())) == (scored.truth[:, 0] >= 0).sum()


def test_a_film_is_a_small_picture_and_is_read_once(tmp_path):
    path = tmp_path / "film.png"
    Image.fromarray(np.full((800, 600), 90, dtype=np.uint8)).save(path)
    films = Films({"one": path})
    picture = films.picture("one")
    path.unlink()
    assert films.picture("one") == picture
    assert picture.startswith("data:image/jpeg;base64,")
    assert len(picture) < 12_000


def test_a_damaged_film_is_none_and_a_missing_one_is_refused(tmp_path):
    path = tmp_path / "film.png"
    path.write_bytes(b"no film")
    assert Films({"one": path}).picture("one") is None
    with pytest.raises(UsageError, match="no image 'two'"):
        Films({"one": path}).picture("two")
