"""Faults of the files and of the decoder while images are read.

In every trial the images that the fault spares come out as in an undisturbed extraction, the others
are recorded with a reason, and the next extraction takes up what is whole again.
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

# The helpers of the tests of extraction lie beside those.
sys.path.append(str(Path(__file__).parents[1] / "extraction"))

from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.store.reader import read_cache
from featurecache.store.verify import verify_cache
from tests.extraction.lives import crashing, hanging, live
from tests.extraction.stub_encoder import StubEncoder, content, make_dataset, touch, write_images

BATCH = 4


class Films:
    """Some images, a few of which a seed chooses to spoil, and their undisturbed cache."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder, self.root = folder, folder / "data"
        ids = write_images(self.root, self.rng.randint(16, 40))
        self.manifest = make_dataset(self.root, ids)
        self.bad = sorted(self.rng.sample(ids, self.rng.randint(1, 3)))
        self.undisturbed = self.content(self.run("undisturbed"))

    def path(self, image_id: str) -> Path:
        return self.root / f"{image_id}.png"

    def run(self, cache: str = "cache", **options: Any) -> ExtractionSummary:
        (summary,) = update_caches(
            self.manifest,
            [StubEncoder()],
            cache_dir=self.folder / cache,
            **{"batch_size": BATCH, **options},
        )
        return summary

    def content(self, summary: ExtractionSummary) -> dict[str, Any]:
        return content(read_cache(summary.path))

    def check_spared(self, failed: Mapping[str, str], reasons: Sequence[str]) -> None:
        """The cache holds each image or its failure, and the former as undisturbed."""
        assert sorted(failed) == self.bad, f"failed: {sorted(failed)}, not {self.bad}"
        for image_id, reason in failed.items():
            assert reason.startswith(tuple(reasons)), f"{image_id}: {reason}"
        cache = read_cache(self.folder / "cache/set/stub.h5")
        assert verify_cache(cache.path) == []
        assert dict(cache.failures) == dict(failed)
        whole = read_cache(self.folder / "undisturbed/set/stub.h5")
        spared = [image_id for image_id in whole.ids.tolist() if image_id not in failed]
        assert cache.ids.tolist() == spared, "an image was lost, or came twice"
        rows = [whole.ids.tolist().index(image_id) for image_id in spared]
        assert cache.embedding[:].tobytes() == whole.embedding[:][rows].tobytes()

    def check_whole(self, summary: ExtractionSummary) -> None:
        assert summary.failed == {}
        assert self.content(summary) == self.undisturbed


