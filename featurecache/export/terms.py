"""The terms of the data sets that something was made from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from featurecache.datasets.registry import DATASETS, DatasetSpec, TermsRead
from featurecache.errors import UsageError
from featurecache.provenance.names import base_name
from featurecache.store.cache import Cache
from featurecache.store.join_rows import row_join_of

_MAY_SHARE: Final = {
    True: "allow sharing what is computed from the images",
    False: "do not allow sharing what is computed from the images",
    None: "do not say whether what is computed from the images may be shared",
}
_READ: Final[Mapping[TermsRead, str]] = {
    "source": "",
    "second hand": " (according to others; the terms themselves were not read)",
}


@dataclass(frozen=True)
class Terms:
    """The terms that apply to something.

    Attributes:
        datasets: The public data sets that it was made from, by what is recorded about it, and the
            part that each has in it: "images", or "training images of the encoder".
    """

    datasets: Mapping[DatasetSpec, str]

    @classmethod
    def of_cache(cls, cache: Cache) -> "Terms":
        """Return the terms of the images in a cache."""
        join = row_join_of(cache)
        headers = [cache.header] if join is None else [part.header for part in join.caches]
        names: list[object] = []
        for header in headers:
            source = header.extraction.get("data")
            loaded_as = [] if source is None else [source["dataset"]]
            names += [header.dataset, header.collection, *loaded_as]
        return cls._of(
            {
                "images": names,
                # The header lists the images that the encoder was trained on.
                "training images of the encoder": cache.header.trained_on,
            }
        )

    @classmethod
    def of_run(cls, config: Mapping[str, Any], trained_on: Iterable[str]) -> "Terms":
        """Return the terms of the images that a run was trained on, or scored.

        Args:
            config: Its ``config.json``.
            trained_on: Collections that its model was trained on.
        """
        return cls._of({"images": _names_in(config), "training images of the model": trained_on})

    @classmethod
    def _of(cls, parts: Mapping[str, Iterable[object]]) -> "Terms":
        found: dict[DatasetSpec, str] = {}
        for part, names in parts.items():
            for spec in map(_registered, map(str, names)):
                if spec is not None:
                    found.setdefault(spec, part)
        return cls(found)

    def require_permission(self, permission: str | None) -> None:
        """Check that the terms do not forbid to share, or that there is a permission.

        Raises:
            UsageError: They forbid it, and there is none.
        """
        forbidden = [spec for spec in self.datasets if spec.may_share is False]
        if forbidden and not (permission or "").strip():
            spec = forbidden[0]
            if spec.terms_read == "not read":
                raise UsageError(
                    f"featurecache does not know whether the terms of {spec.name} ({spec.terms}, "
                    f"{spec.terms_url}) allow giving what is computed from its images to others. "
                    "Read them: if they do, or if you have a permission, state that as "
                    "`permission`, which the card will quote"
                )
            raise UsageError(
                f"the terms of {spec.name} ({spec.terms}, {spec.terms_url}) do not allow giving "
                "the data, or what is computed from its images, to others"
                f"{_READ[spec.terms_read]}. If you have a permission from those who grant them, "
                "state it as `permission`, which the card will quote"
            )

    def lines(self) -> list[str]:
        """Return a sentence on the terms of each data set."""
        if not self.datasets:
            return ["The data set is not a public one that featurecache knows: its terms apply."]
        return [
            f"{spec.name} ({part}): {spec.terms} ({spec.terms_url}). {_statement(spec)}"
            for spec, part in self.datasets.items()
        ]


def _statement(spec: DatasetSpec) -> str:
    if spec.terms_read == "not read":
        return "Whether they allow sharing what is computed from the images was not checked."
    return f"They {_MAY_SHARE[spec.may_share]}{_READ[spec.terms_read]}."


def _registered(name: str) -> DatasetSpec | None:
    """Return the public data set that a collection is, such as ``nih#0123`` or ``phantom-1``."""
    name = base_name(name).removesuffix("-own")
    spec = DATASETS.get("phantom" if name.startswith("phantom-") else name)
    return spec if spec is not None and spec.terms_url else None


def _names_in(document: object) -> list[object]:
    """Return the values of all keys that name data sets in a JSON document."""
    if isinstance(document, Mapping):
        own = [value for key, value in document.items() if key in ("dataset", "collection")]
        return [*own, *(name for value in document.values() for name in _names_in(value))]
    if isinstance(document, list):
        return [name for value in document for name in _names_in(value)]
    return []
