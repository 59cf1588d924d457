"""The vocabulary is CUB's own, and the marks of species use it."""

import os
from pathlib import Path

import pytest

from fieldguide.birds.attributes import ATTRIBUTE_NAMES
from fieldguide.birds.canvas import PARTS

SHARED = Path(os.environ.get("FIELDMARKS_DATA", Path(__file__).parents[4] / "shared" / "data"))


def test_the_312_names_are_cubs_own():
    official = SHARED / "attributes.txt"
    if not official.is_file():
        pytest.skip(f"no {official}")
    assert [line.split(" ", 1)[1] for line in official.read_text().splitlines()] == list(
        ATTRIBUTE_NAMES
    )
    parts = (SHARED / "CUB_200_2011" / "parts" / "parts.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in parts] == list(PARTS)
