"""The folder of files that can be made again, below the user's cache folder."""

import os
from pathlib import Path


def user_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/featurecache``, by default ``~/.cache/featurecache``.

    Raises:
        RuntimeError: The user has no home folder.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featurecache"
