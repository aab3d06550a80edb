"""Options that several commands share."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from featurecache.cli.config_options import Command, takes_together
from featurecache.cli.output import print_status
from featurecache.tracking.tracker import TRACKERS
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.store.cache import Cache

DEFAULT_MODEL = "tiny"

EncoderOfCache = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Name or folder of the encoder, if the one recorded in the cache cannot be found.",
    ),
]
EncoderWeights = Annotated[
    Path | None,
    typer.Option("--weights", help="Local checkpoint of the encoder.", metavar="PATH"),
]

CacheFolder = Annotated[
    Path,
    typer.Option("--cache", envvar="FEATURECACHE_CACHE", help="Folder of caches.", metavar="DIR"),
]
CacheFile = Annotated[
    Path,
    typer.Option(
        "--cache",
        envvar="FEATURECACHE_CACHE",
        help="Cache file, or folder of caches, of which the one extracted last is used.",
        metavar="FILE",
    ),
]
CacheFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--cache",
        envvar="FEATURECACHE_CACHE",
        help="Cache file, or folder of caches, of which the one extracted last is used; repeat to "
        "join several.",
        metavar="FILE",
        show_default="cache",
    ),
]
Join = Annotated[
    str,
    typer.Option(
        help="How several caches are joined: features (of the same images, by several encoders) or "
        "rows (of several data sets, by one encoder).",
        metavar="HOW",
    ),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        help="Tracking tool to log settings, epochs and scores to, under the name of the run "
        "folder; repeat for several.",
        metavar="|".join(TRACKERS),
    ),
]
Device = Annotated[str, typer.Option(help="Device of the encoder: auto, cpu, cuda or mps.")]
BitDepth = Annotated[
    int | None,
    typer.Option(
        help="Number of bits in use, 8 to 16, where files do not define the range of their gray "
        "values (16-bit PNG and TIFF, DICOM without a window). Default: that of the cache or "
        "of the training images, or judged from a sample of the files.",
        min=8,
        max=16,
    ),
]
Prompts = Annotated[
    str | None,
    typer.Option(help="Prompt set of the cache; needed only if it holds several."),
]
AlignmentFile = Annotated[
    Path | None,
    typer.Option(
        "--alignment",
        help="File written by 'featurecache align', for a model whose images and texts do not "
        "share a space.",
        metavar="FILE",
    ),
]
NBootstrap = Annotated[
    int, typer.Option(help="Bootstrap samples over patients for the intervals; 0 for none.", min=0)
]
OperatingPointText = Annotated[
    str,
    typer.Option(
        "--operating-point",
        help="How thresholds are chosen on validation images: f1 (best F1), youden (best sum of "
        "sensitivity and specificity), or a target such as sensitivity=0.95 or specificity=0.9.",
        metavar="RULE",
    ),
]
PrevalenceTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--prevalence",
        help="Share of positives among future patients, such as 0.05, for which PPV and NPV are "
        "stated; or of a label, such as Effusion=0.1; repeat for more.",
        metavar="[LABEL=]NUMBER",
    ),
]
OptionalRun = Annotated[
    Path | None,
    typer.Option("--out", help="Run folder to create. Default: none.", metavar="DIR"),
]


RunNames = Annotated[
    list[str] | None,
    typer.Option(
        help="What to call a run, such as runs/a=Baseline; repeat for more.", metavar="RUN=LABEL"
    ),
]


OptionValues = dict[str, Any]
"""The values of a group of options that are handed on together; None where not given."""

_POLICY: Final = {
    "uncertain": "What uncertain cells of labels count as: ignore (unknown), positive, negative, "
    "or paper (of CheXpert: positive for Atelectasis and Edema, else negative).",
    "blank": "What blank cells of labels count as: unknown or negative.",
    "readers": "How many of several readers have to report a finding: majority, any or a number.",
    "labels_from": "Whose labels count: all, or physician to leave out those of models.",
    "hierarchy": "Whether a positive finding makes its parent positive, too: none, or chexpert for "
    "the tree of CheXpert, in which Pneumonia belongs to Consolidation, and that to Lung Opacity.",
}
STUDY_SCORES: Final = "How scores of a study's images are joined: mean or max. Default: mean."
_POOL: Final = (
    "Pool the embeddings of a study's images: mean, or frontal+lateral for one of each side by side"
)
UNITS: Final = {
    "level": "What is scored: image or study. Default: image.",
    "views": "Images to use: all, frontal or lateral. Default: all.",
    "study_scores": STUDY_SCORES,
    "study_features": f"{_POOL}, instead of joining their scores.",
}
"""Help of the options of ``Units``."""
UNITS_OF_RUN: Final = {
    **UNITS,
    "level": "What is scored: image or study. Default: as in the run.",
    "views": "Images to use: all, frontal or lateral. Default: as in the run.",
}
"""The same where a run decides what is not given."""
UNITS_OF_EXPORT: Final = {
    "level": "What is written: image, or study with --study-features. Default: image.",
    "views": "Images to write: all, frontal or lateral. Default: all.",
    "study_features": f"{_POOL}; with --level study.",
}
"""The same where nothing is scored."""


Views = Annotated[
    str | None, typer.Option(help="Images to use: all, frontal or lateral. Default: all.")
]


def _text_options(helps: Mapping[str, str]) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(help=text, metavar="HOW")],
        )
        for name, text in helps.items()
    ]


def takes_policy(command: Command) -> Command:
    """Give a command the options of a ``LabelPolicy``, as its parameter ``policy``."""
    helps = {name: f"{text} Default: that of the data set." for name, text in _POLICY.items()}
    return takes_together("policy", _text_options(helps))(command)


def takes_units(helps: Mapping[str, str]) -> Callable[[Command], Command]:
    """Give a command the options of ``Units`` that have a help, as its parameter ``units``."""
    return takes_together("units", _text_options(helps))


def parse_pairs(entries: Sequence[str] | None, option: str) -> dict[str, str] | None:
    """Parse values such as "A=B"; None without any.

    Args:
        entries: What the user gave.
        option: The option, for messages.

    Raises:
        typer.BadParameter: A value is something else, or its first half is given twice.
    """
    groups = parse_groups(entries, option)
    if any(len(targets) > 1 for targets in groups.values()):
        raise typer.BadParameter("a name is given twice", param_hint=option)
    return {source: targets[0] for source, targets in groups.items()} or None


def parse_groups(entries: Sequence[str] | None, option: str) -> dict[str, list[str]]:
    """Parse values such as "A=B", and collect the second halves of each first half.

    Args:
        entries: What the user gave.
        option: The option, for messages.

    Raises:
        typer.BadParameter: A value is something else.
    """
    groups: dict[str, list[str]] = {}
    for entry in entries or ():
        source, equals, target = entry.partition("=")
        if not (source and equals and target):
            raise typer.BadParameter(f"{entry!r}: write two names as A=B", param_hint=option)
        groups.setdefault(source, []).append(target)
    return groups


def parse_prevalence(entries: Sequence[str] | None) -> float | dict[str, float] | None:
    """Parse the values of ``--prevalence``: a number for all labels, or "LABEL=NUMBER" for each.

    Raises:
        typer.BadParameter: A value is something else, or both are given.
    """
    option = "--prevalence"
    try:
        if entries and len(entries) == 1 and "=" not in entries[0]:
            return float(entries[0])
        if entries and any("=" not in entry for entry in entries):
            raise typer.BadParameter(
                "give one number for all labels, such as 0.05, or LABEL=NUMBER for each of some, "
                "not both",
                param_hint=option,
            )
        pairs = parse_pairs(entries, option)
        return None if pairs is None else {name: float(value) for name, value in pairs.items()}
    except ValueError:
        raise typer.BadParameter("give a number, such as 0.05", param_hint=option) from None


def describe_choice(paths: Path | Sequence[Path], cache: "Cache") -> str:
    """Describe which files were opened, and which of them are the newest of a given folder.

    Args:
        paths: The files or folders that were given.
        cache: The cache that was opened from them.
    """
    paths = [paths] if isinstance(paths, Path) else paths
    caches = cache.sources if len(cache.sources) > 1 else cache.members
    return " and ".join(
        f"{member.path}{' (the newest)' if path.is_dir() else ''}"
        for path, member in zip(paths, caches, strict=True)
    )


def print_policy(data: "Cache | Dataset") -> None:
    """Print what uncertain and blank cells count as, if there are any."""
    from featurecache.datasets.dataset import Dataset

    names = data.label_names if isinstance(data, Dataset) else data.labels.names
    if line := data.policy.describe(data.cells, names):
        print_status(line)


def print_joined_rows(cache: "Cache") -> None:
    """Print which labels of the data sets whose rows are joined mean the same, if there are any."""
    from featurecache.store.join_rows import row_join_of

    if (joined := row_join_of(cache)) is None:
        return
    for number, source in enumerate(joined.caches):
        own = {label.name: label.parts[number] for label in joined.joined_labels}
        described = [
            name if part == (name,) else f"{' or '.join(part)} as {name}"
            for name, part in own.items()
            if part
        ]
        unknown = [name for name, part in own.items() if not part]
        line = f"labels of {source.header.dataset}: {', '.join(described)}"
        print_status(f"{line}; unknown: {', '.join(unknown)}" if unknown else line)
        print_policy(source)


def print_units(cache: "Cache") -> None:
    """Print what is used, what was left out and what was assumed, unless it is all images."""
    if cache.units.chosen:
        number = count_noun(len(cache), cache.units.level)
        print_status(f"using {cache.units.describe()} ({number})")
    for note in cache.notes:
        print_status(f"note: {note}")


def print_kept(path: Path, default_name: str) -> None:
    """Print that a run folder got another name than its default one, because that exists."""
    from featurecache.runs.run import RUNS_FOLDER

    default = RUNS_FOLDER / default_name
    if path != default and path.parent == RUNS_FOLDER and default.exists():
        print_status(f"{default} exists and was kept: this run is in {path}")


def require_free(out: Path | None) -> None:
    """Check before any work is done that a run folder does not exist yet.

    Raises:
        UsageError: The folder exists.
    """
    from featurecache.io.atomic import require_absent

    if out is not None:
        require_absent(out)
