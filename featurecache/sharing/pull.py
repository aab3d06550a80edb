"""``pull_cache`` and ``pull_run``: fetch what was sent to the hub."""

from pathlib import Path

from featurecache.errors import UsageError
from featurecache.io.atomic import new_file, require_absent, scratch_folder
from featurecache.runs.folder import new_run
from featurecache.runs.run import RUNS_FOLDER, Run, load_run
from featurecache.sharing.hub import Repository
from featurecache.store.cache import Cache
from featurecache.store.layout import to_file_name
from featurecache.store.lock import cache_lock
from featurecache.store.open import StrPath
from featurecache.store.reader import read_cache


def pull_cache(repo_id: str, *, cache_dir: StrPath = "cache", revision: str | None = None) -> Cache:
    """Fetch a cache from the Hugging Face hub.

    Args:
        repo_id: The repository, "ORG/NAME", that ``push_cache`` wrote.
        cache_dir: Directory of the caches; the cache is ``CACHE_DIR/DATASET/MODEL.h5``.
        revision: A branch, tag or commit; None for the newest.

    Returns:
        The cache.

    Raises:
        CacheError: The file is no valid cache.
        UsageError: There is no such repository, it holds something else, what was received is not
            what was sent, or the cache exists already.
        FeaturecacheError: The hub cannot be reached.
        OSError: The disk is full or not writable.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.pull_cache("my-lab/phantom-tiny")  # doctest: +SKIP
        >>> fc.pull_cache("phantom")
        Traceback (most recent call last):
        featurecache.errors.UsageError: the repository is 'phantom': give ORG/NAME
    """
    repository = Repository(repo_id, "cache")
    with scratch_folder(Path(cache_dir) / "pull") as folder:
        name, files = repository.fetch(folder, revision=revision)
        dataset, _, file = name.partition("/")
        known = (to_file_name(dataset), f"{to_file_name(file.removesuffix('.h5'))}.h5")
        if files != [name] or known != (dataset, file):
            raise UsageError(f"{repo_id} does not hold one cache, DATASET/MODEL.h5, but {name!r}")
        read_cache(folder / name)
        target = Path(cache_dir) / dataset / file
        with cache_lock(target):
            require_absent(target, argument="cache_dir")
            with new_file(target) as temporary:
                (folder / name).replace(temporary)
    return read_cache(target)


def pull_run(repo_id: str, path: StrPath | None = None, *, revision: str | None = None) -> Run:
    """Fetch a run from the Hugging Face hub.

    Args:
        repo_id: The repository, "ORG/NAME", that ``push_run`` wrote.
        path: Folder to create; None for ``runs/NAME``, with the name of the run that was sent.
        revision: A branch, tag or commit; None for the newest.

    Returns:
        The run.

    Raises:
        RunError: The files are no valid run.
        UsageError: There is no such repository, it holds something else, what was received is not
            what was sent, or ``path`` exists already.
        FeaturecacheError: The hub cannot be reached.
        OSError: The disk is full or not writable.

    Example:
        >>> import featurecache as fc
        >>> run = fc.pull_run("my-lab/phantom-linear")  # doctest: +SKIP
        >>> fc.pull_run("phantom")
        Traceback (most recent call last):
        featurecache.errors.UsageError: the repository is 'phantom': give ORG/NAME
    """
    repository = Repository(repo_id, "run")
    if path is not None:
        require_absent(Path(path), argument="path")
    with scratch_folder((RUNS_FOLDER if path is None else Path(path).parent) / "pull") as folder:
        name, files = repository.fetch(folder, revision=revision)
        if to_file_name(name) != name:
            raise UsageError(f"{repo_id} holds a run named {name!r}, which is no name of a folder")
        load_run(folder)
        target = RUNS_FOLDER / name if path is None else Path(path)
        with new_run(target) as received:
            for file in files:
                (received / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).replace(received / file)
    return load_run(target)
