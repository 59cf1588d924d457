"""What the tests of cards and of the site share."""

from types import SimpleNamespace

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, worker_id):
    """The folder of all smoke runs and their cache, one for all workers, so that each run is done
    once, and a lock to be held by who adds to them."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder if worker_id == "master" else folder.parent  # which workers have in common
    lock = FileLock(folder / "smoke.lock")
    return SimpleNamespace(runs=folder / "smoke", cache=folder / "smoke-cache", lock=lock)
