"""What tests of several folders share."""

import os
import shutil
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real annotations and photographs: $FIELDMARKS_DATA, or ../shared/data beside
    the repository.

    Without it a test is skipped, except in CI, where it fails: there a skipped test would look like
    a passed one.
    """
    repository = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("FIELDMARKS_DATA") or repository.parent / "shared" / "data")
    if not folder.is_dir():
        word = f"needs the real data set files: there is no folder {folder}; set FIELDMARKS_DATA"
        if os.environ.get("CI"):
            pytest.fail(word)
        pytest.skip(word)
    return folder


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = f"none of {', '.join(BROWSERS)} is on the PATH (Debian: apt-get install chromium)"
        if os.environ.get("CI"):  # there a skipped test would look like a passed one
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


HERE = Path(__file__).parent
PROGRAMS = ("fieldlab", "notebooks", "fieldmarks/experiments", "fieldmarks/test_training.py")


def pytest_collection_modifyitems(items):
    """Tests of programs and whole runs are slow. The sweep over all cards takes longest: it goes
    first, while the other worker does the rest; the site, which shows its notebooks, last."""
    for item in items:
        if item.path.is_relative_to(HERE):
            if item.path.relative_to(HERE).as_posix().startswith(PROGRAMS):
                item.add_marker("slow")
    place = {"test_cards.py": 0, "test_site.py": 2}
    items.sort(key=lambda item: place.get(item.path.name, 1))
