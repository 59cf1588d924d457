"""The shop window: its shape, legible lettering, wrong arguments."""

import numpy as np
import pytest

from fieldguide.garments.window import draw_window
from helpers.generated import assert_legible, texts_drawn


def test_window():
    window = draw_window(items=120, columns=3, shots=2, width=420)
    assert (
        window.dtype == np.uint8
        and window.shape[1:] == (420, 3)
        and window.shape[0] > 600
        and window.std() > 10
    )
    with pytest.raises(ValueError, match="too few .*: ask for fewer columns, or for more items"):
        draw_window(items=20, columns=9, width=420)


@pytest.mark.parametrize("columns, width", [(7, 1500), (9, 1000), (3, 420), (1, 300)])
def test_lettering_is_legible(monkeypatch, columns, width):
    texts = texts_drawn(monkeypatch)
    window = draw_window(columns=columns, width=width, shots=2, seed=2)
    assert len(texts) == 6 + 6 * columns * 2 + 1
    assert_legible(texts, window)


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"items": 0}, "items must be a whole number of at least 1, not 0"),
        ({"columns": 0}, "columns must be a whole number of at least 1, not 0"),
        ({"shots": 0}, "shots must be a whole number of at least 1, not 0"),
        ({"first": -1}, "first must be a whole number of at least 0, not -1"),
        ({"width": True}, "width must be a whole number of at least 1, not True"),
        ({"width": 200}, "a window 200 pixels wide has no room for 7 columns: ask for a wider one"),
    ],
)
def test_arguments_out_of_range(bad, message):
    with pytest.raises(ValueError) as error:
        draw_window(**bad)
    assert str(error.value).startswith(message)
