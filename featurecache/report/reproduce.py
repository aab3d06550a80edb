"""The commands that make a run again, from what its config holds."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from featurecache.report.load_runs import Run

_WIDTH = 88


def commands(run: Run) -> list[str]:
    """Command lines that make a run again, with every setting that its config knows spelled out.

    What a config does not know, such as where the films lie, is left to the reader. A config that
    lacks what a command needs gives fewer.
    """
    lines = []
    caches = []
    if "cache" in run.config:
        for one in run.config["cache"].get("joined", [run.config["cache"]]):
            lines.append(_extract(one))
            caches += ["--cache", str(one.get("path", "?"))]
    if made := _MAKERS.get(run.kind):
        lines.append(command_line([*made(run.config), *caches]))
    return lines


def command_line(arguments: Sequence[str]) -> str:
    """A command for a shell, on as many lines as it needs."""
    lines = ["featurecache"]
    for argument in map(shlex.quote, arguments):
        if len(lines[-1]) + len(argument) >= _WIDTH:
            lines.append("   ")
        lines[-1] += " " + argument
    return " \\\n".join(lines)


def _extract(reference: Mapping[str, Any]) -> str:
    model, dataset = (str(reference.get(name, "?")) for name in ("model", "dataset"))
    return command_line(["extract", "--model", model, "--dataset", dataset])


def _options(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings as options; one that was left open stays so."""
    for name, value in settings.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            yield option if value else "--no-" + option.removeprefix("--")
        elif isinstance(value, list):
            yield from (option, ",".join(map(str, value)))
        elif value is not None:
            yield from (option, str(value))


def _head(config: Mapping[str, Any]) -> list[str]:
    seeds = ["--seeds", str(config.get("seeds", 1))]
    return ["train-head", *_options(config.get("settings", {})), *seeds]


def _zero_shot(config: Mapping[str, Any]) -> list[str]:
    prompts = (config.get("prompts") or {}).get("name")
    alignment = ["--alignment", "ALIGNMENT"] if config.get("alignment") else []
    options = _options({"scoring": config.get("scoring"), "prompts": prompts})
    return ["zero-shot", *options, *alignment]


def _finetune(config: Mapping[str, Any]) -> list[str]:
    of = {name: config.get(name) for name in ("model", "dataset", "teacher")}
    return ["finetune", *_options(of), *_options(config.get("settings", {}))]


def _transfer(config: Mapping[str, Any]) -> list[str]:
    pairs = config.get("label_map", {})
    mapped: list[str] = []
    if any(trained != present for trained, present in pairs.items()):
        # A map that names some labels leaves out the others.
        mapped = [part for pair in pairs.items() for part in ("--label-map", "=".join(pair))]
    return ["evaluate", str(config.get("run")), *_options({"split": config.get("split")}), *mapped]


def _curve(config: Mapping[str, Any]) -> list[str]:
    heads = [part for name in config.get("heads", []) for part in ("--head", str(name))]
    seeds = config.get("seeds", [0])
    numbers = {"sizes": config.get("sizes"), "seeds": len(seeds), "seed": min(seeds, default=0)}
    return ["learning-curve", *heads, *_options(numbers)]


_MAKERS = {
    "head": _head,
    "zero-shot": _zero_shot,
    "finetune": _finetune,
    "external": _transfer,
    "curve": _curve,
}
