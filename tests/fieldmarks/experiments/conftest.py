import pytest


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for all of these tests, so that no picture is decoded or drawn twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARKS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield
