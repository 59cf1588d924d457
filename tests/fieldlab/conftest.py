import pytest

from helpers.lab import Lab


@pytest.fixture
def lab(tmp_path) -> Lab:
    return Lab(tmp_path / "lab")
