"""The embedded data set from the command line: no folder, no download."""

import pytest


@pytest.fixture
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "featurecache"


def test_extract_draws_the_films_once_and_reads_them_from_then_on(run, tiny_clip, user_cache):
    command = ("extract", "--model", tiny_clip, "--dataset", "phantom", "--n-images", 20)
    first = run(*command)
    assert first.code == 0, first.stderr
    assert "SYNTHETIC" in first.stderr
    assert "draw films" in first.stderr
    assert (user_cache / "phantom-v1-20-224-seed0").is_dir()
    again = run(*command, "--json")
    assert again.json[0]["reused"] == 20
    assert "draw films" not in again.stderr


def test_a_number_of_films_out_of_bounds_is_refused(run, tiny_clip, user_cache):
    outcome = run("extract", "--model", tiny_clip, "--dataset", "phantom", "--n-images", 3)
    assert outcome.code == 2
    assert "--n-images 3 is not from 20" in outcome.stderr
    assert not user_cache.exists()


def test_images_is_an_option_of_phantom_alone(run, tiny_clip, tmp_path):
    outcome = run(
        *("extract", "--model", tiny_clip, "--dataset", "folder"),
        *("--data-root", tmp_path, "--n-images", 30),
    )
    assert outcome.code == 2
    assert "takes no option 'images'" in outcome.stderr
