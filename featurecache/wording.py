"""How messages and tables write numbers of things, sizes, and what is undefined."""

from typing import Final

UNDEFINED: Final = "–"
"""What a table shows in place of a value that is undefined, unknown or missing."""


def format_size(n_bytes: float) -> str:
    """Return a number of bytes with its unit, such as "812 B", "15.0 KiB" or "1.2 GiB"."""
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:,.1f} GiB"


def count_noun(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1 class" or "2,048 images".

    Args:
        number: The number.
        singular: The noun; what agrees with it may follow, such as "image has".
        plural: Its plural. By default it is formed by the regular rule from the singular's end.
    """
    if number == 1:
        return f"{number} {singular}"
    return f"{number:,} {pluralize(singular) if plural is None else plural}"


def pluralize(noun: str) -> str:
    """Return the regular plural of a noun."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
