"""Inline SVG of a figure: unique ids, text as text, colors as CSS variables."""

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from featurecache.report.palette import LIGHT
from featurecache.report.plot_style import report_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_HREF = f"{{{_XLINK}}}href"
_CSS_VARIABLES = {color: f"var(--{name})" for name, color in LIGHT.items()}
_COLOR = re.compile(r"#[0-9a-f]{6}")
_URL_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def inline_svg(figure: "Figure", *, title: str, id_prefix: str) -> str:
    """Return a figure as an ``<svg>`` element for an HTML page.

    Args:
        figure: a figure in the colors of ``palette.LIGHT``.
        title: what it shows, for screen readers.
        id_prefix: prefix of the element's ids; unique in the page.
    """
    root = ElementTree.fromstring(_render_svg(figure))
    for parent in root.iter():
        for metadata in parent.findall(f"{{{_SVG}}}metadata"):
            parent.remove(metadata)
    referenced_ids = {name for element in root.iter() for name in _references(element)}
    for element in root.iter():
        _adapt(element, referenced_ids, id_prefix)
    # The style sheet decides the size.
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", title)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _render_svg(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with report_style():
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    return buffer.getvalue()


def _references(element: ElementTree.Element) -> list[str]:
    ids = [name for value in element.attrib.values() for name in _URL_REFERENCE.findall(value)]
    return [*ids, element.get(_HREF, "").removeprefix("#")]


def _adapt(element: ElementTree.Element, referenced_ids: set[str], id_prefix: str) -> None:
    attributes = element.attrib
    if "id" in attributes:
        if attributes["id"] in referenced_ids:
            attributes["id"] = id_prefix + attributes["id"]
        else:
            del attributes["id"]
    if _HREF in attributes:
        attributes[_HREF] = "#" + id_prefix + attributes[_HREF].removeprefix("#")
    for name, value in attributes.items():
        # Six decimals of a pixel would be two thirds of the file.
        if name in ("d", "x", "y", "points", "transform"):
            value = _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.2f}", value)
        elif name in ("style", "clip-path", "fill", "stroke"):
            value = _URL_REFERENCE.sub(lambda match: f"url(#{id_prefix}{match[1]})", value)
            value = _COLOR.sub(lambda match: _CSS_VARIABLES.get(match[0], match[0]), value)
        attributes[name] = value
