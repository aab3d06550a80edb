"""``explore``: look at a cache and at runs in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.dataset_options import (
    DataRoot,
    DatasetOptions,
    load_dataset_again,
    takes_dataset_options,
)
from featurecache.cli.options import (
    Device,
    EncoderOfCache,
    EncoderWeights,
    OptionValues,
    RunNames,
    Views,
    describe_choice,
    parse_pairs,
    print_policy,
    print_units,
    takes_policy,
)
from featurecache.cli.output import (
    Json,
    each_task,
    print_address,
    print_status,
    progress_bar,
)


@takes_dataset_options(
    without=("view_column", "sex_column", "age_column", "name", "corrections", "only_labels")
)
@takes_policy
def explore(
    *,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders whose predictions are shown. Default: none."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Cache file, or folder of caches, of which the one extracted last is used. "
            "Default: that of the first run, or 'cache'.",
            envvar="FEATURECACHE_CACHE",
            metavar="FILE",
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Text to compare all images with, by cosine.")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="Image to compare all images with: a file, or the id of an image in the cache."
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(help="Prompt set to compare all images with. Default: all of the cache."),
    ] = None,
    name: RunNames = None,
    model: EncoderOfCache = None,
    weights: EncoderWeights = None,
    device: Device = "auto",
    port: Annotated[
        int,
        typer.Option(
            help="Port to listen on, on this machine only. Default: any that is free.",
            min=0,
            max=65535,
        ),
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
    views: Views = None,
    policy: OptionValues,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Name of the data set, if the images cannot be found as recorded in the cache.",
            metavar="NAME",
        ),
    ] = None,
    data_root: DataRoot = None,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Show a cache and the predictions of runs in the browser, until Ctrl-C.

    The page has a map of the images, which can be colored and filtered by labels, splits, metadata,
    predictions and errors; the images themselves and those nearest to them; and lists to save as
    CSV. Only this machine can open it. Options of the data set are needed only if it has moved, if
    its ids are pseudonymized, or to show columns of its table.

    Example: featurecache explore runs/phantom-tiny-weighted_sum
    """
    import featurecache as fc
    from featurecache.explore.explore import cache_to_explore
    from featurecache.explore.server import require_explorer
    from featurecache.extraction.source import source_of_cache

    require_explorer()
    loaded = [fc.load_run(run) for run in runs or ()]
    chosen = cache_to_explore(cache if cache or loaded else Path("cache"), loaded)
    opened = fc.open_cache(chosen, views=views, **policy)
    print_status(f"exploring {describe_choice(cache or opened.path, opened)}")
    print_policy(opened)
    print_units(opened)
    data = None
    if dataset or data_root or options != DatasetOptions():
        data = load_dataset_again(
            source_of_cache(opened), dataset, data_root, options, used_by=opened.path, quiet=json
        )
    with progress_bar(hidden=json) as bar:

        def announce(address: str) -> None:
            bar.stop()
            print_address(address, "explorer", json=json)

        fc.explore(
            opened,
            loaded,
            data=data,
            text=text,
            image=image,
            prompts=prompts,
            names=parse_pairs(name, "--name"),
            model=model,
            weights=weights,
            device=device,
            port=port,
            browser=browser,
            announce=announce,
            progress=each_task(bar),
        )
