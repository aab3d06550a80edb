"""What is published is on the disk before its name is, and what it replaces goes after that."""

import ast
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from page import replace_part
from PIL import Image
from study import Study, publish
from typer.testing import CliRunner

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
    """The calls that decide what a power cut leaves, in their order: what was done, and to what."""

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
        """When the first such call came after another one; an error where none did."""
        return next(n for n, call in enumerate(self.seen) if n > after and call == (what, path))

    def check(self) -> None:
        """Every rename comes after the bytes are on the disk, and then its folder is brought there.

        So it is with every folder that is made before something is put into it.
        """
        assert self.published()
        assert self.changed == [], f"{self.changed} were written to after they were synced"
        sources = iter(self.renamed)
        for number, (what, path) in enumerate(self.seen):
            if what == "rename":
                for source in next(sources):
                    assert ("sync", source) in self.seen[:number], f"{source} was not on the disk"
                self.at("sync", path.parent, after=number)
            if what == "mkdir" and not path.name.startswith("."):
                self.at("sync", path.parent, after=number)

    def strays(self) -> set[str]:
        """Files that are there, and were not put there by a rename of them or of their folder."""
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


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names files by their descriptors")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("films") / "phantom"
    generate_phantom(root, n_images=40, seed=1, size=64)
    return load_dataset("phantom", root)


def test_an_extraction_a_merge_and_a_head(films: Dataset, tmp_path: Path, calls: Calls) -> None:
    encoder = load_encoder("tiny", device="cpu")
    shards = [
        update_caches(films, [encoder], cache_dir=tmp_path / "cache", shard=Shard(number, 2))[
            0
        ].path
        for number in (1, 2)
    ]
    whole, _ = merge_caches(shards)
    assert calls.published()[-1] == whole
    for shard in shards:
        parts = shard.with_name(f"{shard.name}.parts")
        durable = calls.at("sync", shard.parent, after=calls.at("rename", shard))
        part = calls.at("rename", parts / "part-00000000.h5")
        # The part is there for good before the cache is, and goes once the cache is.
        assert calls.at("sync", parts, after=part) < calls.at("rename", shard)
        assert calls.at("remove", parts) > durable
    cache = read_cache(whole)
    run = train_head(cache, "baseline", epochs=1, hidden=(4,), n_bootstrap=0, controls=False)
    run.save(tmp_path / "runs" / "head")
    assert calls.published()[-1] == tmp_path / "runs" / "head"
    calls.check()


