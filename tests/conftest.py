"""Fixtures of all tests: real data and weights if available, and small checkpoints."""

import gc
import os
import runpy
from collections.abc import Callable, Iterator
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings

# The same examples each time, so that a change is not refused for what it did not touch.
# python -m tests.fuzz looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Several threads slow each other down on a busy machine. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Waiting for the disk would take minutes, and no test survives a power loss. The tests of syncing
# record the calls; those that kill processes start others, which do sync.
os.fsync = lambda descriptor: None

# Modules are most of the objects, and none of them is garbage.
gc.set_threshold(100_000, 10, 10)

SHARED = Path(__file__).resolve().parents[2] / "shared"
BAD_DECODER = Path(__file__).parent / "extraction" / "bad_decoder"


class Spoil(NamedTuple):
    """Functions that change an image file so that the bad decoder fails on it."""

    crash: Callable[[Path], None]
    hang: Callable[[Path], None]
    crash_later: Callable[[Path], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move a long file from the end to the start, where it keeps no other process waiting."""
    items.sort(key=lambda item: item.path.name != "test_public_api.py")


def pytest_collection_finish() -> None:
    """Look for garbage only among what the tests make."""
    gc.freeze()


@pytest.fixture
def bad_decoder(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Install a decoder that crashes or hangs on some files in subprocesses only."""
    monkeypatch.syspath_prepend(str(BAD_DECODER))
    names = runpy.run_path(str(BAD_DECODER / "sitecustomize.py"))

    def spoil(path: Path, *, how: str) -> None:
        path.write_bytes(path.read_bytes() + names[how])

    return Spoil(*(partial(spoil, how=how) for how in ("CRASH", "HANG", "CRASH_LATER")))


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Undo after each test what it registers: encoders, data sets and heads."""
    from featurecache.datasets import registry as datasets
    from featurecache.encoders import registry as encoders
    from featurecache.heads import registry as heads

    registries = encoders._encoders, encoders._loaders, datasets._specs, heads._HEADS
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


def set_user_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Keep converted networks and remembered measurements in this folder."""
    for module in ("encoders.openvino", "extraction.remembered_probe"):
        monkeypatch.setattr(f"featurecache.{module}.user_cache", lambda: folder)


@pytest.fixture(scope="session", autouse=True)
def user_cache_of_fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep those of this machine out of fixtures that outlive a test."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_user_cache(monkeypatch, tmp_path_factory.mktemp("user-cache") / "featurecache")
        yield


@pytest.fixture(autouse=True)
def user_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep those of this machine, and of other tests, out of a test."""
    folder = tmp_path / "user-cache" / "featurecache"
    set_user_cache(monkeypatch, folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    """Do less of what takes long and of which no test needs much.

    Draw phantoms in half the usual size and a third of the usual number, and in a report only the
    plots of its first labels; search the penalty of a control, half the time of a run, among fewer
    fits; do not measure executions for seconds; and build the commands once, not at each call.
    """
    from typer.main import get_command

    from featurecache.datasets.phantom import folder
    from featurecache.evaluation import simple_predictors
    from featurecache.extraction import probe
    from featurecache.report import label_sections

    label_plots = label_sections._label_plots

    @wraps(label_plots)
    def first_label_plots(label: Any, scored: Any, registry: Any) -> Any:
        return label_plots(label, scored, registry) if len(registry.figures) < 10 else []

    assert folder.generate_phantom.__kwdefaults__ is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(folder.generate_phantom.__kwdefaults__, "size", 112)
        patch.setattr(folder, "N_IMAGES", 200)
        patch.setattr(simple_predictors, "STRENGTHS", (1e-2,))
        patch.setattr(simple_predictors, "N_FOLDS", 2)
        patch.setattr(probe, "MIN_SECONDS", 0.01)
        patch.setattr(label_sections, "_label_plots", first_label_plots)
        patch.setattr("typer.testing._get_command", cache(get_command))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real chest X-rays: $FEATURECACHE_DATA, else ../shared/data."""
    root = Path(os.environ.get("FEATURECACHE_DATA") or SHARED / "data")
    if not (root / "nih").is_dir():
        pytest.skip(f"no real chest X-rays at {root}: set FEATURECACHE_DATA to run this test")
    return root


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of real pretrained weights: $FEATURECACHE_MODELS."""
    root = os.environ.get("FEATURECACHE_MODELS")
    if not root or not (Path(root) / "dinov2-small").is_dir():
        pytest.skip("no real weights: set FEATURECACHE_MODELS to a folder with dinov2-small")
    return Path(root)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP-shaped checkpoint folder with few, random weights."""
    from tests import published

    folder = tmp_path_factory.mktemp("tiny") / "tiny-clip"
    published.write_clip(folder, published.tiny_clip_config(), seed=1)
    return folder


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of local models with a vision and a text encoder under their hub names."""
    from tests import published

    root = tmp_path_factory.mktemp("models")
    published.write_dinov2(root / "dinov2-small", seed=2)
    published.write_bert(root / "all-MiniLM-L6-v2", seed=3)
    return root
