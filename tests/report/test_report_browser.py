"""The page in a browser: no requests, no errors, accessible, readable on a phone and on paper."""

import re
from pathlib import Path

import pytest
from PIL import Image

from featurecache.report.page import build_page
from featurecache.report.report import save_page
from tests.report.report_runs import COHORT, opened, write_run

PHONE = {"width": 390, "height": 844}
OPEN_DETAILS = "document.querySelectorAll('details').forEach(details => { details.open = true })"


@pytest.fixture(scope="session")
def pages(workspace, hostile_run, tmp_path_factory) -> dict[str, Path]:
    """Reports of several runs, of one with example images, and of one whose names are markup."""
    folder = tmp_path_factory.mktemp("pages")
    files = {path.name: path for path in (workspace.images / "images").iterdir()}
    runs = [
        write_run(folder / name, seed=n, warnings=[name], n_val=120, cohort=COHORT.to_json())
        for n, name in enumerate("ab")
    ]
    others = [workspace.folder / name for name in ("transfer", "curve")]
    pages = {
        "several": build_page([*runs, *others]),
        "one": build_page([workspace.folder / "head"], files=files),
        "hostile": build_page([hostile_run]),
    }
    sections = re.findall('<section aria-labelledby="([a-z]+)">', pages["several"].html)
    assert {"cohort", "operating", "subgroups", "answers", "checklists"} <= set(sections)
    for name, page in pages.items():
        save_page(page, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in pages}


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("several", "light"), ("several", "dark"), ("one", "light"), ("hostile", "light")],
)
def test_page_is_self_contained_and_accessible(chromium, pages, name, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"resultTypes": ["violations"]}
    if scheme == "dark":  # only colors differ
        options["runOnly"] = ["color-contrast"]
    with opened(chromium, pages[name], color_scheme=scheme) as (tab, messages, requests):
        own_url = pages[name].resolve().as_uri()
        assert [url for url in requests if not url.startswith("data:")] == [own_url]
        assert messages == []
        tab.evaluate(OPEN_DETAILS)
        # The page's policy forbids scripts; axe is injected by the debugger, past the policy.
        violations = axe.run(tab, options=options).response["violations"]
        serious = [v for v in violations if v["impact"] in ("serious", "critical")]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in serious] == []


@pytest.mark.parametrize("name", ["several", "one", "hostile"])
def test_page_fits_a_phone(chromium, pages, name):
    with opened(chromium, pages[name], viewport=PHONE) as (tab, _, _):
        tab.evaluate(OPEN_DETAILS)
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_example_images_are_displayed(chromium, pages):
    with opened(chromium, pages["one"]) as (tab, _, _):
        widths = tab.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(widths) > 20
        assert min(widths) > 0


def test_plot_colors_follow_the_color_scheme(chromium, pages, tmp_path):
    median = {}
    for scheme in ("light", "dark"):
        with opened(chromium, pages["one"], color_scheme=scheme) as (tab, _, _):
            screenshot = tmp_path / f"{scheme}.png"
            tab.locator(".label svg").first.screenshot(path=screenshot)
            with Image.open(screenshot) as image:
                pixels = image.convert("L").tobytes()
            median[scheme] = sorted(pixels)[len(pixels) // 2]
    assert median["light"] > 200
    assert median["dark"] < 60


def test_print_is_black_on_white_in_dark_mode(chromium, pages):
    with opened(chromium, pages["several"], color_scheme="dark") as (tab, _, _):
        tab.emulate_media(media="print")
        for name, color in (
            ("color", "rgb(29, 35, 41)"),
            ("backgroundColor", "rgb(255, 255, 255)"),
        ):
            assert tab.evaluate(f"getComputedStyle(document.body).{name}") == color
        flow = "getComputedStyle(document.querySelector('#cohort ~ figure text')).fill"
        assert tab.evaluate(flow) == "rgb(29, 35, 41)"
        # Checklists are printed if they are open.
        display = "getComputedStyle(document.querySelector('.checklist')).display"
        assert tab.evaluate(display) == "none"
        tab.evaluate(OPEN_DETAILS)
        assert tab.evaluate(display) == "block"
