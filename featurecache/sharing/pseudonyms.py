"""The key of the pseudonyms in what is shared, and texts without paths.

Whatever leaves this machine has keyed hashes in place of ids, patients and studies, as
``datasets.pseudonymize`` makes them. The key stays on this machine, so that what is shared later
has the same pseudonyms, and only its owner can tell who is who.
"""

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from featurecache.datasets.pseudonymize import IdKey, read_key
from featurecache.io.atomic import make_folder, sync
from featurecache.provenance.provenance import Provenance
from featurecache.provenance.records import ImageRecords

_KEY_BYTES: Final = 32
_ABSOLUTE: Final = re.compile(r"(?<![\w:/.])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\:'\"]+[/\\])+")
"""The folders of an absolute path, and not those of a URL."""


def default_key_file() -> Path:
    """Return ``$XDG_DATA_HOME/featurecache/sharing.key``, by default in ``~/.local/share``."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "featurecache" / "sharing.key"


def sharing_key(path: str | os.PathLike[str] | None) -> IdKey:
    """Return the key in a file.

    Args:
        path: The file; None for the default one, which is made at the first use, readable only by
            its owner.

    Raises:
        UsageError: There is no such file, or it is no key.
        OSError: The default file cannot be written.
    """
    if path is not None:
        return read_key(path)
    file = default_key_file()
    if not file.exists():
        make_folder(file.parent)
        # Never readable by others, nor replaced: another process may have made one by now.
        with NamedTemporaryFile(dir=file.parent) as temporary:
            temporary.write(secrets.token_bytes(_KEY_BYTES))
            temporary.flush()
            os.fsync(temporary.fileno())
            with suppress(FileExistsError):
                file.hardlink_to(temporary.name)
        sync(file.parent)
    return read_key(file)


def pseudonymize_training(provenance: Provenance, key: IdKey | None) -> Provenance:
    """Return a provenance whose ids are hashed, and that has no hashes of contents.

    Args:
        provenance: The provenance.
        key: The key; None keeps ids and hashes as they are.
    """
    if key is None:
        return provenance
    hashed = key.pseudonymize_provenance(provenance)
    trained_on = {
        name: ImageRecords.of(name, images.to_json()["id"], patients=images.to_json()["patient"])
        for name, images in hashed.trained_on.items()
    }
    return Provenance(hashed.exposed_to, trained_on)


def without_folders(value: Any) -> Any:
    """Return a JSON value in whose texts absolute paths have only their last part."""
    if isinstance(value, str):
        return _ABSOLUTE.sub("", value)
    if isinstance(value, Mapping):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(entry) for entry in value]
    return value
