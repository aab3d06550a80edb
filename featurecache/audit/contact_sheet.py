"""Near-identical films side by side, for people to judge."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from featurecache.images.contact_sheet import Captioned, contact_sheet, thumbnail
from featurecache.images.subprocess_decoder import SubprocessDecoder

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PAIRS: Final = 60

_PAIRS_A_ROW: Final = 2


def pair_sheet(pairs: Sequence[Mapping[str, Any]], films: Mapping[str, Path]) -> "Image":
    """The first ``MOST_PAIRS`` pairs of an audit's list, two a row.

    Over a pair's first film stand its number in the list, from 1, its likeness, and the splits;
    over its second, the end of that film's id.

    Args:
        pairs: as ``near_duplicates`` lists them, one or more.
        films: file of each image by its id.

    Raises:
        ImageError: a film cannot be read.
    """
    reader = SubprocessDecoder()
    shown: list[list[Captioned]] = [
        _captioned(number, pair, films, reader)
        for number, pair in enumerate(pairs[:MOST_PAIRS], start=1)
    ]
    return contact_sheet(
        [
            [film for pair in shown[start : start + _PAIRS_A_ROW] for film in pair]
            for start in range(0, len(shown), _PAIRS_A_ROW)
        ]
    )


def _captioned(
    number: int, pair: Mapping[str, Any], films: Mapping[str, Path], reader: SubprocessDecoder
) -> list[Captioned]:
    one, two = pair["images"]
    alike = "" if pair["likeness"] is None else f" {pair['likeness']:.3f}"
    captions = (f"{number}:{alike} {' and '.join(pair['splits'])}", two[-30:])
    return [
        (caption, *reader.read(films[image], [thumbnail], called=image))
        for caption, image in zip(captions, (one, two), strict=True)
    ]
