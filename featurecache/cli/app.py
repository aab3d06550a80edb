"""The ``featurecache`` command: its subcommands and its own options."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli import (
    align,
    audit,
    cache,
    compare,
    datasets,
    demo,
    doctor,
    evaluate,
    explore,
    extract,
    finetune,
    learning_curve,
    list_commands,
    models,
    predict,
    report,
    retrieve,
    runs,
    serve,
    study,
    suggest,
    table,
    train_head,
    vocabulary,
    zero_shot,
)
from featurecache.cli.errors import (
    DEBUG_VARIABLE,
    NOT_RESUMABLE,
    RESUMABLE,
    SERVER,
    with_exit_code,
)
from featurecache.cli.log_file import LoggedGroup
from featurecache.cli.strict_command import StrictCommand
from featurecache.plugins import load_plugins

app = typer.Typer(
    name="featurecache",
    cls=LoggedGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 success, 1 failure, 2 user mistake, 129 terminal closed, 130 interrupted "
    "(Ctrl-C), 143 terminated.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(requested: bool) -> None:
    if requested:
        from featurecache import __version__

        typer.echo(f"featurecache {__version__}")
        raise typer.Exit


@app.callback()
def featurecache(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show Python tracebacks.", envvar=DEBUG_VARIABLE),
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            help="Python module that registers encoders, data sets or heads; repeat for more.",
            envvar="FEATURECACHE_PLUGINS",
            metavar="MODULE",
        ),
    ] = None,
    log_file: Annotated[  # read by LoggedGroup
        Path | None,
        typer.Option(
            help="Append a timestamped log to this file.",
            envvar="FEATURECACHE_LOG_FILE",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Run a frozen encoder over chest X-rays once, and reuse its embeddings in seconds.

    Example: featurecache extract --model dinov2-minilm --dataset kermany --data-root DIR, then
    featurecache train-head --head weighted_sum
    """
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    # Read when pandas is imported. The default allocator of pyarrow keeps the memory of freed
    # tables, some 200 bytes per image (benchmarks/memory.py).
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # Without a writable home, it warns in lines of its own that it uses a temporary folder.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if plugin:
        sys.path.insert(0, "")  # a module in the current folder, as for "python -m"
        load_plugins(plugin)


COMMANDS: Mapping[str, Mapping[str, Callable[..., None]]] = {
    "Start": {"demo": demo.demo, "doctor": doctor.doctor},
    "Data": {
        "vocabulary": vocabulary.vocabulary,
        "audit": audit.audit,
        "suggest": suggest.suggest,
    },
    "Embed": {"extract": extract.extract},
    "Learn": {
        "heads": list_commands.heads,
        "train-head": train_head.train_head,
        "learning-curve": learning_curve.learning_curve,
        "finetune": finetune.finetune,
        "align": align.align,
    },
    "Evaluate": {
        "zero-shot": zero_shot.zero_shot,
        "evaluate": evaluate.evaluate,
        "compare": compare.compare,
        "table": table.table,
        "study": study.study,
    },
    "Look": {
        "predict": predict.predict,
        "retrieve": retrieve.retrieve,
        "explore": explore.explore,
        "serve": serve.serve,
        "report": report.report,
    },
}
"""The commands by task, in the order of the help."""

_INTERRUPTED = {
    **dict.fromkeys(("extract", "finetune", "study"), RESUMABLE),
    **dict.fromkeys(("explore", "serve"), SERVER),
}

for _task, _commands in COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, cls=StrictCommand, rich_help_panel=_task)(
            with_exit_code(_command, interrupted=_INTERRUPTED.get(_name, NOT_RESUMABLE))
        )
app.add_typer(datasets.app, name="datasets", rich_help_panel="Data")
app.add_typer(models.app, name="models", rich_help_panel="Embed")
app.add_typer(cache.app, name="cache", rich_help_panel="Embed")
app.add_typer(runs.app, name="runs", rich_help_panel="Evaluate")
