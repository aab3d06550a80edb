"""The report of many images."""

import time
from pathlib import Path

import pytest

from featurecache.report.page import build_page
from featurecache.report.report import save_page
from tests.report.report_runs import Page, assert_valid, opened, write_run


@pytest.fixture(scope="module")
def large_page(tmp_path_factory) -> Path:
    """The report of a run of 25,000 images and 4 labels."""
    names = [f"Finding {number}" for number in range(1, 5)]
    run = write_run(tmp_path_factory.mktemp("large") / "run", labels=names, n=25_000, n_bootstrap=0)
    save_page(build_page([run]), run.with_suffix(".html"))
    return run.with_suffix(".html")


def test_page_of_many_images_is_small(large_page):
    # 0.2 MB; without simplified curves it would be several times as large.
    assert large_page.stat().st_size < 6e5
    assert_valid(Page(large_page.read_text(encoding="utf-8")))


def test_page_of_many_images_opens_fast(chromium, large_page):
    start = time.perf_counter()
    with opened(chromium, large_page) as (tab, messages, _):
        tab.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        seconds = time.perf_counter() - start
        assert messages == []
    print(f"opened in {seconds:.2f} s")
    # Half a second on an idle machine, but the machine may be busy.
    assert seconds < 10
