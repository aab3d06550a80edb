"""What libraries say where there is no memory left, in the many ways that each has of its own."""

import errno
import re
from collections.abc import Iterator
from typing import Final

_SAID: Final = re.compile(
    "|".join(
        (
            "bad allocation|(std::)?bad_alloc",  # C++
            "can(no|')t allocate memory",  # the system, torch
            "can't start new thread",  # Python: there is no room for its stack
            "could not create a primitive",  # oneDNN, below torch's convolutions
            "error return without exception set",  # Python, which had none to tell it with
            "failed to map segment",  # the loader of libraries
            r"malloc of size \d+ failed|realloc of size \d+ failed",  # Arrow
            "memory allocation failed",  # HDF5
            "out of memory",  # CUDA
            "returned NULL without setting an exception",  # Python, likewise
            r"unable to (alloc|create thread)",  # numpy, OpenBLAS
        )
    ),
    re.IGNORECASE,
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that it came from, says that memory did not suffice."""
    return any(
        isinstance(one, MemoryError)
        or type(one).__name__ == "OutOfMemoryError"  # torch's, which is not imported for this
        or getattr(one, "errno", None) == errno.ENOMEM
        or _SAID.search(str(one)) is not None
        for one in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            rest += [one.__cause__, one.__context__]
