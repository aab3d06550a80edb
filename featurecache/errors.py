"""The exceptions that featurecache raises on purpose, and its warning.

    FeaturecacheError                exit code 1
    ├── UsageError                   exit code 2: a mistake that the user can correct
    │   ├── UnknownNameError         a model, data set, head, label ... that does not exist
    │   ├── DatasetError             a data set that is missing, malformed or contradictory
    │   ├── PromptError              a prompt set or file that cannot be used
    │   ├── CheckpointError          weights that are missing or do not fit their encoder
    │   ├── CacheError               a cache that is missing, damaged or lacks what is needed
    │   ├── RunError                 a run folder that is missing, damaged or does not fit
    │   └── AlignmentError           an alignment that is missing, damaged or does not fit
    └── ImageError                   one image that cannot be used; recorded, not fatal
        └── ImageTimeoutError        it took too long to read

``UsageError`` and ``ImageError`` are also ``ValueError``s, and ``UnknownNameError`` is also a
``LookupError``, so code that catches those keeps working. Inside this package catch the narrower
class first. Every message says what is wrong with which file or value, and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FeaturecacheError(Exception):
    """Base of every exception that featurecache raises on purpose.

    Example:
        >>> import featurecache as fc
        >>> try:
        ...     fc.load_encoder("tinyy")
        ... except fc.FeaturecacheError as error:
        ...     print(error)
        unknown model 'tinyy': did you mean tiny...
    """

    exit_code = 1


class UsageError(FeaturecacheError, ValueError):
    """A mistake that the user can correct: an argument, a file, a name."""

    exit_code = 2


class UnknownNameError(UsageError, LookupError):
    """A name that does not exist; the message offers the closest valid ones.

    Args:
        kind: What the name is of, such as ``model``.
        name: The name that was given.
        names: The valid names.
        hint: What else to try, added to the message.
        where: Where it was given, such as in a file, put before the message.
    """

    def __init__(
        self, kind: str, name: str, names: Iterable[str], *, hint: str = "", where: str = ""
    ) -> None:
        valid = sorted(names)
        near = get_close_matches(name, valid, n=3, cutoff=0.5)
        advice = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(valid)}"
        message = f"{where and f'{where}: '}unknown {kind} {name!r}: {advice}"
        super().__init__(f"{message}; {hint}" if hint else message)


class DatasetError(UsageError):
    """A data set that is missing, malformed or contradicts itself."""


class PromptError(UsageError):
    """A prompt set or prompt file that cannot be used."""


class CheckpointError(UsageError):
    """Weights that are missing, or that do not fit their encoder."""


class CacheError(UsageError):
    """A cache that is missing, damaged, or lacks what is needed."""


class RunError(UsageError):
    """A run folder that is missing, damaged, or does not fit the data."""


class AlignmentError(UsageError):
    """An alignment that is missing, damaged, or does not fit the data."""


class ImageError(FeaturecacheError, ValueError):
    """One image that cannot be used; extraction records the reason and continues."""


class ImageTimeoutError(ImageError):
    """One image that took longer to read than allowed."""


class FeaturecacheWarning(UserWarning):
    """Something that a user has to know about a result, but that does not prevent it."""
