"""``study``: run the experiments of a study file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featurecache.cli.output import Json, print_json, print_result, print_status, print_table
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from featurecache.study.plan import StudyPlan


def study(
    file: Annotated[Path, typer.Argument(help="TOML file that describes the study.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the runs and tables. Default: the one that the file names, or "
            "studies/NAME beside the file.",
            metavar="DIR",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the experiments without running them.")
    ] = False,
    json: Json = False,
) -> None:
    """Run all experiments that a file describes, and write tables of their results.

    The file names data sets, encoders, heads and settings; of a list, each value is tried. Runs
    that exist are not repeated, so an interrupted or extended study continues where it ended. The
    results are written to results.csv, tables.md, tables.tex and report.html.

    Example: featurecache study study.toml --dry-run
    """
    import featurecache as fc

    if dry_run:
        _print_plan(fc.plan_study(file, out=out), json=json)
        return
    result = fc.run_study(
        file,
        out=out,
        progress=lambda done, total, title: print_status(f"{done + 1} of {total}: {title}"),
    )
    if json:
        print_json(
            {
                "out": str(result.plan.file.out),
                "experiments": len(result.plan.experiments),
                "failures": dict(result.failures),
                "files": list(map(str, result.files)),
            }
        )
    else:
        for one in result.tables:
            cells = one.metrics.cells()
            print_table(one.caption, list(cells.columns), cells.to_numpy().tolist(), optional=2)
            print_result(f"{one.note}\n")
        for title, reason in result.failures.items():
            print_result(f"failed: {title}: {reason}")
        print_result(f"files: {', '.join(map(str, result.files))}")
    if result.failures:
        raise typer.Exit(1)


def _print_plan(plan: "StudyPlan", *, json: bool) -> None:
    if json:
        print_json(
            {
                "out": str(plan.file.out),
                "experiments": [
                    {
                        "dataset": one.dataset,
                        "title": one.title,
                        "kind": one.kind,
                        "run": str(one.folder),
                        "done": one.done,
                    }
                    for one in plan.experiments
                ],
            }
        )
        return
    print_table(
        f"{count_noun(len(plan.experiments), 'experiment')}; {len(plan.pending)} would run",
        ["data set", "experiment", "done"],
        [[one.dataset, one.title, "yes" if one.done else "no"] for one in plan.experiments],
    )
