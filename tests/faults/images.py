"""Faults of image files and of the decoder during an extraction.

In every trial, images without a fault get the same embeddings as in an undisturbed extraction, the
others are recorded with a reason, and the next extraction reads those that are intact again.
"""

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

# The helpers of the extraction tests.
sys.path.append(str(Path(__file__).parents[1] / "extraction"))

from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.store.reader import read_cache
from featurecache.store.verify import verify_cache
from tests.extraction.run_extractions import Extractions, crashing, hanging, run_extractions
from tests.extraction.stub_encoder import StubEncoder, content, make_dataset, touch, write_images

BATCH = 4


class ImageFolder:
    """Random images, a few of which are to be spoiled, and the cache of an undisturbed extraction.

    Attributes:
        rng: Generator seeded with the seed of the trial.
        root: Folder of the images.
        dataset: The images.
        bad: Ids of the images to spoil, sorted.
        undisturbed: Content of the undisturbed cache.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder, self.root = folder, folder / "data"
        ids = write_images(self.root, self.rng.randint(16, 40))
        self.dataset = make_dataset(self.root, ids)
        self.bad = sorted(self.rng.sample(ids, self.rng.randint(1, 3)))
        self.undisturbed = self.content(self.extract("undisturbed"))

    def path(self, image_id: str) -> Path:
        """Return the file of an image."""
        return self.root / f"{image_id}.png"

    def extract(self, cache: str = "cache", **options: Any) -> ExtractionSummary:
        """Extract into a cache folder, with options of ``update_caches``."""
        (summary,) = update_caches(
            self.dataset,
            [StubEncoder()],
            cache_dir=self.folder / cache,
            **{"batch_size": BATCH, **options},
        )
        return summary

    def content(self, summary: ExtractionSummary) -> dict[str, Any]:
        """Return the content of the cache that was written."""
        return content(read_cache(summary.path))

    def check_cache(self, failed: Mapping[str, str], reasons: Sequence[str]) -> None:
        """Require that exactly the bad images failed, and that the others have equal embeddings.

        Args:
            failed: Recorded reasons by image id.
            reasons: How the reasons may begin.
        """
        assert sorted(failed) == self.bad, f"failed: {sorted(failed)}, not {self.bad}"
        for image_id, reason in failed.items():
            assert reason.startswith(tuple(reasons)), f"{image_id}: {reason}"
        cache = read_cache(self.folder / "cache/set/stub.h5")
        assert verify_cache(cache.path) == []
        assert dict(cache.failures) == dict(failed)
        undisturbed = read_cache(self.folder / "undisturbed/set/stub.h5")
        good = [image_id for image_id in undisturbed.ids.tolist() if image_id not in failed]
        assert cache.ids.tolist() == good, "an image was lost or duplicated"
        rows = [undisturbed.ids.tolist().index(image_id) for image_id in good]
        assert cache.embedding[:].tobytes() == undisturbed.embedding[:][rows].tobytes()

    def check_complete(self, summary: ExtractionSummary) -> None:
        """Require that the cache equals the undisturbed one."""
        assert summary.failed == {}
        assert self.content(summary) == self.undisturbed


def _spoil_during_extraction(
    spoil: Callable[[Path], object],
    *reasons: str,
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Callable[[int, Path], str]:
    """Return a trial that spoils files at a random moment, and restores them afterwards.

    Args:
        spoil: Spoils a file.
        reasons: How the recorded reasons may begin.
        context: Context manager around the disturbed extraction.
    """

    def trial(seed: int, folder: Path) -> str:
        images = ImageFolder(seed, folder)
        aside = folder / "aside"
        aside.mkdir()
        moment = images.rng.randrange(len(images.dataset) // 2)
        spoiled: list[str] = []

        def progress(finished: int, total: int) -> None:
            if finished >= moment and not spoiled:
                for image_id in images.bad:
                    shutil.copy2(images.path(image_id), aside)
                    spoil(images.path(image_id))
                    spoiled.append(image_id)

        with context():
            summary = images.extract(
                progress=progress, workers=images.rng.randint(1, 2), batch_size=1
            )
        # Images that were read before the fault are intact.
        images.bad = [image_id for image_id in images.bad if image_id in summary.failed]
        images.check_cache(summary.failed, reasons)
        for image_id in spoiled:
            path = images.path(image_id)
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
            shutil.copy2(aside / path.name, path)
        images.check_complete(images.extract())
        return "recorded, then read" if images.bad else "read before the fault"

    return trial


def _replace_by_socket(path: Path) -> None:
    import socket

    path.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _remove_permissions(path: Path) -> None:
    path.chmod(0)


def _enforce_permissions() -> AbstractContextManager[object]:
    """Refuse to open images without permissions, also for root."""
    os_open = os.open

    def checked_open(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if Path(path).suffix == ".png" and not Path(path).stat().st_mode & 0o777:
            raise PermissionError(13, "Permission denied")
        return os_open(path, flags, *more, **options)

    return patch("featurecache.images.read.os.open", checked_open)


def _replace_by_fifo_before_open(seed: int, folder: Path) -> str:
    """Replace a file by a FIFO after it was checked, just before it is opened."""
    images = ImageFolder(seed, folder)
    os_open = os.open
    bad = {images.path(image_id): images.path(image_id).read_bytes() for image_id in images.bad}

    def replacing_open(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if Path(path) in bad:
            Path(path).unlink()
            os.mkfifo(path)
        return os_open(path, flags, *more, **options)

    with patch("featurecache.images.read.os.open", replacing_open):
        summary = images.extract(workers=images.rng.randint(1, 4))
    images.check_cache(summary.failed, ["not a regular file"])
    return "recorded"


def _grow_while_read(seed: int, folder: Path) -> str:
    """Append to a file while it is read."""
    images = ImageFolder(seed, folder)
    bad = {images.path(image_id): images.path(image_id).read_bytes() for image_id in images.bad}
    os_fstat = os.fstat
    grown: set[str] = set()

    def growing_fstat(descriptor: int) -> os.stat_result:
        status = os_fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path in bad and path.name not in grown:
            grown.add(path.name)
            with path.open("ab") as file:
                file.write(bytes(images.rng.randint(1, 10_000)))
        return status

    with patch("featurecache.images.read.os.fstat", growing_fstat):
        summary = images.extract(workers=images.rng.randint(1, 4))
    images.check_cache(summary.failed, ["changed while it was read"])
    for path, data in bad.items():
        path.write_bytes(data)
    assert images.extract().failed == {}
    return "recorded, then read"


def _crash(seed: int, folder: Path) -> str:
    """Let the decoder crash the process: at most once for each image."""
    images = ImageFolder(seed, folder)
    for image_id in images.bad:
        crashing(images.path(image_id))
    (results,) = run_extractions(Extractions(folder, len(images.bad) + 2))
    crashes = [result for result in results if isinstance(result, int)]
    assert crashes == [signal.SIGSEGV] * len(crashes)
    assert results[: len(crashes)] == crashes, "it crashed at an image that is recorded"
    assert 1 <= len(crashes) <= len(images.bad)
    first, *repeated = results[len(crashes) :]
    nothing_new = {"done": 0, "failed": first["failed"], "written": False}
    assert all(result == nothing_new for result in repeated)
    images.check_cache(first["failed"], ["the decoder crashed (SIGSEGV)"])
    return "resumed"


def _hang(seed: int, folder: Path) -> str:
    """Let the decoder hang: the process ends nevertheless."""
    images = ImageFolder(seed, folder)
    for image_id in images.bad:
        hanging(images.path(image_id))
    ((result,),) = run_extractions(Extractions(folder, 1, seconds=0.2))
    images.check_cache(result["failed"], ["took longer than 0.2 s"])
    for image_id in images.bad:
        touch(images.path(image_id))
    assert images.extract().failed == {}
    return "recorded, then read"


def _jump_clock(seed: int, folder: Path) -> str:
    """Set file times before 1970 and after 2262, and let the clock jump."""
    images = ImageFolder(seed, folder)
    for path in images.root.glob("*.png"):
        seconds = images.rng.choice([-(2**31), -1, 0, 2**31, 2**32, 10**10])
        os.utime(path, (seconds, seconds))
    with patch("time.time", lambda: images.rng.uniform(-1e9, 1e10)):
        first = images.extract()
        again = images.extract()
    images.bad = []
    images.check_cache(first.failed, [])
    assert (first.done, again.done, again.written) == (len(images.dataset), 0, False)
    return "nothing lost"


FAULTS: Mapping[str, Callable[[int, Path], str]] = {
    "image vanishes": _spoil_during_extraction(Path.unlink, "missing: no such file"),
    "image is truncated": _spoil_during_extraction(_truncate, "damaged: ", "changed while"),
    "image becomes a folder": _spoil_during_extraction(
        lambda path: (path.unlink(), path.mkdir()), "not a regular file", "cannot be read: Is a"
    ),
    "image becomes a FIFO": _spoil_during_extraction(
        lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file", "missing: "
    ),
    "image becomes a socket": _spoil_during_extraction(
        _replace_by_socket, "not a regular file", "missing: "
    ),
    "image becomes a symlink loop": _spoil_during_extraction(
        lambda path: (path.unlink(), path.symlink_to(path.name)), "cannot be read: ", "missing: "
    ),
    "image becomes unreadable": _spoil_during_extraction(
        _remove_permissions,
        "cannot be read: Permission denied",
        "changed while",
        context=_enforce_permissions,
    ),
    "image becomes a FIFO before it is opened": _replace_by_fifo_before_open,
    "image grows while it is read": _grow_while_read,
    "decoder crashes": _crash,
    "decoder hangs": _hang,
    "clock jumps": _jump_clock,
}
