"""The report of a hundred thousand images."""

import time
from pathlib import Path

import pytest

from featurecache.report.page import build_report
from featurecache.report.write import write_report
from tests.report.report_runs import Page, assert_whole, opened, write_run


@pytest.fixture(scope="module")
def large_page(tmp_path_factory) -> Path:
    """Of 14 labels."""
    names = [f"Finding {number}" for number in range(1, 15)]
    run = write_run(
        tmp_path_factory.mktemp("large") / "run", labels=names, n=100_000, n_bootstrap=0
    )
    write_report(build_report([run], n_bootstrap=0), run.with_suffix(".html"))
    return run.with_suffix(".html")


def test_a_hundred_thousand_images_stay_under_ten_megabytes(large_page):
    assert large_page.stat().st_size < 10e6
    assert_whole(Page(large_page.read_text(encoding="utf-8")))


def test_a_hundred_thousand_images_open_at_once(chromium, large_page):
    start = time.perf_counter()
    with opened(chromium, large_page) as (tab, said, _):
        tab.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        seconds = time.perf_counter() - start
        assert said == []
    print(f"opened in {seconds:.2f} s")
    # Half a second alone; others may be at work on the machine.
    assert seconds < 10
