"""Example images: which are chosen, and their thumbnails."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from featurecache.errors import UsageError
from featurecache.evaluation.comparison import scored_images
from featurecache.report.examples import N_EXAMPLES, Thumbnails, most_confident
from featurecache.runs.run import load_run
from tests.report.report_runs import write_run


def test_groups_hold_the_most_confident_predictions(tmp_path):
    scored = scored_images(load_run(write_run(tmp_path / "run")))
    truth, probability = scored.truth[:, 0], scored.probability[:, 0]
    predicted = probability >= scored.thresholds[0]
    examples = most_confident(scored, 0)
    for name, rows, extreme in (
        ("True positives", (truth == 1) & predicted, np.max),
        ("False negatives", (truth == 1) & ~predicted, np.min),
        ("False positives", (truth == 0) & predicted, np.max),
        ("True negatives", (truth == 0) & ~predicted, np.min),
    ):
        assert len(examples[name]) == min(N_EXAMPLES, rows.sum())
        assert examples[name][0].probability == extreme(probability[rows])
        assert all(rows[e.row] and scored.ids[e.row] == e.id for e in examples[name])


def test_images_with_unknown_label_are_in_no_group(tmp_path):
    def edit_truth(truth):
        truth[::2, 0] = -1

    scored = scored_images(load_run(write_run(tmp_path / "run", edit_truth=edit_truth)))
    examples = most_confident(scored, 0, n_examples=1000)
    assert sum(map(len, examples.values())) == (scored.truth[:, 0] >= 0).sum()


def test_thumbnail_is_small_and_read_once(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.full((800, 600), 90, dtype=np.uint8)).save(path)
    thumbnails = Thumbnails({"one": path})
    url = thumbnails.data_url("one")
    path.unlink()
    assert thumbnails.data_url("one") == url
    assert url.startswith("data:image/jpeg;base64,")
    assert len(url) < 12_000


def test_damaged_image_has_no_thumbnail_and_missing_image_is_refused(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"not an image")
    assert Thumbnails({"one": path}).data_url("one") is None
    with pytest.raises(UsageError, match="no image 'two'"):
        Thumbnails({"one": path}).data_url("two")


def test_another_file_than_the_scored_one_is_refused(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.full((80, 60), 90, dtype=np.uint8)).save(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert Thumbnails({"one": path}).data_url("one", sha256)
    Image.fromarray(np.full((80, 60), 91, dtype=np.uint8)).save(path)
    # No argument is named, because where the run's own data set is read, none was given.
    with pytest.raises(UsageError, match="that the run scored: make the run again, or a report"):
        Thumbnails({"one": path}).data_url("one", sha256)
    path.unlink()
    assert Thumbnails({"one": path}).data_url("one", sha256) is None
