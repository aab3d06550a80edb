"""Count things in messages."""


def count_noun(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1 class" or "2,048 images".

    Args:
        number: The number.
        singular: The noun; what agrees with it may follow, such as "image has".
        plural: Its plural. By default it is formed by the regular rule from the singular's end.
    """
    if number == 1:
        return f"{number} {singular}"
    return f"{number:,} {_pluralize(singular) if plural is None else plural}"


def _pluralize(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
