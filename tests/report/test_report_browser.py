"""The page in a browser: nothing is asked of anyone, and everyone can read it."""

from pathlib import Path

import pytest
from PIL import Image

from featurecache.report.page import build_report
from featurecache.report.write import write_report
from tests.report.report_runs import opened, write_run

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def pages(made, hostile, tmp_path_factory) -> dict[str, Path]:
    """Reports of several runs, of one with films, and of one whose names are markup."""
    folder = tmp_path_factory.mktemp("pages")
    films = {path.name: path for path in (made.films / "images").iterdir()}
    runs = [write_run(folder / name, seed=n, warnings=[name]) for n, name in enumerate("ab")]
    reports = {
        "several": build_report([*runs, made.work / "curve"], n_bootstrap=20),
        "one": build_report([made.work / "head"], films=films),
        "hostile": build_report([hostile], n_bootstrap=20),
    }
    for name, report in reports.items():
        write_report(report, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in reports}


@pytest.mark.parametrize("name", ["several", "one", "hostile"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_asks_for_nothing_says_nothing_and_is_accessible(chromium, pages, name, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with opened(chromium, pages[name], color_scheme=scheme) as (tab, said, asked):
        own = pages[name].resolve().as_uri()
        assert [url for url in asked if not url.startswith("data:")] == [own]
        assert said == []
        # The policy of the page forbids scripts; axe comes in past it, by the debugger.
        violations = axe.run(tab).response["violations"]
        grave = [one for one in violations if one["impact"] in ("serious", "critical")]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in grave] == []


@pytest.mark.parametrize("name", ["several", "one", "hostile"])
def test_nothing_runs_over_the_edge_of_a_phone(chromium, pages, name):
    with opened(chromium, pages[name], viewport=PHONE) as (tab, _, _):
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_films_are_shown(chromium, pages):
    with opened(chromium, pages["one"]) as (tab, _, _):
        widths = tab.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(widths) > 20
        assert min(widths) > 0


def test_colours_of_plots_follow_the_scheme(chromium, pages, tmp_path):
    darkness = {}
    for scheme in ("light", "dark"):
        with opened(chromium, pages["one"], color_scheme=scheme) as (tab, _, _):
            picture = tmp_path / f"{scheme}.png"
            tab.locator(".label svg").first.screenshot(path=picture)
            with Image.open(picture) as image:
                pixels = image.convert("L").tobytes()
            darkness[scheme] = sorted(pixels)[len(pixels) // 2]
    assert darkness["light"] > 200
    assert darkness["dark"] < 60


def test_print_is_black_on_white_though_the_screen_is_dark(chromium, pages):
    with opened(chromium, pages["several"], color_scheme="dark") as (tab, _, _):
        tab.emulate_media(media="print")
        for name, colour in (
            ("color", "rgb(29, 35, 41)"),
            ("backgroundColor", "rgb(255, 255, 255)"),
        ):
            assert tab.evaluate(f"getComputedStyle(document.body).{name}") == colour
