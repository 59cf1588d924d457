"""The plate: its shape, legible lettering, wrong arguments."""

import numpy as np
import pytest

from fieldguide.birds.plate import draw_plate
from helpers.generated import assert_legible, texts_drawn


def test_plate():
    plate = draw_plate(classes=20, families=2, siblings=2, photographs=1, width=500)
    assert (
        plate.dtype == np.uint8
        and plate.shape[1:] == (500, 3)
        and plate.shape[0] > 200
        and plate.std() > 10
    )
    with pytest.raises(ValueError, match="ask for fewer, or for more classes"):
        draw_plate(classes=4, families=9, width=300)


@pytest.mark.parametrize(
    "options",
    [
        {"photographs": 1},
        {"difficulty": "hard", "seed": 9, "families": 2, "siblings": 6, "width": 1200},
        {"difficulty": "hard", "seed": 2, "families": 8, "photographs": 0, "first_family": 2},
        {"families": 1, "width": 900, "first_family": 9},
        {"families": 2, "siblings": 1, "width": 500},
        {"families": 2, "siblings": 2, "width": 500},
    ],
)
def test_lettering_is_legible(monkeypatch, options):
    texts = texts_drawn(monkeypatch)
    plate = draw_plate(**options)
    assert len(texts) > 6
    assert_legible(texts, plate)


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"classes": 1}, "classes must be a whole number of at least 2, not 1"),
        ({"families": 0}, "families must be a whole number of at least 1, not 0"),
        ({"siblings": 0}, "siblings must be a whole number of at least 1, not 0"),
        ({"photographs": -1}, "photographs must be a whole number of at least 0, not -1"),
        ({"first_family": -1}, "first_family must be a whole number of at least 0, not -1"),
        ({"width": 1.5}, "width must be a whole number of at least 1, not 1.5"),
        ({"difficulty": "easy"}, "difficulty must be one of standard, hard, not 'easy'"),
        ({"width": 200}, "a plate 200 pixels wide has no room for 9 birds: ask for a wider one, "),
    ],
)
def test_arguments_out_of_range(bad, message):
    with pytest.raises(ValueError) as error:
        draw_plate(**bad)
    assert str(error.value).startswith(message)
