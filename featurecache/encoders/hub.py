"""Find the weights of an encoder: given, in the folder of local models, or on the hub."""

import os
from functools import partial
from pathlib import Path

from featurecache.encoders.checkpoint import Checkpoint, Layout, open_checkpoint
from featurecache.errors import CheckpointError

MODELS_VARIABLE = "FEATURECACHE_MODELS"
TOKENIZER_PATTERNS = ("*.json", "*.txt", "*.model")
_HUB_TIMEOUT = 5.0
"""Seconds to wait for an answer of the hub."""


def find_checkpoint(
    name: str,
    *,
    hub_id: str,
    layout: Layout,
    weights: Path | None = None,
    revision: str | None = None,
    gated: bool = False,
) -> Checkpoint:
    """Find a checkpoint: ``weights``, else ``$FEATURECACHE_MODELS``, else the hub.

    Args:
        name: Registry name, looked for in the folder of local models.
        hub_id: ``org/name`` on the Hugging Face hub; ``name`` is looked for locally as well.
        layout: The files that make up a checkpoint.
        weights: A checkpoint folder, used without looking elsewhere.
        revision: A branch, tag or commit of the repository. Local folders have no revision, so
            with one only the hub and its cache are searched.
        gated: Whether the hub requires accepted terms, for the error message.

    Raises:
        CheckpointError: Nothing was found, or the checkpoint is incomplete.
    """
    if weights is not None:
        return open_checkpoint(weights, layout)
    if revision is None and (folder := local_folder(name, hub_id)):
        return open_checkpoint(folder, layout)
    patterns = [*TOKENIZER_PATTERNS, *_weight_patterns(layout.weights[0])]
    folder = hub_folder(name, hub_id, patterns=patterns, revision=revision, gated=gated)
    if not any(any(folder.glob(pattern)) for pattern in _weight_patterns(layout.weights[0])):
        # Some older repositories have only pickled tensors, which are fetched only when needed.
        patterns += _weight_patterns(layout.weights[1])
        folder = hub_folder(name, hub_id, patterns=patterns, revision=revision, gated=gated)
    return open_checkpoint(folder, layout)


def local_folder(name: str, hub_id: str = "") -> Path | None:
    """Return the folder of a model in ``$FEATURECACHE_MODELS``; None if there is none.

    Args:
        name: Registry name.
        hub_id: ``org/name`` on the hub; a folder called ``name`` is found too.

    Raises:
        CheckpointError: The variable is set, but is not a folder.
    """
    setting = os.environ.get(MODELS_VARIABLE)
    if not setting:
        return None
    root = Path(setting).expanduser()
    if not root.is_dir():
        raise CheckpointError(f"{MODELS_VARIABLE} is {setting!r}, which is not a folder")
    candidates = (root / part for part in (name, hub_id.rpartition("/")[2]) if part)
    return next((folder for folder in candidates if folder.is_dir()), None)


def hub_folder(
    name: str,
    hub_id: str,
    *,
    patterns: list[str],
    revision: str | None = None,
    gated: bool = False,
) -> Path:
    """Return the local snapshot of a hub repository, downloading it if it is not cached.

    ``HF_HUB_OFFLINE`` and the other settings of huggingface_hub apply. Without a connection a
    cached snapshot is used.

    Args:
        name: Name of the model, for messages.
        hub_id: ``org/name`` of the repository.
        patterns: Patterns of the files to download.
        revision: A branch, tag or commit; None for the default branch.
        gated: Whether the hub requires accepted terms, for the error message.

    Raises:
        CheckpointError: The repository is neither cached nor reachable, or access is refused.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    snapshot = partial(snapshot_download, hub_id, revision=revision, allow_patterns=patterns)
    try:
        try:
            return Path(snapshot(etag_timeout=_HUB_TIMEOUT))
        except ConnectionError:
            # Offline, huggingface_hub 1 does not look for a pinned commit in its cache.
            return Path(snapshot(local_files_only=True))
    except GatedRepoError as error:
        raise CheckpointError(
            f"the hub refuses {hub_id}: request access at https://huggingface.co/{hub_id}, "
            "then log in with 'hf auth login'"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        repository = hub_id if revision is None else f"{hub_id} at revision {revision}"
        raise CheckpointError(
            f"the hub has no {repository}, or it is private: check the name, or 'hf auth login'"
        ) from error
    except OSError as error:  # no connection, offline mode, a full disk, an HTTP status
        terms = (
            f"; access to it must first be requested at https://huggingface.co/{hub_id}"
            if gated
            else ""
        )
        raise CheckpointError(
            f"the weights of {name} ({hub_id}) are not on this machine and could not be "
            f"downloaded: connect to the hub, give `weights`, or put them at "
            f"${MODELS_VARIABLE}/{name.rpartition('/')[2]}{terms}"
        ) from error


def _weight_patterns(file_name: str) -> list[str]:
    stem, _, suffix = file_name.rpartition(".")
    return [file_name, f"{stem}-*-of-*.{suffix}"]
