"""The cards (README.md) of what is shared, written from its header."""

import json
import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from featurecache.datasets.splits import SPLITS
from featurecache.encoders.registry import ENCODERS
from featurecache.label_cells import count_cells
from featurecache.metrics.metrics import format_with_interval
from featurecache.provenance.names import describe_id_scheme
from featurecache.runs.run import Run
from featurecache.sharing.terms import Terms
from featurecache.store.cache import Cache
from featurecache.wording import UNDEFINED, count_noun

_TAGS: Final = ("featurecache", "chest-x-ray", "medical-imaging")


def cache_card(cache: Cache, repo_id: str, terms: Terms, permission: str | None) -> str:
    """Return the card of a cache, as it is shared."""
    header = cache.header
    splits = {split: len(cache.rows(split)) for split in SPLITS}
    patients = f"{len(np.unique(cache.patients)):,}"
    facts = {
        "Data set": header.dataset,
        "Images": f"{len(cache):,}",
        "Patients": patients if cache.patients_known else "unknown",
        "Splits": ", ".join(f"{count:,} {split}" for split, count in splits.items() if count),
        "Encoder": header.model,
        "Weights": f"{_model_license(header.model)}; revision {header.revision or 'not recorded'}",
        "Embeddings": f"{cache.dim} numbers of float16, not normalized",
        "Fingerprint": cache.fingerprint,
        "Prompt sets": ", ".join(sorted(cache.texts)) or "none",
        "Ids": describe_id_scheme(header.collection),
        "The encoder may have been trained on these images": "yes" if header.exposed else "no",
    }
    counts = count_cells(cache.cells, cache.labels.names)
    labels = [
        [label, *(f"{number:,}" for number in counts[label].values())]
        for label in cache.labels.names
    ]
    columns = ["label", *next(iter(counts.values()), {})]
    return _card(
        f"Embeddings of {header.dataset} by {header.model}",
        [
            "Embeddings of chest X-rays by a frozen encoder, with labels and splits, as a cache of "
            "featurecache.",
            _table(["", ""], [[name, text] for name, text in facts.items()]),
            *(["## Labels", _table(columns, labels)] if labels else []),
            *_notes(header.notes),
            *_terms(terms, permission),
            _use(f"cache pull {repo_id}", "train-head"),
        ],
    )


def run_card(run: Run, repo_id: str, terms: Terms, permission: str | None, ids: str) -> str:
    """Return the card of a run, as it is shared."""
    metrics = run.metrics
    facts = {
        "Kind": run.kind,
        "Head": str(run.config.get("settings", {}).get("head") or UNDEFINED),
        "Data set": run.dataset_name,
        "Encoder": run.model_name,
        "Weights of the encoder": _model_license(run.model_name),
        "Scored": f"{count_noun(metrics.n, run.units.level)} of {metrics.split}",
        "Ids": ids,
    }
    rows = [
        [
            name,
            format_with_interval(scores.auroc, scores.auroc_ci),
            format_with_interval(scores.auprc, scores.auprc_ci),
        ]
        for name, scores in {"macro average": metrics.macro, **metrics.per_label}.items()
    ]
    return _card(
        f"{run.kind} run on {run.dataset_name} by {run.model_name}",
        [
            "A run of featurecache: settings, metrics, predictions, and the weights of a trained "
            "model.",
            _table(["", ""], [[name, text] for name, text in facts.items()]),
            "## Metrics\n\nBrackets are 95 % confidence intervals over patients.",
            _table(["label", "AUROC", "AUPRC"], rows),
            *_notes(run.warnings),
            *_terms(terms, permission),
            _use(f"runs pull {repo_id}"),
        ],
    )


def _card(title: str, sections: Sequence[str]) -> str:
    # JSON is YAML, whatever a name holds.
    front = f"---\nlicense: other\ntags: {json.dumps(_TAGS)}\npretty_name: {json.dumps(title)}\n---"
    return "\n\n".join([front, f"# {_plain(title)}", *sections]) + "\n"


def _terms(terms: Terms, permission: str | None) -> list[str]:
    lines = [*terms.lines(), "The terms of the data set and of the encoder apply to this, too."]
    if permission:
        lines.append(f"Shared with this permission: {permission}")
    return ["## Terms", "\n".join(f"- {_plain(line)}" for line in lines)]


def _notes(notes: Sequence[str]) -> list[str]:
    if not notes:
        return []
    return ["## What a reader has to know", "\n".join(f"- {_plain(note)}" for note in notes)]


def _use(*commands: str) -> str:
    lines = "\n".join(f"featurecache {command}" for command in commands)
    return f"## Use\n\n```sh\n{lines}\n```"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(text: str) -> str:
    """Return a text that Markdown and HTML show as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))


def _model_license(model: str) -> str:
    registered = ENCODERS.get(model)
    return (registered and registered.license) or "license not known"
