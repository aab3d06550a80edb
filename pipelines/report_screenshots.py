"""Screenshots of a report: on screen, in dark mode, on a phone, and printed.

    python pipelines/report_screenshots.py WORK
    python pipelines/report_screenshots.py WORK --picture docs/pictures/report.png

Makes three runs and a learning curve on phantom with tiny, their reports, and light.png, dark.png,
phone.png, single.png, print.png and print.pdf in WORK. Needs chromium ($CHROMIUM, or on the path)
and playwright. With --picture it also makes the README's picture, the top of the page.
"""

import argparse
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

import featurecache as fc

# Not whole pages, which are longer than chromium's limit for screenshots.
DESKTOP, PHONE = {"width": 1280, "height": 3600}, {"width": 390, "height": 2600}
PAPER = {"width": 690, "height": 3000}
PICTURE = {"width": 1240, "height": 2050}


def make_runs(work: Path) -> list[Path]:
    """Make the run folders under ``work`` that do not exist yet."""
    cache = fc.extract("phantom", "tiny", cache_dir=work / "cache", precision="exact")
    folders = []
    makers: Mapping[str, Callable[[], fc.Run | fc.LearningCurve]] = {
        "weighted_sum": lambda: fc.train_head(cache, "weighted_sum"),
        "baseline": lambda: fc.train_head(cache, "baseline"),
        "zero-shot": lambda: fc.zero_shot(cache),
        "curve": lambda: fc.learning_curve(cache, ["baseline", "weighted_sum"], seeds=3),
    }
    for name, make in makers.items():
        folders.append(work / "runs" / name)
        if not folders[-1].exists():
            make().save(folders[-1])
    return folders


def take_screenshot(
    browser: Any, page: Path, picture: Path, *, media: str = "screen", **settings: Any
) -> None:
    """Save a screenshot of a page, in a browser context with these settings."""
    context = browser.new_context(**settings)
    tab = context.new_page()
    tab.emulate_media(media=media)
    tab.goto(page.resolve().as_uri())
    tab.screenshot(path=picture)
    context.close()


def main() -> None:
    """Make the runs, the reports and the screenshots."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--picture", type=Path, help="the README's picture")
    arguments = parser.parse_args()
    work: Path = arguments.work
    runs = make_runs(work)
    several = fc.report(runs, work / "report.html", data="phantom", overwrite=True)
    single = fc.report(runs[0], work / "single.html", data="phantom", overwrite=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        take_screenshot(
            browser, several, work / "light.png", viewport=DESKTOP, color_scheme="light"
        )
        take_screenshot(browser, several, work / "dark.png", viewport=DESKTOP, color_scheme="dark")
        take_screenshot(browser, several, work / "phone.png", viewport=PHONE, device_scale_factor=2)
        take_screenshot(browser, single, work / "single.png", viewport=DESKTOP)
        take_screenshot(browser, several, work / "print.png", viewport=PAPER, media="print")
        if arguments.picture:
            take_screenshot(browser, single, arguments.picture, viewport=PICTURE)
            with Image.open(arguments.picture) as picture:  # 256 colors, a third of the size
                picture.convert("RGB").quantize(256).save(arguments.picture, optimize=True)
        tab = browser.new_page()
        tab.goto(several.resolve().as_uri())
        tab.pdf(path=work / "print.pdf", format="A4")
        browser.close()


if __name__ == "__main__":
    main()