def test_the_state_of_a_fine_tuning(tmp_path: Path, calls: Calls) -> None:
    state = TrainingState(tmp_path / "runs" / "tuned", {"seed": 1})
    state.save_best({"weight": torch.ones(3)})
    state.save({"step": 1})
    state.save({"step": 2})
    names = ["settings.json", "best.safetensors", "last.pt", "last.pt"]
    assert [path.name for path in calls.published()] == names
    calls.check()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a command in a folder of its own."""
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
    generate_phantom(tmp_path / "films", n_images=60, seed=5, size=64)
    one, other = (
        tmp_path / "films" / "images" / (tmp_path / "films" / names).read_text().split()[0]
        for names in (TRAIN_LIST, TEST_LIST)
    )
    with Image.open(one) as film:  # which the audit is to find
        film.point(lambda value: min(value + 1, 255)).save(other)
    films = ("--dataset", "phantom", "--data-root", "films")
    few = ("--n-bootstrap", 0)
    models = ("--model", "tiny", "--model", "dinov2-minilm", "--precision", "fp32")
    command("extract", *films, *models)
    command("zero-shot", *at, "--out", "runs/zero", *few)
    command("train-head", "--head", "baseline", *at, "--epochs", 1, "--out", "runs/head", *few)
    command("evaluate", "runs/head", *at, "--out", "runs/other", *few)
    sizes = ("--sizes", "16", "--seeds", 1)
    command("curve", "--head", "baseline", *at, *sizes, "--out", "runs/curve", *few)
    command("align", "--cache", pair, "--out", "align/one.safetensors")
    command("report", "runs/head", "runs/zero", "--out", "pages/a.html", "--plots", "plots", *few)
    command("retrieve", "signs of edema", *at, *films, "--contact-sheet", "sheets/found.png", *few)
    command("audit", *at, *films, "--contact-sheet", "sheets/near.png", *few)
    targets = [
        *("films", "cache/phantom/tiny.h5.parts/crash_journal", "cache/phantom/tiny.h5", pair),
        *("runs/zero", "runs/head", "runs/other", "runs/curve", "align/one.safetensors"),
        *("pages/a.html", "sheets/found.png", "sheets/near.png"),
    ]
    assert {path.suffix for path in calls.published() if path.parent.name == "plots"} == {".png"}
    published = [str(path.relative_to(tmp_path)) for path in calls.published()]
    assert [target for target in targets if target not in published] == []
    assert calls.strays() == {"cache/phantom/tiny.h5.lock", f"{pair}.lock"}
    calls.check()


def test_a_fine_tuning(films: Dataset, tmp_path: Path, calls: Calls) -> None:
    run, parts = tmp_path / "runs" / "tuned", tmp_path / "runs" / "tuned.parts"
    encoder = load_encoder("tiny", device="cpu")
    start = randomly_initialized(encoder, folder=tmp_path / "fresh", seed=1, precision="fp32")
    settings = FinetuneConfig(objective="bce", trainable="head", epochs=1, batch_size=8)
    train_encoder(films, start, settings, target=run, n_bootstrap=0, teacher=Teacher(encoder))
    (weights,) = (path for path in calls.published() if path.is_relative_to(tmp_path / "fresh"))
    assert weights.name == "tiny"
    state = {"crash_journal", "settings.json", "teacher.npy", "best.safetensors", "last.pt"}
    # Once each, or, of what it goes on from, again after a while.
    assert {path.name for path in calls.published() if path.parent == parts} == state
    # What it goes on from is there until the run is, for good.
    done = calls.at("sync", run.parent, after=calls.at("rename", run))
    assert calls.at("remove", parts) > done
    assert calls.strays() == set()
    calls.check()


def test_the_figures_and_the_page_of_a_study(tmp_path: Path, calls: Calls) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- tiny -->\n<!-- end of tiny -->\n")
    replace_part(page, "tiny", "figures")
    study = Study(
        model="tiny",
        data=tmp_path,
        work=tmp_path / "work",
        train_size=None,
        quick=True,
        page=None,
        command="",
        started=0.0,
    )
    publish(study, ["figures"])
    assert calls.published() == [page, tmp_path / "work" / "results.md"]
    calls.check()


def test_what_is_not_synced_is_seen(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").rename(tmp_path / "file")
    with pytest.raises(AssertionError, match="was not on the disk"):
        calls.check()


def test_what_is_written_after_its_sync_is_seen(tmp_path: Path, calls: Calls) -> None:
    with new_file(tmp_path / "file") as temporary:
        temporary.write_bytes(b"new")
        sync(temporary)
        temporary.write_bytes(b"newer")
    calls.check()  # it was synced once more, at the end
    with (tmp_path / "new").open("wb") as file:
        os.fsync(file.fileno())
        file.write(b"new")
    (tmp_path / "new").rename(tmp_path / "file")
    with pytest.raises(AssertionError, match="after they were synced"):
        calls.check()


def test_what_is_put_in_place_without_a_rename_is_seen(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "file").write_bytes(b"new")
    assert calls.strays() == {"file"}


ROOT = Path(__file__).parents[1]
ATOMIC = {"new_file", "new_folder", "new_run"}
"""What gives a path beside the place, brings what is written there to the disk, and renames it."""

WRITERS = {
    *("write_text", "write_bytes", "truncate", "mkdir", "makedirs", "rename"),
    *("copyfile", "copyfileobj", "copytree", "extractall", "hardlink_to", "symlink_to"),
    *("save", "savez", "save_file", "save_image", "save_pretrained", "savefig", "save_png"),
    *("to_csv", "to_json", "to_pickle", "to_parquet", "tofile", "savetxt"),
    *("write_json", "write_config", "write_history", "write_predictions", "write_network"),
}
"""Calls that write files, or would be one day."""

ELSEWHERE = {
    "featurecache/images/subprocess_decoder.py: _main": "tells the kernel, on no disk",
    "featurecache/images/subprocess_decoder.py: _to_bytes": "into memory",
    "featurecache/io/atomic.py": "the atomic writers themselves",
    "featurecache/datasets/phantom/folder.py: _write": "given the folder of new_folder",
    "featurecache/encoders/medclip_download.py: _fetch": "given a file that has no name",
    "featurecache/encoders/medclip_network.py": "given TrainableEncoder.save's folder",
    "featurecache/encoders/pretrained.py: write_network": "given TrainableEncoder.save's folder",
    "featurecache/extraction/crash_journal.py: __init__": "changes a file of new_file in place",
    "featurecache/finetune/random_init.py: randomly_initialized": "TrainableEncoder.save is atomic",
    "featurecache/finetune/training.py: _train_epoch": "TrainingState.save is atomic",
    "featurecache/report/examples.py: _as_address": "into memory",
    "featurecache/report/plots.py: save_png": "given the file of write_report",
    "featurecache/report/svg.py: _saved": "into memory",
    "featurecache/runs/folder.py": "one file each, given the folder of new_run",
    "featurecache/store/hdf5.py: sealed_file": "given a file by all who call it",
    "featurecache/store/preallocate.py: reserve": "given the file of sealed_file",
    "pipelines/phantom_sheet.py": "a picture of the documentation, drawn by hand and looked at",
    "pipelines/report_screenshots.py": "likewise",
    "pipelines/study.py: open_study": "makes the folder of a study before any work is done",
    "pipelines/train_tiny.py": "the packaged model, made by hand and looked at",
}
"""Places that write by other means, and why they may: files, or functions in them."""


def _writes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    # A path's mode comes first, that of a function behind the file.
    place = 0 if name == "open" and isinstance(call.func, ast.Attribute) else 1
    modes = [*call.args[place : place + 1], *(k.value for k in call.keywords if k.arg == "mode")]
    written = any(isinstance(m, ast.Constant) and set("wax+") & set(str(m.value)) for m in modes)
    if name in ("open", "File", "fdopen", "ZipFile"):
        flags = {node.attr for node in ast.walk(call) if isinstance(node, ast.Attribute)}
        return written or bool(flags & {"O_WRONLY", "O_RDWR", "O_CREAT"})
    if name in ("replace", "touch"):  # strings, frames and data classes are replaced as well
        of_path = isinstance(call.func, ast.Attribute) and len(call.args) == (name == "replace")
        return of_path and not any(k.arg != "exist_ok" for k in call.keywords)
    return name in WRITERS


def unguarded(source: str, file: str) -> set[str]:
    """The functions of a module that write files outside the body of an atomic writer."""
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


def test_every_place_that_writes_is_atomic_or_says_why_not() -> None:
    found = {
        place
        for folder in ("featurecache", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
        for place in unguarded(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    }
    excused = {p for p in found if p in ELSEWHERE or p.partition(":")[0] in ELSEWHERE}
    assert found - excused == set(), "write by featurecache.io.atomic, or say in ELSEWHERE why not"
    used = {p if p in ELSEWHERE else p.partition(":")[0] for p in excused}
    assert ELSEWHERE.keys() - used == set(), "these write nothing any more"


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
def test_a_place_that_writes_by_itself_is_found(line: str) -> None:
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
def test_a_place_that_reads_or_is_atomic_is_none(line: str) -> None:
    assert unguarded(f"def keep():\n    {line}", "a.py") == set()
