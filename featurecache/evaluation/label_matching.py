"""Match the labels that a model was trained on with those of the data set that it is scored on."""

from collections.abc import Iterable, Mapping, Sequence

from featurecache.errors import UsageError
from featurecache.metrics.metrics import LabelMap, LabelMatch, MatchKind
from featurecache.vocabulary import Meanings, meanings_of


def match_labels(
    trained: Sequence[str],
    present: Sequence[str],
    label_map: LabelMap | None = None,
    *,
    trained_on: Iterable[str] = (),
    datasets: Iterable[str] = (),
) -> dict[str, LabelMatch]:
    """Return the labels of a data set that each trained label is scored against.

    Args:
        trained: Labels that were trained.
        present: Labels of the data set.
        label_map: Trained label to label of the data set, or to several, any of which counts. By
            default (also if empty), labels of the same name are matched, and others by the
            vocabulary: with the label that means the same finding, the union of its kinds, or else
            with what is near it.
        trained_on: Names of the data sets that the trained labels are of.
        datasets: Names of the data sets that the present labels are of.

    Returns:
        The match of each trained label that has one, in the order of the trained ones or the map.

    Raises:
        UsageError: The map names a label that does not exist or one twice, or, without a map, no
            label matches; the message lists the labels of both sides.
    """
    both = f"trained: {', '.join(trained)}; in the data set: {', '.join(present)}"
    if not label_map:
        learned, stated = meanings_of(trained, trained_on), meanings_of(present, datasets)
        if matches := _match_meanings(trained, present, learned, stated):
            return matches
        raise UsageError(f"no label means the same on both sides: give `label_map` ({both})")
    matches = {}
    for source, given in label_map.items():
        targets = [given] if isinstance(given, str) else [*given]
        if source not in trained:
            raise UsageError(f"`label_map` gives {source!r}, which was not trained ({both})")
        if not targets or not set(targets) <= set(present):
            unknown = next((target for target in targets if target not in present), "")
            raise UsageError(
                f"`label_map` {source}={unknown}: the data set has no label {unknown!r} ({both})"
            )
        matches[source] = LabelMatch(labels=targets, kind="map")
    names = [match.scored_as(source) for source, match in matches.items()]
    if len(set(names)) < len(names):
        raise UsageError(f"`label_map` gives one label of the data set twice ({both})")
    return matches


def _match_meanings(
    trained: Sequence[str],
    present: Sequence[str],
    learned: Mapping[str, Meanings],
    stated: Mapping[str, Meanings],
) -> dict[str, LabelMatch]:
    """Match labels by name and by the findings that they mean on both sides.

    A label that is only a kind of a finding matches nothing but its own name.
    """
    best: dict[str, tuple[int, LabelMatch]] = {}

    def offer(label: str, rank: int, labels: Sequence[str], kind: MatchKind) -> None:
        if labels and (label not in best or rank < best[label][0]):
            best[label] = rank, LabelMatch(labels=[*labels], kind=kind)

    for label in trained:
        if label in present:
            offer(label, 0, [label], "same")
    for finding in [finding for finding in learned if finding in stated]:
        own, other = learned[finding], stated[finding]
        exact: MatchKind = "same" if other.same else "union"
        for label in own.same:
            offer(label, 1, other.same or other.union, exact)
            offer(label, 2, other.near, "near")
        for label in own.near:
            offer(label, 2, other.same or other.union, "near")
    # Of several labels for one of the data set, the closest is meant, if there is one.
    ranks: dict[tuple[str, ...], list[int]] = {}
    for rank, match in best.values():
        ranks.setdefault(tuple(match.labels), []).append(rank)
    return {
        label: match
        for label, (rank, match) in ((label, best[label]) for label in trained if label in best)
        if [other for other in ranks[tuple(match.labels)] if other <= rank] == [rank]
    }


def match_warnings(matches: Mapping[str, LabelMatch], trained: Sequence[str]) -> list[str]:
    """Return what a reader of metrics has to know about labels that were matched by meaning."""
    if any(match.kind == "map" for match in matches.values()):
        return []
    near = [
        f"{label} ({' or '.join(match.labels)})"
        for label, match in matches.items()
        if match.kind == "near"
    ]
    missing = [label for label in trained if label not in matches]
    warnings = []
    if near:
        warnings.append(
            f"scored against labels that mean something similar, not the same: {', '.join(near)}"
        )
    if missing:
        warnings.append(
            f"not scored, because no label of the data set means the same: {', '.join(missing)}"
        )
    return warnings
