"""``push_cache`` and ``push_run``: send what was made, without what identifies anybody."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from featurecache.datasets.pseudonymize import IdKey
from featurecache.errors import CacheError, UsageError
from featurecache.export.terms import Terms
from featurecache.io.atomic import scratch_folder
from featurecache.provenance.names import describe_id_scheme, pseudonymized_collection
from featurecache.provenance.provenance import PROVENANCE_FILE, read_provenance
from featurecache.runs.folder import read_config
from featurecache.runs.run import Run, load_run
from featurecache.sharing.card import cache_card, run_card
from featurecache.sharing.hub import CARD, Repository
from featurecache.sharing.pseudonyms import sharing_key
from featurecache.sharing.shared_cache import write_shared_cache
from featurecache.sharing.shared_run import write_shared_run
from featurecache.store.cache import Cache
from featurecache.store.open import StrPath, open_cache
from featurecache.store.reader import read_cache
from featurecache.store.verify import verify_cache


@dataclass(frozen=True)
class Push:
    """What was sent to the hub, or would be.

    Attributes:
        repo_id: The repository.
        name: What is called so in it: "DATASET/MODEL.h5", or the name of a run.
        files: Bytes of each file, by its path in the repository.
        left_out: Files in the run folder that are not sent: plots, and what is not of the run.
        ids: Whether the ids are pseudonymized, and with which key.
        terms: A sentence on the terms of each data set.
        public: Whether a new repository is public.
        url: Address of the repository; None if nothing was sent.
        card: The content of its card.
    """

    repo_id: str
    name: str
    files: Mapping[str, int]
    left_out: tuple[str, ...]
    ids: str
    terms: tuple[str, ...]
    public: bool
    url: str | None
    card: str

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def push_cache(
    cache: Cache | StrPath,
    repo_id: str,
    *,
    yes: bool = False,
    keep_ids: bool = False,
    key: StrPath | None = None,
    permission: str | None = None,
    public: bool = False,
) -> Push:
    """Send a cache to a data set repository of the Hugging Face hub.

    The file that is sent has no paths of images and nothing about this machine. Ids of images,
    patients and studies are keyed hashes, so that images of a patient stay together; hashes of the
    image files and of their content are left out. A card is written from the header.

    Args:
        cache: The cache: its file, a folder, of which the newest is taken, or a ``Cache``.
        repo_id: The repository, "ORG/NAME". It is made if it does not exist, and replaced if it
            holds the same cache.
        yes: Send it. Otherwise nothing leaves this machine, and the result says what would.
        keep_ids: Keep ids, patients, studies and hashes of files, as for public data sets, whose
            ids others need to compare.
        key: Key file of the pseudonyms. By default one that is made at the first use,
            ``~/.local/share/featurecache/sharing.key``, and stays on this machine.
        permission: Who permits sharing, and where that is written, for a data set whose terms
            forbid it. The card states it.
        public: Make a new repository public, or accept that an existing one is.

    Returns:
        What was sent, or would be.

    Raises:
        CacheError: The cache is missing or damaged.
        UsageError: The terms of the data set forbid sharing, the repository is public or has other
            content, the hub refuses, or several caches are given.
        FeaturecacheError: The hub cannot be reached.

    Example:
        >>> import featurecache as fc
        >>> push = fc.push_cache("cache/phantom/tiny.h5", "my-lab/phantom-tiny")
        >>> push.name, push.url is None
        ('phantom/tiny.h5', True)
    """
    repository = Repository(repo_id, "cache")
    opened = open_cache(cache)
    if not opened.path.is_file():
        raise UsageError(f"{opened.path} is joined from several caches: send each of them")
    opened = read_cache(opened.path)
    terms = Terms.of_cache(opened)
    terms.require_permission(permission)
    if problems := verify_cache(opened.path):
        raise CacheError(f"{opened.path} is damaged: {problems[0]}")
    id_key = _key(key, keep_ids=keep_ids)
    name = f"{opened.path.parent.name}/{opened.path.name}"
    with scratch_folder(opened.path) as folder:
        shared = folder / "shared"
        # Without a hash, which would tell who has the same file.
        write_shared_cache(opened, shared, key=id_key, origin={repo_id: ""})
        copy = read_cache(shared)
        return _send(
            repository,
            name,
            {name: shared},
            left_out=(),
            ids=describe_id_scheme(copy.header.collection),
            terms=terms,
            public=public,
            card=cache_card(copy, name, repo_id, terms, permission),
            yes=yes,
        )


def push_run(
    run: StrPath,
    repo_id: str,
    *,
    yes: bool = False,
    keep_ids: bool = False,
    key: StrPath | None = None,
    permission: str | None = None,
    public: bool = False,
) -> Push:
    """Send a run folder to a model repository of the Hugging Face hub.

    Sent are settings, metrics, predictions, weights and the list of training images, with ids as
    in ``push_cache``, in the order of these, and without paths. Plots, contact sheets and files
    that are not of the run stay here. A trained model holds what it learned from the images, and
    some heads embeddings of training images.

    Args:
        run: The run folder.
        repo_id: The repository, "ORG/NAME"; see ``push_cache``.
        yes: Send it; see ``push_cache``.
        keep_ids: Keep ids, patients, studies and hashes of files.
        key: Key file of the pseudonyms; see ``push_cache``.
        permission: Who permits sharing; see ``push_cache``.
        public: Make a new repository public, or accept that an existing one is.

    Returns:
        What was sent, or would be.

    Raises:
        RunError: The run is missing, damaged, or a learning curve.
        UsageError: See ``push_cache``.
        FeaturecacheError: The hub cannot be reached.

    Example:
        >>> import featurecache as fc
        >>> path = fc.zero_shot("cache/phantom/tiny.h5").save("runs/zero-shot")
        >>> push = fc.push_run(path, "my-lab/phantom-zero-shot")
        >>> sorted(push.files)
        ['README.md', 'config.json', 'metrics.json', 'predictions.csv']
    """
    repository = Repository(repo_id, "run")
    path = Path(run)
    config = read_config(path)
    has_training = (path / PROVENANCE_FILE).exists()
    trained_on = read_provenance(path).trained_on if has_training else {}
    terms = Terms.of_run(config, trained_on)
    terms.require_permission(permission)
    id_key = _key(key, keep_ids=keep_ids)
    name = path.resolve().name
    with scratch_folder(path.resolve()) as folder:
        shared = folder / "run"
        left_out = write_shared_run(path, shared, key=id_key)
        files = {
            file.relative_to(shared).as_posix(): file
            for file in sorted(shared.rglob("*"))
            if file.is_file()
        }
        copy = load_run(shared)
        ids = describe_id_scheme(_collection(copy, id_key))
        return _send(
            repository,
            name,
            files,
            left_out=left_out,
            ids=ids,
            terms=terms,
            public=public,
            card=run_card(copy, repo_id, terms, permission, ids),
            yes=yes,
        )


def _collection(run: Run, key: IdKey | None) -> str:
    """Return the collection of the images that a run scored, by its config."""
    own = "" if key is None else pseudonymized_collection("", key.fingerprint)
    return str(run.config.get("cache", {}).get("collection", own))


def _key(path: str | os.PathLike[str] | None, *, keep_ids: bool) -> IdKey | None:
    if keep_ids and path is not None:
        raise UsageError("`key` is that of pseudonyms: leave it out with `keep_ids`")
    return None if keep_ids else sharing_key(path)


def _send(
    repository: Repository,
    name: str,
    files: Mapping[str, Path],
    *,
    left_out: tuple[str, ...],
    ids: str,
    terms: Terms,
    public: bool,
    card: str,
    yes: bool,
) -> Push:
    sizes = {path: file.stat().st_size for path, file in files.items()}
    url = repository.send(files, name=name, card=card, public=public) if yes else None
    return Push(
        repo_id=repository.id,
        name=name,
        files={CARD: len(card.encode()), **sizes},
        left_out=left_out,
        ids=ids,
        terms=tuple(terms.lines()),
        public=public,
        url=url,
        card=card,
    )
