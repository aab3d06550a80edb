"""The explorer in a browser: map, colors, images, neighbors, search and CSV, without a network."""

import csv
import io
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli import main
from tests.audit.audit_caches import make_cache

pytest.importorskip("embedding_atlas", reason="no explorer: pip install .[explore]")

PAGE = {"width": 1500, "height": 950}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A folder with the cache of 40 synthetic images, which are on the disk, and a run on it."""
    folder = tmp_path_factory.mktemp("phantom")
    for command in (
        f"extract --dataset phantom --data-root {folder}/images --n-images 40 --cache {folder}",
        f"zero-shot --cache {folder} --out {folder}/zero --n-bootstrap 0",
    ):
        result = CliRunner().invoke(main, command.split())
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def explorer():
    """Starts explorers with the arguments of the command; each has to end well on Ctrl-C."""
    processes = []

    def start(*arguments):
        command = [sys.executable, "-m", "featurecache", "explore", "--no-browser", *arguments]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process.stdout.readline().strip()

    yield start
    for process in processes:
        with process:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0


@pytest.fixture
def tab(chromium):
    """A tab with the errors of its page, and the hosts that it sent requests to."""
    context = chromium.new_context(viewport=PAGE, accept_downloads=True)
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    tab.errors, tab.hosts = [], set()
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.on("request", lambda request: tab.hosts.add(urlsplit(request.url).netloc))
    yield tab
    context.close()


def show_neighbors(tab, image_id):
    """Select an image in the table, which points at it on the map, and list its neighbors."""
    search = tab.get_by_text("Nearest Neighbors")
    for _ in range(8):  # the map comes later than the table
        tab.get_by_text(image_id, exact=True).first.click()
        for _ in range(30):
            tab.wait_for_timeout(500)
            if search.count():
                break
        else:
            continue
        break
    search.dispatch_event("click")  # whatever covers it
    tab.get_by_text(re.compile(r"^10 results")).wait_for()


def selection_as_csv(tab):
    """The rows that are selected, as the page saves them."""
    tab.get_by_title("Export Selection", exact=True).first.click()
    formats = tab.locator("select:has(option:text-is('CSV')):visible")
    formats.first.select_option(label="CSV")
    with tab.expect_download() as download:
        tab.locator("[title='Export the selected points']:visible").first.click()
    text = download.value.path().read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def test_run_is_explored(explorer, tab, phantom):
    address = explorer(phantom / "zero")
    tab.goto(address)
    tab.get_by_text("40 / 40 points").wait_for()
    cache = fc.open_cache(phantom)
    show_neighbors(tab, cache.ids[1])
    tab.wait_for_function("document.images.length >= 10")
    tab.wait_for_function("[...document.images].filter(i => i.naturalWidth > 200).length >= 10")
    color = tab.locator("select:has(option:text-is('Effusion error (VARCHAR)'))").first
    color.select_option(label="Effusion error (VARCHAR)")
    tab.get_by_text("false positive").or_(tab.get_by_text("none")).first.wait_for()
    rows = selection_as_csv(tab)
    assert [row["id"] for row in rows] == cache.ids.tolist()
    assert [row["split"] for row in rows] == cache.splits.tolist()
    assert tab.errors == []
    assert tab.hosts == {urlsplit(address).netloc}


def test_only_who_knows_the_address_can_read(explorer, phantom):
    address = urlsplit(explorer("--cache", phantom))
    assert address.hostname == "127.0.0.1"
    secret = address.path.strip("/")
    assert len(secret) >= 22
    for path in ("", "data/metadata.json", "image/0", "x" * len(secret) + "/image/0"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{address.netloc}/{path}")
    with urllib.request.urlopen(address.geturl() + "image/0") as response:
        assert response.headers["content-type"] == "image/png"
        assert "default-src 'self'" in response.headers["content-security-policy"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address.geturl() + "image/40")


def test_port_in_use_is_refused(explorer, phantom):
    port = urlsplit(explorer("--cache", phantom)).port
    with pytest.raises(fc.FeaturecacheError, match=f"`port` {port} cannot be used"):
        fc.explore(phantom, port=port, browser=False)


def test_100_000_unlabeled_images_are_explored(explorer, tab, tmp_path):
    n = 100_000
    embedding = np.random.default_rng(0).normal(size=(n, 8))
    ids = [f"{row:06d}" for row in range(n)]
    cache = make_cache(tmp_path, ["test"] * n, id=ids, labels=np.zeros((n, 0)), embedding=embedding)
    tab.goto(explorer("--cache", cache.path))
    tab.get_by_text("100,000 / 100,000 points").wait_for()
    show_neighbors(tab, cache.ids[1])
    assert tab.errors == []
