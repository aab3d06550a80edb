"""After a power loss, files are complete: content is synced before a rename, folders after it."""

import ast
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from page import replace_section
from PIL import Image
from study import Study, publish
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli import main
from featurecache.datasets.dataset import Dataset
from featurecache.datasets.load import load_dataset
from featurecache.datasets.nih import TEST_LIST, TRAIN_LIST
from featurecache.datasets.phantom.folder import generate_phantom
from featurecache.encoders.loading import load_encoder
from featurecache.extraction.update import update_caches
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.distillation import Teacher
from featurecache.finetune.random_init import randomly_initialized
from featurecache.finetune.run import train_encoder
from featurecache.finetune.training_state import TrainingState
from featurecache.heads.train import train_head
from featurecache.io.atomic import new_file, sync
from featurecache.store.merge import Shard, merge_caches
from featurecache.store.reader import read_cache


@dataclass
class Calls:
    """Records the calls that decide what a power loss leaves, in order: operation and path."""

    below: Path
    seen: list[tuple[str, Path]] = field(default_factory=list)
    renamed: list[list[Path]] = field(default_factory=list)
    synced: dict[Path, tuple[int, int]] = field(default_factory=dict)
    changed: list[Path] = field(default_factory=list)

    def note(self, what: str, path: Path) -> None:
        path = Path.cwd() / path
        if path.is_relative_to(self.below):
            self.seen.append((what, path))

    def published(self) -> list[Path]:
        return [path for what, path in self.seen if what == "rename"]

    def at(self, what: str, path: Path, after: int = -1) -> int:
        """Return the index of the first such call after another one; fail if there is none."""
        return next(n for n, call in enumerate(self.seen) if n > after and call == (what, path))

    def check(self) -> None:
        """Check that content is synced before every rename, and its folder after it.

        The same holds for every folder that is created before something is put into it.
        """
        assert self.published()
        assert self.changed == [], f"{self.changed} were written after they were synced"
        sources = iter(self.renamed)
        for number, (what, path) in enumerate(self.seen):
            if what == "rename":
                for source in next(sources):
                    assert ("sync", source) in self.seen[:number], f"{source} was not synced"
                self.at("sync", path.parent, after=number)
            if what == "mkdir" and not path.name.startswith("."):
                self.at("sync", path.parent, after=number)

    def strays(self) -> set[str]:
        """Return files that were not put in place by a rename of them or of their folder."""
        places = set(self.published())
        return {
            str(path.relative_to(self.below))
            for path in self.below.rglob("*")
            if path.is_file() and places.isdisjoint([path, *path.parents])
        }


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls(tmp_path)
    sync, replace, rename, mkdir = os.fsync, Path.replace, Path.rename, Path.mkdir
    rmtree = shutil.rmtree

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.note("sync", path)
        calls.synced[path] = _state(path)
        sync(descriptor)

    def renaming(original: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def moved(self: Path, target: Path) -> Path:
            if (Path.cwd() / target).is_relative_to(calls.below):
                sources = [Path.cwd() / path for path in (self, *self.rglob("*"))]
                calls.renamed.append(sources)
                calls.changed += [
                    path
                    for path in sources
                    if path.is_file() and calls.synced.get(path, _state(path)) != _state(path)
                ]
            calls.note("rename", Path(target))
            return original(self, target)

        return moved

    def making(self: Path, *args: object, **kwargs: object) -> None:
        if not self.exists():
            calls.note("mkdir", self)
        mkdir(self, *args, **kwargs)  # type: ignore[arg-type]

    def removing(path: Path, **kwargs: object) -> None:
        if Path(path).exists():
            calls.note("remove", Path(path))
        rmtree(path, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", renaming(replace))
    monkeypatch.setattr(Path, "rename", renaming(rename))
    monkeypatch.setattr(Path, "mkdir", making)
    monkeypatch.setattr(shutil, "rmtree", removing)
    return calls


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("data") / "phantom"
    generate_phantom(root, n_images=40, seed=3, size=64)
    return load_dataset("phantom", root)


def test_extraction_merge_and_head(images: Dataset, tmp_path: Path, calls: Calls) -> None:
    encoder = load_encoder("tiny", device="cpu")
    shards = [
        update_caches(images, [encoder], cache_dir=tmp_path / "cache", shard=Shard(number, 2))[
            0
        ].path
        for number in (1, 2)
    ]
    merged, _ = merge_caches(shards)
    assert calls.published()[-1] == merged
    for shard in shards:
        parts = shard.with_name(f"{shard.name}.parts")
        durable = calls.at("sync", shard.parent, after=calls.at("rename", shard))
        part = calls.at("rename", parts / "part-00000000.h5")
        # The chunk file is durable before the cache is, and removed after.
        assert calls.at("sync", parts, after=part) < calls.at("rename", shard)
        assert calls.at("remove", parts) > durable
    cache = read_cache(merged)
    run = train_head(cache, "baseline", epochs=1, hidden=(4,), n_bootstrap=0, controls=False)
    run.save(tmp_path / "runs" / "head")
    assert calls.published()[-1] == tmp_path / "runs" / "head"
    calls.check()


def test_training_state(tmp_path: Path, calls: Calls) -> None:
    state = TrainingState(tmp_path / "runs" / "tuned", {"seed": 1})
    state.save_best({"weight": torch.ones(3)})
    state.save({"step": 1})
    state.save({"step": 2})
    names = ["settings.json", "best.safetensors", "last.pt", "last.pt"]
    assert [path.name for path in calls.published()] == names
    calls.check()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs a command in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def invoke(*arguments: object) -> None:
        outcome = CliRunner().invoke(main, [str(one) for one in arguments], catch_exceptions=False)
        assert outcome.exit_code == 0, outcome.stderr

    return invoke


def test_every_command_that_writes(
    tmp_path: Path,
    tiny_pair: Path,
    calls: Calls,
    command: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    pair = "cache/phantom/dinov2-minilm.h5"
    at = ("--cache", "cache/phantom/tiny.h5")
    generate_phantom(tmp_path / "images", n_images=60, seed=5, size=64)
    train_image, test_image = (
        tmp_path / "images" / "images" / (tmp_path / "images" / names).read_text().split()[0]
        for names in (TRAIN_LIST, TEST_LIST)
    )
    with Image.open(train_image) as image:  # a near-duplicate for the audit to find
        image.point(lambda value: min(value + 1, 255)).save(test_image)
    images = ("--dataset", "phantom", "--data-root", "images")
    few = ("--n-bootstrap", 0)
    models = ("--model", "tiny", "--model", "dinov2-minilm", "--precision", "fp32")
    command("extract", *images, *models)
    command("zero-shot", *at, "--out", "runs/zero", *few)
    command("train-head", "--head", "baseline", *at, "--epochs", 1, "--out", "runs/head", *few)
    command("evaluate", "runs/head", *at, "--out", "runs/other", *few)
    sizes = ("--sizes", "16", "--seeds", 1)
    command("learning-curve", "--head", "baseline", *at, *sizes, "--out", "runs/curve")
    command("align", "--cache", pair, "--out", "align/one.safetensors")
    command("report", "runs/head", "runs/zero", "--out", "pages/a.html", "--plots", "plots")
    command("retrieve", "signs of edema", *at, *images, "--contact-sheet", "sheets/found.png", *few)
    command("audit", *at, *images, "--contact-sheet", "sheets/near.png", *few)
    command("cache", "export", at[1], "exports/a.npy")
    command("cache", "export", at[1], "exports/folder", "--to", "webdataset")
    targets = [
        *("images", "cache/phantom/tiny.h5.parts/crash_journal", "cache/phantom/tiny.h5", pair),
        *("runs/zero", "runs/head", "runs/other", "runs/curve", "align/one.safetensors"),
        *("pages/a.html", "plots", "sheets/found.png", "sheets/near.png"),
        *("exports/a.images.csv", "exports/a.npy", "exports/folder"),
    ]
    published = [str(path.relative_to(tmp_path)) for path in calls.published()]
    assert [target for target in targets if target not in published] == []
    assert calls.strays() == {"cache/phantom/tiny.h5.lock", f"{pair}.lock"}
    calls.check()


def test_finetuning(images: Dataset, tmp_path: Path, calls: Calls) -> None:
    run, parts = tmp_path / "runs" / "tuned", tmp_path / "runs" / "tuned.parts"
    encoder = load_encoder("tiny", device="cpu")
    start = randomly_initialized(encoder, folder=tmp_path / "fresh", seed=1, precision="fp32")
    settings = FinetuneConfig(objective="bce", trainable="head", epochs=1, batch_size=8)
    train_encoder(images, start, settings, target=run, n_bootstrap=0, teacher=Teacher(encoder))
    (weights,) = (path for path in calls.published() if path.is_relative_to(tmp_path / "fresh"))
    assert weights.name == "tiny"
    state = {"crash_journal", "settings.json", "teacher.npy", "best.safetensors", "last.pt"}
    assert {path.name for path in calls.published() if path.parent == parts} == state
    # The training state remains until the run folder is durable.
    done = calls.at("sync", run.parent, after=calls.at("rename", run))
    assert calls.at("remove", parts) > done
    assert calls.strays() == set()
    calls.check()


def test_results_and_page_of_a_study(tmp_path: Path, calls: Calls) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- tiny -->\n<!-- end of tiny -->\n")
    replace_section(page, "tiny", "figures")
    study = Study(
        encoder=fc.load_encoder("tiny"),
        content={},
        work=tmp_path / "work",
        page=None,
        command="",
        started=0.0,
    )
    publish(study, ["figures"])
    assert calls.published() == [page, tmp_path / "work" / "results.md"]
    calls.check()


def test_missing_sync_is_detected(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").rename(tmp_path / "file")
    with pytest.raises(AssertionError, match="was not synced"):
        calls.check()


def test_write_after_sync_is_detected(tmp_path: Path, calls: Calls) -> None:
    with new_file(tmp_path / "file") as temporary:
        temporary.write_bytes(b"new")
        sync(temporary)
        temporary.write_bytes(b"newer")
    calls.check()  # new_file synced it again at the end
    with (tmp_path / "new").open("wb") as file:
        os.fsync(file.fileno())
        file.write(b"new")
    (tmp_path / "new").rename(tmp_path / "file")
    with pytest.raises(AssertionError, match="after they were synced"):
        calls.check()


def test_file_without_a_rename_is_detected(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "file").write_bytes(b"new")
    assert calls.strays() == {"file"}


ROOT = Path(__file__).parents[1]
ATOMIC = {"new_file", "new_files", "new_folder", "new_run"}
"""Context managers that yield a temporary path, sync what is written there, and rename it."""

WRITERS = {
    *("write_text", "write_bytes", "truncate", "mkdir", "makedirs", "rename"),
    *("copyfile", "copyfileobj", "copytree", "extractall", "hardlink_to", "symlink_to"),
    *(
        "save",
        "savez",
        "save_file",
        "save_image",
        "save_pretrained",
        "savefig",
        "save_png",
        "save_figure",
    ),
    *("to_csv", "to_json", "to_pickle", "to_parquet", "tofile", "savetxt"),
    *("write_json", "write_config", "write_history", "write_predictions", "write_network"),
}
"""Names of calls that write files."""

EXCEPTIONS = {
    "featurecache/audit/contact_sheet.py: save_contact_sheet": "save_png is atomic",
    "featurecache/audit/contact_sheet.py: save_doubtful_sheet": "save_png is atomic",
    "featurecache/cli/audit.py: audit": "DoubtfulLabels.save is atomic",
    "featurecache/evaluation/heatmaps.py: save_heatmap": "save_png is atomic",
    "featurecache/retrieval/contact_sheet.py: save_contact_sheet": "save_png is atomic",
    "featurecache/retrieval/similarity_maps.py: save_similarity_maps": "save_png is atomic",
    "featurecache/images/subprocess_decoder.py: _main": "writes to /proc",
    "featurecache/images/subprocess_decoder.py: _to_bytes": "writes to memory",
    "featurecache/io/atomic.py": "the atomic writers themselves",
    "featurecache/datasets/patients.py: read_dicom_headers": "renames a column",
    "featurecache/datasets/phantom/folder.py: _write": "writes into the folder of new_folder",
    "featurecache/encoders/convert.py": "writes into the folder of new_folder",
    "featurecache/encoders/medclip_download.py: _fetch": "writes an unnamed temporary file",
    "featurecache/encoders/medclip_network.py": "writes into the folder of TrainableEncoder.save",
    "featurecache/encoders/pretrained.py: write_network": "as medclip_network.py",
    **{
        f"featurecache/export/{name}.py": "writes into the folder of new_files"
        for name in ("anndata", "beside", "faiss", "huggingface", "npy", "webdataset")
    },
    "featurecache/explore/server.py: _as_png": "writes to memory",
    "featurecache/extraction/crash_journal.py: __init__": "changes a file of new_file in place",
    "featurecache/finetune/random_init.py: randomly_initialized": "TrainableEncoder.save is atomic",
    "featurecache/finetune/training.py: _train_epoch": "TrainingState.save is atomic",
    "featurecache/importing/import_cache.py: _store": "writes a scratch file",
    "featurecache/runs/folder.py": "writes into the folder of new_run",
    "featurecache/serve/service.py: _sample_image": "writes to memory",
    "featurecache/sharing/pseudonyms.py: sharing_key": "links a synced file, never replaces",
    "featurecache/sharing/shared_run.py: write_shared_run": "writes into a scratch folder",
    "featurecache/store/hdf5.py: sealed_file": "writes a file of its callers",
    "featurecache/store/preallocate.py: reserve": "writes the file of sealed_file",
    "pipelines/phantom_sheet.py": "a figure of the docs, made by hand",
    "pipelines/report_screenshots.py": "figures of the docs, made by hand",
    "pipelines/train_tiny.py": "the packaged model, made by hand",
    "featurecache/cli/align.py: align": "Alignment.save is atomic",
    "featurecache/cli/evaluate.py: evaluate": "Run.save is atomic",
    "featurecache/cli/learning_curve.py: learning_curve": "LearningCurve.save is atomic",
    "featurecache/cli/train_head.py: train_head": "Run.save is atomic",
    "featurecache/cli/zero_shot.py: zero_shot": "Run.save is atomic",
    "featurecache/demo.py: run_demo": "Run.save is atomic",
    "featurecache/encoders/medclip.py: _write_network": "as medclip_network.py",
    "featurecache/encoders/transformers_encoder.py: _write_network": "as medclip_network.py",
    "featurecache/finetune/io.py: save": "writes into the folder of new_run",
    "featurecache/finetune/run.py: _write_weights": "writes into the folder of new_run",
    "featurecache/heads/io.py: save": "writes into the folder of new_run",
    "featurecache/report/examples.py: _jpeg_data_url": "writes to memory",
    "featurecache/evaluation/table.py: to_csv": "returns a text",
    "featurecache/report/plot_style.py: save_figure": "writes the file of write_report",
    "featurecache/report/svg.py: _render_svg": "writes to memory",
    "featurecache/report/report.py: _write_text": "writes a file of new_file or new_folder",
    "featurecache/study/results.py: write_results": "writes a text, which new_file replaces",
    "featurecache/study/run.py: _run": "calls save of a run, which is atomic",
    "featurecache/runs/predictions.py": "writes into the folder of new_run",
}
"""Modules and functions that write by other means, and why they may."""


def _writes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    # The mode is the first argument of Path.open, and the second of open.
    place = 0 if name == "open" and isinstance(call.func, ast.Attribute) else 1
    modes = [*call.args[place : place + 1], *(k.value for k in call.keywords if k.arg == "mode")]
    written = any(isinstance(m, ast.Constant) and set("wax+") & set(str(m.value)) for m in modes)
    if name in ("open", "File", "fdopen", "ZipFile"):
        flags = {node.attr for node in ast.walk(call) if isinstance(node, ast.Attribute)}
        return written or bool(flags & {"O_WRONLY", "O_RDWR", "O_CREAT"})
    if name in ("replace", "touch"):  # str, DataFrame and dataclasses have replace, too
        of_path = isinstance(call.func, ast.Attribute) and len(call.args) == (name == "replace")
        is_mapping = any(isinstance(argument, ast.Dict) for argument in call.args)
        return of_path and not is_mapping and not any(k.arg != "exist_ok" for k in call.keywords)
    if name == "rename":  # DataFrames have it, too, with the argument `columns`
        return bool(call.args)
    if name.startswith("to_"):  # these return text if they are given no path
        return name in WRITERS and bool(call.args or call.keywords)
    return name in WRITERS


def unguarded(source: str, file: str) -> set[str]:
    """Return the functions of a module that write files without an atomic writer."""
    found: set[str] = set()

    def visit(node: ast.AST, function: str, guarded: bool) -> None:
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if isinstance(node, ast.With):
            names = {
                getattr(item.context_expr.func, "id", "")
                for item in node.items
                if isinstance(item.context_expr, ast.Call)
            }
            guarded = guarded or bool(names & ATOMIC)
        if isinstance(node, ast.Call) and not guarded and _writes(node):
            found.add(f"{file}: {function}")
        for child in ast.iter_child_nodes(node):
            visit(child, function, guarded)

    visit(ast.parse(source), "", False)
    return found


def test_all_writes_are_atomic_or_listed() -> None:
    found = {
        place
        for folder in ("featurecache", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
        for place in unguarded(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    }
    excused = {p for p in found if p in EXCEPTIONS or p.partition(":")[0] in EXCEPTIONS}
    assert found - excused == set(), "use featurecache.io.atomic, or list in EXCEPTIONS"
    used = {p if p in EXCEPTIONS else p.partition(":")[0] for p in excused}
    assert EXCEPTIONS.keys() - used == set(), "these no longer write files"


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text(text)",
        "path.open('w')",
        "open(path, mode='ab')",
        "h5py.File(path, 'r+')",
        "os.open(path, os.O_WRONLY)",
        "Path(one).replace(other)",
        "frame.to_csv(path)",
        "with sealed_file(path): array.save(path)",
    ],
)
def test_direct_write_is_found(line: str) -> None:
    assert unguarded(f"def keep():\n    {line}", "a.py") == {"a.py: keep"}


@pytest.mark.parametrize(
    "line",
    [
        "path.open('rb')",
        "open(path, encoding='utf-8')",
        "text.replace('w', 'x')",
        "h5py.File(path, 'r')",
        "with new_file(path) as one, one.open('w') as file: file.write(text)",
    ],
)
def test_reads_and_atomic_writes_are_not_found(line: str) -> None:
    assert unguarded(f"def keep():\n    {line}", "a.py") == set()
