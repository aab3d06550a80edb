"""What the cards (README.md) of a cache say, wherever it is published."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from featurecache.datasets.splits import SPLITS
from featurecache.encoders.registry import ENCODERS
from featurecache.export.terms import Terms
from featurecache.label_cells import count_cells
from featurecache.provenance.names import base_name, describe_id_scheme
from featurecache.store.cache import Cache
from featurecache.store.records import Header
from featurecache.wording import count_noun

_TAGS: Final = ("featurecache", "chest-x-ray", "medical-imaging")
_PHANTOM: Final = re.compile(r"phantom-(-?\d+).*", re.ASCII)


def cache_card(
    cache: Cache,
    introduction: str,
    terms: Terms,
    *,
    use: str,
    permission: str | None = None,
    front: Mapping[str, Any] | None = None,
) -> str:
    """Return the card of a cache: what it holds, its notes, terms and use.

    Args:
        cache: The cache.
        introduction: What the files are, in Markdown.
        terms: The terms of the data sets that it was made from.
        use: A block of code, in Markdown.
        permission: Who permits to share it.
        front: Further metadata of the hub.
    """
    header = cache.header
    splits = {split: len(cache.rows(split)) for split in SPLITS}
    patients = f"{len(np.unique(cache.patients)):,}"
    facts = {
        "Data set": _images_of(header.collection, header.dataset),
        "Images": f"{len(cache):,}",
        "Patients": patients if cache.patients_known else "unknown",
        "Splits": ", ".join(f"{count:,} {split}" for split, count in splits.items() if count),
        "Encoder": header.model,
        "Weights": f"{model_license(header.model)}; revision {header.revision or 'not recorded'}",
        "Training of the encoder": _training(header),
        "Embeddings": f"{_numbers(cache)} of float16, not normalized",
        "Fingerprint": cache.fingerprint,
        "Prompt sets": ", ".join(sorted(cache.prompt_sets)) or "none",
        "Ids": describe_id_scheme(header.collection),
    }
    counts = count_cells(cache.cells, cache.labels.names)
    labels = [
        [label, *(f"{number:,}" for number in counts[label].values())]
        for label in cache.labels.names
    ]
    columns = ["label", *next(iter(counts.values()), {})]
    return card(
        f"Embeddings of {header.dataset} by {header.model}",
        [
            introduction,
            fact_table(facts),
            *(["## Labels", table(columns, labels)] if labels else []),
            *notes_section(header.notes),
            *terms_section(terms, permission),
            use_section(use),
        ],
        front=front,
    )


def card(title: str, sections: Sequence[str], *, front: Mapping[str, Any] | None = None) -> str:
    """Return a card: the metadata of the hub, a title, and sections in Markdown."""
    # JSON is YAML, whatever a name holds.
    metadata = {"license": "other", "tags": _TAGS, "pretty_name": title, **(front or {})}
    lines = "\n".join(f"{name}: {json.dumps(value)}" for name, value in metadata.items())
    return "\n\n".join([f"---\n{lines}\n---", f"# {_plain(title)}", *sections]) + "\n"


def terms_section(terms: Terms, permission: str | None) -> list[str]:
    """Return the terms that apply, and the permission to share."""
    lines = [*terms.lines(), "The terms of the data set and of the encoder apply to this, too."]
    if permission:
        lines.append(f"Shared with this permission: {permission}")
    return ["## Terms", "\n".join(f"- {_plain(line)}" for line in lines)]


def notes_section(notes: Sequence[str]) -> list[str]:
    """Return the notes as a list, if there are any."""
    if not notes:
        return []
    return ["## What a reader has to know", "\n".join(f"- {_plain(note)}" for note in notes)]


def use_section(block: str) -> str:
    """Return how it is used, with a block of code."""
    return f"## Use\n\n{block}"


def fact_table(facts: Mapping[str, str]) -> str:
    """Return names and what they are as a table without a head."""
    return table(["", ""], [[name, text] for name, text in facts.items()])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, whatever its cells hold."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def model_license(model: str) -> str:
    """Return the license of a model's weights, if it is a registered one."""
    registered = ENCODERS.get(model)
    return (registered and registered.license) or "license not known"


def _plain(text: str) -> str:
    """Return a text that Markdown and HTML show as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))


def _images_of(collection: str, dataset: str | None = None) -> str:
    """Name a data set; phantoms of different seeds have different images."""
    name = base_name(collection)
    if phantom := _PHANTOM.fullmatch(name):
        return f"{dataset or 'phantom'} (seed {phantom[1]})"
    return dataset or name


def _training(header: Header) -> str:
    known = [
        f"{count_noun(len(images), 'image')} of {_images_of(collection)}"
        for collection, images in sorted(header.trained_on.items())
    ]
    sentences = [f"on {', '.join(known)}"] if known else []
    if header.exposed:
        sentences.append("its published training may have included images of this data set")
    return "; ".join(sentences) or "not known to have included images of this data set"


def _numbers(cache: Cache) -> str:
    if cache.n_tokens is None:
        return f"{cache.dim} numbers"
    return f"{cache.n_tokens} tokens of {cache.dim // cache.n_tokens} numbers, one after the other,"
