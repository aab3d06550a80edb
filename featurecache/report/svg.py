"""A figure as SVG inside a page: no ids twice, text as text, colours of the page's style sheet."""

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from featurecache.report.palette import LIGHT
from featurecache.report.plots import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LONG = re.compile(r"-?\d+\.\d{3,}")


def inline_svg(figure: "Figure", *, title: str, prefix: str) -> str:
    """A figure as an ``<svg>`` element to put into a page.

    Args:
        figure: drawn in the colours of ``palette.LIGHT``.
        title: what it shows, for those who cannot see it.
        prefix: of its ids; every figure of a page needs its own.
    """
    root = ElementTree.fromstring(_saved(figure))
    for parent in root.iter():
        for child in [one for one in parent if one.tag == f"{{{_SVG}}}metadata"]:
            parent.remove(child)
    used = {name for element in root.iter() for name in _references(element)}
    for element in root.iter():
        _adapt(element, used, prefix)
    # Its size is the page's to say.
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", title)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return ElementTree.tostring(root, encoding="unicode")


def _saved(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with styled():
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return buffer.getvalue()


def _references(element: ElementTree.Element) -> list[str]:
    found = [name for value in element.attrib.values() for name in _REFERENCE.findall(value)]
    return [*found, element.get(_LINK, "").removeprefix("#")]


def _adapt(element: ElementTree.Element, used: set[str], prefix: str) -> None:
    attributes = element.attrib
    if "id" in attributes:
        if attributes["id"] in used:
            attributes["id"] = prefix + attributes["id"]
        else:
            del attributes["id"]
    if _LINK in attributes:
        attributes[_LINK] = "#" + prefix + attributes[_LINK].removeprefix("#")
    for name, value in attributes.items():
        # Six decimals of a pixel are two thirds of a file.
        if name in ("d", "x", "y", "points", "transform"):
            value = _LONG.sub(lambda match: f"{float(match[0]):.2f}", value)
        elif name in ("style", "clip-path", "fill", "stroke"):
            value = _REFERENCE.sub(lambda match: f"url(#{prefix}{match[1]})", value)
            value = _COLOUR.sub(lambda match: _VARIABLES.get(match[0], match[0]), value)
        attributes[name] = value
