"""What tests of several folders share."""

import os
from pathlib import Path

import pytest


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
