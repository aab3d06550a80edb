"""The folder of files that can be made again, below the user's cache folder."""

import os
from pathlib import Path


def user_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/featurecache``, by default ``~/.cache/featurecache``.

    Raises:
        OSError: The user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featurecache"
    except RuntimeError as error:
        raise OSError("the user has no home folder") from error
