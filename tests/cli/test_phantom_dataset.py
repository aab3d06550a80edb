"""The data set phantom, as commands generate and recognize it."""

import pytest

from featurecache.datasets.phantom.folder import generate_phantom


@pytest.fixture
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "featurecache"


def test_phantom_is_generated_once(run, tiny_clip, user_cache):
    command = ("extract", "--model", tiny_clip, "--dataset", "phantom", "--n-images", 20)
    first = run(*command)
    assert first.code == 0, first.stderr
    assert "SYNTHETIC" in first.stderr
    assert "generate images" in first.stderr
    assert (user_cache / "phantom-v2-20-224-seed0").is_dir()
    again = run(*command, "--json")
    assert again.json[0]["reused"] == 20
    assert "generate images" not in again.stderr


def test_number_of_images_out_of_bounds_is_refused(run, tiny_clip, user_cache):
    outcome = run("extract", "--model", tiny_clip, "--dataset", "phantom", "--n-images", 3)
    assert outcome.code == 2
    assert "is 3: the data set phantom can have from 20" in outcome.stderr
    assert not user_cache.exists()


def test_option_of_another_data_set_is_refused(run, tiny_clip, tmp_path):
    outcome = run(
        *("extract", "--model", tiny_clip, "--dataset", "folder"),
        *("--data-root", tmp_path, "--n-images", 30),
    )
    assert outcome.code == 2
    assert "the data set folder takes no option" in outcome.stderr


def test_data_set_is_recognized_from_its_root(run, tiny_clip, tmp_path):
    root = tmp_path / "xrays"
    generate_phantom(root, n_images=20, size=32)
    outcome = run("extract", "--model", tiny_clip, "--data-root", root)
    assert outcome.code == 0
    assert outcome.stderr.startswith(f"data set phantom, recognized from {root}\n")
    outcome = run("extract", "--model", tiny_clip, "--data-root", tmp_path / "none")
    assert outcome.code == 2
    assert "none does not exist" in outcome.stderr
