"""What of an image network is cached: its embedding, a layer, or the tokens of its patches."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from featurecache.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LAYERS: Final = re.compile(r"layers:(-\d+(?:,-\d+)*)(\+mean)?")
_TOKENS: Final = re.compile(r"tokens:(\d+)")


@dataclass(frozen=True)
class Features:
    """One kind of features; see ``parse_features``.

    Attributes:
        name: Its canonical spelling.
        layers: Layers whose tokens are used, -1 for the last; none for "projected" and "pooled".
        class_token: Whether the class token of each layer is among the features.
        mean: Whether the mean of each layer's patch tokens is.
        grid: Rows, and columns, of the grid that the patch tokens are averaged to; None where
            there is one vector for each image.
    """

    name: str
    layers: tuple[int, ...] = ()
    class_token: bool = False
    mean: bool = False
    grid: int | None = None

    def __str__(self) -> str:
        return self.name

    def on_grid(self, values: "NDArray[np.floating]") -> "NDArray[np.floating]":
        """Return values of tokens, (..., T), as those of patches by row and column, (..., G, G).

        Those of a class token, which comes first, are left out.
        """
        assert self.grid is not None
        return values[..., -(self.grid**2) :].reshape(*values.shape[:-1], self.grid, self.grid)

    @property
    def suffix(self) -> str:
        """What the name of a cache ends in: ``layers-1-2+mean`` for ``layers:-1,-2+mean``."""
        return self.name.replace(":-", "-").replace(":", "-").replace(",", "")


PROJECTED: Final = Features("projected")
POOLED: Final = Features("pooled")
_LAST: Final = {
    one.name: one
    for one in (
        PROJECTED,
        POOLED,
        Features("cls", (-1,), class_token=True),
        Features("mean", (-1,), mean=True),
        Features("cls+mean", (-1,), class_token=True, mean=True),
    )
}


def parse_features(text: str) -> Features:
    """Return the features of a name.

    Args:
        text: ``projected``: the space that images share with texts. ``pooled``: the vector before
            the projection. ``cls``: the class token. ``mean``: the mean of the patch tokens.
            ``cls+mean``: both, concatenated. ``layers:-1,-2,-3,-4``: the class tokens of these
            layers, counted from the last, concatenated in this order. ``layers:...+mean``: for each
            layer its class token, where the network has one, then the mean of its patch tokens.
            ``tokens:G``: the class token, where the network has one, then the patch tokens,
            averaged to a grid of G rows and G columns, row by row. Tokens are taken after the
            network's last layer norm, those of every layer, and register tokens are left out.

    Raises:
        UsageError: There are no such features.

    Example:
        >>> from featurecache.features import parse_features
        >>> parse_features("layers:-1,-2+mean").layers
        (-1, -2)
    """
    name = re.sub(r"\s", "", text).lower()
    if name in _LAST:
        return _LAST[name]
    if match := _LAYERS.fullmatch(name):
        numbers, mean = match.groups()
        layers = tuple(int(number) for number in numbers.split(","))
        if 0 not in layers and len(set(layers)) == len(layers):
            name = f"layers:{','.join(map(str, layers))}{mean or ''}"
            return Features(name, layers, class_token=True, mean=mean is not None)
    if (match := _TOKENS.fullmatch(name)) and (grid := int(match[1])):
        return Features(f"tokens:{grid}", (-1,), class_token=True, grid=grid)
    raise UsageError(
        f"there are no features {text!r}: choose `features` from {', '.join(_LAST)}, layers and "
        "tokens, as in layers:-1,-2 (layers are counted from the last, -1, each once), "
        "layers:-1,-2+mean and tokens:7"
    )
