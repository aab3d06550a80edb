"""What is published is on the disk before its name is, and what it replaces goes after that."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from featurecache.datasets.manifest import Manifest
from featurecache.datasets.phantom.folder import generate_phantom
from featurecache.datasets.registry import load_dataset
from featurecache.encoders.loading import load_encoder
from featurecache.extraction.extract import extract
from featurecache.finetune.checkpoint import Checkpoint
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import run_experiment
from featurecache.heads.saving import save_head
from featurecache.store.merge import Shard, merge_caches
from featurecache.store.reader import read_cache


@dataclass
class Calls:
    """The calls that decide what a power cut leaves, in their order: what was done, and to what."""

    below: Path
    seen: list[tuple[str, Path]] = field(default_factory=list)
    renamed: list[list[Path]] = field(default_factory=list)

    def note(self, what: str, path: Path) -> None:
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
        sources = iter(self.renamed)
        for number, (what, path) in enumerate(self.seen):
            if what == "rename":
                for source in next(sources):
                    assert ("sync", source) in self.seen[:number], f"{source} was not on the disk"
                self.at("sync", path.parent, after=number)
            if what == "mkdir" and not path.name.startswith("."):
                self.at("sync", path.parent, after=number)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls(tmp_path)
    sync, replace, rename, mkdir = os.fsync, Path.replace, Path.rename, Path.mkdir
    rmtree = shutil.rmtree

    def fsync(descriptor: int) -> None:
        calls.note("sync", Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    def renaming(original: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def moved(self: Path, target: Path) -> Path:
            calls.renamed.append([self, *self.rglob("*")])
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
def films(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("films") / "phantom"
    generate_phantom(root, images=40, seed=1, size=64)
    return load_dataset("phantom", root)


def test_an_extraction_a_merge_and_a_head(films: Manifest, tmp_path: Path, calls: Calls) -> None:
    encoder = load_encoder("tiny", device="cpu")
    shards = [
        extract(films, [encoder], cache=tmp_path / "cache", shard=Shard(number, 2))[0].path
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
    config = HeadConfig(head="baseline", epochs=1, hidden=(4,))
    experiment = run_experiment(cache, config, draws=0, controls=False)
    save_head(tmp_path / "runs" / "head", cache, experiment, seeds=1)
    assert calls.published()[-1] == tmp_path / "runs" / "head"
    calls.check()


def test_the_state_of_a_fine_tuning(tmp_path: Path, calls: Calls) -> None:
    checkpoint = Checkpoint(tmp_path / "runs" / "tuned", {"seed": 1})
    checkpoint.save_best({"weight": torch.ones(3)})
    checkpoint.save({"step": 1})
    checkpoint.save({"step": 2})
    names = ["settings.json", "best.safetensors", "last.pt", "last.pt"]
    assert [path.name for path in calls.published()] == names
    calls.check()


def test_what_is_not_synced_is_seen(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").rename(tmp_path / "file")
    with pytest.raises(AssertionError, match="was not on the disk"):
        calls.check()
