"""How a collection of films is called: its name, and the key of its ids where they are hashed.

Films of one collection share ids. Hashed, they share them with what was hashed with the same key
alone, so that such a collection is called ``nih#3f0c5e1b9a7d2486`` in place of ``nih``.
"""

from collections.abc import Iterable

from featurecache.errors import UsageError

_MARK = "#"
"""No data set has it in its name."""


def hashed_collection(name: str, key: str) -> str:
    """The collection with its ids hashed by the key of this fingerprint."""
    return f"{name}{_MARK}{key}"


def name_of(collection: str) -> str:
    """The collection's name, however its ids are."""
    return collection.partition(_MARK)[0]


def key_of(collection: str) -> str:
    """The fingerprint of the key that ids are hashed with; "" where they are as they were."""
    return collection.partition(_MARK)[2]


def ids_are(collection: str) -> str:
    """How the ids of a collection are, in words."""
    key = key_of(collection)
    return f"hashed with the key {key}" if key else "not hashed"


def refuse_other_key(collection: str, learned_from: Iterable[str]) -> None:
    """Refuse films whose ids cannot be compared with those that something was trained on.

    Args:
        collection: of the films.
        learned_from: collections that it was trained on.

    Raises:
        UsageError: one of them is of the same films, with other ids.
    """
    for other in learned_from:
        if other != collection and name_of(other) == name_of(collection):
            raise UsageError(
                f"it was trained on films of {name_of(other)} whose ids were {ids_are(other)}, and "
                f"the ids here are {ids_are(collection)}, so that it cannot be told which films it "
                "knows: extract with the same --hash-ids as in its training"
            )
