"""The exceptions that featurecache raises on purpose.

    FeaturecacheError                exit code 1
    ├── UsageError                   exit code 2: the user can mend it
    │   ├── UnknownNameError         a model, data set, head, label ... that does not exist
    │   ├── DatasetError             a data set that is missing, malformed or contradictory
    │   ├── PromptError              a prompt set or file that cannot be used
    │   ├── CheckpointError          weights that are missing or do not fit their encoder
    │   ├── CacheError               a cache that is missing, broken or lacks what is needed
    │   ├── RunError                 a run folder that is missing, broken or does not fit
    │   └── AlignmentError           an alignment that is missing, broken or does not fit
    └── ImageError                   one image that cannot be used; recorded, not fatal

Every message says what happened to which file or option, and what to do now.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FeaturecacheError(Exception):
    """Base of every exception that featurecache raises on purpose."""

    exit_code = 1


class UsageError(FeaturecacheError):
    """Input that the user can mend: an option, a file, a name."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not among the known ones; the message offers the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
        super().__init__(f"unknown {kind} {name!r}: {hint}")


class DatasetError(UsageError):
    """A data set that is missing, malformed or contradicts itself."""


class PromptError(UsageError):
    """A prompt set or prompt file that cannot be used."""


class CheckpointError(UsageError):
    """Weights that are missing, or that do not fit their encoder."""


class CacheError(UsageError):
    """A cache that is missing, broken, or lacks what was asked of it."""


class RunError(UsageError):
    """A run folder that is missing, broken, or does not fit the data at hand."""


class AlignmentError(UsageError):
    """An alignment that is missing, broken, or does not fit the data at hand."""


class ImageError(FeaturecacheError):
    """One image that cannot be used; extraction records the reason and goes on."""
