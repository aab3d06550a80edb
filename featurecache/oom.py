"""Recognize out-of-memory errors, which each library reports in a different way."""

import errno
import re
from collections.abc import Iterator
from typing import Final

_MESSAGES: Final = re.compile(
    "|".join(
        (
            "bad allocation|(std::)?bad_alloc",  # C++
            "can(no|')t allocate memory",  # the system, torch
            "can't start new thread",  # Python: no memory for its stack
            "could not create a primitive",  # oneDNN, below torch's convolutions
            "error return without exception set",  # Python: no memory for an exception
            "failed to map segment",  # the loader of shared libraries
            r"malloc of size \d+ failed|realloc of size \d+ failed",  # Arrow
            "memory allocation failed",  # HDF5
            "out of memory",  # CUDA
            "returned NULL without setting an exception",  # Python: no memory for an exception
            r"unable to (alloc|create thread)",  # numpy, OpenBLAS
        )
    ),
    re.IGNORECASE,
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, or one that caused it, says that memory ran out."""
    return any(
        isinstance(link, MemoryError)
        or type(link).__name__ == "OutOfMemoryError"  # torch's, without importing torch
        or getattr(link, "errno", None) == errno.ENOMEM
        or _MESSAGES.search(str(link)) is not None
        for link in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception with all its causes and contexts."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            pending += [link.__cause__, link.__context__]
