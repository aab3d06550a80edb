"""What ``explore`` serves: its table and files, and why something is missing. No server runs."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli import main
from featurecache.errors import CacheError, FeaturecacheWarning, UsageError
from featurecache.explore import server
from featurecache.explore.explore import cache_to_explore
from tests.audit.audit_caches import make_cache
from tests.evaluation.toy_caches import write_toy_cache
from tests.extraction.stub_encoder import StubEncoder, make_dataset, write_images


@pytest.fixture
def served(monkeypatch):
    """What was given to the server."""
    calls = []

    def serve(table, files, *, announce, **settings):
        calls.append((table, files, settings))
        announce("http://127.0.0.1:1/secret/")

    monkeypatch.setattr(server, "require_explorer", lambda: None)
    monkeypatch.setattr(server, "serve", serve)
    return calls


@pytest.fixture
def flat_folder(tmp_path):
    """The cache of six images in a folder, without labels."""
    write_images(tmp_path / "images", 6)
    return fc.extract(tmp_path / "images", StubEncoder(), cache_dir=tmp_path / "cache")


def test_images_of_an_unlabeled_folder_are_shown(served, flat_folder, tmp_path, capsys):
    fc.explore(flat_folder, image=flat_folder.ids[2], port=7, browser=False)
    ((table, files, settings),) = served
    assert capsys.readouterr().out == "http://127.0.0.1:1/secret/\n"
    assert settings == {"text": "id", "bit_depth": None, "port": 7, "browser": False}
    assert table["id"].tolist() == sorted(files) == flat_folder.ids.tolist()
    assert all(path.is_file() for path in files.values())
    expected = fc.retrieve(flat_folder, image=flat_folder.ids[2], top=6).set_index("id")["cosine"]
    cosines = table.set_index("id")["cosine with image"]
    assert cosines[flat_folder.ids[2]] == 1
    assert cosines[expected.index].tolist() == expected.tolist()


def test_command_shows_a_cache_whose_images_are_unknown(served, tmp_path):
    cache = make_cache(tmp_path, ["train"] * 4)
    result = CliRunner().invoke(main, ["explore", "--cache", str(cache.path), "--no-browser"])
    assert result.exit_code == 0, result.output
    assert result.stdout == "http://127.0.0.1:1/secret/\n"
    assert "images are not shown: the data set of" in result.stderr
    result = CliRunner().invoke(main, ["explore", "--cache", str(cache.path), "--json"])
    assert json.loads(result.stdout) == {"address": "http://127.0.0.1:1/secret/"}
    (table, files, settings), _ = served
    assert files == {}
    assert (settings["text"], settings["browser"], settings["port"]) == ("labels", False, 0)
    assert table["Mass"].tolist() == ["negative", "positive"] * 2


def test_pseudonymized_images_are_not_shown_without_the_key(served, tmp_path):
    write_images(tmp_path / "images", 4)
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    data = fc.load_dataset(tmp_path / "images", pseudonymize=key)
    cache = fc.extract(data, StubEncoder(), cache_dir=tmp_path / "cache")
    with pytest.warns(FeaturecacheWarning, match="not shown: the ids .* are pseudonymized"):
        fc.explore(cache)
    fc.explore(cache, data=data)
    (_, hidden, _), (table, files, _) = served
    assert hidden == {}
    assert sorted(files) == table["id"].tolist()


def test_run_is_shown_on_the_cache_that_it_was_made_from(served, tmp_path):
    ids = write_images(tmp_path, 24)
    cache = fc.extract(
        make_dataset(tmp_path, ids), StubEncoder(), prompts="signs", cache_dir=tmp_path / "cache"
    )
    run = fc.zero_shot(cache, n_bootstrap=0)
    path = run.save(tmp_path / "zero")
    result = CliRunner().invoke(main, ["explore", str(path), "--no-browser"])
    assert result.exit_code == 0, result.output
    ((table, _, _),) = served
    predicted = run.predictions.set_index("id")["Mass probability"]
    shown = table.set_index("id")["Mass probability"].dropna()
    assert shown.to_dict() == pytest.approx(predicted[shown.index].to_dict())
    assert len(shown) == run.metrics.n
    unit = cache.embedding.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    text = cache.text_embeddings()[cache.labels.names.index("Mass")]
    np.testing.assert_allclose(table["Mass cosine"], unit @ text, atol=1e-5)


def test_runs_on_studies_are_shown_with_their_labels(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.where(np.arange(32) % 4 == 0, -1, np.arange(32) % 2)[:, np.newaxis]
    cache = write_toy_cache(
        *(tmp_path / "a" / "toy.h5", rng.normal(size=(32, 4)), labels), names=("Mass",)
    )
    options = {"level": "study", "uncertain": "positive"}
    studies = fc.open_cache(cache, study_features="mean", **options)
    run = fc.train_head(studies, "prototype", n_bootstrap=0, controls=False)
    shown = cache_to_explore(None, [run])
    assert shown.units == studies.units
    assert shown.labels.values.tolist() == studies.labels.values.tolist()
    run = fc.train_head(fc.open_cache(cache, **options), "prototype", n_bootstrap=0, controls=False)
    with pytest.raises(UsageError, match="give a run of images, or one with `study_features`"):
        cache_to_explore(None, [run])


def test_nothing_to_show_and_a_moved_cache_are_refused(served, tmp_path):
    with pytest.raises(UsageError, match="give `cache` or `runs`"):
        fc.explore()
    cache = make_cache(tmp_path, ["train"] * 4)
    cache.path.unlink()
    with pytest.raises(CacheError):
        fc.explore(cache.path)
    assert served == []


def test_missing_explorer_is_reported_before_the_cache_is_read(monkeypatch):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'featurecache\[explore\]'"):
        fc.explore("missing.h5")
