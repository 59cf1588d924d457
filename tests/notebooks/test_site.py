"""The site that `make docs` builds, at smoke size, of the notebooks that the cards' runs left."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from helpers.papermill_runs import NOTEBOOKS

pytestmark = pytest.mark.timeout(2400)
BUILD = NOTEBOOKS.parent / "docs" / "build.py"
MARK = "# NBVAL_CHECK_OUTPUT"
PHONE = {"width": 390, "height": 844}


class Page(HTMLParser):
    """The names on a page that links can lead to, and the addresses in it, with their tags."""

    def __init__(self, file):
        super().__init__()
        self.names, self.addresses = set(), []
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (tag, name) == ("a", "name"):
                self.names.add(value)
            if name in ("href", "src", "srcset", "poster", "data") and value is not None:
                self.addresses.append((tag, value))


@pytest.fixture(scope="module")
def site(smoke, tmp_path_factory):
    out = tmp_path_factory.mktemp("docs")
    words = ["--size", "smoke", "--runs", smoke.runs, "--out", out]
    options = {"capture_output": True, "text": True, "timeout": 1800}
    environment = os.environ | {"FIELDMARKS_CACHE": str(smoke.cache)}
    with smoke.lock:
        done = subprocess.run([sys.executable, BUILD, *words], env=environment, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-5000:]
    return out / "html"


def marked_outputs(file):
    """What the cells print whose outputs are committed, by their source."""
    cells = [cell for cell in nbformat.read(file, 4).cells if cell.source.startswith(MARK)]
    return {
        cell.source: [
            output.get("text") or output.get("data", {}).get("text/plain")
            for output in cell.outputs
        ]
        for cell in cells
    }


def test_marked_cells_print_what_is_committed(smoke, site):
    committed = {file.name: marked_outputs(file) for file in NOTEBOOKS.glob("*.ipynb")}
    assert sum(map(len, committed.values())) >= 6
    for name, outputs in committed.items():
        executed = list(smoke.runs.rglob(name))
        assert executed or not outputs, name
        for file in executed:
            assert marked_outputs(file) == outputs, file


def test_every_notebook_of_an_experiment_is_there_with_its_pictures(site):
    shown = {file.stem for file in (site / "notebooks").glob("*.html")}
    assert shown == {file.stem for file in NOTEBOOKS.glob("*.ipynb")} - {"explore", "report"}
    for name in shown:
        text = (site / "notebooks" / f"{name}.html").read_text()
        assert text.count("<img ") >= 3, name
        assert "<pre>Traceback" not in text and "widget-view" not in text and MARK not in text
    assert "<math" in (site / "notebooks" / "explanations.html").read_text()
    assert (
        'id="fieldmarks.methods.vapnet.VAPNet"'
        in (site / "api" / "fieldmarks.methods.html").read_text()
    )
    for page, heading in {"measured": "Measured", "contributing": "Add a method"}.items():
        assert heading in (site / f"{page}.html").read_text()


def test_no_link_is_dead_and_nothing_is_fetched_from_elsewhere(site):
    pages = {file: Page(file) for file in site.rglob("*.html")}
    assert len(pages) > 15
    faults = []
    for file, page in pages.items():
        for tag, address in page.addresses:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if tag != "a" and parts.scheme != "data":
                    faults.append(f"{file.name} fetches {address}")
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            named = target not in pages or unquote(parts.fragment) in pages[target].names | {""}
            if not (target.is_file() and named):
                faults.append(f"{file.name} leads to {address}")
    for file in site.rglob("*.css"):
        faults += re.findall(r"url\([\"']?(?:https?:)?//[^)]*|@import.*", file.read_text())
    assert not faults


def test_it_is_small(site):
    assert sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) < 60e6


def test_no_page_scrolls_sideways_on_a_phone(site, chromium):
    page, fetched = chromium.new_page(viewport=PHONE), []
    page.on("request", lambda request: fetched.append(request.url))
    for file in sorted(site.rglob("*.html")):
        page.goto(file.as_uri())
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= PHONE["width"], f"{file.name}: {width}"
    assert all(url.startswith(("file:", "data:")) for url in fetched)
    page.close()
