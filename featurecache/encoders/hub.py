"""Where an encoder's weights are: an option, the folder of local models, or the hub."""

import os
from functools import partial
from pathlib import Path

from featurecache.encoders.checkpoint import Checkpoint, Layout, open_checkpoint
from featurecache.errors import CheckpointError

MODELS_VARIABLE = "FEATURECACHE_MODELS"
TOKENIZER_PATTERNS = ("*.json", "*.txt", "*.model")
_HUB_TIMEOUT = 5.0
"""Seconds to wait for the hub's answer before saying that it cannot be reached."""


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
        name: the registry name, looked for in the folder of local models.
        hub_id: ``org/name`` on the Hugging Face hub; its last part is looked for likewise.
        layout: which files make a whole checkpoint.
        weights: a checkpoint folder that is used without looking further.
        revision: a branch, tag or commit of the hub's repository. Local folders do not know
            theirs, so a revision always means the hub and its cache.
        gated: whether the hub asks for accepted terms, to say so when it refuses.

    Raises:
        CheckpointError: nothing was found, or what was found is not whole.
    """
    if weights is not None:
        return open_checkpoint(weights, layout)
    if revision is None and (folder := local_folder(name, hub_id)):
        return open_checkpoint(folder, layout)
    patterns = [*TOKENIZER_PATTERNS, *_weight_patterns(layout.weights[0])]
    folder = hub_folder(name, hub_id, patterns=patterns, revision=revision, gated=gated)
    if not any(any(folder.glob(pattern)) for pattern in _weight_patterns(layout.weights[0])):
        # Some older repositories hold pickled tensors only; they are fetched only when needed.
        patterns += _weight_patterns(layout.weights[1])
        folder = hub_folder(name, hub_id, patterns=patterns, revision=revision, gated=gated)
    return open_checkpoint(folder, layout)


def local_folder(name: str, hub_id: str = "") -> Path | None:
    """The folder of a model in ``$FEATURECACHE_MODELS``: by name, or the hub id's last part.

    Raises:
        CheckpointError: the variable is set, but names no folder.
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
    """The local snapshot of a hub repository, downloaded where it is not in the hub's cache.

    ``HF_HUB_OFFLINE`` and the other settings of huggingface_hub hold; without a connection a
    cached snapshot is used.

    Raises:
        CheckpointError: the repository is neither cached nor reachable, or access is refused.
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
            # Offline, huggingface_hub 1 looks for no pinned commit in its cache.
            return Path(snapshot(local_files_only=True))
    except GatedRepoError as error:
        raise CheckpointError(
            f"the hub refuses {hub_id}: request access at https://huggingface.co/{hub_id}, "
            "then log in with `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        wanted = hub_id if revision is None else f"{hub_id} at revision {revision}"
        raise CheckpointError(
            f"the hub has no {wanted}, or it is private: check the name, or `hf auth login`"
        ) from error
    except OSError as error:  # no connection, offline mode, a full disk, an HTTP status
        terms = (
            f"; access to it must first be requested at https://huggingface.co/{hub_id}"
            if gated
            else ""
        )
        raise CheckpointError(
            f"the weights of {name} ({hub_id}) are not on this machine and could not be "
            f"downloaded: connect to the hub, pass --weights DIR, or put them at "
            f"${MODELS_VARIABLE}/{name.rpartition('/')[2]}{terms}"
        ) from error


def _weight_patterns(file_name: str) -> list[str]:
    stem, _, suffix = file_name.rpartition(".")
    return [file_name, f"{stem}-*-of-*.{suffix}"]
