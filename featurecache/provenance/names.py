"""Names: of collections of images, of images and of patients.

A collection is named ``nih``, or ``nih#<key fingerprint>`` if its ids are pseudonymized. Ids are
compared within a collection only: two hospitals may both have an image ``1.png``.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

from featurecache.errors import UsageError

_SEPARATOR: Final = "#"
"""Not allowed in the name of a data set."""

_PHANTOM: Final = re.compile(r"phantom-(-?\d+)(-views2)?", re.ASCII)
"""Collections of the phantom, by its seed and number of views."""

_IMAGES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("nih", "kermany", "openi", "mimic-cxr-jpg", "brax"), ()),
    **dict.fromkeys(("vindr-cxr", "vindr-pcxr", "montgomery", "shenzhen"), ()),
    # The ids of these are those of nih, CheXpert and PadChest.
    **dict.fromkeys(("nih-google", "chexpert", "chexpert-plus", "padchest", "padchest-gr"), ()),
    **dict.fromkeys(("rsna", "siim-acr", "chestx-det"), ("nih",)),
    "covid-radiography": ("nih", "kermany"),
    "covidx": ("nih", "covid-radiography"),
}
"""Collections of data sets that this library loads by name, and those of which they hold images
under other ids."""

MAPPING_FILES: Final[Mapping[str, str]] = {"rsna": "pneumonia-challenge-dataset-mappings_2018.json"}
"""Files that state which images of another collection those of a collection are."""

_INVISIBLE: Final = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
"""Soft hyphen, zero-width characters and direction marks, which are copied along from documents."""

_NUMBER: Final = re.compile(r"0*(\d+)(?:\.0+)?", re.ASCII)


def pseudonymized_collection(name: str, fingerprint: str) -> str:
    """Return the name of a collection whose ids are pseudonymized with the key of a fingerprint."""
    return f"{name}{_SEPARATOR}{fingerprint}"


def base_name(collection: str) -> str:
    """Return the name of a collection without the fingerprint of its key."""
    return collection.partition(_SEPARATOR)[0]


def key_fingerprint(collection: str) -> str:
    """Return the fingerprint of the key that ids are pseudonymized with; "" for original ids."""
    return collection.partition(_SEPARATOR)[2]


def describe_id_scheme(collection: str) -> str:
    """Describe the ids of a collection in words."""
    key = key_fingerprint(collection)
    return f"pseudonymized with the key {key}" if key else "not pseudonymized"


def require_same_id_key(collection: str, trained_on: Iterable[str]) -> None:
    """Check that the ids of images can be compared with those of training images.

    Two tables of one name need not be one data set, such as the ``train.csv`` of two hospitals,
    each with a key of its own: their images are compared by content, and patients are a warning.

    Args:
        collection: Collection of the images.
        trained_on: Collections that a model was trained on.

    Raises:
        UsageError: One of them is the same published data set under other ids.
    """
    for other in trained_on:
        same_name = base_name(other) == base_name(collection)
        if other != collection and same_name and is_published(other):
            raise UsageError(
                f"it was trained on images of {base_name(other)} whose ids were "
                f"{describe_id_scheme(other)}, but the ids here are "
                f"{describe_id_scheme(collection)}, so leakage cannot be ruled out: extract with "
                "the same `pseudonymize` as for its training"
            )


def is_published(collection: str) -> bool:
    """Return whether a collection is that of a published data set, or of a phantom.

    Only then is its name evidence that it has the same people as another one of that name: the
    name of anybody's own table or folder says nothing.
    """
    name = base_name(collection)
    return name in _IMAGES_OF or _PHANTOM.fullmatch(name) is not None


def images_of(collection: str) -> tuple[str, ...]:
    """Return the published collections of which another one holds images under other ids."""
    return _IMAGES_OF.get(base_name(collection), ())


def may_share_images(first: str, second: str) -> bool:
    """Return whether two collections with different ids are known to hold images of one source.

    Not if they are one collection, in which ids can be compared.
    """
    names = [base_name(first), base_name(second)]
    sources = [{name, *images_of(name)} for name in names]
    return names[0] != names[1] and not sources[0].isdisjoint(sources[1])


def may_hold_same(first: str, second: str) -> bool:
    """Return whether two collections may have an image in common, going by their names.

    Not if they are different published collections of different sources.
    """
    if base_name(first) == base_name(second) or may_share_images(first, second):
        return True
    return not (is_published(first) and is_published(second))


def own_collection(name: str) -> str:
    """Return the collection of somebody's own data set: its name, unless a published one has it."""
    return f"{name}-own" if is_published(name) else name


def may_share_patients(first: str, second: str) -> bool:
    """Return whether two collections may have images of the same people.

    Not if both are published collections, or one is synthetic: that their patients are both
    numbered from 1 then says nothing.
    """
    if any(_PHANTOM.fullmatch(base_name(name)) for name in (first, second)):
        return False
    return first == second or not (is_published(first) and is_published(second))


def clean_id(text: str) -> str:
    """Return an id in Unicode's form NFKC, trimmed, and without invisible characters."""
    if text.isascii():  # nearly all are, and millions of them take a while
        return text.strip()
    return unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).strip()


def patient_key(patient: str) -> str:
    """Return what all spellings of a patient have in common: "12" for "0012", "12.0" and "１２".

    Case is ignored; so are leading zeros and a fraction of zeros, which spreadsheets drop and add.
    """
    text = clean_id(clean_id(patient).casefold())  # folding may undo the normal form
    number = _NUMBER.fullmatch(text)
    return text if number is None else number[1]
