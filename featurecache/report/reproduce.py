"""Commands that make a run again, from its config."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from featurecache.report.load_runs import ReportRun

_MAX_LINE_LENGTH = 88


def reproduction_commands(run: ReportRun) -> list[str]:
    """Return the command lines that make a run again, with every setting in its config.

    What the config does not hold, such as the folder of the images, is left to the reader. A config
    that lacks what a command needs gives fewer commands.
    """
    commands = []
    cache_options = []
    if "cache" in run.config:
        for reference in run.config["cache"].get("joined", [run.config["cache"]]):
            commands.append(_extract_command(reference))
            cache_options += ["--cache", str(reference.get("path", "?"))]
    if arguments := _ARGUMENTS.get(run.kind):
        commands.append(command_line([*arguments(run.config), *cache_options]))
    return commands


def command_line(arguments: Sequence[str]) -> str:
    """Return a featurecache command for a POSIX shell, broken into lines."""
    lines = ["featurecache"]
    for argument in map(shlex.quote, arguments):
        if len(lines[-1]) + len(argument) >= _MAX_LINE_LENGTH:
            lines.append("   ")
        lines[-1] += " " + argument
    return " \\\n".join(lines)


def _extract_command(reference: Mapping[str, Any]) -> str:
    model, dataset = (str(reference.get(name, "?")) for name in ("model", "dataset"))
    return command_line(["extract", "--model", model, "--dataset", dataset])


def _options(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield settings as command-line options; None is left out."""
    for name, value in settings.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            yield option if value else "--no-" + option.removeprefix("--")
        elif isinstance(value, list):
            yield from (option, ",".join(map(str, value)))
        elif value is not None:
            yield from (option, str(value))


def _head_arguments(config: Mapping[str, Any]) -> list[str]:
    seeds = ["--seeds", str(config.get("seeds", 1))]
    return ["train-head", *_options(config.get("settings", {})), *seeds]


def _zero_shot_arguments(config: Mapping[str, Any]) -> list[str]:
    prompts = (config.get("prompts") or {}).get("name")
    alignment = ["--alignment", "ALIGNMENT"] if config.get("alignment") else []
    options = _options({"scoring": config.get("scoring"), "prompts": prompts})
    return ["zero-shot", *options, *alignment]


def _finetune_arguments(config: Mapping[str, Any]) -> list[str]:
    inputs = {name: config.get(name) for name in ("model", "dataset", "teacher")}
    return ["finetune", *_options(inputs), *_options(config.get("settings", {}))]


def _evaluate_arguments(config: Mapping[str, Any]) -> list[str]:
    pairs = config.get("label_map", {})
    label_map: list[str] = []
    if any(source != target for source, target in pairs.items()):
        # A label map excludes the labels that it does not name, so all are named.
        label_map = [part for pair in pairs.items() for part in ("--label-map", "=".join(pair))]
    split = _options({"split": config.get("split")})
    return ["evaluate", str(config.get("run")), *split, *label_map]


def _learning_curve_arguments(config: Mapping[str, Any]) -> list[str]:
    heads = [part for name in config.get("heads", []) for part in ("--head", str(name))]
    seeds = config.get("seeds", [0])
    numbers = {"sizes": config.get("sizes"), "seeds": len(seeds), "seed": min(seeds, default=0)}
    return ["learning-curve", *heads, *_options(numbers)]


_ARGUMENTS = {
    "head": _head_arguments,
    "zero-shot": _zero_shot_arguments,
    "finetune": _finetune_arguments,
    "external": _evaluate_arguments,
    "curve": _learning_curve_arguments,
}
