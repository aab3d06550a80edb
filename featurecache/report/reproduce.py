"""Commands that make a run again, from its config."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from featurecache.errors import RunError
from featurecache.evaluation.zero_shot import zero_shot
from featurecache.extraction.extract import extract
from featurecache.finetune.finetune import finetune
from featurecache.heads.config import HeadConfig
from featurecache.heads.learning_curve import learning_curve
from featurecache.report.command_line import command_line, dataset_options, options
from featurecache.report.load_runs import ReportRun
from featurecache.runs.folder import read_config
from featurecache.runs.run import Run
from featurecache.store.layout import alignment_path
from featurecache.units import Units

Config = Mapping[str, Any]

Parents = tuple[str, ...]
"""Folders of the runs whose commands are being listed: a run that names itself would never end."""


def reproduction_commands(run: ReportRun) -> list[str]:
    """Return the command lines that make a run again, in an empty folder.

    They begin with the runs and caches that it was made from. What the command line cannot express,
    such as an object that was made in Python, is stated in a comment. The folder of a data set is
    the one that was given; a key file is left to the reader.
    """
    return list(dict.fromkeys(_run_commands(run.kind, run.config, run.folder, ())))


def _run_commands(
    kind: str, config: Config, folder: Path | None, parents: Parents
) -> Iterator[str]:
    out = list(options({"out": None if folder is None else str(folder)}))
    if kind == "finetune":
        yield from _finetune_commands(config, out, parents)
        return
    if kind == "external":
        columns = [name.partition(":")[0] for name in ",".join(config.get("by") or ()).split(",")]
        if not config.get("groups") and set(columns) - {"", "sex", "age", "view"}:
            yield _comment("the table of groups was made in Python")
        yield from _commands_of_folder(str(config.get("run")), parents, ("head", "finetune"))
    cache = config.get("cache", {})
    prompts = (config.get("prompts") or {}).get("name")
    cache_options: list[str] = []
    for reference in cache.get("rows_of", cache.get("joined", [cache])):
        yield from _extract_commands(reference, prompts, parents)
        cache_options += options({"cache": str(reference.get("path", "?"))})
    if "rows_of" in cache:
        cache_options += options({"join": "rows"})
    if kind == "zero-shot" and config.get("alignment"):
        yield from _align_commands(config, cache_options)
    if kind == "curve":
        yield from _settings_of_python(config)
    if arguments := _ARGUMENTS.get(kind):
        opened = {**config.get("label_policy", {}), **_units(config).chosen}
        yield command_line([*arguments(config), *options(opened), *cache_options, *out])


def _commands_of_folder(
    path: str, parents: Parents, kinds: Sequence[str] = ("finetune",)
) -> Iterator[str]:
    """Yield the commands that make the folder of a run that another run was made from."""
    with suppress(RunError):
        config = read_config(Path(path))
        if config["kind"] in kinds and path not in parents:
            yield from _run_commands(config["kind"], config, Path(path), (*parents, path))
            return
    yield _comment(f"the run {path} is not here: copy its folder")


def _extract_commands(reference: Config, prompts: str | None, parents: Parents) -> Iterator[str]:
    extraction = reference.get("extraction") or {}
    model, dataset = (str(reference.get(name, "?")) for name in ("model", "dataset"))
    given, source = extraction.get("model"), extraction.get("data")
    if given is None:
        yield _comment(f"the encoder {model} was made in Python")
    elif _is_run(given):
        yield from _commands_of_folder(given, parents)
    if source is None:
        yield _comment(f"the data set {dataset} was made in Python")
    sets = extraction.get("prompts", {})
    name = prompts if prompts in sets else next(iter(sets), None)
    if name is not None and sets[name] is None:
        yield _comment(f"the prompt set {name} was made in Python")
    arguments = {
        "model": given or model,
        "weights": extraction.get("weights"),
        "prompts": None if name is None or sets[name] == "signs" else sets[name],
        "cache": _cache_folder(reference),
        **{
            name: extraction.get(name)
            for name in (
                "resize",
                "features",
                "views",
                "bit_depth",
                "device",
                "backend",
                "precision",
                "batch_size",
                "limit",
                "shard",
            )
        },
    }
    loaded = ["--dataset", dataset] if source is None else dataset_options(source)
    yield command_line(["extract", *loaded, *options(arguments, extract)])


def _cache_folder(reference: Config) -> str | None:
    """Return the folder of caches that a cache is in; None for the default."""
    folder = str(Path(str(reference.get("path", "cache/?/?"))).parent.parent)
    return None if folder == "cache" else folder


def _is_run(path: str) -> bool:
    return (Path(path) / "config.json").is_file() and (Path(path) / "encoder").is_dir()


def _align_commands(config: Config, cache_options: list[str]) -> Iterator[str]:
    alignment, cache = config["alignment"], config["cache"]
    if (alignment["model"], alignment["dataset"]) != (cache["model"], cache["dataset"]):
        fitted = f"{alignment['model']} on {alignment['dataset']}"
        yield _comment(f"the alignment was fitted to a cache of {fitted}")
        return
    prompts, method = alignment["prompts"]["name"], alignment["method"]
    arguments = {"prompts": prompts, "method": method, "out": _alignment_file(config)}
    if arguments["out"] == str(alignment_path(Path(cache["path"]), prompts, method)):
        del arguments["out"]
    arguments |= {**config.get("label_policy", {}), **_units(alignment).chosen}
    yield command_line(["align", *options(arguments), *cache_options])


def _alignment_file(config: Config) -> str | None:
    alignment, cache = config.get("alignment"), config["cache"]
    if not alignment:
        return None
    default = alignment_path(Path(cache["path"]), alignment["prompts"]["name"], alignment["method"])
    return str(alignment.get("path") or default)


_RUN_ARGUMENTS: Final = (
    "seeds",
    "ensemble",
    "coverage",
    "n_bootstrap",
    "operating_point",
    "controls",
)
"""Arguments of ``train_head`` beside the settings of the head."""


def _head_arguments(config: Config) -> list[str]:
    from featurecache.heads.train import train_head

    settings = config.get("settings", {})
    arguments = {name: config.get(name) for name in _RUN_ARGUMENTS}
    head = {"head": settings.get("head")}
    settings = {name: value for name, value in settings.items() if name != "head"}
    return ["train-head", *options(head), *options({**settings, **arguments}, train_head)]


def _zero_shot_arguments(config: Config) -> list[str]:
    arguments = {
        "scoring": config.get("scoring"),
        "prompts": (config.get("prompts") or {}).get("name"),
        "alignment": _alignment_file(config),
        "operating_point": config.get("operating_point"),
        "prevalence": _stated(config.get("prevalence")),
        "n_bootstrap": config.get("n_bootstrap"),
    }
    return ["zero-shot", *options(arguments, zero_shot)]


def _stated(prevalence: float | Mapping[str, float] | None) -> list[str]:
    """Return prevalences as options have them."""
    if isinstance(prevalence, Mapping):
        return [f"{label}={value}" for label, value in prevalence.items()]
    return [] if prevalence is None else [str(prevalence)]


def _evaluate_arguments(config: Config) -> list[str]:
    matches = config.get("label_map", {})
    arguments = {
        "split": config.get("split"),
        "label_map": [
            f"{source}={target}"
            for source, match in matches.items()
            if match["kind"] == "map"
            for target in match["labels"]
        ],
        "prevalence": _stated(config.get("prevalence")),
        "by": ",".join(config.get("by") or ()) or None,
        "groups": config.get("groups"),
        "negatives": config.get("negatives"),
        "n_bootstrap": config.get("n_bootstrap"),
    }
    return ["evaluate", str(config.get("run")), *options(arguments, Run.evaluate)]


def _learning_curve_arguments(config: Config) -> list[str]:
    heads, seeds = config.get("heads", []), config.get("seeds", [0])
    settings = config.get("settings", {}).get(heads[0], {}) if heads else {}
    arguments = {
        "head": heads,
        "sizes": config.get("sizes"),
        "seeds": len(seeds),
        "seed": min(seeds, default=0),
        "prompts": settings.get("prompts"),
        "fusion": settings.get("fusion"),
    }
    return ["learning-curve", *options(arguments, learning_curve)]


def _settings_of_python(config: Config) -> Iterator[str]:
    """Yield comments on settings of heads that the command learning-curve has no options for."""
    for head, settings in config.get("settings", {}).items():
        for field in fields(HeadConfig):
            value = settings.get(field.name, field.default)
            offered = field.name in ("head", "prompts", "fusion", "seed")
            if not offered and value != field.default:
                yield _comment(f"in Python, the head {head} had {field.name}={value!r}")


def _finetune_commands(config: Config, out: list[str], parents: Parents) -> Iterator[str]:
    arguments = dict(config.get("arguments") or {})
    source = arguments.pop("data", None)
    model = arguments.pop("model", None)
    if arguments.get("teacher") is None and config.get("teacher") is not None:
        yield _comment(f"the teacher {config['teacher']} was made in Python")
        arguments["teacher"] = config["teacher"]
    for encoder in (model, arguments.get("teacher")):
        if encoder is not None and _is_run(encoder):
            yield from _commands_of_folder(encoder, parents)
    if source is None:
        yield _comment(f"the data set {config.get('dataset')} was made in Python")
        loaded = ["--dataset", str(config.get("dataset"))]
    else:
        loaded = dataset_options(source, without=("sex", "age"))
    if model is None:
        yield _comment(f"the encoder {config.get('model')} was made in Python")
        model = str(config.get("model"))
    if (cache_dir := arguments.pop("cache_dir", "cache")) != "cache":
        arguments["cache"] = cache_dir
    arguments |= config.get("label_policy", {})
    settings = options({**config.get("settings", {}), **arguments}, finetune)
    yield command_line(["finetune", *loaded, "--model", model, *settings, *out])


def _units(config: Config) -> Units:
    return Units().override(**config.get("units", {}))


def _comment(text: str) -> str:
    # A line break would end the comment.
    return "# " + " ".join(text.split())


_ARGUMENTS: Mapping[str, Callable[[Config], list[str]]] = {
    "head": _head_arguments,
    "zero-shot": _zero_shot_arguments,
    "external": _evaluate_arguments,
    "curve": _learning_curve_arguments,
}