def _in_mid_run(
    spoil: Callable[[Path], object],
    *reasons: str,
    while_spoilt: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Callable[[int, Path], str]:
    """Files that are spoilt at some moment of an extraction, and whole again afterwards."""

    def trial(seed: int, folder: Path) -> str:
        films = Films(seed, folder)
        aside = folder / "aside"
        aside.mkdir()
        moment = films.rng.randrange(len(films.manifest) // 2)
        spoilt: list[str] = []

        def progress(finished: int, total: int) -> None:
            if finished >= moment and not spoilt:
                for image_id in films.bad:
                    shutil.copy2(films.path(image_id), aside)
                    spoil(films.path(image_id))
                    spoilt.append(image_id)

        with while_spoilt():
            summary = films.run(progress=progress, workers=films.rng.randint(1, 2), batch_size=1)
        # What was read before the moment is as good as undisturbed.
        films.bad = [image_id for image_id in films.bad if image_id in summary.failed]
        films.check_spared(summary.failed, reasons)
        for image_id in spoilt:
            path = films.path(image_id)
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
            shutil.copy2(aside / path.name, path)
        films.check_whole(films.run())
        return f"{'recorded' if films.bad else 'read before'}, taken up"

    return trial


def _socket(path: Path) -> None:
    import socket

    path.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _unreadable(path: Path) -> None:
    path.chmod(0)


def _refuse_what_has_no_permission() -> AbstractContextManager[object]:
    """For root, who may read everything."""
    opening = os.open

    def refusing(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if Path(path).suffix == ".png" and not Path(path).stat().st_mode & 0o777:
            raise PermissionError(13, "Permission denied")
        return opening(path, flags, *more, **options)

    return patch("featurecache.images.read.os.open", refusing)


def _fifo_at_the_last_moment(seed: int, folder: Path) -> str:
    """Between the look at a file and its opening a FIFO takes its place."""
    films = Films(seed, folder)
    opening = os.open
    bad = {films.path(image_id): films.path(image_id).read_bytes() for image_id in films.bad}

    def swapping(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if Path(path) in bad:
            Path(path).unlink()
            os.mkfifo(path)
        return opening(path, flags, *more, **options)

    with patch("featurecache.images.read.os.open", swapping):
        summary = films.run(workers=films.rng.randint(1, 4))
    films.check_spared(summary.failed, ["not a regular file"])
    return "recorded"


def _growing(seed: int, folder: Path) -> str:
    """A file grows, or is rewritten, while it is read."""
    films = Films(seed, folder)
    bad = {films.path(image_id): films.path(image_id).read_bytes() for image_id in films.bad}
    looking = os.fstat
    grown: set[str] = set()

    def growing(descriptor: int) -> os.stat_result:
        status = looking(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path in bad and path.name not in grown:
            grown.add(path.name)
            with path.open("ab") as file:
                file.write(bytes(films.rng.randint(1, 10_000)))
        return status

    with patch("featurecache.images.read.os.fstat", growing):
        summary = films.run(workers=films.rng.randint(1, 4))
    films.check_spared(summary.failed, ["changed while it was read"])
    for path, data in bad.items():
        path.write_bytes(data)
    assert films.run().failed == {}
    return "recorded, taken up"


def _crashing(seed: int, folder: Path) -> str:
    """The decoder takes the process with it, once for an image at the most."""
    films = Films(seed, folder)
    for image_id in films.bad:
        crashing(films.path(image_id))
    lives = live(folder, len(films.bad) + 2)
    deaths = [one for one in lives if isinstance(one, int)]
    assert deaths == [signal.SIGSEGV] * len(deaths)
    assert lives[: len(deaths)] == deaths, "it crashed at what it knew"
    assert 1 <= len(deaths) <= len(films.bad)
    last, *again = lives[len(deaths) :]
    assert all(one == {"done": 0, "failed": last["failed"], "written": False} for one in again)
    films.check_spared(last["failed"], ["the decoder crashed (SIGSEGV)"])
    return "resumed"


def _stuck(seed: int, folder: Path) -> str:
    """The decoder never returns; the process ends all the same."""
    films = Films(seed, folder)
    for image_id in films.bad:
        hanging(films.path(image_id))
    (told,) = live(folder, 1, seconds=0.2)
    films.check_spared(told["failed"], ["took longer than 0.2 s"])
    for image_id in films.bad:
        touch(films.path(image_id))
    assert films.run().failed == {}
    return "recorded, taken up"


def _clock(seed: int, folder: Path) -> str:
    """Files from before 1970 and after 2262, and a clock that is put back and forth."""
    films = Films(seed, folder)
    for path in films.root.glob("*.png"):
        seconds = films.rng.choice([-(2**31), -1, 0, 2**31, 2**32, 10**10])
        os.utime(path, (seconds, seconds))
    with patch("time.time", lambda: films.rng.uniform(-1e9, 1e10)):
        first = films.run()
        again = films.run()
    films.bad = []
    films.check_spared(first.failed, [])
    assert (first.done, again.done, again.written) == (len(films.manifest), 0, False)
    return "nothing lost"


FAULTS: Mapping[str, Callable[[int, Path], str]] = {
    "image vanishes": _in_mid_run(Path.unlink, "missing: no such file"),
    "image is cut short": _in_mid_run(_cut, "damaged: ", "changed while"),
    "image becomes a folder": _in_mid_run(
        lambda path: (path.unlink(), path.mkdir()), "not a regular file", "cannot be read: Is a"
    ),
    "image becomes a FIFO": _in_mid_run(
        lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file", "missing: "
    ),
    "image becomes a socket": _in_mid_run(_socket, "not a regular file", "missing: "),
    "image becomes a symlink loop": _in_mid_run(
        lambda path: (path.unlink(), path.symlink_to(path.name)), "cannot be read: ", "missing: "
    ),
    "image becomes unreadable": _in_mid_run(
        _unreadable,
        "cannot be read: Permission denied",
        "changed while",
        while_spoilt=_refuse_what_has_no_permission,
    ),
    "FIFO between stat and open": _fifo_at_the_last_moment,
    "image grows while it is read": _growing,
    "decoder crashes": _crashing,
    "decoder hangs": _stuck,
    "clock jumps": _clock,
}
