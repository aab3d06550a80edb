"""View positions of chest X-rays: one spelling for each, and which are frontal or lateral."""

import re
from typing import Final

FRONTAL: Final = "frontal"
LATERAL: Final = "lateral"

_SPELLINGS: Final = {
    "pa": "PA",
    "ap": "AP",
    **dict.fromkeys(("posteroanterior", "posterioranterior", "posterioroanterior"), "PA"),
    **dict.fromkeys(("anteroposterior", "anteriorposterior", "anterioroposterior"), "AP"),
    **dict.fromkeys(("l", "lat", "lateral"), "LATERAL"),
    **dict.fromkeys(("ll", "leftlateral"), "LL"),
    **dict.fromkeys(("rl", "rightlateral"), "RL"),
}
"""Views by their letters in lower case. LL and RL are the terms of DICOM for lateral views."""

_SIDES: Final = {
    **dict.fromkeys(("PA", "AP", "FRONTAL"), FRONTAL),
    **dict.fromkeys(("LATERAL", "LL", "RL"), LATERAL),
}
_DECUBITUS: Final = frozenset({"DECUBITUS", "DECUB", "LLD", "RLD"})


def normalize_view(text: str) -> str:
    """Return "PA", "AP", "LATERAL", "LL" or "RL", or another view in capitals.

    Args:
        text: A view as it is written, such as "Postero-anterior".
    """
    return _SPELLINGS.get(re.sub(r"[^a-z]", "", text.casefold()), text.upper())


def side_of_view(view: str) -> str:
    """Return whether a view is "frontal" or "lateral"; "" where its words do not say so.

    PA, AP and frontal are frontal, lateral, LL and RL are lateral, also with further words, as in
    "AP SUPINE" and "XTABLE LATERAL". Oblique views are neither. "LEFT LATERAL DECUBITUS" says how
    the patient lies, not the view, so only "PA LLD" is frontal.

    Args:
        view: A view, in any spelling.
    """
    words = re.findall(r"[A-Z]+", normalize_view(view))
    sides = {_SIDES[word] for word in map(normalize_view, words) if word in _SIDES}
    if not _DECUBITUS.isdisjoint(words):
        sides -= {LATERAL}
    return sides.pop() if len(sides) == 1 else ""
