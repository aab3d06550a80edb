"""The ``featurecache`` command: its subcommands and its own options."""

import os
from pathlib import Path
from typing import Annotated

import typer

from featurecache import __version__
from featurecache.cli import (
    align,
    audit,
    cache,
    compare,
    demo,
    doctor,
    evaluate,
    extract,
    finetune,
    learning_curve,
    list_commands,
    predict,
    report,
    retrieve,
    train_head,
    zero_shot,
)
from featurecache.cli.errors import DEBUG_VARIABLE, NOT_RESUMABLE, RESUMABLE, with_exit_code
from featurecache.cli.log_file import LoggedGroup

app = typer.Typer(
    name="featurecache",
    cls=LoggedGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 1 a failure, 2 a mistake that you can mend, 129 the terminal went "
    "away, 130 interrupted (Ctrl-C), 143 terminated.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
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
    log_file: Annotated[  # LoggedGroup reads it, for it has to hear how a command ends
        Path | None,
        typer.Option(
            help="Append what happens to this file, with times.",
            envvar="FEATURECACHE_LOG_FILE",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Run a frozen encoder over chest X-rays once; everything after that takes seconds.

    Example: featurecache extract --model dinov2-minilm --dataset kermany --data-root DIR, then
    featurecache train-head --head weighted_sum
    """
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    # Read when pandas is imported. pyarrow's own allocator keeps what a table has freed, which is
    # some 200 bytes an image (benchmarks/memory.py).
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


_INTERRUPTED = {
    "demo": "what there is of its folder can be deleted, and the same command begins anew",
    "extract": RESUMABLE,
    "finetune": RESUMABLE,
}
for _name, _command in (
    ("demo", demo.demo),
    ("extract", extract.extract),
    ("train-head", train_head.train_head),
    ("finetune", finetune.finetune),
    ("align", align.align),
    ("zero-shot", zero_shot.zero_shot),
    ("retrieve", retrieve.retrieve),
    ("predict", predict.predict),
    ("audit", audit.audit),
    ("evaluate", evaluate.evaluate),
    ("compare", compare.compare),
    ("learning-curve", learning_curve.learning_curve),
    ("report", report.report),
    ("models", list_commands.models),
    ("datasets", list_commands.datasets),
    ("heads", list_commands.heads),
    ("doctor", doctor.doctor),
):
    app.command(_name)(with_exit_code(_command, interrupted=_INTERRUPTED.get(_name, NOT_RESUMABLE)))
app.add_typer(cache.app, name="cache")
