"""The public API: every name is importable, documented, and its example runs."""

import doctest
import inspect
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import featurecache as fc
from featurecache.finetune.config import make_config
from featurecache.prompts import load_prompts

HEAVY = ("torch", "transformers", "h5py", "sklearn", "pandas", "numpy", "pydantic", "scipy")
"""Libraries that ``import featurecache`` and ``featurecache --help`` must not load."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``cache/phantom/tiny.h5`` and an image, as the examples expect."""
    folder = tmp_path_factory.mktemp("examples")
    data = fc.load_dataset("phantom", folder / "phantom", n_images=200)
    fc.extract(data, "tiny", cache_dir=folder / "cache")
    image = data.root / data.images["path"].iloc[0]
    shutil.copyfile(image, folder / "image.png")
    return folder


@pytest.mark.parametrize("name", fc.__all__)
def test_every_public_name_has_an_example_that_runs(
    name: str, prepared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FEATURECACHE_DATA", str(folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "user-data"))
    documented = getattr(fc, name)
    docstring = inspect.getdoc(documented)
    assert docstring, f"{name} has no docstring"
    examples = doctest.DocTestParser().get_doctest(docstring, {}, name, None, None)
    runnable = [e for e in examples.examples if not e.options.get(doctest.SKIP)]
    assert runnable, f"the docstring of {name} has no example that runs"
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
    assert results.failed == 0


@pytest.mark.parametrize("name", [name for name in fc.__all__ if name.islower()])
def test_every_public_function_is_typed_and_documents_its_arguments(name: str) -> None:
    documented = getattr(fc, name)
    docstring = inspect.getdoc(documented) or ""
    signature = inspect.signature(documented)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name
        assert f"{parameter.name}:" in docstring, f"{name} does not document {parameter.name}"


def test_public_names_are_listed_and_unknown_ones_are_refused() -> None:
    assert set(fc.__all__) <= set(dir(fc))
    with pytest.raises(AttributeError, match="no attribute 'zeroshot'"):
        fc.zeroshot  # noqa: B018


def test_a_package_does_not_hide_the_function_of_the_same_name() -> None:
    names = ["audit", "finetune", "report"]
    script = "\n".join(
        [f"import featurecache.{name}\nprint(featurecache.{name})" for name in names]
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [line.split(" at ")[0] for line in shown] == [f"<function {name}" for name in names]


@pytest.mark.parametrize("script", ["import featurecache", "import featurecache.cli"])
def test_imports_load_no_heavy_library(script: str) -> None:
    check = f"import sys; {script}; print([m for m in {HEAVY} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    ).stdout
    assert loaded == "[]\n"


@pytest.fixture(scope="module")
def cache(prepared: Path) -> fc.Cache:
    return fc.open_cache(prepared / "cache" / "phantom" / "tiny.h5")


@pytest.fixture(scope="module")
def run(cache: fc.Cache) -> fc.Run:
    return fc.train_head(cache, "linear", controls=False, n_bootstrap=20)


def test_caches_are_accepted_where_their_paths_are(
    cache: fc.Cache, run: fc.Run, tmp_path: Path
) -> None:
    assert fc.open_cache(cache) is cache
    assert fc.open_cache([cache]) is cache
    with pytest.raises(ValueError, match="a cache is given twice"):
        fc.open_cache([cache, cache.path])
    for caches in (cache, [str(cache.path)]):
        page = fc.report(run, tmp_path / "report.html", caches=caches, overwrite=True)
        assert page.exists()


def test_prompt_sets_are_accepted_where_their_names_are(cache: fc.Cache) -> None:
    signs = load_prompts("signs")
    assert (cache.text_embeddings(signs) == cache.text_embeddings("signs")).all()
    scored = fc.zero_shot(cache, prompts=signs, n_bootstrap=0)
    assert scored.metrics == fc.zero_shot(cache, prompts="signs", n_bootstrap=0).metrics
    assert len(fc.retrieve(cache, label="Edema", prompts=signs, top=2)) == 2
    trained = fc.train_head(cache, "text_residual", prompts=signs, controls=False, n_bootstrap=0)
    assert trained.config["settings"]["prompts"] == "signs"
    with pytest.raises(ValueError, match="holds other prompts named 'signs'"):
        fc.zero_shot(cache, prompts=replace(signs, templates=("a {pathology}",)))


def test_fine_tuning_takes_a_prompt_set_that_its_run_can_record() -> None:
    signs = load_prompts("signs")
    assert make_config(None, {"objective": "contrastive", "prompts": signs}).prompts == "signs"
    with pytest.raises(ValueError, match="is not built in: write it to a"):
        make_config(None, {"objective": "contrastive", "prompts": replace(signs, name="mine")})


def test_runs_can_be_pickled(run: fc.Run, cache: fc.Cache, tmp_path: Path) -> None:
    embedding = cache.embedding[:3]
    assert run.model is not None
    expected = run.model.probabilities(embedding)
    for original in (run, fc.load_run(run.save(tmp_path / "run"))):
        copy = pickle.loads(pickle.dumps(original))  # noqa: S301
        assert copy.metrics == run.metrics
        assert (copy.model.probabilities(embedding) == expected).all()


def test_misspelled_settings_are_refused_with_a_suggestion(cache: fc.Cache) -> None:
    with pytest.raises(ValueError, match="unknown setting 'epoch': did you mean epochs"):
        fc.train_head(cache, "weighted_sum", epoch=3)
    with pytest.raises(ValueError, match="unknown setting 'epoch': did you mean epochs"):
        fc.finetune("phantom", "tiny", objective="bce", epoch=3)


def test_wrong_arguments_are_refused_in_words(cache: fc.Cache, run: fc.Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give at least two runs"):
        fc.compare("runs/linear")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="images contains a ndarray: give paths or PIL images"):
        fc.load_encoder("tiny").encode_images([np.zeros((8, 8))])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="`image_timeout` is -1: must be above 0"):
        fc.extract("phantom", "tiny", image_timeout=-1, cache_dir=tmp_path)


def test_an_empty_label_map_matches_equal_names(cache: fc.Cache, run: fc.Run) -> None:
    external = run.evaluate(cache, label_map={}, n_bootstrap=0)
    assert external.metrics.macro.auroc == pytest.approx(run.metrics.macro.auroc, abs=1e-6)


def test_an_encoder_that_only_a_folder_holds_is_asked_for(prepared: Path, tmp_path: Path) -> None:
    tuned = fc.finetune(
        ("phantom", prepared / "phantom"),
        "tiny",
        objective="bce",
        trainable="head",
        epochs=1,
        train_size=32,
        n_bootstrap=0,
        out=tmp_path / "tuned",
    )
    assert tuned.path is not None
    own = fc.extract(("phantom", prepared / "phantom"), tuned.path, cache_dir=tmp_path)
    run = fc.train_head(own, "linear", controls=False, n_bootstrap=0)
    with pytest.raises(ValueError, match=r"needs the encoder tuned, .* folder as `models`"):
        run.predict(prepared / "image.png")
    with pytest.raises(ValueError, match=r"needs the encoder tuned, .* folder as `model`"):
        fc.retrieve(own, "edema")
    assert len(run.predict(prepared / "image.png", models=[str(tuned.path)])) == 1
