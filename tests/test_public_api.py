"""The public API: every name is importable, documented, and its example runs."""

import doctest
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import featurecache as fc

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
    documented = getattr(fc, name)
    docstring = inspect.getdoc(documented)
    assert docstring, f"{name} has no docstring"
    examples = doctest.DocTestParser().get_doctest(docstring, {}, name, None, None)
    runnable = [e for e in examples.examples if not e.options.get(doctest.SKIP)]
    assert runnable, f"the docstring of {name} has no example that runs"
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
    assert results.failed == 0


@pytest.mark.parametrize("name", fc.__all__)
def test_every_public_function_is_typed_and_documents_its_arguments(name: str) -> None:
    documented = getattr(fc, name)
    if not inspect.isfunction(documented):
        pytest.skip("a class")
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


@pytest.mark.parametrize("name", ["audit", "finetune", "report"])
def test_a_package_does_not_hide_the_function_of_the_same_name(name: str) -> None:
    script = f"import featurecache.{name}; import featurecache; print(featurecache.{name})"
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith(f"<function {name}")


@pytest.mark.parametrize("script", ["import featurecache", "import featurecache.cli"])
def test_imports_load_no_heavy_library(script: str) -> None:
    check = f"import sys; {script}; print([m for m in {HEAVY} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    ).stdout
    assert loaded == "[]\n"
