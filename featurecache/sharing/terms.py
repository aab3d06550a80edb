"""The terms of the data sets that something was made from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from featurecache.datasets.registry import DATASETS, DatasetSpec, TermsRead
from featurecache.errors import UsageError
from featurecache.provenance.names import base_name
from featurecache.store.cache import Cache

_MAY_SHARE: Final = {
    True: "allow sharing what is computed from the images",
    False: "do not allow sharing what is computed from the images",
    None: "do not say whether what is computed from the images may be shared",
}
_READ: Final[Mapping[TermsRead, str]] = {"source": "", "second hand": ", as others quote them"}


@dataclass(frozen=True)
class Terms:
    """The terms that apply to something.

    Attributes:
        datasets: The public data sets that it was made from, by what is recorded about it.
    """

    datasets: tuple[DatasetSpec, ...]

    @classmethod
    def of_cache(cls, cache: Cache) -> "Terms":
        """Return the terms of the images in a cache."""
        header = cache.header
        source = header.extraction.get("data")
        loaded_as = [] if source is None else [source["dataset"]]
        # The header lists the images that the encoder was fine-tuned on.
        return cls._of([header.dataset, header.collection, *loaded_as, *header.trained_on])

    @classmethod
    def of_run(cls, config: Mapping[str, Any], trained_on: Iterable[str]) -> "Terms":
        """Return the terms of the images that a run was trained on, or scored.

        Args:
            config: Its ``config.json``.
            trained_on: Collections that its model was trained on.
        """
        return cls._of([*trained_on, *_names_in(config)])

    @classmethod
    def _of(cls, names: Iterable[object]) -> "Terms":
        found = dict.fromkeys(_registered(str(name)) for name in names)
        return cls(tuple(spec for spec in found if spec is not None))

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
                    "Read them: if they do, or with a permission of who grants them, say so as "
                    "`permission`, which the card will state"
                )
            raise UsageError(
                f"the terms of {spec.name} ({spec.terms}, {spec.terms_url}) do not allow giving "
                "the data, or what is computed from its images, to others"
                f"{_READ[spec.terms_read]}. With a permission of who grants them, say which one "
                "as `permission`, which the card will state"
            )

    def lines(self) -> list[str]:
        """Return a sentence on the terms of each data set."""
        if not self.datasets:
            return ["The data set is not a public one that featurecache knows: its terms apply."]
        return [
            f"{spec.name}: {spec.terms}{f' ({spec.terms_url})' if spec.terms_url else ''}. "
            f"{_statement(spec)}"
            for spec in self.datasets
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
