"""The cards (README.md) of what is shared, written from its header."""

import shlex

from featurecache.export import card
from featurecache.export.terms import Terms
from featurecache.metrics.metrics import format_with_interval
from featurecache.runs.run import Run
from featurecache.store.cache import Cache
from featurecache.wording import UNDEFINED, count_noun


def cache_card(cache: Cache, name: str, repo_id: str, terms: Terms, permission: str | None) -> str:
    """Return the card of a cache, as it is shared under a name such as "nih/clip.h5"."""
    path = shlex.quote(f"cache/{name}")
    first = (
        f"train-head --head linear --cache {path}" if cache.labels.names else f"cache info {path}"
    )
    return card.cache_card(
        cache,
        "Embeddings of chest X-rays by a frozen encoder, with labels and splits, as a cache of "
        "featurecache.",
        terms,
        use=_commands(f"cache pull {repo_id} --cache cache", first),
        permission=permission,
    )


def run_card(run: Run, repo_id: str, terms: Terms, permission: str | None, ids: str) -> str:
    """Return the card of a run, as it is shared."""
    metrics = run.metrics
    facts = {
        "Kind": run.kind,
        "Head": str(run.config.get("settings", {}).get("head") or UNDEFINED),
        "Data set": run.dataset_name,
        "Encoder": run.model_name,
        "Weights of the encoder": card.model_license(run.model_name),
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
    return card.card(
        f"{run.kind} run on {run.dataset_name} by {run.model_name}",
        [
            "A run of featurecache: settings, metrics, predictions, and the weights of a trained "
            "model.",
            card.fact_table(facts),
            "## Metrics\n\nBrackets are 95 % confidence intervals over patients.",
            card.table(["label", "AUROC", "AUPRC"], rows),
            *card.notes_section(run.warnings),
            *card.terms_section(terms, permission),
            card.use_section(_commands(f"runs pull {repo_id}")),
        ],
    )


def _commands(*commands: str) -> str:
    lines = "\n".join(f"featurecache {command}" for command in commands)
    return f"```sh\n{lines}\n```"
