"""What does a report look like, on a screen, in the dark, on a phone and on paper?

    python pipelines/report_screenshots.py WORK
    python pipelines/report_screenshots.py WORK --picture docs/pictures/report.png

Makes three runs and a learning curve on the synthetic films of phantom with tiny, their report, and
light.png, dark.png, phone.png, single.png, print.png and print.pdf in WORK. Needs chromium
($CHROMIUM, or on the path) and playwright. With --picture it also makes the README's picture, the
top of the page.
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from featurecache.datasets.load import load_dataset
from featurecache.encoders.loading import load_encoder
from featurecache.evaluation.from_cache import save_zero_shot, zero_shot
from featurecache.extraction.update import update_caches
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import run_experiment
from featurecache.heads.io import save_head
from featurecache.heads.learning_curve import learning_curve, save_curve
from featurecache.prompts import load_prompts
from featurecache.report.page import build_report
from featurecache.report.write import write_report
from featurecache.store.reader import read_cache

# Not whole pages: they are longer than what chromium can picture.
DESK, PHONE = {"width": 1280, "height": 3600}, {"width": 390, "height": 2600}
PAPER = {"width": 690, "height": 3000}
PICTURE = {"width": 1240, "height": 2050}


def make_runs(work: Path) -> tuple[list[Path], dict[str, Path]]:
    """Run folders under ``work``, made where they are not there yet, and their films."""
    manifest = load_dataset("phantom")
    (summary,) = update_caches(
        manifest, [load_encoder("tiny")], cache_dir=work / "cache", prompts=load_prompts("signs")
    )
    cache = read_cache(summary.path)
    runs = []
    for head in ("weighted_sum", "baseline"):
        runs.append(work / "runs" / head)
        if not runs[-1].exists():
            save_head(runs[-1], cache, run_experiment(cache, HeadConfig(head=head)), seeds=1)
    runs.append(work / "runs" / "zero-shot")
    if not runs[-1].exists():
        save_zero_shot(runs[-1], cache, zero_shot(cache))
    runs.append(work / "runs" / "curve")
    if not runs[-1].exists():
        configs = [HeadConfig(head=head) for head in ("baseline", "weighted_sum")]
        save_curve(runs[-1], cache, learning_curve(cache, configs, seeds=3))
    return runs, manifest.files()


def take(
    browser: Any, page: Path, picture: Path, *, media: str = "screen", **settings: Any
) -> None:
    """One picture of a page, as a context of these settings shows it."""
    context = browser.new_context(**settings)
    tab = context.new_page()
    tab.emulate_media(media=media)
    tab.goto(page.resolve().as_uri())
    tab.screenshot(path=picture)
    context.close()


def main() -> None:
    """Make the runs, the reports and the pictures."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--picture", type=Path, help="the README's picture")
    arguments = parser.parse_args()
    work: Path = arguments.work
    runs, films = make_runs(work)
    several, single = work / "report.html", work / "single.html"
    write_report(build_report(runs, films=films), several)
    write_report(build_report(runs[:1], films=films), single)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        take(browser, several, work / "light.png", viewport=DESK, color_scheme="light")
        take(browser, several, work / "dark.png", viewport=DESK, color_scheme="dark")
        take(browser, several, work / "phone.png", viewport=PHONE, device_scale_factor=2)
        take(browser, single, work / "single.png", viewport=DESK)
        take(browser, several, work / "print.png", viewport=PAPER, media="print")
        if arguments.picture:
            take(browser, single, arguments.picture, viewport=PICTURE)
            with Image.open(arguments.picture) as picture:  # 256 colours, a third of the bytes
                picture.convert("RGB").quantize(256).save(arguments.picture, optimize=True)
        tab = browser.new_page()
        tab.goto(several.resolve().as_uri())
        tab.pdf(path=work / "print.pdf", format="A4")
        browser.close()


if __name__ == "__main__":
    main()
